"""Asking the vendor about recordings: claim a question, ask, judge, enter what was learned, and then remember it.

A question is asked until the answer is final. Whatever happens in between, a crash included, it is asked again.
"""

import asyncio
import math
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final, Self, TypeAlias

import structlog
from msgspec import Struct

from broker import NotPublishedError
from reconcile.comparing import contradictions
from reconcile.entering import Entrance, Publisher
from reconcile.pauses import Pauses
from reconcile.registering import WHY_REGISTERED
from schemas import (
    EVENT_TYPES,
    OnlineRecordFinished,
    OnlineRecordLongPauseForceStopped,
    OnlineRecordStopped,
    RecordingStatus,
    decode,
)
from store import (
    KeptRow,
    Recording,
    RecordingEventRef,
    RecordingQuestion,
    Store,
    StoreError,
    claim_questions,
    find_events,
    find_recordings,
    finish_question,
    mark_verified,
    note_answer,
    postpone_question,
)
from telemetry import metrics
from vendor_api import (
    Again,
    Answer,
    AppPaused,
    ClockOff,
    Failed,
    Finished,
    NotFound,
    Running,
    Stopped,
    VendorClient,
    failed_body,
    finished_body,
    started_body,
    stopped_body,
)

#: The call that answers; also how `store` names it.
CALL: Final = "DescribeOnlineRecord"

#: Questions under way at a time; the client has as many threads.
AT_ONCE: Final = 4

#: Longer than a question takes: its turn, the time-out of the request, and what is written then.
LEASE_S: Final = 60.0

#: A vendor that does not know a TaskId is asked so often before that is final.
_NOT_FOUND_TRIES = 3
_NOT_FOUND_AGAIN_S = 60.0

#: What a callback told of longer ago, the vendor may have forgotten: how long it remembers is not documented.
_REMEMBERED_S = 86_400.0

#: A callback that the vendor sends takes up to 85 s with its repetitions; so long one may be on its way.
_UNDER_WAY_S = 90.0
_UNDER_WAY_AGAIN_S = 30.0

#: So long the vendor may answer that a recording goes on after its Finished callback came: then it is contradicted.
_CONTRADICTED_AFTER_S = 900.0
_FIRST_DOUBT_S = 30.0
_LAST_DOUBT_S = 300.0

#: After an answer of which nothing was learned; doubled each time in a row, up to what is usual.
_FIRST_FAULT_S = 5.0

#: Recordings that go on and are on no list are asked about at this pace; others are told of by the list.
_RUNNING_GAPS: Final = 2.0
_LISTED_GAPS: Final = 8.0

#: A recording that was stopped: gaps as long as it has been waited for, up to this many times the first.
_STOPPED_GAPS: Final = 8.0

_log = structlog.get_logger()


class Asked(Struct, frozen=True, kw_only=True):
    """How many questions were asked, and of how many of them nothing was learned."""

    asked: int = 0
    unanswered: int = 0


class _Crew:
    """At most `size` questions under way; leaving it ends those that are, and waits for that."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._tasks: set[asyncio.Task[bool]] = set()

    @property
    def busy(self) -> int:
        return len(self._tasks)

    @property
    def free(self) -> int:
        return self._size - len(self._tasks)

    def start(self, works: Iterable[Coroutine[Any, Any, bool]]) -> None:
        self._tasks |= {asyncio.create_task(work, name="question") for work in works}

    async def some_ended(self) -> list[bool]:
        """Return the results of those that have ended, at least of one; raise what one raised."""
        ended, self._tasks = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        return [task.result() for task in ended]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


class Asker:
    """Asks what is due, at most `AT_ONCE` at a time, for any number of processes with the same store.

    `ask_after_s` is the shortest gap between two questions about a recording that has not ended. `lease_holder` is a
    token of this process. `now_s` is the time in Unix seconds.
    """

    def __init__(
        self,
        store: Store,
        transport: Publisher,
        vendor: VendorClient,
        pauses: Pauses,
        *,
        ask_after_s: float,
        lease_holder: str,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._vendor = vendor
        self._pauses = pauses
        self._ask_after_s = ask_after_s
        self._lease_holder = lease_holder
        self._now_s = now_s
        self._entrance = Entrance(store, transport, now_s=now_s)
        #: How often in a row nothing was learned of a recording.
        self._faults: dict[tuple[int, str], int] = {}

    async def ask_due(self, apps: Collection[int]) -> Asked:
        """Ask all that is due now about these applications, in the order of the deadlines. Raises `StoreError`."""
        asked = unanswered = 0
        async with _Crew(AT_ONCE) as crew:
            while True:
                questions = await claim_questions(
                    self._store, apps=apps, lease_holder=self._lease_holder, lease_s=LEASE_S, limit=crew.free
                )
                if not questions and not crew.busy:
                    return Asked(asked=asked, unanswered=unanswered)
                asked += len(questions)
                crew.start(self._handle(question) for question in questions)
                unanswered += sum(not learned for learned in await crew.some_ended())

    async def _handle(self, question: RecordingQuestion) -> bool:
        """Ask a question and let go of it, whatever comes; say whether something was learned. Raises `StoreError`."""
        try:
            return await self._ask(question)
        except asyncio.CancelledError:
            # Otherwise it would wait for the end of its lease.
            with suppress(StoreError):
                await self._postpone(question, 0.0)
            raise
        except StoreError:
            raise
        except NotPublishedError as error:
            _log.warning("finding_not_published", reason=str(error), **_of(question))
            await self._postpone(question, self._fault_gap_s(question))
        except Exception:  # noqa: BLE001 - one odd recording must not keep the others from being asked about
            _log.exception("question_failed", **_of(question))
            await self._postpone(question, self._ask_after_s)
        return False

    async def _ask(self, question: RecordingQuestion) -> bool:
        if await self._is_settled(question):
            return True
        try:
            answer = await self._vendor.describe_online_record(question.sdk_app_id, question.task_id)
        except ValueError as error:
            _log.warning("question_cannot_be_asked", reason=str(error), **_of(question))
            await self._finish(question, "NOT_ASKED", question.answer)
            return False
        metrics.QUESTIONS_ASKED.labels(_KINDS[type(answer)]).inc()
        if isinstance(answer, AppPaused | ClockOff):
            await self._pauses.refused(question.sdk_app_id, answer)
            await self._postpone(question, _FIRST_FAULT_S)
            return False
        if isinstance(answer, Again):
            gap_s = max(answer.after_s, self._fault_gap_s(question))
            _log.info("question_unanswered", reason=answer.reason, again_in_s=round(gap_s, 1), **_of(question))
            await self._postpone(question, gap_s)
            return False
        self._faults.pop((question.sdk_app_id, question.task_id), None)
        await self._pauses.answered(question.sdk_app_id)
        # Read now: a callback may have come meanwhile.
        await self._conclude(question, answer, await self._known(question))
        return True

    async def _conclude(self, question: RecordingQuestion, answer: "_Conclusive", known: "_Known") -> None:
        match answer:
            case Running():
                await self._goes_on(question, answer, known)
            case Stopped():
                await self._was_stopped(question, answer, known)
            case Finished():
                body = finished_body(question.sdk_app_id, answer.record)
                ended_at = answer.record.record_stop_time or 0
                await self._has_ended(question, "FINISHED", body, known, ended_at=ended_at)
            case Failed():
                body = self._failed_body(question, answer, known)
                await self._has_ended(question, "FAILED", body, known, ended_at=question.created_at or 0)
            case NotFound():
                await self._is_unknown(question, known)

    async def _is_settled(self, question: RecordingQuestion) -> bool:
        """Settle a question for which nobody need be asked; say whether it was one."""
        if question.why == WHY_REGISTERED and question.attempts == 1 and question.answer is None:
            known = await self._known(question)
            if any(ref.source == "" for ref in known.events) and not known.unverified:
                # Its callbacks come. If they cease, it is asked about, whether it is listed or not.
                await self._postpone(question, _LISTED_GAPS * self._ask_after_s)
                return True
        if question.answer is not None:
            known = await self._known(question)
            expected = _finished_in(question.answer)
            if known.is_finished and not any(contradictions(event, expected) for _, event in known.unverified):
                for row, _ in known.unverified:
                    await mark_verified(self._store, row.event_id, True)
                await self._finish(question, question.answer_status or "", question.answer)
                return True
        return False

    async def _known(self, question: RecordingQuestion) -> "_Known":
        app, task_id = question.sdk_app_id, question.task_id
        found = await find_recordings(self._store, task_id, app=app)
        rows = await find_events(self._store, app, task_id, event_type=OnlineRecordFinished.__name__)
        finished = tuple((row, _finished_in(row.body, received_at_us=row.received_at_us)) for row in rows)
        return _Known(recording=found[0] if found else None, finished=finished)

    async def _goes_on(self, question: RecordingQuestion, answer: Running, known: "_Known") -> None:
        record = answer.record
        began_at = record.record_start_time or question.created_at or question.found_at_us // 1_000_000
        if answer.status != "PREPARED" and not known.tells(_RECORDING_TYPES):
            body = started_body(
                question.sdk_app_id,
                question.task_id,
                timestamp=began_at,
                room_id=record.room_id or question.room_id,
                record_user_id=record.record_user_id,
            )
            await self._entrance.enter(body, by=question.found_by or CALL)
        is_listed = question.listed_at_us is not None and not question.gone_from_list
        gap_s = running_gap_s(self._now_s() - began_at, ask_after_s=self._ask_after_s, is_listed=is_listed)
        await self._postpone(question, min(gap_s, await self._doubt(question, known, answer.status)), answer.status)

    async def _was_stopped(self, question: RecordingQuestion, answer: Stopped, known: "_Known") -> None:
        record = answer.record
        stopped_at = record.record_stop_time or question.found_at_us // 1_000_000
        waited_s = self._now_s() - stopped_at
        gap_s = stopped_gap_s(waited_s, ask_after_s=self._ask_after_s)
        if not known.tells(_STOPPED_TYPES):
            if 0 <= waited_s < _UNDER_WAY_S:
                gap_s = min(gap_s, _UNDER_WAY_AGAIN_S)
            else:
                body = stopped_body(
                    question.sdk_app_id,
                    question.task_id,
                    timestamp=stopped_at,
                    room_id=record.room_id or question.room_id,
                    record_user_id=record.record_user_id,
                )
                await self._entrance.enter(body, by=CALL)
        await self._postpone(question, min(gap_s, await self._doubt(question, known, "STOPPED")), "STOPPED")

    async def _doubt(self, question: RecordingQuestion, known: "_Known", status: str) -> float:
        """Contradict Finished events that the vendor has not confirmed for long; return when to ask again."""
        gap_s = math.inf
        for row, _ in known.unverified:
            age_s = self._now_s() - row.received_at_us / 1_000_000
            if age_s >= _CONTRADICTED_AFTER_S:
                await self._contradict(question, row, said=status)
            else:
                gap_s = min(gap_s, max(_FIRST_DOUBT_S, min(age_s, _LAST_DOUBT_S)))
        return gap_s

    async def _has_ended(
        self, question: RecordingQuestion, status: str, body: bytes, known: "_Known", *, ended_at: int
    ) -> None:
        """Enter how a recording ended, unless a callback said the same; judge all that said something else."""
        if not known.finished and question.answer_status != status and self._is_under_way(ended_at):
            await self._postpone(question, _UNDER_WAY_AGAIN_S, status)
            return
        expected = _finished_in(body)
        odd = {row.event_id: contradictions(event, expected) for row, event in known.finished}
        agreeing = [row for row, _ in known.finished if not odd[row.event_id]]
        if known.unverified:
            # First: who waits for a verdict is handed over what the vendor said, not what the callback did.
            await note_answer(self._store, question, lease_holder=self._lease_holder, answer=body)
        for row in agreeing:
            if not row.verified:
                await mark_verified(self._store, row.event_id, True)
        if not any(row.source == "" for row in agreeing):
            # Ours may be there already, and not published: then it is entered again, whatever the vendor adds now.
            ours = [row.body for row in agreeing] or [body]
            for one in ours:
                await self._entrance.enter(one, by=CALL)
        # Last, so that the recording is not without an end in between.
        for row, _ in known.unverified:
            if odd[row.event_id]:
                await self._contradict(question, row, said=status, members=odd[row.event_id])
        await self._finish(question, status, body)

    def _is_under_way(self, ended_at: int) -> bool:
        """Say whether the callback of a recording that ended may be on its way: files take minutes after the end."""
        return 0 <= self._now_s() - ended_at < self._ask_after_s

    async def _is_unknown(self, question: RecordingQuestion, known: "_Known") -> None:
        if question.answer is not None:
            # It has told how it ended, and forgotten it.
            await self._has_ended(question, question.answer_status or "", question.answer, known, ended_at=0)
            return
        tries = question.not_found + 1
        if tries < _NOT_FOUND_TRIES:
            await self._postpone(question, tries * _NOT_FOUND_AGAIN_S, "NOT_FOUND", not_found=tries)
            return
        for row, _ in known.unverified:
            if self._now_s() - row.received_at_us / 1_000_000 < _REMEMBERED_S:
                await self._contradict(question, row, said="NOT_FOUND")
        metrics.RECORDINGS_NOT_FOUND.inc()
        _log.warning("recording_not_found", found_by=question.found_by or "a callback", **_of(question))
        await self._finish(question, "NOT_FOUND", None)

    async def _contradict(
        self, question: RecordingQuestion, row: KeptRow, *, said: str, members: Sequence[str] = ()
    ) -> None:
        if not await mark_verified(self._store, row.event_id, False):
            return
        metrics.EVENTS_CONTRADICTED.inc()
        _log.error(
            "event_contradicted",
            event_id=row.event_id,
            vendor_says=said,
            differs_in=list(members) or None,
            consequence="it is kept, and the recording is made without it",
            advice="somebody may know a Sign and forge callbacks: docs/security.md",
            **_of(question),
        )

    def _failed_body(self, question: RecordingQuestion, failed: Failed, known: "_Known") -> bytes:
        # The vendor does not say when. The earliest that is known, so that the callback wins the merge if it comes.
        times = [ref.timestamp for ref in known.events]
        if question.created_at is not None:
            times.append(question.created_at)
        recording = known.recording
        return failed_body(
            question.sdk_app_id,
            question.task_id,
            failed,
            timestamp=min(times, default=question.found_at_us // 1_000_000),
            room_id=question.room_id if recording is None else recording.room_id,
            record_user_id=None if recording is None else recording.record_user_id,
        )

    def _fault_gap_s(self, question: RecordingQuestion) -> float:
        key = (question.sdk_app_id, question.task_id)
        faults = self._faults[key] = self._faults.get(key, 0) + 1
        return float(min(_FIRST_FAULT_S * 2 ** min(faults - 1, 30), self._ask_after_s))

    async def _postpone(
        self, question: RecordingQuestion, after_s: float, status: str | None = None, *, not_found: int | None = 0
    ) -> None:
        await postpone_question(
            self._store,
            question,
            lease_holder=self._lease_holder,
            after_s=after_s,
            answer_status=status,
            not_found=None if status is None else not_found,
        )

    async def _finish(self, question: RecordingQuestion, status: str, answer: bytes | None) -> None:
        await finish_question(
            self._store, question, lease_holder=self._lease_holder, answer_status=status, answer=answer
        )


class _Known(Struct, frozen=True, kw_only=True):
    """What the store has of a recording: None if nothing told of it; its Finished events with their content."""

    recording: Recording | None
    finished: tuple[tuple[KeptRow, OnlineRecordFinished], ...]

    @property
    def is_finished(self) -> bool:
        return self.recording is not None and self.recording.status is RecordingStatus.FINISHED

    @property
    def events(self) -> tuple[RecordingEventRef, ...]:
        return () if self.recording is None else self.recording.events

    @property
    def unverified(self) -> list[tuple[KeptRow, OnlineRecordFinished]]:
        """The Finished events of which nobody knows whether they are the vendor's."""
        return [one for one in self.finished if one[0].verified is None]

    def tells(self, event_types: Collection[str]) -> bool:
        """Say whether an event of one of these types counts."""
        return any(ref.event_type in event_types and ref.verified is not False for ref in self.events)


#: What tells that a recording was begun, and that it was stopped. A Finished event that is not verified tells nothing.
_STOPPED_TYPES: Final = frozenset({OnlineRecordStopped.__name__, OnlineRecordLongPauseForceStopped.__name__})
_RECORDING_TYPES: Final = frozenset(EVENT_TYPES) - {OnlineRecordFinished.__name__}

#: Answers from which something follows, and how all are counted.
_Conclusive: TypeAlias = Running | Stopped | Finished | Failed | NotFound
_KINDS: Final[dict[type[Answer], str]] = {
    Running: "running",
    Stopped: "stopped",
    Finished: "finished",
    Failed: "failed",
    NotFound: "not_found",
    AppPaused: "paused",
    ClockOff: "clock_off",
    Again: "again",
}


def running_gap_s(elapsed_s: float, *, ask_after_s: float, is_listed: bool) -> float:
    """Return when to ask again about a recording that has gone on for `elapsed_s`: half of that, within bounds.

    One that is listed as running needs few questions: the list tells when it has ended.
    """
    most = _LISTED_GAPS if is_listed else _RUNNING_GAPS
    return max(ask_after_s, min(elapsed_s / 2, most * ask_after_s))


def stopped_gap_s(waited_s: float, *, ask_after_s: float) -> float:
    """Return when to ask again about a recording that was stopped `waited_s` ago: as long again, within bounds."""
    return max(ask_after_s, min(waited_s, _STOPPED_GAPS * ask_after_s))


def _finished_in(body: bytes, *, received_at_us: int = 0) -> OnlineRecordFinished:
    event = decode(body, received_at_us=received_at_us).event
    assert isinstance(event, OnlineRecordFinished)  # noqa: S101 - kept as one
    return event


def _of(question: RecordingQuestion) -> dict[str, object]:
    return {"sdk_app_id": question.sdk_app_id, "task_id": question.task_id}
