"""A store, a transport, the vendor's files and a folder to archive in, of which the test owns the clock."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import msgspec
from msgspec import Struct

from archive.addresses import AddressRules, parse_hosts, parse_networks
from archive.announcing import Announcer
from archive.fetching import Fetcher, FetchLimits
from archive.files import LEASE_S, TURN_S, FileConfig, FileWork
from archive.places import FolderTarget, Place, PlaceError, open_place
from archive.planning import PlanConfig, plan_new
from archive.staging import Staging
from schemas import Manifest, decode
from simulator import Callback, ClassKind, FileFaults, SimulatedClass, VendorFiles, make_class, render
from store import (
    ArchiveFileRow,
    KeptEvent,
    Recording,
    Store,
    apply_events,
    archived_files,
    archived_recordings,
    claim_files,
    claim_manifests,
    find_recordings,
    list_archive_files,
    migrate,
    next_due_in_s,
)
from tests.reconcile.world import MORNING_S, OwnClock, OwnTransport

APP = 1400000001
AT_ONCE = 8

#: Files are so many times smaller than real.
SHRINK = 2_000


class Worker(Struct, kw_only=True):
    """A process that archives, one step at a time."""

    lease_holder: str
    files: FileWork
    announcer: Announcer
    staging: Staging


class World(Struct, kw_only=True):
    """All of it; `settle` does what is due now."""

    clock: OwnClock
    store: Store
    transport: OwnTransport
    vendor_files: VendorFiles
    place: Place
    root: Path
    worker: Worker
    config: PlanConfig = PlanConfig()
    is_place_away: bool = False

    async def settle(self) -> int:
        """Do what a process does all the time, until nothing is due; return how many files were worked on."""
        worked = 0
        await plan_new(self.store, self.config, now_s=self.clock())
        while claimed := await claim_files(
            self.store,
            lease_holder=self.worker.lease_holder,
            lease_s=LEASE_S,
            limit=AT_ONCE,
            staged_on=self.worker.staging.identity,
            can_fetch=True,
            can_place=not self.is_place_away,
        ):
            worked += len(claimed)
            await asyncio.gather(*(self.worker.files.do(file) for file in claimed))
        while works := await claim_manifests(
            self.store, lease_holder=self.worker.lease_holder, lease_s=LEASE_S, limit=AT_ONCE
        ):
            for work in works:
                await self.worker.announcer.announce(work)
        return worked

    async def pass_by(self, seconds: float, *, step_s: float | None = None) -> None:
        """Let time pass, and do whatever is due as soon as it is; or in steps, where something comes by itself."""
        end_s = self.clock.now_s + seconds
        while self.clock.now_s < end_s:
            dues_s = [await next_due_in_s(self.store, table) for table in (archived_files, archived_recordings)]
            due_s = min((due_s for due_s in dues_s if due_s is not None), default=seconds)
            self.clock.now_s = min(end_s, self.clock.now_s + (step_s or max(1.0, due_s)))
            await self.settle()

    async def deliver(self, *callbacks: Callback | dict[str, Any]) -> None:
        """Let callbacks be accepted and handled now."""
        kept = []
        for one in callbacks:
            body = render(one) if isinstance(one, Callback) else msgspec.json.encode(one)
            received_at_us = int(self.clock.now_s * 1_000_000)
            decoded = decode(body, received_at_us=received_at_us)
            kept.append(
                KeptEvent(event=decoded.event, event_id=decoded.event_id, received_at_us=received_at_us, body=body)
            )
        await apply_events(self.store, kept)

    async def rows(self) -> list[ArchiveFileRow]:
        """Return all files as people see them."""
        return await list_archive_files(self.store, limit=0)

    async def states(self) -> list[str]:
        """Return the states of all files, sorted."""
        return sorted(row.state for row in await self.rows())

    async def recording(self, task_id: str) -> Recording:
        """Return what is known of a recording; fail if nothing is."""
        (found,) = await find_recordings(self.store, task_id, app=APP)
        return found

    def manifests(self) -> list[Manifest]:
        """Return all manifests of the folder."""
        return [
            msgspec.json.decode(path.read_bytes(), type=Manifest) for path in sorted(self.root.rglob("manifest.json"))
        ]

    def check_bytes(self, recording: Recording) -> None:
        """Fail unless every file of a recording is in the folder, with the bytes that the vendor has."""
        for video in recording.videos:
            assert video.archive is not None
            assert video.archive.state == "archived"
            assert video.archive.location is not None
            content = Path(video.archive.location).read_bytes()
            original = self.vendor_files.file(video.video_url or "").content
            assert content == b"".join(original.read(0, original.size))
            assert video.archive.sha256 == hashlib.sha256(content).hexdigest()

    def staged(self) -> list[str]:
        """Return the names of the parts that are staged."""
        return sorted(part.path.name for part in self.worker.staging.parts())


class SwitchedPlace:
    """A place that can be away."""

    def __init__(self, world: "World") -> None:
        self._world = world

    def __call__(self) -> Place:
        if self._world.is_place_away:
            raise PlaceError("the target is away: unplugged")
        return self._world.place


@asynccontextmanager
async def a_world(
    folder: Path,
    *,
    kept_s: float = 3 * 86_400.0,
    faults: FileFaults | None = None,
    limits: FetchLimits | None = None,
    more_hosts: str | None = None,
    turn_s: float = TURN_S,
) -> AsyncIterator[World]:
    """Yield a world of which nothing is known yet. `more_hosts` may be fetched from beside the vendor's."""
    clock = OwnClock(MORNING_S)
    root = folder / "classes"
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(clock.rule(Store(f"sqlite+aiosqlite:///{folder}/store.db")))
        await migrate(store)
        vendor_files = await stack.enter_async_context(
            VendorFiles(clock=clock, shrink=SHRINK, kept_s=kept_s, faults=faults)
        )
        place = await stack.enter_async_context(open_place(FolderTarget(path=root)))
        await place.check()
        host = vendor_files.url.removeprefix("http://")
        rules = AddressRules(
            hosts=parse_hosts(host if more_hosts is None else f"{host} {more_hosts}"),
            networks=parse_networks("127.0.0.0/8"),
        )
        fetcher = await stack.enter_async_context(
            Fetcher(rules, limits or FetchLimits(at_once=AT_ONCE, stalled_after_s=2.0))
        )
        transport = OwnTransport()
        staging = Staging(folder / "staging", min_free_bytes=0)
        world = World(
            clock=clock,
            store=store,
            transport=transport,
            vendor_files=vendor_files,
            place=place,
            root=root,
            worker=None,  # type: ignore[arg-type]  # made next
            config=PlanConfig(kept_s=kept_s),
        )
        lease_holder = "this/1/a"
        world.worker = Worker(
            lease_holder=lease_holder,
            files=FileWork(
                FileConfig(kept_s=kept_s, turn_s=turn_s),
                store=store,
                staging=staging,
                fetcher=fetcher,
                place=SwitchedPlace(world),
                lease_holder=lease_holder,
                now_s=clock,
            ),
            announcer=Announcer(store, transport, place, lease_holder=lease_holder),
            staging=staging,
        )
        yield world


def a_class(
    world: World, number: int = 1, *, kind: ClassKind = ClassKind.NORMAL, length_s: int = 600
) -> SimulatedClass:
    """Return a class that begins now, whose files the vendor has as soon as they are there."""
    cls = make_class(
        kind,
        Random(number),
        sdk_app_id=APP,
        room_id=880_000 + number,
        started_at=int(world.clock()),
        length_s=length_s,
        bucket=world.vendor_files.bucket,
    )
    world.vendor_files.add([cls])
    return cls


def finished(cls: SimulatedClass) -> Callback:
    """Return the last callback of a class."""
    return next(one for one in cls.callbacks if one.event_type == "OnlineRecordFinished")


async def end(world: World, *classes: SimulatedClass) -> None:
    """Let time pass until the last of these classes is finished, and deliver all that they send."""
    world.clock.now_s = max(world.clock.now_s, *(finished(cls).timestamp + 1.0 for cls in classes))
    for cls in classes:
        await world.deliver(*cls.callbacks)
