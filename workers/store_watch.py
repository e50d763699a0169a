"""Know whether the store answers, so that consumers wait for it instead of failing against it."""

import asyncio
import math
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Self, TypeAlias

import structlog

from store import SchemaMismatchError, Store, StoreError, StoreUnavailableError, check_schema, check_writable
from telemetry import metrics

#: What says that the store cannot be used now, and nothing about an event: it does not answer, or a migration that this
#: version cannot work with ran meanwhile, or has yet to run.
AWAY_ERRORS = (StoreUnavailableError, SchemaMismatchError)

_PROBE_EVERY_S = 1.0
_PROBE_AT_LEAST_EVERY_S = 8.0

#: One that is away again sooner was not well.
_WELL_AFTER_S = 10.0

#: How often it is looked whether its tables are still those that this version works with.
_LOOK_EVERY_S = 15.0

_log = structlog.get_logger()


class StoreWatch:
    """Whether the store is here; shared by the runners of one process, an async context manager.

    Who finds it away says so with `report_away`; from then on it is asked every second until it answers. Tables that
    this version cannot work with count as away, too, and are looked for by itself.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._here = asyncio.Event()
        self._here.set()
        self._tasks: set[asyncio.Task[None]] = set()
        #: Whether it is away because of its tables: nobody must use it then, not even who would try.
        self.has_other_tables = False
        #: What was last said to be wrong with it.
        self._told = ""
        self._pause_s = _PROBE_EVERY_S
        self._back_s = -math.inf

    @property
    def is_here(self) -> bool:
        """Whether the store answered when it was last asked."""
        return self._here.is_set()

    def report_away(self, error: BaseException | None = None) -> None:
        """Say that the store did not answer, or refused what was asked of it with `error`."""
        if self._here.is_set():
            self._here.clear()
            metrics.STORE_AWAY.set(1)
            self._told = "" if error is None else str(error)
            _log.warning("store_away", database=self._store.safe_url, reason=self._told or None)
            self._run(self._ask(), name="store watch")

    async def wait(self) -> None:
        """Return once the store is here."""
        await self._here.wait()

    async def __aenter__(self) -> Self:
        self._run(self._look(), name="schema watch")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _run(self, work: Coroutine[Any, Any, None], *, name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _look(self) -> None:
        seen: _Version | None = None
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            # As of before the answer: what changes meanwhile is looked at again.
            version = _version(self._store)
            if not self.is_here or (version is not None and version == seen):
                continue
            seen = version
            if not await self._answers():
                seen = None
                self.report_away()

    async def _ask(self) -> None:
        clock = asyncio.get_running_loop()
        was_well = clock.time() - self._back_s > _WELL_AFTER_S
        # One that answers this question and no other, such as one with little room left, must not be asked in a hurry.
        self._pause_s = _PROBE_EVERY_S if was_well else min(2 * self._pause_s, _PROBE_AT_LEAST_EVERY_S)
        while True:
            await asyncio.sleep(self._pause_s)
            if await self._answers(is_written=True):
                break
        self._back_s = clock.time()
        metrics.STORE_AWAY.set(0)
        _log.info("store_back", database=self._store.safe_url)
        self._here.set()

    async def _answers(self, *, is_written: bool = False) -> bool:
        try:
            await check_schema(self._store)
            if is_written:
                # One that is full or read-only answers as if nothing were wrong.
                await check_writable(self._store)
        except SchemaMismatchError as error:
            if not self.has_other_tables:
                _log.error("schema_mismatch", error=str(error))
            self.has_other_tables = True
            return False
        except StoreError as error:
            if self._told != str(error):
                self._told = str(error)
                _log.warning("store_still_away", reason=self._told)
            return False
        except Exception:  # noqa: BLE001 - while its tables cannot be looked at, it cannot be used, whatever it is
            _log.exception("store_cannot_be_looked_at", database=self._store.safe_url)
            return False
        self.has_other_tables = False
        return True


_Version: TypeAlias = tuple[tuple[int, int, int] | None, ...]


def _version(store: Store) -> _Version | None:
    """Return what differs once somebody has written to the store's file; None where it cannot be told."""
    if store.file is None:
        return None
    # In WAL mode commits go to the second file: https://www.sqlite.org/wal.html
    version = tuple(_stat(Path(f"{store.file}{suffix}")) for suffix in ("", "-wal"))
    return None if version[0] is None else version


def _stat(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
