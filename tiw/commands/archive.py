"""`tiw archive run|list|fetch|retry|verify|rebuild`: keep every file of every recording."""

import argparse
import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Final

import structlog
from msgspec import Struct, structs

from archive import CheckedFile, ExpectedFile, FoundManifest, Place, PlaceError, check_file
from archive import rebuild as rebuild_rows
from store import ArchiveFileRow, Store, check_schema, is_manifest_due, list_archive_files, retry_files
from telemetry import Readiness, configure_logging
from tiw.opening import archiving, open_store, open_target, open_transport, require_amqp, require_archive, serve_admin
from tiw.output import (
    nothing,
    parse_since_us,
    print_json,
    print_lines,
    print_table,
    show_bytes,
    show_iso,
)
from tiw.process import return_freed_memory, settle, stop_requests
from tiw.settings import FailedError, Settings, UsageError

#: How often what is shown of a recording is brought up to date.
_LOOK_EVERY_S: Final = 0.5

#: How long a recording's manifest is waited for once its files are settled: its target may go away just then.
_MANIFEST_S: Final = 15.0

#: What is said of a file that lies where TIW_ARCHIVE pointed to before.
_MOVED: Final = "it was archived as"

_log = structlog.get_logger()


async def run(settings: Settings, args: argparse.Namespace) -> int:
    """Archive until SIGTERM; without TIW_ARCHIVE, do nothing until then."""
    del args
    configure_logging(settings.log_format)
    return_freed_memory()
    require_amqp(settings, "archive run")
    stopped = await stop_requests()
    async with AsyncExitStack() as stack:
        if settings.archive is None:
            # A service that ended would be started again and again.
            _log.info("archive_idle", advice="TIW_ARCHIVE names no folder and no bucket: set it, and start this again")
            await serve_admin(stack, settings, Readiness)
        else:
            store = await stack.enter_async_context(open_store(settings, may_be_new=True))
            transport = await stack.enter_async_context(open_transport(settings, may_be_new=True))
            archiver = await stack.enter_async_context(archiving(settings, store=store, transport=transport))
            await serve_admin(stack, settings, archiver.ready)
            await stack.enter_async_context(archiver)
        settle()
        await stopped.wait()
    return 0


async def list_all(settings: Settings, args: argparse.Namespace) -> int:
    """Print files, those of the recording that ended last first."""
    since_us = parse_since_us(args.since)
    async with open_store(settings) as store:
        await check_schema(store)
        files = await list_archive_files(
            store, state=args.state, task_id=args.task, app=args.app, since_us=since_us, limit=args.limit
        )
        # Others may archive into the same store, wherever this terminal's settings point.
        has_any = bool(files or await list_archive_files(store, limit=1))
    if args.json:
        print_json(files)
        return 0
    empty = nothing("files", args.state, args.task, args.app, args.since)
    if settings.archive is None and not has_any:
        empty = f"{empty} TIW_ARCHIVE is not set here: nothing is archived unless a process has it."
    _print_files(files, empty=empty, wide=args.wide)
    return 0


def _print_files(files: Sequence[ArchiveFileRow], *, empty: str, wide: bool = False) -> None:
    print_table(
        ["recording", "file", "state", "size", "to be deleted UTC", "tries", "archived UTC", "why"],
        [
            (
                file.task_id,
                file.name,
                _progress(file),
                show_bytes(file.size),
                "" if file.state == "archived" else show_iso(file.deleted_at),
                file.attempts,
                None if file.archived_at is None else show_iso(file.archived_at),
                file.reason,
            )
            for file in files
        ],
        empty=empty,
        spare=["tries", "archived UTC", "size"],
        wide=wide,
    )


def _progress(file: ArchiveFileRow) -> str:
    if file.state in ("waiting", "fetching") and file.fetched_bytes and file.size:
        return f"{file.state} {100 * file.fetched_bytes // file.size} %"
    return file.state


class FetchReport(Struct, frozen=True, kw_only=True):
    """What became of the files of one recording."""

    files: list[ArchiveFileRow]
    archived: int
    missing: int


async def fetch(settings: Settings, args: argparse.Namespace) -> int:
    """Archive the files of one recording now, here or where `tiw up` or `tiw archive run` does; wait for the end.

    Exit code 1 if one of them is not archived then.
    """
    require_archive(settings)
    configure_logging(settings.log_format)
    return_freed_memory()
    stopped = await stop_requests()
    async with open_store(settings) as store, AsyncExitStack() as stack:
        await check_schema(store)
        app = await _app_of(store, args.task_id, args.app)
        await retry_files(store, task_id=args.task_id, app=app)
        if args.again and (damaged := await _damaged(settings, store, args.task_id, app)):
            await retry_files(
                store, task_id=args.task_id, app=app, outcomes=["archived"], also_due=False, names=damaged
            )
        transport = await stack.enter_async_context(open_transport(settings))
        archiver = await stack.enter_async_context(
            archiving(settings, store=store, transport=transport, recording=(app, args.task_id))
        )
        await stack.enter_async_context(archiver)
        files = await _watch(store, args.task_id, app, stopped, is_quiet=args.json)
    report = FetchReport(
        files=files,
        archived=sum(file.state == "archived" for file in files),
        missing=sum(file.state != "archived" for file in files),
    )
    if args.json:
        print_json(report)
    else:
        _print_files(files, empty="The recording has no files.")
        if report.missing and stopped.is_set():
            print_lines(["Interrupted: what is fetched is kept, and the same command or `tiw up` goes on from there."])
    return 0 if files and not report.missing else 1


async def _damaged(settings: Settings, store: Store, task_id: str, app: int) -> list[str]:
    """Return the names of a recording's archived files that are not whole.

    Those that are stay as they are: the vendor may have deleted its own. Raises `FailedError` if the target is away.
    """
    files = await list_archive_files(store, state="archived", task_id=task_id, app=app, limit=0)
    if not files:
        return []
    async with open_target(settings) as place:
        read = [(file.name, await _checked(place, file, lambda _: None)) for file in files]
    return [name for name, checked in read if checked.verdict != "whole"]


async def _app_of(store: Store, task_id: str, app: int | None) -> int:
    """Return the SdkAppId of a recording. Raises `FailedError` if there is none, `UsageError` if there are several."""
    from store import find_recordings  # noqa: PLC0415 - for two commands

    found = [one.sdk_app_id for one in await find_recordings(store, task_id, app=app)]
    if not found:
        raise FailedError(f"no recording {task_id!r} is known: `tiw register` has the vendor asked about one")
    if len(found) > 1:
        raise UsageError(f"{task_id} is one of several applications: add --app, one of {', '.join(map(str, found))}")
    return found[0]


async def _watch(
    store: Store, task_id: str, app: int, stopped: asyncio.Event, *, is_quiet: bool
) -> list[ArchiveFileRow]:
    """Show how far the files are until all are settled and described, or it is to stop; return them."""
    # Imported here and below: Rich takes 4 MB, and `archive run` draws nothing.
    from tiw.progress import make_bars  # noqa: PLC0415

    with make_bars(is_quiet=is_quiet) as bars:
        tasks = {}
        settled_at_s: float | None = None
        while True:
            files = await list_archive_files(store, task_id=task_id, app=app, limit=0)
            for file in files:
                if file.name not in tasks:
                    # With all that a column shows: bars are drawn by a thread of their own, at any time.
                    tasks[file.name] = bars.add_task(file.name, total=file.size, state=_said(file))
                is_here = file.state in ("staged", "archived")
                done = file.size if is_here else file.fetched_bytes
                bars.update(tasks[file.name], total=file.size, completed=done or 0, state=_said(file))
            if stopped.is_set():
                return files
            if files and all(file.state in ("archived", "lost", "refused") for file in files):
                # Its manifest and its page are written now, by this process if no other does.
                settled_at_s = settled_at_s or time.monotonic()
                is_waited_for = time.monotonic() - settled_at_s < _MANIFEST_S
                if not (is_waited_for and await is_manifest_due(store, sdk_app_id=app, task_id=task_id)):
                    return files
            try:
                await asyncio.wait_for(stopped.wait(), _LOOK_EVERY_S)
            except TimeoutError:
                continue


def _said(file: ArchiveFileRow) -> str:
    return f"{file.state}: {file.reason}" if file.reason and file.state != "archived" else file.state


class RetryReport(Struct, frozen=True, kw_only=True):
    """How many files are tried again."""

    files: int


async def retry(settings: Settings, args: argparse.Namespace) -> int:
    """Have what is not archived tried again at once; exit code 1 if no file is of the recording that is named."""
    async with open_store(settings) as store:
        await check_schema(store)
        if args.task_id is not None and not await list_archive_files(
            store, task_id=args.task_id, app=args.app, limit=1
        ):
            of_app = "" if args.app is None else f" of application {args.app}"
            raise FailedError(f"no file of {args.task_id!r}{of_app} is known: `tiw archive list` has those that are")
        count = await retry_files(store, task_id=args.task_id, app=args.app)
    if args.json:
        print_json(RetryReport(files=count))
    else:
        where = "" if settings.archive is not None else "; they are fetched where TIW_ARCHIVE is set"
        print_lines([f"{count} files are tried again{where}" if count else "Nothing is to be tried again."])
    return 0


class VerifyReport(Struct, frozen=True, kw_only=True):
    """How many archived files are whole, and which are not."""

    whole: int
    not_whole: list[CheckedFile]


async def verify(settings: Settings, args: argparse.Namespace) -> int:
    """Read archived files and compare them with what they were; exit code 1 if one is not whole."""
    from tiw.progress import make_bars  # noqa: PLC0415

    stopped = await stop_requests()
    read: list[CheckedFile] = []
    async with open_store(settings) as store:
        await check_schema(store)
        files = await list_archive_files(
            store, state="archived", task_id=args.task_id, app=args.app, since_us=None, limit=0
        )
        if args.task_id is not None and not files:
            raise FailedError(f"no file of {args.task_id!r} is archived: `tiw archive list --task {args.task_id}`")
        async with open_target(settings) as place:
            with make_bars(is_quiet=args.json) as bars:
                task = bars.add_task("verifying", total=sum(file.size or 0 for file in files), state="")

                def on_bytes(count: int) -> None:
                    bars.advance(task, count)
                    # Within a file, too: a large one on a slow share takes minutes.
                    if stopped.is_set():
                        raise FailedError(f"interrupted: {len(read)} of {len(files)} files were read")

                for file in files:
                    on_bytes(0)
                    bars.update(task, state=f"{file.folder}/{file.name}")
                    read.append(await _checked(place, file, on_bytes))
    not_whole = [one for one in read if one.verdict != "whole"]
    whole = len(read) - len(not_whole)
    if args.json:
        print_json(VerifyReport(whole=whole, not_whole=not_whole))
    else:
        if not_whole:
            print_table(
                ["recording", "file", "is", "detail"],
                [(one.task_id, one.location, one.verdict, one.detail) for one in not_whole],
                empty="",
            )
        print_lines([f"{whole} files are whole, {len(not_whole)} are not"])
        if any(not one.detail.startswith(_MOVED) for one in not_whole):
            print_lines(["while the vendor has them: `tiw archive fetch TASK_ID --again`"])
    return 1 if not_whole else 0


async def _checked(place: Place, file: ArchiveFileRow, on_bytes: Callable[[int], None]) -> CheckedFile:
    """Return what became of a file. Raises `FailedError` if the target is away: nothing is damaged for that."""
    checked = await check_file(place, _expected(file), on_bytes=on_bytes)
    if checked.verdict == "unreadable":
        try:
            await place.check(must_exist=True)
        except PlaceError as error:
            if not error.is_full:
                raise FailedError(f"archived files cannot be read: {error}") from error
    if checked.verdict == "missing" and file.location not in (None, checked.location):
        return structs.replace(checked, detail=f"{_MOVED} {file.location}")
    return checked


def _expected(file: ArchiveFileRow) -> ExpectedFile:
    return ExpectedFile(
        sdk_app_id=file.sdk_app_id,
        task_id=file.task_id,
        key=f"{file.folder}/{file.name}",
        size=file.size,
        sha256=file.sha256,
    )


class RebuildReport(Struct, frozen=True, kw_only=True):
    """How many manifests were found, how many files got rows or better ones, and which manifests could not be read."""

    manifests: int
    restored: int
    problems: list[FoundManifest]


async def rebuild(settings: Settings, args: argparse.Namespace) -> int:
    """Make the archive's rows from the manifests; exit code 1 if one cannot be read, or a file of it is not there."""
    from tiw.progress import make_counter  # noqa: PLC0415

    found = 0
    problems: list[FoundManifest] = []

    def on_found(one: FoundManifest) -> None:
        nonlocal found
        found += 1
        if one.problem:
            problems.append(one)
        bars.update(task, completed=found, state=one.key)

    async with open_store(settings, may_be_new=True) as store:
        await check_schema(store)
        async with open_target(settings) as place:
            with make_counter(is_quiet=args.json) as bars:
                task = bars.add_task("manifests", total=None, state="")
                try:
                    restored = await rebuild_rows(store, place, on_found=on_found)
                except PlaceError as error:
                    raise FailedError(str(error)) from error
    if args.json:
        print_json(RebuildReport(manifests=found, restored=restored, problems=problems))
    else:
        print_lines(
            [
                f"{found} manifests, {restored} files restored",
                *(f"{one.key}: {one.problem}" for one in problems),
            ]
        )
    return 1 if problems else 0
