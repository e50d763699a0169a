"""What people changed by the console: who, when and what, a line each, kept as long as old events are."""

import secrets
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct
from sqlalchemy import and_, delete, insert, select, update

from store.connection import AsyncConnection
from store.paging import BigInt, Page, Walk, browsing, place_of, walk
from store.store import Store, members, now_us
from store.tables import changes, storable

#: Characters that are kept of one text: what somebody sends is nobody's reason for a large row.
MAX_CHARACTERS: Final = 2000


class Change(Struct, frozen=True, kw_only=True):
    """Somebody's change: `who` is a session, `address` where it came from, `detail` what was asked for, as JSON has it.

    `at_us` is in microseconds since the Unix epoch.
    """

    at_us: int
    who: str
    role: str
    address: str
    action: str
    detail: dict[str, Any]
    result: str


async def keep_change(store: Store, change: Change) -> None:
    """Keep a change, durable on return; each text of it up to `MAX_CHARACTERS`."""
    row = {name: _kept(getattr(change, name)) for name in Change.__struct_fields__}
    row |= {"change_id": secrets.token_hex(8), "detail": msgspec.json.encode(row["detail"]).decode()}
    await store.write(lambda connection: connection.execute(insert(changes).values(row)))


async def list_changes(store: Store, *, after: str | None = None, limit: int = 50) -> Page[Change]:
    """Return changes, the latest first, behind the cursor `after`. Raises `ValueError` for a wrong one."""
    way = Walk(order=(changes.c.at_us, changes.c.change_id), after=place_of(after, tuple[BigInt, str]))
    async with browsing(store) as connection:
        walked = await walk(connection, way, select(changes), limit=limit)
    return walked.page(
        [msgspec.convert(members(row) | {"detail": msgspec.json.decode(row.detail)}, Change) for row in walked.rows]
    )


async def list_who_did(store: Store, action: str, *, since_us: int) -> frozenset[str]:
    """Return the sessions that did this since then."""
    query = select(changes.c.who).where(changes.c.at_us >= since_us, changes.c.action == action)
    async with browsing(store) as connection:
        return frozenset((await connection.execute(query)).scalars())


async def prune_changes(store: Store, *, older_than_s: float) -> int:
    """Delete the changes that were made longer ago than this, and return how many."""
    statement = delete(changes).where(changes.c.at_us < now_us() - round(older_than_s * 1_000_000))
    return (await store.write(lambda connection: connection.execute(statement))).rowcount


#: What stands in a change for the TaskId of a recording that was forgotten since.
FORGOTTEN: Final = "(forgotten)"


async def forget_in_changes(connection: AsyncConnection, sdk_app_id: int, task_id: str) -> None:
    """Take a recording's name out of what is kept of changes: who did what and when is left, and no more of which.

    A change names a recording by its TaskId as a member of `detail`, whatever it is called.
    """
    name = msgspec.json.encode(task_id).decode()
    query = select(changes.c.at_us, changes.c.change_id, changes.c.detail)
    for row in await connection.execute(query.where(changes.c.detail.contains(name, autoescape=True))):
        detail = msgspec.json.decode(row.detail)
        if detail.get("sdk_app_id", detail.get("app", sdk_app_id)) != sdk_app_id:
            continue
        left = {key: FORGOTTEN if value == task_id else value for key, value in detail.items()}
        is_it = and_(changes.c.at_us == row.at_us, changes.c.change_id == row.change_id)
        await connection.execute(update(changes).where(is_it).values(detail=msgspec.json.encode(left).decode()))


def _kept(value: Any) -> Any:
    if isinstance(value, str):
        return storable(value[:MAX_CHARACTERS])
    if isinstance(value, Mapping):
        return {_kept(str(name)): _kept(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_kept(one) for one in value]
    return value
