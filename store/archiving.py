"""The files of finished recordings on their way to the customer's storage: what is planned, claimed and done.

A file is due work, see `store.due`; its deadline is when the vendor deletes it. It is fetched into a staging folder and
proved, then placed; a row says how far that came, so that any worker goes on where another stopped. A recording is due
work as soon as none of its files is due any more: then its manifest is to be written.

Whoever changes which files of a recording are due holds the lock of its row in `archived_recordings`, taken first: of
two workers that finish its last two files the second one sees what the first one did.
"""

from collections.abc import Collection, Sequence
from typing import Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Struct
from sqlalchemy import (
    ColumnElement,
    Exists,
    Table,
    and_,
    case,
    exists,
    false,
    literal,
    literal_column,
    null,
    or_,
    select,
    tuple_,
    update,
)

from schemas import FileOutcome
from store.connection import AsyncConnection
from store.due import claim_due, finish, next_due_in_s, postpone
from store.reading import read_recordings
from store.recording import Recording
from store.statements import RecordingKey
from store.store import MAX_VALUES, Store, chunks, members, now_us
from store.tables import (
    DONE,
    DUE,
    archived_files,
    archived_recordings,
    recordings,
    storable,
)

#: For so long beyond the time at which it was due, a file is left to the workers of the folder that has a part of it.
STAGED_ELSEWHERE_S: Final = 600.0

AddressSource: TypeAlias = Literal["vendor", "callback"]
Step: TypeAlias = Literal["fetching", "placing"]

#: Who named an address, and the address.
Address: TypeAlias = tuple[AddressSource, str]

#: (sdk_app_id, task_id, file_key)
FileKey: TypeAlias = tuple[int, str, str]

_file = archived_files.c
_archived = archived_recordings.c


class ArchiveFile(Struct, frozen=True, kw_only=True):
    """A file as it is kept. Times in `..._us` are microseconds since the Unix epoch, `last_modified_at` Unix seconds.

    `deadline_at_us` is when the vendor deletes it. `outcome` is None while it is due. `fetched_bytes` are in the
    staging folder `staged_on`; with `is_staged` all of them are, and `size`, `sha256`, `crc64` and `checked` are
    proved. `claimed_at_us` is the database's time, `folder` that of its recording; both only in a row that was claimed.
    """

    sdk_app_id: int
    task_id: str
    file_key: str
    state: str
    due_at_us: int
    deadline_at_us: int
    attempts: int
    lease_holder: str | None
    leased_until_us: int | None
    planned_at_us: int
    number: int
    name: str
    url: str
    address_from: AddressSource
    announced_size: int | None
    details: dict[str, Any]
    outcome: FileOutcome | None
    reason: str | None
    failing_since_us: int | None
    failing_at: Step | None
    not_found: int
    fetched_bytes: int
    size: int | None
    etag: str | None
    last_modified_at: int | None
    sha256: str | None
    crc64: str | None
    checked: tuple[str, ...]
    staged_on: str | None
    is_staged: bool
    upload_id: str | None
    location: str | None
    archived_at_us: int | None
    claimed_at_us: int = 0
    folder: str = ""

    @property
    def key(self) -> FileKey:
        """The key of its row."""
        return self.sdk_app_id, self.task_id, self.file_key


class ManifestWork(Struct, frozen=True, kw_only=True):
    """A recording whose files are done, so that its manifest can be written: `files` in the order of their numbers.

    `recording` is None if no event of it is kept, as after `restore_archive` into an empty store. `archived_at_us` is
    not None if the manifest was written before, with all files archived, and no file came since.
    """

    sdk_app_id: int
    task_id: str
    attempts: int
    folder: str
    planned_active_at_us: int | None
    planned_answered_at_us: int | None
    files_changed_at_us: int | None
    manifest_at_us: int | None
    archived_at_us: int | None
    location: str | None
    claimed_at_us: int
    files: tuple[ArchiveFile, ...]
    recording: Recording | None

    @property
    def key(self) -> RecordingKey:
        """The key of its row."""
        return self.sdk_app_id, self.task_id


#: Sooner than a lease ends, even one that has run out already: so whoever has it does not pass over what is new.
AT_ONCE: Final = case((_file.leased_until_us <= now_us(), _file.leased_until_us - 1), else_=now_us())


async def lock_archived(connection: AsyncConnection, keys: Sequence[RecordingKey]) -> None:
    """Let nobody else change which files of these recordings are due until the transaction ends."""
    locking = select(_archived.sdk_app_id).order_by(_archived.sdk_app_id, _archived.task_id).with_for_update()
    for part in chunks(keys, MAX_VALUES):
        await connection.execute(locking.where(is_among(archived_recordings, part)))


async def end_files(
    connection: AsyncConnection, keys: Sequence[RecordingKey], *conditions: ColumnElement[bool]
) -> None:
    """Make due those of locked recordings none of whose files is due: their manifests are to be written."""
    at_once = case((_archived.leased_until_us <= now_us(), _archived.leased_until_us - 1), else_=now_us())
    ending = update(archived_recordings).values(
        state=DUE, due_at_us=at_once, deadline_at_us=now_us(), attempts=0, files_changed_at_us=now_us()
    )
    await connection.execute(ending.where(is_among(archived_recordings, keys), ~has_due_files(), *conditions))


def has_due_files() -> Exists:
    """Say whether a file of a recording of `archived_recordings` is due."""
    # Not as a parameter: a plan that is made for every value does not use the index of one.
    is_due = _file.state == literal_column(f"'{DUE}'")
    return exists().where(is_same(archived_files, archived_recordings), is_due)


def is_same(one: Table, other: Table) -> ColumnElement[bool]:
    """Say whether rows of two tables are of the same recording."""
    return and_(one.c.sdk_app_id == other.c.sdk_app_id, one.c.task_id == other.c.task_id)


def is_among(table: Table, keys: Sequence[RecordingKey]) -> ColumnElement[bool]:
    """Say whether a row is of one of these recordings."""
    return tuple_(table.c.sdk_app_id, table.c.task_id).in_(keys)


def _is(key: FileKey) -> ColumnElement[bool]:
    return and_(_file.sdk_app_id == key[0], _file.task_id == key[1], _file.file_key == key[2])


async def claim_files(
    store: Store,
    *,
    lease_holder: str,
    lease_s: float,
    limit: int,
    staged_on: str,
    can_fetch: bool,
    can_place: bool,
    recording: RecordingKey | None = None,
) -> list[ArchiveFile]:
    """Lease at most `limit` files that are due to `lease_holder`, those that the vendor deletes first; see `claim_due`.

    What is not staged yet only if it `can_fetch`, what is staged only if it `can_place`; only those of `recording`, if
    given. `staged_on` names the claimer's staging folder. A file of which another one has a part is left to that one's
    workers for `STAGED_ELSEWHERE_S` beyond the time at which it was due; then it is taken over, and to be fetched from
    its start: nothing is known of what was fetched, and `staged_on` is None.
    """
    is_elsewhere = and_(_file.staged_on.is_not(None), _file.staged_on != staged_on)
    is_left = _file.due_at_us <= select(now_us() - _us(STAGED_ELSEWHERE_S)).scalar_subquery()
    ways = []
    if can_fetch:
        ways += [and_(~_file.is_staged, or_(_file.staged_on.is_(None), ~is_elsewhere)), and_(is_elsewhere, is_left)]
    if can_place:
        ways.append(and_(_file.is_staged, or_(_file.staged_on.is_(None), ~is_elsewhere)))
    if not ways:
        return []
    conditions = [or_(*ways)]
    if recording is not None:
        conditions += [_file.sdk_app_id == recording[0], _file.task_id == recording[1]]
    rows = await claim_due(
        store,
        archived_files,
        *conditions,
        lease_holder=lease_holder,
        lease_s=lease_s,
        limit=limit,
        **{
            name: case((is_elsewhere, value), else_=_file[name])
            for name, value in {**NOTHING_FETCHED, "staged_on": null()}.items()
        },
    )
    if not rows:
        return []
    keys = sorted({(row["sdk_app_id"], row["task_id"]) for row in rows})
    folders: dict[RecordingKey, str] = {}
    async with store.reading() as connection:
        for part in chunks(keys, MAX_VALUES):
            named = select(_archived.sdk_app_id, _archived.task_id, _archived.folder)
            for row in await connection.execute(named.where(is_among(archived_recordings, part))):
                folders[row.sdk_app_id, row.task_id] = row.folder
    # One whose recording was forgotten in between is nobody's any more.
    return [
        msgspec.convert(row | {"folder": folders[key]}, ArchiveFile)
        for row in rows
        if (key := (row["sdk_app_id"], row["task_id"])) in folders
    ]


async def has_waiting_files(store: Store, *, staged_on: str) -> bool:
    """Say whether a file could be claimed now to be fetched into a folder."""
    is_here = or_(_file.staged_on.is_(None), _file.staged_on == staged_on)
    return await next_due_in_s(store, archived_files, ~_file.is_staged, is_here) == 0


async def list_begun_files(store: Store, *, staged_on: str) -> list[FileKey]:
    """Return the keys of files of which a part may lie in a folder that nobody works on, and not all of it."""
    query = select(_file.sdk_app_id, _file.task_id, _file.file_key).where(
        _file.state == literal_column(f"'{DUE}'"),
        ~_file.is_staged,
        _file.staged_on == staged_on,
        _file.lease_holder.is_(None),
    )
    async with store.reading() as connection:
        return [tuple(row) for row in await connection.execute(query)]


async def list_staged_files(store: Store, *, staged_on: str) -> list[FileKey]:
    """Return the keys of all files that may have a part in a folder: other parts there are left over.

    Those that somebody works on are among them, as a part is there before a row tells of it. However many files are
    due, these are no more than there are parts and workers.
    """
    query = select(_file.sdk_app_id, _file.task_id, _file.file_key).where(
        _file.state == literal_column(f"'{DUE}'"),
        or_(_file.staged_on == staged_on, _file.lease_holder.is_not(None)),
    )
    async with store.reading() as connection:
        return [tuple(row) for row in await connection.execute(query)]


#: What is known of a file of which nothing was fetched. Its entity tag goes, too: it is that of the part.
NOTHING_FETCHED: Final[dict[str, Any]] = {
    "fetched_bytes": 0,
    "is_staged": False,
    "etag": null(),
    "size": null(),
    "sha256": null(),
    "crc64": null(),
    "checked": literal([], type_=_file.checked.type),
}


async def note_file(
    store: Store, key: FileKey, *, lease_holder: str, fetched_from: Address | None = None, **values: Any
) -> bool:
    """Set columns of a leased file, which stays leased. Returns whether it was the lease holder's, as in `postpone`.

    With `fetched_from` nothing is set, either, once the vendor has named another address than that of a callback.
    """
    noting = (
        update(archived_files)
        .where(_is(key), _file.state == DUE, _file.lease_holder == lease_holder, ~_is_outranked(fetched_from))
        .values(storable_values(values))
    )
    return bool((await store.write(lambda connection: connection.execute(noting))).rowcount)


async def postpone_file(
    store: Store,
    key: FileKey,
    *,
    lease_holder: str,
    after_s: float,
    reason: str | None = None,
    failing_at: Step | None = None,
    **values: Any,
) -> bool:
    """Let go of a file, which is due again `after_s` seconds from now; see `postpone`.

    With `failing_at` it has failed there, for `reason`, since now or since it first did so. Without, it was only let
    go. `values` are set too. Returns whether it was the lease holder's.
    """
    if failing_at is not None:
        goes_on = and_(_file.failing_at == failing_at, _file.failing_since_us.is_not(None))
        since_us = case((goes_on, _file.failing_since_us), else_=now_us())
        values = {"failing_since_us": since_us, "failing_at": failing_at, "reason": reason} | values
    return await postpone(
        store, archived_files, key, lease_holder=lease_holder, after_s=after_s, **storable_values(values)
    )


def _is_outranked(fetched_from: Address | None) -> ColumnElement[bool]:
    """Say whether a file has the vendor's address by now, and was fetched from a callback's other one."""
    if fetched_from is None or fetched_from[0] == "vendor":
        return false()
    return and_(_file.address_from == "vendor", _file.url != fetched_from[1])


async def finish_file(
    store: Store,
    key: FileKey,
    *,
    lease_holder: str,
    outcome: FileOutcome,
    reason: str | None = None,
    fetched_from: Address | None = None,
    **values: Any,
) -> bool:
    """Let go of a file for good, and make its recording's manifest due if no file of it is due any more.

    `values` are set too, in the same transaction. A file that is lost or refused stays due, without outcome, if
    somebody wanted it sooner meanwhile, as it has another address now; an archived one does only if it was
    `fetched_from` a callback's address, and the vendor has named another one. Returns whether it
    was the lease holder's; if not, nothing is changed. Raises `StoreUnavailableError` and `SchemaMismatchError`.
    """
    is_wanted = or_(
        and_(literal(outcome != "archived"), _file.due_at_us < _file.leased_until_us), _is_outranked(fetched_from)
    )
    finishing = (
        update(archived_files)
        .where(_is(key), _file.state == DUE, _file.lease_holder == lease_holder)
        .values(
            {"is_staged": False, "staged_on": None, "upload_id": None, "failing_since_us": None, "failing_at": None}
            | ({"archived_at_us": now_us()} if outcome == "archived" else {})
            | storable_values(values)
            | {
                "reason": None if reason is None else storable(reason),
                "state": case((is_wanted, DUE), else_=DONE),
                "outcome": case((is_wanted, null()), else_=outcome),
                "lease_holder": None,
                "leased_until_us": None,
            }
        )
    )

    async def operation(connection: AsyncConnection) -> bool:
        await lock_archived(connection, [key[:2]])
        if not (await connection.execute(finishing)).rowcount:
            return False
        await end_files(connection, [key[:2]])
        return True

    return await store.write(operation)


async def claim_manifests(
    store: Store, *, lease_holder: str, lease_s: float, limit: int, recording: RecordingKey | None = None
) -> list[ManifestWork]:
    """Lease at most `limit` recordings whose manifests are to be written, those that wait longest; see `claim_due`.

    Only `recording`, if given. None of their files is due. One that is planned meanwhile is not among `files`, and
    makes the recording due again when it is done.
    """
    conditions = [~has_due_files()]
    if recording is not None:
        conditions += [_archived.sdk_app_id == recording[0], _archived.task_id == recording[1]]
    claimed = await claim_due(
        store, archived_recordings, *conditions, lease_holder=lease_holder, lease_s=lease_s, limit=limit
    )
    keys = [(row["sdk_app_id"], row["task_id"]) for row in claimed]
    files: dict[RecordingKey, list[ArchiveFile]] = {key: [] for key in keys}
    found: dict[RecordingKey, Recording] = {}
    async with store.reading() as connection:
        for part in chunks(sorted(keys), MAX_VALUES):
            done = select(archived_files).where(is_among(archived_files, part), _file.outcome.is_not(None))
            for row in await connection.execute(done.order_by(_file.number)):
                files[row.sdk_app_id, row.task_id].append(msgspec.convert(members(row), ArchiveFile))
            rows = (await connection.execute(select(recordings).where(is_among(recordings, part)))).all()
            for one in await read_recordings(store.dialect, connection, rows):
                found[one.sdk_app_id, one.task_id] = one
    return [
        msgspec.convert(row | {"files": files[key], "recording": found.get(key)}, ManifestWork)
        for key, row in zip(keys, claimed, strict=True)
    ]


async def finish_manifest(
    store: Store, key: RecordingKey, *, lease_holder: str, location: str, archived_at_us: int | None
) -> bool:
    """Keep that a manifest was written, to `location`; it is due again if files came meanwhile, see `finish`.

    `archived_at_us` is when the whole recording was archived, None if files are missing; it is kept only while all
    files of it are archived. Returns whether it was the lease holder's.
    """
    is_missing_files = exists().where(
        is_same(archived_files, archived_recordings), _file.outcome.is_distinct_from("archived")
    )
    return await finish(
        store,
        archived_recordings,
        key,
        lease_holder=lease_holder,
        location=storable(location),
        manifest_at_us=now_us(),
        # With its type: PostgreSQL takes two NULLs for text.
        archived_at_us=case((is_missing_files, null()), else_=literal(archived_at_us, _archived.archived_at_us.type)),
    )


async def postpone_manifest(store: Store, key: RecordingKey, *, lease_holder: str, after_s: float) -> bool:
    """Write a manifest `after_s` seconds from now, or sooner if files came meanwhile; see `postpone`."""
    return await postpone(store, archived_recordings, key, lease_holder=lease_holder, after_s=after_s)


_KEY: Final = (_file.sdk_app_id, _file.task_id, _file.file_key)

_has_ended = _file.outcome.is_not(None)

#: A file that is tried again. Of one that had ended nothing is staged, and what is at the target is no more trusted.
_RETRIED: Final[dict[str, Any]] = {
    "state": DUE,
    "outcome": None,
    "due_at_us": AT_ONCE,
    "attempts": 0,
    "not_found": 0,
    **{name: case((_has_ended, value), else_=_file[name]) for name, value in NOTHING_FETCHED.items()},
    "archived_at_us": case((_has_ended, null()), else_=_file.archived_at_us),
}


async def retry_files(
    store: Store,
    *,
    task_id: str | None = None,
    app: int | None = None,
    outcomes: Collection[FileOutcome] = ("lost", "refused"),
    also_due: bool = True,
    names: Collection[str] | None = None,
) -> int:
    """Make files due now whose outcome is one of these, and with `also_due` those that wait; return how many.

    Only those of these `names`, if given. Their attempts count anew. A file that was archived is fetched anew: what
    is at the target is no more trusted. Its recording is planned anew, too: the vendor may have named another address
    since, of which an archived file takes no notice. Raises `StoreUnavailableError` and `SchemaMismatchError`.
    """
    ended = _file.outcome.in_(outcomes)
    retrying = (
        update(archived_files)
        .where(or_(ended, _file.state == literal_column(f"'{DUE}'")) if also_due else ended)
        .values(_RETRIED)
    )
    planning = update(archived_recordings).values(planned_active_at_us=None)
    if task_id is not None:
        retrying, planning = retrying.where(_file.task_id == task_id), planning.where(_archived.task_id == task_id)
    if app is not None:
        retrying, planning = retrying.where(_file.sdk_app_id == app), planning.where(_archived.sdk_app_id == app)
    if names is not None:
        retrying = retrying.where(_file.name.in_(names))

    async def operation(connection: AsyncConnection) -> int:
        if "archived" in outcomes:
            await connection.execute(planning)
        return (await connection.execute(retrying)).rowcount

    return await store.write(operation)


class RefusedFile(Struct, frozen=True, kw_only=True):
    """A file that was refused, and its address."""

    key: FileKey
    url: str
    address_from: AddressSource


async def list_refused_files(store: Store) -> list[RefusedFile]:
    """Return all files that were refused. Raises `StoreUnavailableError` and `SchemaMismatchError`."""
    query = select(*_KEY, _file.url, _file.address_from).where(_file.outcome == "refused")
    async with store.reading() as connection:
        return [
            RefusedFile(key=(row.sdk_app_id, row.task_id, row.file_key), url=row.url, address_from=row.address_from)
            for row in await connection.execute(query)
        ]


async def retry_refused_files(store: Store, keys: Sequence[FileKey]) -> int:
    """Make these files due now, as far as they are refused; see `retry_files`."""
    retrying = update(archived_files).where(_file.outcome == "refused").values(_RETRIED)

    async def operation(connection: AsyncConnection) -> int:
        count = 0
        for part in chunks(sorted(keys), MAX_VALUES):
            count += (await connection.execute(retrying.where(tuple_(*_KEY).in_(part)))).rowcount
        return count

    return await store.write(operation)


def storable_values(values: dict[str, Any]) -> dict[str, Any]:
    """Return values of columns as SQL can hold them; see `storable`."""
    return {name: storable(value) if isinstance(value, str) else value for name, value in values.items()}


def _us(seconds: float) -> int:
    return round(seconds * 1_000_000)
