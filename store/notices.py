"""What somebody is to be told: each notice once, written before it is sent and after.

Intent comes before (`begin_notices`), the result after (`end_notices`): a notice is told once unless the process dies
between the two, and then `begun_at_us` says so.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from enum import StrEnum
from typing import Any, Final

import msgspec
from msgspec import Struct
from sqlalchemy import BigInteger, bindparam, delete, func, literal_column, or_, select, update

from store.connection import AsyncConnection
from store.due import claim_due, finish_all, next_due_in_s, postpone_all
from store.store import MAX_VALUES, Store, chunks, now_us
from store.tables import DONE, DUE, iso8601, notices, storable

#: Rows that one transaction deletes.
AT_ONCE: Final = 500


class NoticeResult(StrEnum):
    """What became of a notice."""

    SENT = "sent"
    #: Told in short, together with others.
    DIGESTED = "digested"
    #: Its time was past.
    EXPIRED = "expired"
    #: What it tells was over before it was told.
    OVER = "over"
    #: The channel will not have it, now or later.
    REFUSED = "refused"
    GAVE_UP = "gave_up"


class Notice(Struct, frozen=True, kw_only=True):
    """Something to tell by one channel.

    `notice_id` names thing, rule, step and channel: a second notice with the same is none. `data` is what the text is
    made of. It is told `after_s` seconds from now at the earliest, and its time is past `expires_after_s` seconds from
    now. `sdk_app_id` and `task_id` name the recording that it is about, with which it is forgotten.
    """

    notice_id: str
    channel: str
    rule: str
    severity: str
    sdk_app_id: int | None = None
    task_id: str | None = None
    data: dict[str, Any] = msgspec.field(default_factory=dict)
    after_s: float = 0.0
    expires_after_s: float


class ClaimedNotice(Struct, frozen=True, kw_only=True):
    """A notice that is the lease holder's to tell. Times are microseconds since the Unix epoch.

    `is_past`: its time was past when it was claimed. `begun_at_us`: somebody began to send it then, and nobody knows
    what came of that. `attempts` counts claims, this one included.
    """

    notice_id: str
    channel: str
    rule: str
    severity: str
    sdk_app_id: int | None
    task_id: str | None
    data: dict[str, Any]
    attempts: int
    created_at_us: int
    deadline_at_us: int
    begun_at_us: int | None
    is_past: bool


async def add_notices(store: Store, new: Sequence[Notice]) -> int:
    """Keep what is to be told, durable on return; return how much of it is new. What was there stays as it is.

    Raises `StoreUnavailableError` and `SchemaMismatchError`.
    """
    rows = [_row(one) for one in sorted(new, key=lambda one: one.notice_id)]
    adding = (
        store.dialect.insert(notices)
        .values(
            state=DUE,
            due_at_us=now_us() + bindparam("after_us", type_=BigInteger),
            deadline_at_us=now_us() + bindparam("expires_after_us", type_=BigInteger),
            attempts=0,
            created_at_us=now_us(),
            **{name: bindparam(name) for name in _GIVEN},
        )
        .on_conflict_do_nothing()
        .returning(notices.c.notice_id)
    )

    async def operation(connection: AsyncConnection) -> int:
        return len((await connection.execute(adding, rows)).all())

    return await store.write(operation) if rows else 0


_GIVEN: Final = ("notice_id", "channel", "rule", "severity", "sdk_app_id", "task_id", "data")


async def claim_notices(
    store: Store, *, channel: str, lease_holder: str, lease_s: float, limit: int
) -> list[ClaimedNotice]:
    """Lease notices of one channel that are due, those first whose time is past first; see `claim_due`."""
    rows = await claim_due(
        store, notices, notices.c.channel == channel, lease_holder=lease_holder, lease_s=lease_s, limit=limit
    )
    return [
        msgspec.convert({**row, "is_past": row["deadline_at_us"] <= row["claimed_at_us"]}, ClaimedNotice)
        for row in rows
    ]


async def begin_notices(store: Store, notice_ids: Collection[str], *, lease_holder: str) -> frozenset[str]:
    """Write that these notices are being sent now, durable on return; return those that are the lease holder's."""
    beginning = (
        update(notices)
        .where(notices.c.state == DUE, notices.c.lease_holder == lease_holder)
        .values(begun_at_us=now_us())
        .returning(notices.c.notice_id)
    )

    async def operation(connection: AsyncConnection) -> frozenset[str]:
        begun: set[str] = set()
        for part in chunks(sorted(notice_ids), MAX_VALUES):
            begun.update((await connection.execute(beginning.where(notices.c.notice_id.in_(part)))).scalars())
        return frozenset(begun)

    return await store.write(operation)


async def end_notices(
    store: Store, notice_ids: Collection[str], *, lease_holder: str, result: NoticeResult, detail: str = ""
) -> frozenset[str]:
    """Write what became of notices, durable on return; return those that were the lease holder's.

    `detail` is what the channel answered: no address, no secret.
    """
    values = {"ended_at_us": now_us(), "result": result.value, "detail": storable(detail)}
    ended = await finish_all(store, notices, _keys(notice_ids), lease_holder=lease_holder, **values)
    return frozenset(notice_id for (notice_id,) in ended)


async def postpone_notices(
    store: Store, notice_ids: Collection[str], *, lease_holder: str, after_s: float, detail: str = ""
) -> frozenset[str]:
    """Let go of notices that were not sent, until `after_s` seconds from now; return those that were the holder's."""
    values = {"begun_at_us": None, "detail": storable(detail)}
    postponed = await postpone_all(
        store, notices, _keys(notice_ids), lease_holder=lease_holder, after_s=after_s, **values
    )
    return frozenset(notice_id for (notice_id,) in postponed)


async def next_notice_in_s(store: Store, channel: str) -> float | None:
    """Return in how many seconds a notice of a channel can be claimed: 0 if one can be now, None if there is none."""
    return await next_due_in_s(store, notices, notices.c.channel == channel)


class ChannelState(Struct, frozen=True, kw_only=True):
    """What waits for a channel, since when the first does, and what became of the last notice that was sent to it.

    `waiting` counts all that was not told yet, also what is due later; `waiting_detail` is why one of them was not
    taken at its last try, None if none was tried. Times are microseconds since the Unix epoch.
    """

    waiting: int = 0
    waiting_detail: str | None = None
    waiting_since_us: int | None = None
    last_ended_at_us: int | None = None
    last_result: NoticeResult | None = None
    last_detail: str | None = None


async def find_channel_states(store: Store) -> dict[str, ChannelState]:
    """Return the state of every channel that ever had a notice, by its name."""
    waiting = (
        select(
            notices.c.channel,
            func.count().label("waiting"),
            func.min(notices.c.created_at_us).label("since_us"),
            func.max(func.nullif(notices.c.detail, "")).label("why"),
        )
        .where(notices.c.state == DUE)
        .group_by(notices.c.channel)
    )
    place = func.row_number().over(
        partition_by=notices.c.channel, order_by=(notices.c.ended_at_us.desc(), notices.c.notice_id.desc())
    )
    ended = select(notices.c.channel, notices.c.ended_at_us, notices.c.result, notices.c.detail, place.label("place"))
    # What was dropped unsent says nothing of the channel.
    dropped = [NoticeResult.EXPIRED.value, NoticeResult.OVER.value]
    ended_at_all = ended.where(
        notices.c.state == DONE, notices.c.ended_at_us.is_not(None), notices.c.result.not_in(dropped)
    ).subquery()
    last = select(ended_at_all).where(ended_at_all.c.place == 1)
    async with store.reading() as connection:
        states = {
            row.channel: ChannelState(waiting=row.waiting, waiting_since_us=row.since_us, waiting_detail=row.why)
            for row in await connection.execute(waiting)
        }
        for row in await connection.execute(last):
            states[row.channel] = msgspec.structs.replace(
                states.get(row.channel, ChannelState()),
                last_ended_at_us=row.ended_at_us,
                last_result=NoticeResult(row.result),
                last_detail=row.detail,
            )
    return states


class NoticeRow(Struct, frozen=True, kw_only=True):
    """A notice in a listing; times are ISO 8601 text.

    It is told by `deadline` or not at all. `result` is None while it waits; `detail` is what the channel answered last.
    `begun_at` is when it was last begun to be sent.
    """

    notice_id: str
    channel: str
    rule: str
    severity: str
    sdk_app_id: int | None
    task_id: str | None
    created_at: str
    due_at: str
    deadline: str
    attempts: int
    begun_at: str | None
    ended_at: str | None
    result: NoticeResult | None
    detail: str | None
    data: dict[str, Any]


async def list_notices(
    store: Store, *, channel: str | None = None, since_us: int | None = None, limit: int = 1000
) -> list[NoticeRow]:
    """Return notices, the latest made first, at most `limit` (0: all)."""
    query = select(notices).order_by(notices.c.created_at_us.desc(), notices.c.notice_id)
    if channel is not None:
        query = query.where(notices.c.channel == channel)
    if since_us is not None:
        query = query.where(notices.c.created_at_us >= since_us)
    if limit:
        query = query.limit(limit)
    async with store.reading() as connection:
        return [
            NoticeRow(
                notice_id=row.notice_id,
                channel=row.channel,
                rule=row.rule,
                severity=row.severity,
                sdk_app_id=row.sdk_app_id,
                task_id=row.task_id,
                created_at=iso8601(row.created_at_us),
                due_at=iso8601(row.due_at_us),
                deadline=iso8601(row.deadline_at_us),
                attempts=row.attempts,
                begun_at=None if row.begun_at_us is None else iso8601(row.begun_at_us),
                ended_at=None if row.ended_at_us is None else iso8601(row.ended_at_us),
                result=None if row.result is None else NoticeResult(row.result),
                detail=row.detail,
                data=row.data,
            )
            for row in await connection.execute(query)
        ]


async def expire_notices(store: Store, *, past_for_s: float) -> dict[str, int]:
    """End the notices that nobody holds and whose time has been past for so long; return how many, by channel.

    Who delivers a channel ends its own sooner: these are of channels that nobody delivers any more.
    """
    is_free = or_(notices.c.leased_until_us.is_(None), notices.c.leased_until_us <= now_us())
    expiring = (
        update(notices)
        .where(
            notices.c.state == literal_column(f"'{DUE}'"),
            notices.c.deadline_at_us < now_us() - _us(past_for_s),
            is_free,
        )
        .values(
            state=DONE,
            lease_holder=None,
            leased_until_us=None,
            ended_at_us=now_us(),
            result=NoticeResult.EXPIRED.value,
            detail="nobody delivers this channel",
        )
        .returning(notices.c.channel)
    )

    async def operation(connection: AsyncConnection) -> dict[str, int]:
        return dict(Counter((await connection.execute(expiring)).scalars()))

    return await store.write(operation)


async def prune_notices(store: Store, *, older_than_s: float) -> int:
    """Delete notices that ended longer ago than this, and return how many: the same may be added anew after that."""
    old = (
        select(notices.c.notice_id)
        .where(notices.c.state == DONE, notices.c.ended_at_us < now_us() - _us(older_than_s))
        .limit(AT_ONCE)
    )
    statement = delete(notices).where(notices.c.notice_id.in_(old))
    pruned = 0
    while True:
        count = (await store.write(lambda connection: connection.execute(statement))).rowcount
        pruned += count
        if count < AT_ONCE:
            return pruned


def _row(one: Notice) -> dict[str, Any]:
    given = {name: _storable(getattr(one, name)) for name in _GIVEN}
    return given | {"after_us": _us(one.after_s), "expires_after_us": _us(one.expires_after_s)}


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, dict):
        return {storable(name): _storable(member) for name, member in value.items()}
    return [_storable(member) for member in value] if isinstance(value, list | tuple) else value


def _keys(notice_ids: Collection[str]) -> list[tuple[str]]:
    return [(notice_id,) for notice_id in notice_ids]


def _us(seconds: float) -> int:
    return round(seconds * 1_000_000)
