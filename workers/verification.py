"""Events of `@consumer(verified=True)` wait here until the vendor has confirmed them.

A callback's Sign does not cover its body, so whoever has seen one can invent a Finished event:
https://www.tencentcloud.com/document/product/1176/55569. `tiw reconcile` asks the vendor's own API about each, and the
store has the verdict. Nothing is held here meanwhile: an event without a verdict goes to a retry delay, and counts no
attempt.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol, Self

import structlog
from msgspec import structs

from schemas import OnlineRecordFinished, decode
from store import TEST_SOURCE, Store, StoreError, Verdict, find_verdicts
from workers.api import DeadLetter, Drop, Outcome, Retry, describe
from workers.job import Group, Job

#: An event that the vendor has not confirmed after so long is a dead letter; it can be replayed.
VERIFIED_WITHIN_S: Final = 86_400.0

NOT_VERIFIED: Final = "not verified within 24 h: is `tiw reconcile` running?"

CANNOT_BE_VERIFIED: Final = "it cannot be verified: it has no TaskId to ask the vendor about"

IS_A_TEST: Final = "it is a test, which the vendor cannot confirm"

#: Events wait and the vendor confirms none, for so long: somebody is told.
SILENT_S: Final = 300.0

#: So many events are looked up with one query.
_LOOKED_UP_AT_ONCE: Final = 200

_log = structlog.get_logger()


def wall_clock_us() -> int:
    """Return the time in microseconds since the Unix epoch."""
    return time.time_ns() // 1000


class Verifying(Protocol):
    """Whose events are looked up; it is told what came of each."""

    @property
    def must_wait(self) -> bool:
        """Whether the store cannot be asked now."""

    def admit(self, job: Job) -> bool:
        """Say whether a job is worth looking up; one that is not is settled."""

    def verified(self, job: Job) -> None:
        """Go on with a job: the vendor confirmed its event, or it is of a kind that needs no confirmation."""

    def unverified(self, job: Job, *, since_us: int, waited_s: float) -> None:
        """Let a job's event wait: there is no verdict yet. It has waited since `since_us`, for `waited_s`."""

    def refused(self, job: Job, outcome: Outcome) -> None:
        """Settle a job with an outcome without calling its handler."""

    def found_away(self, jobs: Sequence[Job], error: BaseException | None = None) -> None:
        """Requeue jobs: the store that they need is away, as `error` says."""


class Verification:
    """Looks up what the vendor said of the events of one consumer, many with one query; an async context manager.

    They go on in the order in which they came. `now_us` says how long an event has waited: across processes, so it is
    the wall clock's time.
    """

    def __init__(self, consumer: str, *, store: Store, user: Verifying, now_us: Callable[[], int]) -> None:
        self._consumer = consumer
        self._store = store
        self._user = user
        self._now_us = now_us
        self._looking_up = Group(self._look_up_arrived, name=f"verdicts of {consumer}", at_most=_LOOKED_UP_AT_ONCE)
        #: When there was a verdict last, or the reason to expect one began.
        self._answered_at_us = now_us()
        self._is_silence_told = False

    async def __aenter__(self) -> Self:
        await self._looking_up.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._looking_up.__aexit__(*exc_info)

    def look_up(self, job: Job) -> None:
        """Let a job go on once the vendor has confirmed its event."""
        self._looking_up.add(job)

    async def _look_up_arrived(self, arrived: list[Job]) -> None:
        jobs = []
        for job in arrived:
            if not self._user.admit(job):
                continue
            if job.message.source == TEST_SOURCE and isinstance(job.event, OnlineRecordFinished):
                # Nobody is asked about it. To hand it over would let whoever can write into the queue pass for the
                # vendor.
                self._user.refused(job, Drop(IS_A_TEST))
            else:
                jobs.append(job)
        if jobs and self._user.must_wait:
            self._user.found_away(jobs)
        elif jobs:
            await self._look_up(jobs)

    async def _look_up(self, jobs: list[Job]) -> None:
        ids = {job: _content_id(job) for job in jobs if isinstance(job.event, OnlineRecordFinished)}
        try:
            verdicts = await find_verdicts(self._store, {*ids.values()}) if ids else {}
        except StoreError as error:
            self._user.found_away(jobs, error)
        except Exception as error:  # noqa: BLE001 - logged below; one bad event must not fail its neighbours
            if len(jobs) > 1:
                for job in jobs:
                    await self._look_up([job])
                return
            _log.exception("verdict_not_found", consumer=self._consumer, event_id=jobs[0].event_id)
            self._user.refused(jobs[0], Retry(reason=describe(error)))
        else:
            for job in jobs:
                if isinstance(job.event, OnlineRecordFinished):
                    self._judge(job, job.event, verdicts[ids[job]])
                else:
                    self._user.verified(job)

    def _judge(self, job: Job, event: OnlineRecordFinished, verdict: Verdict) -> None:
        if verdict.verified is not None:
            self._answered_at_us = self._now_us()
            self._is_silence_told = False
        judged = judge_verdict(event, verdict)
        if judged is None:
            self._wait(job)
        elif isinstance(judged, DeadLetter):
            self._user.refused(job, judged)
        else:
            job.event = judged
            self._user.verified(job)

    def _wait(self, job: Job) -> None:
        now_us = self._now_us()
        # A header can say anything.
        since_us = min(job.message.waiting_since_us or now_us, now_us)
        waited_s = (now_us - since_us) / 1e6
        if job.message.waiting_since_us is None:
            _log.info("verification_awaited", consumer=self._consumer, event_id=job.event_id)
        self._tell_silence(silent_s=(now_us - max(since_us, self._answered_at_us)) / 1e6)
        if waited_s >= VERIFIED_WITHIN_S:
            self._user.refused(job, DeadLetter(NOT_VERIFIED))
        else:
            self._user.unverified(job, since_us=since_us, waited_s=waited_s)

    def _tell_silence(self, *, silent_s: float) -> None:
        if silent_s >= SILENT_S and not self._is_silence_told:
            self._is_silence_told = True
            _log.warning(
                "nothing_is_verified",
                consumer=self._consumer,
                silent_s=round(silent_s),
                consequence="Finished events do not reach it, and are dead letters after 24 h",
                advice="run `tiw reconcile`, or `tiw up`, with TIW_VENDOR_SECRET_ID and TIW_VENDOR_SECRET_KEY; or take "
                "verified=True away",
            )


def judge_verdict(event: OnlineRecordFinished, verdict: Verdict) -> OnlineRecordFinished | DeadLetter | None:
    """Return the event as it may be handed over, why it never will be, or None while the vendor has not said.

    What may be handed over has the vendor's VideoInfos. If what the vendor said is kept no longer, it has those of the
    callback, which agreed with it.
    """
    if not event.task_id:
        return DeadLetter(CANNOT_BE_VERIFIED)
    if verdict.verified is None:
        return None
    answer = _finished_in(verdict.answer)
    if not verdict.verified:
        return DeadLetter(f"the vendor contradicts it: {_difference(event, answer)}")
    return event if answer is None else structs.replace(event, video_infos=answer.video_infos)


def _content_id(job: Job) -> str:
    """Return the event_id of what the job would hand over: the header beside it is only what a publisher says."""
    return decode(job.message.body, received_at_us=job.message.received_at_us).event_id


def _finished_in(answer: bytes | None) -> OnlineRecordFinished | None:
    if answer is None:
        return None
    event = decode(answer, received_at_us=wall_clock_us()).event
    return event if isinstance(event, OnlineRecordFinished) else None


def _difference(event: OnlineRecordFinished, answer: OnlineRecordFinished | None) -> str:
    """Say in which members the vendor's answer differs, by their names: what stands in them may be anything."""
    if answer is None:
        return "it gives no such result"
    names = [
        field.encode_name
        for field in structs.fields(OnlineRecordFinished)
        if field.name not in _OURS and getattr(event, field.name) != getattr(answer, field.name)
    ]
    return f"its answer differs in {', '.join(names)}" if names else "it says something else"


#: What no answer of the vendor's has.
_OURS: Final = frozenset({"timestamp", "sdk_app_id"})
