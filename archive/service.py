"""The process that archives: what it plans, fetches, places and announces, and what keeps it going whatever fails."""

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Self

import structlog
from msgspec import Struct

from archive.announcing import Announcer, Publisher
from archive.fetching import Fetcher
from archive.files import LEASE_S, FileConfig, FileWork
from archive.places import Place, PlaceError
from archive.planning import PlanConfig, plan_new
from archive.staging import Staging
from store import (
    ArchiveFile,
    Store,
    StoreError,
    claim_files,
    claim_manifests,
    count_archive,
    list_begun_files,
    list_refused_files,
    list_staged_files,
    retry_refused_files,
    wait_for_schema,
)
from telemetry import Readiness, metrics

_PLAN_EVERY_S: Final = 5.0
_LOOK_EVERY_S: Final = 1.0
_COUNT_EVERY_S: Final = 5.0
_CLEAR_EVERY_S: Final = 600.0

#: How often a begun file is given up while the staging disk is full.
_MAKE_ROOM_EVERY_S: Final = 10.0

#: How often a target is looked at, whether it is there.
_CHECK_EVERY_S: Final = 15.0

#: After what nobody foresaw, and while the store is away.
_AGAIN_S: Final = 2.0

#: So long a disk is full before a part is given up for others, and before one more is.
FULL_FOR_S: Final = 600.0

#: A disk that is nearly full is told of so often while that lasts.
_TELL_EVERY_S: Final = 60.0

#: What is under way when the process stops has this long to write where it is.
_STOP_S: Final = 8.0

_log = structlog.get_logger()


class ArchiveConfig(Struct, frozen=True, kw_only=True):
    """What decides how files are archived.

    `at_once` files are fetched or placed at the same time. `recording` restricts it to one, by SdkAppId and TaskId.
    """

    plan: PlanConfig = PlanConfig()
    file: FileConfig = FileConfig()
    at_once: int = 4
    recording: tuple[int, str] | None = None


class Archiver:
    """Archives files while it is entered. `now_s` is the time in Unix seconds.

    Any number of processes may do the same with one store: each file is worked on by one of them at a time, those that
    the vendor deletes first before others. Entering returns at once: it waits by itself for the store's tables. The
    store, the transport, the fetcher and the place are entered and left by the caller. Leaving ends transfers; who
    works next goes on where they are.
    """

    def __init__(
        self,
        config: ArchiveConfig,
        *,
        store: Store,
        transport: Publisher,
        fetcher: Fetcher,
        place: Place,
        staging: Staging,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._store = store
        self._fetcher = fetcher
        self._place = place
        self._staging = staging
        self._now_s = now_s
        self._lease_holder = f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(4)}"
        self._target = _Target(place, store)
        self._files = FileWork(
            config.file,
            store=store,
            staging=staging,
            fetcher=fetcher,
            place=self._target.place,
            lease_holder=self._lease_holder,
            now_s=now_s,
        )
        self._announcer = Announcer(store, transport, place, lease_holder=self._lease_holder)
        self._working: set[asyncio.Task[None]] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self._not_ready = "it has not looked into the database yet"
        self._told_full_at_s: float | None = None
        self._full_since_s: float | None = None

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._run(), name="archiving")]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._stopping.set()
        self._files.stop()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=_STOP_S)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    def ready(self) -> Readiness:
        """Say what keeps it from its work: the store, or the target. The vendor may be away as long as it likes."""
        target = () if self._target.is_there else (f"the target is away: {self._target.reason}",)
        return Readiness(not_ready=((self._not_ready,) if self._not_ready else ()) + target)

    async def _run(self) -> None:
        if not await self._until_stopping(wait_for_schema(self._store)):
            return
        _log.info("archiving_started", target=self._place.name, staging=str(self._staging.folder))
        works = (
            ("target", self._check_target, 0.0),
            ("plan", self._plan, _PLAN_EVERY_S),
            ("files", self._work, 0.0),
            ("manifests", self._announce, _LOOK_EVERY_S),
            ("counting", self._count, _COUNT_EVERY_S),
            ("clearing", self._clear, _CLEAR_EVERY_S),
            ("room", self._make_room, _MAKE_ROOM_EVERY_S),
        )
        # What was refused may be allowed by the settings of now.
        await self._repeating("refused", self._retry_refused, None)
        await self._repeating("target", self._target.check, None)
        async with asyncio.TaskGroup() as group:
            for name, work, every_s in works:
                group.create_task(self._repeating(name, work, every_s), name=name)
        if self._working:
            await asyncio.wait(self._working)

    async def _until_stopping(self, work: Coroutine[Any, Any, object]) -> bool:
        """Do `work`, unless it is to stop before that is done; say whether it was done."""
        doing = asyncio.ensure_future(work)
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({doing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        for one in (doing, stopping):
            one.cancel()
        await asyncio.wait({doing, stopping})
        return not doing.cancelled() and not self._stopping.is_set()

    async def _repeating(self, name: str, work: Callable[[], Awaitable[None]], every_s: float | None) -> None:
        """Do `work` every so often until it is to stop, or once: nothing that fails ends it."""
        is_told = False
        while not self._stopping.is_set():
            pause_s = every_s or 0.0
            try:
                await work()
                is_told = False
                if name == "plan":
                    self._not_ready = ""
                if every_s is None:
                    return
            except StoreError as error:
                self._not_ready = "the database cannot be used now"
                if not is_told:
                    is_told = True
                    _log.warning("store_awaited", task=name, reason=str(error))
                pause_s = max(pause_s, _AGAIN_S)
            except Exception:  # noqa: BLE001 - logged, and tried again
                _log.exception("archiving_failed", task=name)
                pause_s = max(pause_s, _AGAIN_S)
            await self._pause(pause_s)

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return

    async def _check_target(self) -> None:
        """Look at the target once more, some time after it was looked at before anything else."""
        await self._pause(_CHECK_EVERY_S)
        if not self._stopping.is_set():
            await self._target.check()

    async def _retry_refused(self) -> None:
        """Try again what the rules of now let be asked: what a forged event names stays refused, and costs nothing."""
        refused = await list_refused_files(self._store)
        keys = [
            file.key
            for file in refused
            if self._fetcher.may_ask(file.url, is_vendors_address=file.address_from == "vendor")
        ]
        if keys:
            await retry_refused_files(self._store, keys)

    async def _plan(self) -> None:
        await plan_new(self._store, self._config.plan, now_s=self._now_s())

    async def _work(self) -> None:
        """Claim as many files as there is room for, and begin with them."""
        free = self._config.at_once - len(self._working)
        if not free:
            await asyncio.wait(self._working, return_when=asyncio.FIRST_COMPLETED)
            return
        can_fetch = self._has_room()
        claimed: list[ArchiveFile] = []
        if can_fetch or self._target.is_there:
            claimed = await claim_files(
                self._store,
                lease_holder=self._lease_holder,
                lease_s=LEASE_S,
                limit=free,
                staged_on=self._staging.identity,
                can_fetch=can_fetch,
                can_place=self._target.is_there,
                recording=self._config.recording,
            )
        for file in claimed:
            task = asyncio.create_task(self._do(file), name=f"file {file.name}")
            self._working.add(task)
            task.add_done_callback(self._working.discard)
        if not claimed:
            await self._pause(_LOOK_EVERY_S)

    async def _do(self, file: ArchiveFile) -> None:
        try:
            await self._files.do(file)
        except StoreError as error:
            _log.warning("store_awaited", task="file", reason=str(error))
        except Exception:  # noqa: BLE001 - logged; its lease ends, and it is tried again
            _log.exception("archiving_failed", task="file", task_id=file.task_id, file=file.name)

    def _has_room(self) -> bool:
        """Say whether the staging disk is above its floor; say loudly when it is not."""
        free_bytes = self._staging.free_bytes
        metrics.ARCHIVE_STAGING_FREE_BYTES.labels(self._place.name).set(free_bytes)
        if free_bytes > 0:
            self._told_full_at_s = None
            return True
        now_s = time.monotonic()
        if self._told_full_at_s is None or now_s - self._told_full_at_s > _TELL_EVERY_S:
            self._told_full_at_s = now_s
            _log.error(
                "staging_disk_full",
                folder=str(self._staging.folder),
                bytes_below_floor=-free_bytes,
                consequence="nothing is fetched",
                advice="make room there, or lower TIW_ARCHIVE_MIN_FREE_BYTES",
            )
        return False

    async def _make_room(self) -> None:
        now_s = time.monotonic()
        if self._staging.free_bytes > 0:
            self._full_since_s = None
            return
        if self._full_since_s is None:
            self._full_since_s = now_s
        if now_s - self._full_since_s < FULL_FOR_S:
            # What else lies there may go, and the target may take what is staged.
            return
        self._full_since_s = now_s
        if given_up := await give_up_a_part(self._store, self._staging):
            _log.warning("part_given_up", bytes=given_up, reason="the staging disk is full; it is fetched again later")

    async def _announce(self) -> None:
        if not self._target.is_there:
            return
        claimed = await claim_manifests(
            self._store,
            lease_holder=self._lease_holder,
            lease_s=LEASE_S,
            limit=self._config.at_once,
            recording=self._config.recording,
        )
        for work in claimed:
            try:
                await self._announcer.announce(work)
            except StoreError:
                raise
            except Exception:  # noqa: BLE001 - logged; its lease ends, and the others do not wait for it
                _log.exception("archiving_failed", task="manifest", task_id=work.task_id)

    async def _count(self) -> None:
        counts = await count_archive(self._store)
        for state in ("waiting", "staged", "failing", "archived", "lost", "refused"):
            metrics.ARCHIVE_FILES.labels(state).set(getattr(counts, state))
        next_s = counts.next_deletion_in_s
        metrics.ARCHIVE_NEXT_DELETION_SECONDS.labels(self._place.name).set(
            metrics.NO_DELETION_S if next_s is None else next_s
        )
        metrics.ARCHIVE_TARGET_UP.labels(self._place.name).set(1 if self._target.is_there else 0)

    async def _clear(self) -> None:
        keys = await list_staged_files(self._store, staged_on=self._staging.identity)
        removed = self._staging.remove_leftovers({self._staging.part(*key) for key in keys})
        if removed:
            _log.info("leftovers_removed", parts=removed)


async def give_up_a_part(store: Store, staging: Staging) -> int:
    """Remove the largest part of a file that is begun and not worked on; return its bytes. Raises `StoreError`.

    Else files that were begun and never end could fill a disk, so that none could be ended.
    """
    keys = await list_begun_files(store, staged_on=staging.identity)
    return await asyncio.to_thread(staging.give_up_largest, {staging.part(*key) for key in keys})


class _Target:
    """Whether the target is there, as it was last looked at."""

    def __init__(self, place: Place, store: Store) -> None:
        self._place = place
        self._store = store
        self.is_there = False
        self.reason = "it was not looked at yet"

    def place(self) -> Place:
        """Return it. Raises `PlaceError` while it is away."""
        if not self.is_there:
            raise PlaceError(f"the target {self._place.name} is away: {self.reason}")
        return self._place

    async def check(self) -> None:
        """Look. Raises `StoreError` if nobody knows whether anything was archived there before."""
        must_exist = self.is_there or (await count_archive(self._store)).archived > 0
        try:
            await self._place.check(must_exist=must_exist)
        except PlaceError as error:
            if self.is_there or self.reason != str(error):
                _log.error(
                    "archive_target_away",
                    target=self._place.name,
                    reason=str(error),
                    meanwhile="files are fetched and staged",
                )
            self.is_there, self.reason = False, str(error)
        else:
            if not self.is_there:
                _log.info("archive_target_there", target=self._place.name)
            self.is_there, self.reason = True, ""
