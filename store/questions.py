"""What the vendor is to be asked, and what it answered: a row for each recording that needs it, known or only heard of.

A question is due work, see `store.due`. `sweep` finds the recordings that are overdue by their own events, and
`note_listing` those that the vendor lists, or lists no more. Once the vendor was asked, a recording is swept up again
only if there is news of it: an event that was accepted since, or another status.
"""

from collections.abc import Collection, Sequence
from functools import cache
from typing import Any, Final

import msgspec
from msgspec import Struct, structs
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Executable,
    Select,
    Table,
    TextClause,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    literal,
    literal_column,
    or_,
    select,
    update,
)

from schemas import OnlineRecordFinished, RecordingStatus
from store.connection import AsyncConnection
from store.due import claim_due, finish, next_due_in_s, postpone
from store.reading import is_test
from store.recording import TEST_SOURCE
from store.statements import Dialect
from store.store import MAX_VALUES, Store, chunks, members, now_us
from store.tables import DONE, DUE, events, reconciled_apps, recording_questions, recordings, storable

#: For so long the vendor keeps the files: https://cloud.tencent.com/document/product/1137/49831
FILES_KEPT_S: Final = 3 * 86_400.0

#: A recording is asked about when it is as old as this and not finished.
UNFINISHED_AFTER_S: Final = 86_400.0

#: How long after the time that the vendor gave a paused recording it should have been stopped.
PAUSE_GRACE_S: Final = 60.0

#: Rows that one statement inserts.
AT_ONCE: Final = 500

_question = recording_questions.c


class Question(Struct, frozen=True, kw_only=True):
    """Something to ask the vendor, `after_s` seconds from now.

    `why` is a few words for people. `found_by` names the call by which we heard of the recording; it is empty where a
    callback told us. `room_id` and `created_at`, in Unix seconds, are what that call said.
    """

    sdk_app_id: int
    task_id: str
    why: str
    found_by: str = ""
    room_id: int | None = None
    created_at: int | None = None
    after_s: float = 0.0


class RecordingQuestion(Struct, frozen=True, kw_only=True):
    """A question as it is kept. Times in `..._us` are microseconds since the Unix epoch, `created_at` is Unix seconds.

    `state` is `due` or `done`. `attempts` counts how often it was claimed since it was asked for, this claim included;
    `answer_status` and `answered_at_us` are those of the vendor's last answer, `not_found` how often in a row the
    vendor did not know the recording; `answer` is the final answer as the body of a Finished event.
    """

    sdk_app_id: int
    task_id: str
    state: str
    why: str
    attempts: int
    due_at_us: int
    found_by: str
    found_at_us: int
    room_id: int | None
    created_at: int | None
    listed_at_us: int | None
    gone_from_list: bool
    answer_status: str | None
    answered_at_us: int | None
    not_found: int
    answer: bytes | None


async def ask(store: Store, questions: Sequence[Question]) -> None:
    """Keep questions, durable on return: each is due when it says, or sooner if it was asked for sooner before.

    A question that was done is due again. Where two name how a recording was found, the first stays. Raises
    `StoreUnavailableError` and `SchemaMismatchError`.
    """
    rows = [
        {
            "sdk_app_id": one.sdk_app_id,
            "task_id": one.task_id,
            "why": storable(one.why),
            "found_by": storable(one.found_by),
            "room_id": one.room_id,
            "created_at": one.created_at,
            "after_us": _us(one.after_s),
            "deadline_at_us": None,
        }
        for one in questions
    ]
    await _ask(store, rows)


async def _ask(store: Store, rows: Sequence[dict[str, Any]]) -> None:
    # In the order of their keys, as everybody: nobody waits in a circle.
    in_order = sorted(rows, key=lambda row: (row["sdk_app_id"], row["task_id"]))
    if in_order:
        await store.write(lambda connection: connection.execute(_asking(store.dialect), in_order))


@cache
def _asking(dialect: Dialect) -> TextClause:
    """Make one question due; prepared once, as a statement with many rows takes long to be composed."""
    after_us = bindparam("after_us", type_=BigInteger)
    deadline_at_us = func.coalesce(
        bindparam("deadline_at_us", type_=BigInteger), now_us() + after_us + _us(FILES_KEPT_S)
    )
    given = ("sdk_app_id", "task_id", "why", "found_by", "room_id", "created_at")
    insert = dialect.insert(recording_questions).values(
        _NEW
        | {name: bindparam(name, type_=_question[name].type) for name in given}
        | {"due_at_us": now_us() + after_us, "deadline_at_us": deadline_at_us}
    )
    new = insert.excluded
    was_done = _question.state == DONE
    is_sooner = or_(was_done, new.due_at_us < _question.due_at_us)
    is_more_urgent = or_(was_done, new.deadline_at_us < _question.deadline_at_us)
    upsert = insert.on_conflict_do_update(
        index_elements=[*recording_questions.primary_key],
        set_={
            "state": DUE,
            "due_at_us": case((is_sooner, new.due_at_us), else_=_question.due_at_us),
            "deadline_at_us": case((is_more_urgent, new.deadline_at_us), else_=_question.deadline_at_us),
            "attempts": case((was_done, 0), else_=_question.attempts),
            "not_found": case((was_done, 0), else_=_question.not_found),
            "why": case((is_sooner, new.why), else_=_question.why),
            "room_id": func.coalesce(_question.room_id, new.room_id),
            "created_at": func.coalesce(_question.created_at, new.created_at),
        },
    )
    return dialect.render(upsert)


_NEW: Final[dict[str, Any]] = {
    "state": DUE,
    "attempts": 0,
    "not_found": 0,
    "found_at_us": now_us(),
    "gone_from_list": False,
}


async def sweep(store: Store, *, apps: Collection[int], ask_after_s: float) -> int:
    """Make a question due for every recording of these applications that needs one, and return how many it made due.

    A recording that was stopped needs one `ask_after_s` seconds after its latest event; a paused one a minute after the
    time at which it was to be stopped; another that is not finished a day after its latest event; and a finished one
    as soon as there is a Finished event, at most three days old, that was not verified. However long nobody swept, none
    is left out. The vendor knows nothing of tests: there are no questions about them. Raises `StoreUnavailableError`
    and `SchemaMismatchError`.
    """
    async with store.reading() as connection:
        rows = [
            members(row)
            for query in (_unfinished(apps, ask_after_s), _unverified(apps, ask_after_s))
            for row in await connection.execute(query)
        ]
    await _ask(store, [row | _SWEPT for row in rows])
    return len(rows)


_SWEPT: Final[dict[str, Any]] = {"after_us": 0, "found_by": "", "created_at": None}


def _unfinished(apps: Collection[int], ask_after_s: float) -> Select[Any]:
    """Select the recordings that should be finished by now, and are not."""
    is_stopped = recordings.c.status == RecordingStatus.STOPPED.value
    is_paused = and_(recordings.c.status == RecordingStatus.PAUSED.value, recordings.c.estimate_stop_time.is_not(None))
    # As the sender says, who may say anything: within a day of the event, and no number that is too large.
    latest_s = recordings.c.active_at_us // 1_000_000 + round(UNFINISHED_AFTER_S)
    stop_time = case(
        (recordings.c.estimate_stop_time < 0, 0),
        (recordings.c.estimate_stop_time > latest_s, latest_s),
        else_=recordings.c.estimate_stop_time,
    )
    due_at_us = case(
        (is_stopped, recordings.c.active_at_us + _us(ask_after_s)),
        (is_paused, (stop_time + round(PAUSE_GRACE_S)) * 1_000_000),
        else_=recordings.c.active_at_us + _us(UNFINISHED_AFTER_S),
    )
    why = case(
        (is_stopped, "it was stopped and is not finished"),
        (is_paused, "it was to be stopped after a long pause"),
        else_="it is a day old and not finished",
    )
    has_news = or_(
        _question.considered_at_us.is_(None),
        recordings.c.active_at_us > _question.considered_at_us,
        recordings.c.status != _question.considered_status,
    )
    return (
        select(
            recordings.c.sdk_app_id,
            recordings.c.task_id,
            recordings.c.room_id,
            why.label("why"),
            (recordings.c.active_at_us + _us(FILES_KEPT_S)).label("deadline_at_us"),
        )
        .select_from(recordings.outerjoin(recording_questions, _is_of(recordings)))
        .where(
            recordings.c.status != literal_column(f"'{RecordingStatus.FINISHED.value}'"),
            recordings.c.sdk_app_id.in_(apps),
            due_at_us <= now_us(),
            _is_not_due_yet(),
            has_news,
            ~is_test(recordings),
        )
    )


def _unverified(apps: Collection[int], ask_after_s: float) -> Select[Any]:
    """Select the recordings with a Finished event that the vendor was not asked about."""
    has_news = or_(
        _question.considered_at_us.is_(None),
        events.c.received_at_us > _question.considered_at_us,
        recordings.c.status != _question.considered_status,
        # It came late from a queue, or the answer did not decide about it.
        and_(_question.state == DONE, _question.considered_at_us < now_us() - _us(4 * ask_after_s)),
    )
    return (
        select(
            events.c.sdk_app_id,
            events.c.task_id,
            recordings.c.room_id,
            literal("its end is not verified").label("why"),
            (func.min(events.c.received_at_us) + _us(UNFINISHED_AFTER_S)).label("deadline_at_us"),
        )
        .select_from(
            events.join(
                recordings,
                and_(recordings.c.sdk_app_id == events.c.sdk_app_id, recordings.c.task_id == events.c.task_id),
            ).outerjoin(recording_questions, _is_of(events))
        )
        .where(
            events.c.received_at_us > now_us() - _us(FILES_KEPT_S),
            events.c.routing_key == OnlineRecordFinished.__name__,
            events.c.verified.is_(None),
            events.c.source != TEST_SOURCE,
            events.c.sdk_app_id.in_(apps),
            _is_not_due_yet(),
            has_news,
        )
        .group_by(events.c.sdk_app_id, events.c.task_id, recordings.c.room_id)
    )


def _is_of(table: Table) -> ColumnElement[bool]:
    return and_(_question.sdk_app_id == table.c.sdk_app_id, _question.task_id == table.c.task_id)


def _is_not_due_yet() -> ColumnElement[bool]:
    return or_(_question.state.is_(None), _question.state == DONE, _question.due_at_us > now_us())


class ListedTask(Struct, frozen=True, kw_only=True):
    """A recording in one of the vendor's lists; `created_at` is Unix seconds."""

    task_id: str
    room_id: int | None = None
    created_at: int | None = None


async def note_listing(
    store: Store, sdk_app_id: int, tasks: Collection[ListedTask], *, found_by: str, is_complete: bool
) -> list[ListedTask]:
    """Keep what the vendor lists as running, durable on return; return those of it that no event has told of.

    `found_by` names the call. A listed recording is asked about a day from now. If the list `is_complete`, one that was
    in such a list before and is not in this one is asked about now; nothing else follows from its absence. Raises
    `StoreUnavailableError` and `SchemaMismatchError`.
    """
    by_id = {one.task_id: one for one in tasks}

    async def operation(connection: AsyncConnection) -> list[ListedTask]:
        if by_id:
            rows = [structs.asdict(by_id[task_id]) for task_id in sorted(by_id)]
            await connection.execute(_listing(store, sdk_app_id, found_by), rows)
        if is_complete:
            await connection.execute(_gone(sdk_app_id, [*by_id]))
            await connection.execute(_app_values(store, sdk_app_id, listed_at_us=now_us()))
        known: set[str] = set()
        for part in chunks(sorted(by_id), MAX_VALUES):
            query = select(recordings.c.task_id)
            there = query.where(recordings.c.sdk_app_id == sdk_app_id, recordings.c.task_id.in_(part))
            known.update((await connection.execute(there)).scalars())
        return [one for task_id, one in sorted(by_id.items()) if task_id not in known]

    return await store.write(operation)


def _listing(store: Store, sdk_app_id: int, found_by: str) -> Executable:
    """Keep a task that is listed; for many at once: a statement with all their rows takes long to be composed."""
    insert = store.dialect.insert(recording_questions).values(
        _NEW
        | {
            "sdk_app_id": sdk_app_id,
            "due_at_us": now_us() + _us(UNFINISHED_AFTER_S),
            "deadline_at_us": now_us() + _us(UNFINISHED_AFTER_S + FILES_KEPT_S),
            "why": "it runs for a day",
            "found_by": found_by,
            "listed_at_us": now_us(),
            **{name: bindparam(name) for name in ListedTask.__struct_fields__},
        }
    )
    return insert.on_conflict_do_update(
        index_elements=[*recording_questions.primary_key],
        set_={
            "listed_at_us": insert.excluded.listed_at_us,
            "gone_from_list": False,
            "room_id": func.coalesce(_question.room_id, insert.excluded.room_id),
            "created_at": func.coalesce(_question.created_at, insert.excluded.created_at),
        },
    )


def _gone(sdk_app_id: int, listed: Collection[str]) -> Executable:
    is_later = _question.due_at_us > now_us()
    return (
        update(recording_questions)
        .where(
            _question.sdk_app_id == sdk_app_id,
            _question.state == literal_column(f"'{DUE}'"),
            _question.listed_at_us.is_not(None),
            ~_question.gone_from_list,
            _question.task_id.not_in(listed),
        )
        .values(
            gone_from_list=True,
            due_at_us=case((is_later, now_us()), else_=_question.due_at_us),
            why=case((is_later, "it is no longer listed as running"), else_=_question.why),
        )
    )


async def claim_questions(
    store: Store, *, apps: Collection[int], lease_holder: str, lease_s: float, limit: int
) -> list[RecordingQuestion]:
    """Lease questions about these applications that are due, see `claim_due`; none of an application with a pause."""
    now_recording = select(recordings.c.status).where(_is_of(recordings)).scalar_subquery()
    rows = await claim_due(
        store,
        recording_questions,
        _question.sdk_app_id.in_(apps),
        ~exists().where(
            reconciled_apps.c.sdk_app_id == _question.sdk_app_id, reconciled_apps.c.paused_until_us > now_us()
        ),
        lease_holder=lease_holder,
        lease_s=lease_s,
        limit=limit,
        considered_at_us=now_us(),
        considered_status=func.coalesce(now_recording, ""),
    )
    return [msgspec.convert(row, RecordingQuestion) for row in rows]


async def postpone_question(
    store: Store,
    question: RecordingQuestion,
    *,
    lease_holder: str,
    after_s: float,
    answer_status: str | None = None,
    not_found: int | None = None,
) -> bool:
    """Ask again `after_s` seconds from now, or sooner if there was news meanwhile; see `postpone`.

    `answer_status` is what the vendor answered now, None if it did not answer; `not_found` how often in a row it did
    not know the recording, None to leave it.
    """
    values: dict[str, Any] = {} if not_found is None else {"not_found": not_found}
    if answer_status is not None:
        values |= {"answer_status": storable(answer_status), "answered_at_us": now_us()}
    key = (question.sdk_app_id, question.task_id)
    return await postpone(store, recording_questions, key, lease_holder=lease_holder, after_s=after_s, **values)


async def note_answer(store: Store, question: RecordingQuestion, *, lease_holder: str, answer: bytes) -> bool:
    """Keep what the vendor answered before events are judged by it; the question stays as it is.

    So who looks up a verdict finds the answer that it follows from. Returns whether it was the lease holder's.
    """
    noting = (
        update(recording_questions)
        .where(
            _question.sdk_app_id == question.sdk_app_id,
            _question.task_id == question.task_id,
            _question.lease_holder == lease_holder,
        )
        .values(answer=answer)
    )
    return bool((await store.write(lambda connection: connection.execute(noting))).rowcount)


async def finish_question(
    store: Store, question: RecordingQuestion, *, lease_holder: str, answer_status: str, answer: bytes | None = None
) -> bool:
    """Keep the final answer; the question is done unless there was news meanwhile; see `finish`.

    `answer` is the body of a Finished event that says what the vendor answered, None if there is none.
    """
    key = (question.sdk_app_id, question.task_id)
    return await finish(
        store,
        recording_questions,
        key,
        lease_holder=lease_holder,
        answer_status=storable(answer_status),
        answered_at_us=now_us(),
        answer=answer,
    )


async def next_question_in_s(store: Store, *, apps: Collection[int]) -> float | None:
    """Return in how many seconds a question can be claimed: 0 if one can be now, None if there is none."""
    return await next_due_in_s(store, recording_questions, _question.sdk_app_id.in_(apps))


async def find_question(store: Store, sdk_app_id: int, task_id: str) -> RecordingQuestion | None:
    """Return the question about a recording, None if there never was one."""
    names = [recording_questions.c[name] for name in RecordingQuestion.__struct_fields__]
    query = select(*names).where(_question.sdk_app_id == sdk_app_id, _question.task_id == task_id)
    async with store.reading() as connection:
        row = (await connection.execute(query)).one_or_none()
    return None if row is None else msgspec.convert(members(row), RecordingQuestion)


class Verdict(Struct, frozen=True, kw_only=True):
    """What the vendor says of a Finished event: `verified` is None until it was asked.

    `answer` is the body of a Finished event with what the vendor answered, where there is a verdict and it is kept.
    """

    verified: bool | None = None
    answer: bytes | None = None


async def find_verdict(store: Store, event_id: str) -> Verdict:
    """Return what the vendor says of an event; one that is not kept has no verdict either."""
    return (await find_verdicts(store, [event_id]))[event_id]


async def find_verdicts(store: Store, event_ids: Collection[str]) -> dict[str, Verdict]:
    """Return what the vendor says of each of these events, see `find_verdict`."""
    verdicts = {event_id: Verdict() for event_id in event_ids}
    query = select(events.c.event_id, events.c.verified, _question.answer).select_from(
        events.outerjoin(recording_questions, _is_of(events))
    )
    async with store.reading() as connection:
        for part in chunks(sorted(verdicts), MAX_VALUES):
            for row in await connection.execute(query.where(events.c.event_id.in_(part))):
                answer = None if row.verified is None else row.answer
                verdicts[row.event_id] = Verdict(verified=row.verified, answer=answer)
    return verdicts


class ReconciledApp(Struct, frozen=True, kw_only=True):
    """An application that the vendor is asked about.

    `paused_for_s`: for so long it is not asked, because of `pause_reason`. `listed_ago_s`: so long ago it was listed
    whole, None if never. `audited_day` is the last day, as `YYYY-MM-DD`, that was audited.
    """

    sdk_app_id: int
    paused_for_s: float = 0.0
    pause_reason: str | None = None
    listed_ago_s: float | None = None
    audited_day: str | None = None


async def find_reconciled_apps(store: Store) -> dict[int, ReconciledApp]:
    """Return what is known of every application that the vendor was asked about, by SdkAppId."""
    columns = reconciled_apps.c
    query = select(*columns, now_us().label("now_us")).order_by(columns.sdk_app_id)
    async with store.reading() as connection:
        return {
            row.sdk_app_id: ReconciledApp(
                sdk_app_id=row.sdk_app_id,
                paused_for_s=max(0, (row.paused_until_us or 0) - row.now_us) / 1_000_000,
                pause_reason=row.pause_reason,
                listed_ago_s=None if row.listed_at_us is None else max(0, row.now_us - row.listed_at_us) / 1_000_000,
                audited_day=row.audited_day,
            )
            for row in await connection.execute(query)
        }


async def pause_app(store: Store, sdk_app_id: int, *, for_s: float, reason: str) -> bool:
    """Ask nothing about an application for so long; say whether it had no pause for this reason before.

    A pause ends by itself, but is the same one until `resume_app`: of all processes just one is told that it is new.
    """
    pausing = _app_values(store, sdk_app_id, paused_until_us=now_us() + _us(for_s), pause_reason=storable(reason))

    async def operation(connection: AsyncConnection) -> bool:
        # Made first if it is not there, so that there is a row to lock: of two processes one comes after the other.
        await connection.execute(
            store.dialect.insert(reconciled_apps).values(sdk_app_id=sdk_app_id).on_conflict_do_nothing()
        )
        query = select(reconciled_apps.c.pause_reason).where(reconciled_apps.c.sdk_app_id == sdk_app_id)
        before: str | None = (await connection.execute(query.with_for_update())).scalar_one()
        await connection.execute(pausing)
        return before != storable(reason)

    return await store.write(operation)


async def resume_app(store: Store, sdk_app_id: int) -> bool:
    """End an application's pause, as the vendor answers again; say whether it had one."""
    resuming = (
        update(reconciled_apps)
        .where(reconciled_apps.c.sdk_app_id == sdk_app_id, reconciled_apps.c.pause_reason.is_not(None))
        .values(paused_until_us=None, pause_reason=None)
    )
    return bool((await store.write(lambda connection: connection.execute(resuming))).rowcount)


async def mark_listed(store: Store, sdk_app_id: int) -> None:
    """Remember that an application's recordings were listed just now, by a call that lists them room by room."""
    await store.write(lambda connection: connection.execute(_app_values(store, sdk_app_id, listed_at_us=now_us())))


async def mark_audited(store: Store, sdk_app_id: int, day: str) -> bool:
    """Remember that a day, as `YYYY-MM-DD`, was audited; say whether it, or a later one, was not before."""
    insert = store.dialect.insert(reconciled_apps).values(sdk_app_id=sdk_app_id, audited_day=day)
    upsert = insert.on_conflict_do_update(
        index_elements=[reconciled_apps.c.sdk_app_id],
        set_={"audited_day": insert.excluded.audited_day},
        where=or_(reconciled_apps.c.audited_day.is_(None), reconciled_apps.c.audited_day < insert.excluded.audited_day),
    )
    return bool((await store.write(lambda connection: connection.execute(upsert))).rowcount)


def _app_values(store: Store, sdk_app_id: int, **values: Any) -> Executable:
    insert = store.dialect.insert(reconciled_apps).values(sdk_app_id=sdk_app_id, **values)
    return insert.on_conflict_do_update(
        index_elements=[reconciled_apps.c.sdk_app_id], set_={name: insert.excluded[name] for name in values}
    )


async def prune_questions(store: Store, *, older_than_s: float) -> int:
    """Delete what was asked longer ago than this about recordings that no event ever told of; return how many."""
    is_known = exists().where(
        recordings.c.sdk_app_id == _question.sdk_app_id, recordings.c.task_id == _question.task_id
    )
    statement = delete(recording_questions).where(
        _question.state == DONE, _question.answered_at_us < now_us() - _us(older_than_s), ~is_known
    )
    return (await store.write(lambda connection: connection.execute(statement))).rowcount


def _us(seconds: float) -> int:
    return round(seconds * 1_000_000)
