"""Which files of recordings are to be archived: planned of what the vendor says, or restored from manifests.

See `store.archiving` for what becomes of them.
"""

from collections.abc import Collection, Sequence
from functools import cache
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import (
    ColumnElement,
    TextClause,
    Update,
    and_,
    bindparam,
    case,
    func,
    literal,
    literal_column,
    null,
    or_,
    select,
    update,
)

from schemas import Manifest, RecordingStatus
from store.archiving import (
    AT_ONCE,
    NOTHING_FETCHED,
    AddressSource,
    end_files,
    has_due_files,
    is_among,
    is_same,
    lock_archived,
    storable_values,
)
from store.connection import AsyncConnection
from store.reading import is_test, read_recordings
from store.recording import Recording
from store.statements import Dialect, RecordingKey
from store.store import MAX_VALUES, Store, chunks, now_us
from store.tables import (
    DONE,
    DUE,
    archived_files,
    archived_recordings,
    microseconds,
    recording_questions,
    recordings,
    storable,
)

_file = archived_files.c
_archived = archived_recordings.c


class UnplannedRecording(Struct, frozen=True, kw_only=True):
    """A finished recording whose files are to be planned, or planned anew as something of it has changed.

    `answer` is what the vendor answered when it was asked of it, as the body of a Finished event; None if there is no
    such answer. `active_at_us` and `answered_at_us` belong into the plan.
    """

    sdk_app_id: int
    task_id: str
    recording: Recording
    answer: bytes | None
    active_at_us: int
    answered_at_us: int | None


class PlannedFile(Struct, frozen=True, kw_only=True):
    """A file to archive: what identifies it, where it goes, where it is, and when the vendor deletes it.

    `number` and `name` are its own within the recording. `details` are members of `schemas.ManifestFile`: `video_id`,
    `video_type` and the like.
    """

    file_key: str
    number: int
    name: str
    url: str
    address_from: AddressSource
    announced_size: int | None = None
    details: dict[str, Any] = {}
    deleted_at_us: int


class ArchivePlan(Struct, frozen=True, kw_only=True):
    """The files of one recording, as they follow from what an `UnplannedRecording` says."""

    sdk_app_id: int
    task_id: str
    folder: str
    active_at_us: int
    answered_at_us: int | None = None
    files: tuple[PlannedFile, ...] = ()


async def find_unplanned(
    store: Store,
    *,
    apps: Collection[int] | None = None,
    since_us: int,
    needs_answer: bool,
    unanswered_until_us: int | None = None,
    limit: int,
) -> list[UnplannedRecording]:
    """Return recordings that are finished without error, and not planned as they are now, the least active first.

    Only those of `apps`, if given, whose latest event was accepted at `since_us` or later, and none of a test. One that
    the vendor contradicts is left out unless there is an answer. With `needs_answer`, so is one without an answer,
    unless its latest event was accepted at `unanswered_until_us` or earlier: nobody waits for an answer for ever.
    Raises `StoreUnavailableError` and `SchemaMismatchError`.
    """
    question = recording_questions.c
    answered_at_us = case((question.answer.is_not(None), question.answered_at_us))
    is_waited_for: ColumnElement[bool] = question.answer.is_(None)
    if unanswered_until_us is not None:
        is_waited_for = and_(is_waited_for, recordings.c.active_at_us > unanswered_until_us)
    query = (
        select(recordings, question.answer, answered_at_us.label("answered_at_us"))
        .select_from(
            recordings.outerjoin(archived_recordings, is_same(archived_recordings, recordings)).outerjoin(
                recording_questions, is_same(recording_questions, recordings)
            )
        )
        .where(
            recordings.c.status == literal_column(f"'{RecordingStatus.FINISHED.value}'"),
            ~recordings.c.failed,
            recordings.c.active_at_us >= since_us,
            ~is_test(recordings),
            or_(recordings.c.verified.is_(None), recordings.c.verified, question.answer.is_not(None)),
            # Not `older`: what was found to be forged since does not count any more.
            or_(
                _archived.planned_active_at_us.is_distinct_from(recordings.c.active_at_us),
                _archived.planned_answered_at_us.is_distinct_from(answered_at_us),
            ),
            *([~is_waited_for] if needs_answer else []),
            *([] if apps is None else [recordings.c.sdk_app_id.in_(apps)]),
        )
        .order_by(recordings.c.active_at_us, recordings.c.sdk_app_id, recordings.c.task_id)
        .limit(limit)
    )
    async with store.reading() as connection:
        rows = (await connection.execute(query)).all()
        found = await read_recordings(store.dialect, connection, rows)
    return [
        UnplannedRecording(
            sdk_app_id=row.sdk_app_id,
            task_id=row.task_id,
            recording=recording,
            answer=row.answer,
            active_at_us=row.active_at_us,
            answered_at_us=row.answered_at_us,
        )
        for row, recording in zip(rows, found, strict=True)
    ]


async def known_archive_numbers(
    store: Store, keys: Collection[RecordingKey]
) -> dict[RecordingKey, dict[str, tuple[int, str]]]:
    """Return the number and name that each planned file of these recordings has, by file_key."""
    async with store.reading() as connection:
        return await _numbers(connection, keys)


async def plan_archive(store: Store, plans: Sequence[ArchivePlan]) -> frozenset[RecordingKey]:
    """Make the files of recordings due, in one transaction, durable on return; return the recordings that are planned.

    Idempotent, by any number of processes. A new file is due now. One that is known by its file_key is never planned
    twice: an archived one stays as it is; another one takes the new address, unless that is a callback's and it has
    the vendor's, and is due anew if that is another address. Its number and name stay, and so does the folder of a
    known recording. A file that is no longer named stays, too.

    Not planned is a recording of whose files one would have the number or name of another, which somebody planned
    meanwhile: `find_unplanned` finds it again. Raises `StoreUnavailableError` and `SchemaMismatchError`.
    """
    by_key = {(plan.sdk_app_id, plan.task_id): plan for plan in plans}

    async def operation(connection: AsyncConnection) -> frozenset[RecordingKey]:
        # In the order of their keys, as everybody: nobody waits in a circle.
        keys = sorted(by_key)
        await connection.execute(_adding_recording(store.dialect), [_recording_row(by_key[key]) for key in keys])
        await lock_archived(connection, keys)
        known = await _numbers(connection, keys)
        planned = [key for key in keys if _is_free_of_clashes(by_key[key], known[key])]
        rows = [
            _file_row(by_key[key], file, known[key].get(file.file_key)) for key in planned for file in by_key[key].files
        ]
        if rows:
            rows.sort(key=lambda row: (row["sdk_app_id"], row["task_id"], row["file_key"]))
            await connection.execute(_planning(store.dialect), rows)
        for part in chunks(planned, MAX_VALUES):
            await connection.execute(_noting_plan(), [_plan_row(by_key[key]) for key in part])
            await end_files(connection, part, _archived.state == DONE, _archived.manifest_at_us.is_(None))
        return frozenset(planned)

    return await store.write(operation) if by_key else frozenset()


def _is_free_of_clashes(plan: ArchivePlan, known: dict[str, tuple[int, str]]) -> bool:
    new = {file.file_key: (file.number, file.name) for file in plan.files if file.file_key not in known}
    numbers = {number for number, _ in (*known.values(), *new.values())}
    # A folder may take two names for one that differ only in case.
    names = {name.casefold() for _, name in (*known.values(), *new.values())}
    known_numbers = {number for number, _ in known.values()}
    known_names = {name.casefold() for _, name in known.values()}
    return len(numbers) - len(known_numbers) == len(new) == len(names) - len(known_names)


def _recording_row(plan: ArchivePlan) -> dict[str, Any]:
    return {"sdk_app_id": plan.sdk_app_id, "task_id": plan.task_id, "folder": storable(plan.folder)}


def _plan_row(plan: ArchivePlan) -> dict[str, Any]:
    return {
        "of_app": plan.sdk_app_id,
        "of_task": plan.task_id,
        "new_active_at_us": plan.active_at_us,
        "new_answered_at_us": plan.answered_at_us,
    }


def _file_row(plan: ArchivePlan, file: PlannedFile, known: tuple[int, str] | None) -> dict[str, Any]:
    number, name = known or (file.number, storable(file.name))
    return {
        "sdk_app_id": plan.sdk_app_id,
        "task_id": plan.task_id,
        "file_key": file.file_key,
        "deadline_at_us": file.deleted_at_us,
        "number": number,
        "name": name,
        "url": storable(file.url),
        "address_from": file.address_from,
        "announced_size": file.announced_size,
        "details": file.details,
    }


@cache
def _adding_recording(dialect: Dialect) -> TextClause:
    """Let a recording have a row. It is done: there is nothing to do for it itself as long as files are due."""
    given = {name: bindparam(name, type_=_archived[name].type) for name in ("sdk_app_id", "task_id", "folder")}
    insert = dialect.insert(archived_recordings).values(
        given | {"state": DONE, "due_at_us": now_us(), "deadline_at_us": now_us(), "attempts": 0}
    )
    return dialect.render(insert.on_conflict_do_nothing())


@cache
def _planning(dialect: Dialect) -> TextClause:
    """Plan one file; prepared once, as a statement with many rows takes long to be composed."""
    given = (
        *("sdk_app_id", "task_id", "file_key", "deadline_at_us", "number", "name"),
        *("url", "address_from", "announced_size", "details"),
    )
    insert = dialect.insert(archived_files).values(
        _NEW_FILE
        | {"state": DUE, "due_at_us": now_us(), "planned_at_us": now_us()}
        | {name: bindparam(name, type_=_file[name].type) for name in given}
    )
    new = insert.excluded
    is_moved = or_(new.url != _file.url, new.address_from != _file.address_from)
    has_ended = _file.state == DONE
    is_first_word = and_(_file.last_modified_at.is_(None), ~has_ended)
    # What came from a callback's address is none of the vendor's, if that is another.
    is_outranked = and_(new.address_from == "vendor", _file.address_from != "vendor", new.url != _file.url)
    upsert = insert.on_conflict_do_update(
        index_elements=[*archived_files.primary_key],
        set_={
            "url": new.url,
            "address_from": new.address_from,
            "announced_size": func.coalesce(new.announced_size, _file.announced_size),
            "details": new.details,
            "state": case((is_moved, DUE), else_=_file.state),
            "due_at_us": case((is_moved, AT_ONCE), else_=_file.due_at_us),
            # What the source itself said of its age tells more.
            "deadline_at_us": case(
                (or_(is_first_word, and_(has_ended, is_moved)), new.deadline_at_us), else_=_file.deadline_at_us
            ),
            "attempts": case((is_moved, 0), else_=_file.attempts),
            "not_found": case((is_moved, 0), else_=_file.not_found),
            "outcome": case((is_moved, null()), else_=_file.outcome),
            **{
                name: case((is_outranked, value), else_=_file[name])
                for name, value in {**NOTHING_FETCHED, "last_modified_at": null(), "upload_id": null()}.items()
            },
        },
        where=and_(
            _file.outcome.is_distinct_from("archived"),
            or_(~_file.is_staged, new.address_from != _file.address_from),
            or_(new.address_from == "vendor", _file.address_from != "vendor"),
        ),
    )
    return dialect.render(upsert)


_NEW_FILE: Final[dict[str, Any]] = {
    "attempts": 0,
    "not_found": 0,
    "fetched_bytes": 0,
    "is_staged": False,
    "checked": literal([], type_=_file.checked.type),
}


@cache
def _noting_plan() -> Update:
    return (
        update(archived_recordings)
        .where(_archived.sdk_app_id == bindparam("of_app"), _archived.task_id == bindparam("of_task"))
        .values(
            planned_active_at_us=bindparam("new_active_at_us"),
            planned_answered_at_us=bindparam("new_answered_at_us"),
            archived_at_us=case((has_due_files(), null()), else_=_archived.archived_at_us),
        )
    )


async def _numbers(
    connection: AsyncConnection, keys: Collection[RecordingKey]
) -> dict[RecordingKey, dict[str, tuple[int, str]]]:
    known: dict[RecordingKey, dict[str, tuple[int, str]]] = {key: {} for key in keys}
    query = select(_file.sdk_app_id, _file.task_id, _file.file_key, _file.number, _file.name)
    for part in chunks(sorted(known), MAX_VALUES):
        for row in await connection.execute(query.where(is_among(archived_files, part))):
            known[row.sdk_app_id, row.task_id][row.file_key] = (row.number, row.name)
    return known


_KEY: Final = ("sdk_app_id", "task_id")

#: What is known of an archived file.
_PROVED: Final = ("size", "etag", "last_modified_at", "sha256", "crc64", "checked", "location", "archived_at_us")


async def restore_archive(store: Store, manifests: Sequence[Manifest]) -> int:
    """Make the rows of what manifests tell, in one transaction; return how many files are news.

    Idempotent. What is known already stays, but for a file that is archived by its manifest and not by its row, which
    is archived from then on, and for where a file lies: it lies beside its manifest. Raises `StoreUnavailableError` and
    `SchemaMismatchError`.
    """
    by_key = {(one.sdk_app_id, one.task_id): one for one in manifests}

    async def operation(connection: AsyncConnection) -> int:
        keys = sorted(by_key)
        rows = [_restored_recording(by_key[key]) for key in keys]
        await connection.execute(_restoring_recording(store.dialect), rows)
        await lock_archived(connection, keys)
        restoring, count = _restoring_file(store.dialect), 0
        for key in keys:
            changed = 0
            for row in _restored_files(by_key[key]):
                changed += (await connection.execute(restoring, row)).rowcount
            count += await _move(connection, by_key[key])
            if changed:
                # What was due is not any more. A manifest of now, if it is not known here, needs not be written again.
                older = or_(_archived.manifest_at_us.is_(None), _archived.planned_active_at_us.is_not(None))
                await end_files(connection, [key], older)
            count += changed
        return count

    return await store.write(operation) if by_key else 0


async def _move(connection: AsyncConnection, manifest: Manifest) -> int:
    """Let the rows of archived files say where the same ones lie now; return how many said something else.

    Only below the folder that is the recording's: others are looked for there, and not beside the manifest.
    """
    recording = and_(_archived.sdk_app_id == manifest.sdk_app_id, _archived.task_id == manifest.task_id)
    location = storable(manifest.location)
    moving = (
        update(archived_recordings)
        .where(recording, _archived.folder == storable(manifest.folder))
        .values(location=case((_archived.manifest_at_us.is_not(None), location), else_=_archived.location))
    )
    if not (await connection.execute(moving)).rowcount:
        return 0
    count = 0
    for row in _restored_files(manifest):
        if row["outcome"] == "archived":
            is_same_file = and_(*(_file[name] == row[name] for name in (*_KEY, "file_key", "name", "sha256")))
            is_elsewhere = _file.location.is_distinct_from(row["location"])
            moved = update(archived_files).where(is_same_file, _file.outcome == "archived", is_elsewhere)
            count += (await connection.execute(moved.values(location=row["location"]))).rowcount
    return count


def _restored_recording(manifest: Manifest) -> dict[str, Any]:
    at_us = microseconds(manifest.archived_at)
    is_whole = all(file.outcome == "archived" for file in manifest.files)
    return {
        "sdk_app_id": manifest.sdk_app_id,
        "task_id": manifest.task_id,
        "folder": storable(manifest.folder),
        "files_changed_at_us": at_us,
        "manifest_at_us": at_us,
        "archived_at_us": at_us if is_whole else None,
        "location": storable(manifest.location),
    }


_DETAILS: Final = (
    "video_id",
    "video_type",
    "video_format",
    "user_id",
    "width",
    "height",
    "starts_at_ms",
    "duration_ms",
)


def _restored_files(manifest: Manifest) -> list[dict[str, Any]]:
    rows = []
    for number, file in enumerate(manifest.files, start=1):
        at_us = None if file.archived_at is None else microseconds(file.archived_at)
        modified_us = None if file.last_modified is None else microseconds(file.last_modified)
        row = {
            "sdk_app_id": manifest.sdk_app_id,
            "task_id": manifest.task_id,
            "file_key": file.file_key,
            "deadline_at_us": at_us or microseconds(manifest.archived_at),
            "number": _number(file.name) or number,
            "name": file.name,
            "url": file.url or "",
            # Not the vendor's word, which may lead to any host: a manifest may be anybody's.
            "address_from": "callback",
            "announced_size": file.announced_size,
            "details": {name: getattr(file, name) for name in _DETAILS},
            "outcome": file.outcome,
            "reason": file.reason,
            "size": file.size,
            "etag": file.etag,
            "last_modified_at": None if modified_us is None else modified_us // 1_000_000,
            "sha256": file.sha256,
            "crc64": file.crc64,
            "checked": list(file.checked),
            "location": f"{manifest.location.rstrip('/')}/{file.name}" if file.outcome == "archived" else None,
            "archived_at_us": at_us,
        }
        rows.append(storable_values(row))
    return sorted(rows, key=lambda row: str(row["file_key"]))


def _number(name: str) -> int | None:
    """Return the number with which a file's name begins."""
    digits = name.partition("_")[0]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= _MAX_DIGITS else None


#: A name with more has no number of ours.
_MAX_DIGITS: Final = 9


@cache
def _restoring_recording(dialect: Dialect) -> TextClause:
    given = (*_KEY, "folder", "files_changed_at_us", "manifest_at_us", "archived_at_us", "location")
    insert = dialect.insert(archived_recordings).values(
        {name: bindparam(name, type_=_archived[name].type) for name in given}
        | {"state": DONE, "due_at_us": now_us(), "deadline_at_us": now_us(), "attempts": 0}
    )
    return dialect.render(insert.on_conflict_do_nothing())


@cache
def _restoring_file(dialect: Dialect) -> TextClause:
    """Insert a file of a manifest, or let one that is not archived be archived."""
    given = (
        *(*_KEY, "file_key", "deadline_at_us", "number", "name", "url", "address_from", "announced_size"),
        *("details", "outcome", "reason", *_PROVED),
    )
    insert = dialect.insert(archived_files).values(
        {name: value for name, value in _NEW_FILE.items() if name != "checked"}
        | {"state": DONE, "due_at_us": now_us(), "planned_at_us": now_us()}
        | {name: bindparam(name, type_=_file[name].type) for name in given}
    )
    new = insert.excluded
    upsert = insert.on_conflict_do_update(
        index_elements=[*archived_files.primary_key],
        set_={name: new[name] for name in ("state", "name", "outcome", "reason", *_PROVED)}
        | {name: null() for name in ("lease_holder", "leased_until_us", "failing_since_us", "failing_at")}
        | {name: null() for name in ("staged_on", "upload_id")}
        | {"is_staged": False},
        where=and_(new.outcome == "archived", _file.outcome.is_distinct_from("archived")),
    )
    return dialect.render(upsert)
