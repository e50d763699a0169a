"""Every file on the customer's storage before the vendor deletes it, whatever fails meanwhile."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from functools import partial
from random import Random

import msgspec
from msgspec import Struct

from chaos.checking.archived import Original, begun_again, look, not_archived, not_as_marked, too_many, twice
from chaos.errors import ChaosError
from chaos.faults.bucket import FaultyBucket
from chaos.faults.small_disk import SmallDisk, cannot_mount
from chaos.machine.archive import BUCKET, Archive, bucket_target, folder_target, moved_away, open_parts
from chaos.machine.deployment import OTHER_APP
from chaos.machine.node import Node
from chaos.machine.servers import Servers
from chaos.scenario import Layout, Scenario, Traffic, Wiring, arrange_directly
from chaos.scenarios.accelerated_day import (
    BEGIN_WITHIN_S,
    REPLICAS,
    SHARE,
    SPEED,
    WITH_FILES,
    DayClock,
    forged,
    held,
    kill_and_restart,
    make_classes,
    new_clock,
    sending,
    start_asking,
)
from chaos.stage import Stage
from simulator import (
    PASSING_FAILURES,
    ApiFaults,
    Bucket,
    ClassKind,
    FileFailure,
    FileFaults,
    Patience,
    Sender,
    SimulatedClass,
    VendorFiles,
)
from store import ArchiveFileRow
from tests.reconcile.serving import in_thread, settings_for
from tests.servers.rclone import PROGRAM, RcloneS3

_DAY_S = 86_400

#: How much smaller than real files are, and those of one class among so many: large enough to go up in parts.
_SHRINK = 400
_LARGE_SHRINK = 2
_LARGE_EVERY = 13

#: All but a redirect, which is refused for good: where it leads to is the same each time.
_FILE_FAILURES = tuple(one for one in FileFailure if one is not FileFailure.REDIRECTED)


def _bucket_of(files: VendorFiles, number: int) -> Bucket:
    is_large = number % _LARGE_EVERY == _LARGE_EVERY - 1
    return Bucket(url=files.url, shrink=_LARGE_SHRINK if is_large else _SHRINK)


def _inject_lost(stage: Stage) -> None:
    count = stage.pick(24, 200)
    begin_within_s = stage.pick(900, BEGIN_WITHIN_S)
    stage.plan(
        f"{count} classes of which every callback is lost; half-way one of {REPLICAS} processes that ask the vendor "
        f"and one of {REPLICAS} that archive are killed"
    )
    clock = new_clock()
    # Four times as strict as the vendor, by the time of the classes.
    with ExitStack() as stack:
        files = stack.enter_context(in_thread(VendorFiles(clock=clock, kept_s=18 * 3600)))
        classes = make_classes(
            stage.rng,
            WITH_FILES,
            count,
            starts_at=clock.starts_at,
            begin_within_s=begin_within_s,
            bucket_of=partial(_bucket_of, files),
        )
        files.add(classes)
        day = stack.enter_context(held(classes, clock))
        target = folder_target(stage.folder)
        archive = Archive(
            stage.deployment, target, files, stage.folder / "staging", replicas=REPLICAS, settings=settings_for(day.api)
        )
        archive.start()
        nodes = start_asking(stage, day)
        stage.sleep(begin_within_s / SPEED / 2)
        kill_and_restart(stage, stage.rng.choice(nodes))
        kill_and_restart(stage, stage.rng.choice(archive.nodes))
        _wait_archived(stage, archive, classes, clock, within_s=stage.pick(300.0, 1200.0))
        _judge(stage, archive, files, classes, clock)


def _inject_faults(stage: Stage) -> None:
    count = stage.pick(12, 200)
    begin_within_s = stage.pick(600, BEGIN_WITHIN_S)
    stage.plan(
        f"{count} classes; a fifth of their callbacks is lost, a fifth comes twice, some ends are forged; the API "
        "fails a third of the time; of the requests for files a fifth fails, and of those to the bucket a tenth"
    )
    clock = new_clock()
    rngs = [Random(f"{stage.seed} {number}") for number in range(3)]
    api_faults = ApiFaults(share=1 / 3, failures=PASSING_FAILURES, rng=rngs[0], slow_s=1.0, huge_bytes=5_000_000)
    file_faults = FileFaults(share=SHARE, failures=_FILE_FAILURES, rng=rngs[1], bytes_per_s=8e6)
    with ExitStack() as stack:
        files = stack.enter_context(in_thread(VendorFiles(clock=clock, faults=file_faults)))
        buckets = stage.folder / "buckets"
        (buckets / BUCKET).mkdir(parents=True)
        server = stack.enter_context(RcloneS3(buckets))
        bucket = stack.enter_context(in_thread(FaultyBucket(server.url, rng=rngs[2], share=SHARE / 2)))
        classes = make_classes(
            stage.rng,
            (*WITH_FILES, ClassKind.FAILED),
            count,
            starts_at=clock.starts_at,
            begin_within_s=begin_within_s,
            bucket_of=partial(_bucket_of, files),
        )
        files.add(classes)
        day = stack.enter_context(held(classes, clock, api_faults))
        archive = Archive(
            stage.deployment,
            bucket_target(buckets, bucket.url),
            files,
            stage.folder / "staging",
            settings={"TIW_ARCHIVE_AT_ONCE": "8", **settings_for(day.api)},
        )
        archive.start()
        nodes = start_asking(stage, day)
        with stage.fault("files and bucket fail", "the vendor's files, the target"):
            sent = stack.enter_context(sending(stage, day, forge=forged))
            stage.sleep(begin_within_s / SPEED / 2)
            kill_and_restart(stage, stage.rng.choice((*nodes, *archive.nodes)))
            sent()
            # The others go on failing: who asks the vendor waits for minutes after a few failures.
            api_faults.share = 0.0
            _wait_archived(stage, archive, classes, clock, within_s=stage.pick(300.0, 1800.0))
        stage.say(
            f"the bucket: {sum(bucket.requests.values())} requests, of which failed "
            f"{', '.join(f'{number} {one}' for one, number in sorted(bucket.failed.items()))}"
        )
        _judge(stage, archive, files, classes, clock)


def _wait_archived(
    stage: Stage, archive: Archive, classes: Sequence[SimulatedClass], clock: DayClock | None, *, within_s: float
) -> None:
    """Return once all is archived and told of, or it is clear that it will not be: the checker judges that."""

    def are_archived() -> bool:
        rows = archive.rows()
        return (
            not not_archived(archive.originals(classes), rows)
            and all(row.state == "archived" for row in rows)
            and not _untold(archive, classes)
            and not archive.staged()
        )

    last_s = 0.0 if clock is None else (max(cls.callbacks[-1].timestamp for cls in classes) - clock()) / SPEED
    with suppress(ChaosError):
        stage.wait_until(are_archived, "every file archived", within_s=max(0.0, last_s) + within_s)


def _untold(archive: Archive, classes: Sequence[SimulatedClass]) -> list[str]:
    """Name the classes that have files and of which no event tells that they are archived."""
    told = {
        one.task_id
        for one in archive.recordings(classes)
        if any(event.event_type == "RecordingArchived" for event in one.events)
    }
    return sorted({one.task_id for one in archive.originals(classes)} - told)


def _judge(
    stage: Stage, archive: Archive, files: VendorFiles, classes: Sequence[SimulatedClass], clock: DayClock | None
) -> None:
    """Measure what became of the files of all classes, with the bounds of what was promised."""
    rows, originals = archive.rows(), archive.originals(classes)
    _expect_none(stage, "files that are not archived", not_archived(originals, rows))
    _expect_none(stage, "files that are not as marked", not_as_marked(rows, archive.target.root))
    _expect_none(
        stage, "rows and files that are too many", too_many(originals, rows, look(archive.target.root, OTHER_APP))
    )
    _expect_none(stage, "recordings that were not announced as archived", _untold(archive, classes))
    _expect_none(stage, "staged leftovers", [path.name for path in archive.staged()])
    for row in [row for row in rows if row.state != "archived"][:5]:
        stage.say(f"{row.task_id} {row.name}: {row.state} after {row.attempts} attempts: {row.reason}")
    stage.say(
        f"{len(originals)} files, {sum(one.content.size for one in originals)} bytes; "
        f"at most {max((row.attempts for row in rows), default=0)} claims of one"
    )
    if clock is not None and (late := _lateness_s(rows, originals, clock)):
        stage.measure("until a file was archived, at most", round(late[-1]), "s of class time", at_most=3 * _DAY_S)
        stage.say(
            f"archived within {late[len(late) // 2]:.0f} s (median), {late[len(late) * 95 // 100]:.0f} s (95 %), "
            f"{late[-1]:.0f} s (at most) of class time"
        )
    answers: dict[str, int] = {}
    for one in list(files.requests):
        answers[one.answer] = answers.get(one.answer, 0) + 1
    stage.say(
        f"{len(files.requests)} requests for files, {sum(one.sent for one in files.requests)} bytes sent; answers: "
        + ", ".join(f"{number} {answer}" for answer, number in sorted(answers.items()))
    )


def _expect_none(stage: Stage, what: str, found: Sequence[str]) -> None:
    stage.measure(what, len(found), "", at_most=0)
    for one in found[:5]:
        stage.say(f"{what}: {one}")


def _lateness_s(rows: Sequence[ArchiveFileRow], originals: Sequence[Original], clock: DayClock) -> list[float]:
    """Return how long after it came to be each file was archived, in the time of the classes, sorted."""
    made_at = {(one.task_id, one.sha256): one.modified_at for one in originals}
    return sorted(
        clock.at(datetime.fromisoformat(row.archived_at).timestamp()) - made_at[row.task_id, row.sha256 or ""]
        for row in rows
        if row.archived_at is not None and (row.task_id, row.sha256) in made_at
    )


class Troubles(Struct, frozen=True, kw_only=True):
    """What goes on between kills: from which kill on a trouble lasts, and to which."""

    disk_full: range
    target_away: range


def plan_troubles(kills: int) -> Troubles:
    """Return the disk full early, the target away later; some of the kills fall into each."""
    return Troubles(
        disk_full=range(kills // 5, kills // 5 + max(1, kills // 10)),
        target_away=range(kills // 2, kills // 2 + max(2, kills // 5)),
    )


class _Kills:
    """Kills of processes that archive, and what is seen on the disks at each."""

    def __init__(self, stage: Stage, archive: Archive, classes: Sequence[SimulatedClass]) -> None:
        self._stage = stage
        self._archive = archive
        self._parts = archive.parts(classes)
        #: When a part that holds something was first seen, by the path of its file at the vendor.
        self.survived_s: dict[str, float] = {}
        self.in_the_middle = 0
        self.wrongly_marked: list[str] = []

    def one(self, victim: Node, *, patience_s: float) -> None:
        """Kill a process as soon as it is in the middle of a file, or when patience is at its end."""
        with suppress(ChaosError):
            self._stage.wait_until(lambda: bool(open_parts(victim)), "a download", within_s=patience_s)
        self._stage.sleep(self._stage.rng.uniform(0.0, 4.0))
        self.in_the_middle += bool(open_parts(victim))
        with self._stage.fault("SIGKILL", victim.name):
            victim.kill()
            self.observe()
            victim.start()

    def observe(self) -> None:
        """Look at what is staged, and whether all is there that is marked as archived."""
        for part in self._archive.staged():
            if part in self._parts:
                self.survived_s.setdefault(self._parts[part], time.monotonic())
        root = self._archive.target.root
        # The marks before the bytes: what comes in between is there and not marked yet.
        marked = self._archive.rows()
        if root.exists():
            self.wrongly_marked += not_as_marked(marked, root)


def _inject_kills(stage: Stage) -> None:
    kills = stage.pick(6, 100)
    troubles = plan_troubles(kills)
    bytes_per_s = stage.pick(30_000.0, 40_000.0)
    stage.plan(
        f"{kills} kills of three processes that archive; the staging disk is full from kill "
        f"{troubles.disk_full.start} to {troubles.disk_full.stop}, the target away from "
        f"{troubles.target_away.start} to {troubles.target_away.stop}"
    )
    disk: SmallDisk | None = stage.props["disk"]
    with ExitStack() as stack:
        files = stack.enter_context(in_thread(VendorFiles()))
        classes = make_classes(
            stage.rng,
            (ClassKind.NORMAL,),
            stage.pick(4, 17),
            starts_at=int(time.time()) - 3 * 3600,
            bucket_of=lambda _: Bucket(url=files.url, shrink=stage.pick(16, 8)),
        )
        files.add(classes)
        archive = Archive(
            stage.deployment,
            stage.props["target"],
            files,
            stage.folder / "staging",
            replicas=3,
            settings={"TIW_ARCHIVE_AT_ONCE": "2", "TIW_ARCHIVE_LEAST_BYTES_PER_S": "1000"},
        )
        archive.start()
        # Until a file is archived nobody can tell a target that is away from one that is new.
        asyncio.run(_finish(stage, classes[:1]))
        stage.wait_until(lambda: any(row.state == "archived" for row in archive.rows()), "the first file archived")
        files.faults.bytes_per_s = bytes_per_s
        asyncio.run(_finish(stage, classes[1:]))
        killing = _Kills(stage, archive, classes)
        full, away = ExitStack(), ExitStack()
        stack.enter_context(full)
        stack.enter_context(away)
        for number in range(kills):
            if number == troubles.disk_full.start:
                full.enter_context(_full(stage, archive, disk))
            if number == troubles.disk_full.stop:
                full.close()
            if number == troubles.target_away.start:
                away.enter_context(stage.fault("target away", "archive"))
                away.enter_context(moved_away(archive.target.root))
            if number == troubles.target_away.stop:
                away.close()
            is_full = number in troubles.disk_full
            killing.one(stage.rng.choice(archive.nodes), patience_s=5.0 if is_full else 60.0)
        full.close()
        away.close()
        files.faults.bytes_per_s = None
        _wait_archived(stage, archive, classes, None, within_s=stage.pick(400.0, 1500.0))
        killing.observe()
        stage.say(f"{kills} kills, {killing.in_the_middle} of them in the middle of a download")
        stage.measure("kills beside a download", kills - killing.in_the_middle, "kills", at_most=kills // 3)
        _expect_none(stage, "files marked as archived that were not there at a kill", killing.wrongly_marked)
        given_up = sum(node.log().count('"part_given_up"') for node in archive.nodes)
        again = begun_again(files.requests, killing.survived_s)
        stage.say(f"{given_up} parts were given up as the disk was full; {len(again)} files were begun again")
        _expect_none(stage, "files fetched from their start again", again[given_up:])
        _judge(stage, archive, files, classes, None)


@contextmanager
def _full(stage: Stage, archive: Archive, disk: SmallDisk | None) -> Iterator[None]:
    """Let the staging disk be full while the block runs: really, or by its floor where no disk can be made."""
    with stage.fault("disk full", "staging"):
        if disk is not None:
            disk.fill()
            try:
                yield
            finally:
                disk.free()
            return
        floors = [node.environ["TIW_ARCHIVE_MIN_FREE_BYTES"] for node in archive.nodes]
        for node in archive.nodes:
            node.environ["TIW_ARCHIVE_MIN_FREE_BYTES"] = str(10**14)
        try:
            yield
        finally:
            for node, floor in zip(archive.nodes, floors, strict=True):
                node.environ["TIW_ARCHIVE_MIN_FREE_BYTES"] = floor
                kill_and_restart(stage, node)


#: An hour at the speed of the accelerated day.
_AWAY_S = 3600 / SPEED


def _inject_away(stage: Stage) -> None:
    count, kills = stage.pick(10, 60), stage.pick(4, 20)
    stage.plan(
        f"{count} classes whose files are large; their S3 server is killed {kills} times in the middle of an upload, "
        f"which it forgets; then it is away for {_AWAY_S:g} s, an hour {SPEED:g} times as fast, while files go on "
        "coming"
    )
    with ExitStack() as stack:
        files = stack.enter_context(in_thread(VendorFiles()))
        buckets = stage.folder / "buckets"
        (buckets / BUCKET).mkdir(parents=True)
        server = stack.enter_context(RcloneS3(buckets))
        classes = make_classes(
            stage.rng,
            (ClassKind.NORMAL,),
            count,
            starts_at=int(time.time()) - 3 * 3600,
            bucket_of=lambda _: Bucket(url=files.url, shrink=_LARGE_SHRINK),
        )
        files.add(classes)
        archive = Archive(
            stage.deployment,
            bucket_target(buckets, server.url),
            files,
            stage.folder / "staging",
            settings={"TIW_ARCHIVE_AT_ONCE": "2"},
        )
        archive.start()
        half = count // 2
        asyncio.run(_finish(stage, classes[:half]))
        cut_off = 0
        for _ in range(kills):
            cut_off += _kill_in_mid_upload(stage, archive, server)
        stage.say(f"{kills} kills of the server, {cut_off} of them in the middle of an upload")
        stage.measure("kills beside an upload", kills - cut_off, "kills", at_most=kills // 2)
        with stage.fault("S3 away for an hour", "archive"):
            server.kill()
            asyncio.run(_finish(stage, classes[half:]))
            stage.sleep(_AWAY_S)
            rows = archive.rows()
            unfetched = [f"{row.task_id} {row.name}" for row in rows if row.state not in ("staged", "archived")]
            wrongly_marked = not_as_marked(rows, archive.target.root)
            server.start()
        _expect_none(stage, "files that were not fetched while the target was away", unfetched)
        _expect_none(stage, "files marked as archived that were not there then", wrongly_marked)
        _wait_archived(stage, archive, classes, None, within_s=stage.pick(400.0, 1200.0))
        _expect_none(stage, "files fetched twice", twice(files.requests))
        _judge(stage, archive, files, classes, None)


def _kill_in_mid_upload(stage: Stage, archive: Archive, server: RcloneS3) -> bool:
    """Kill the S3 server as soon as an upload has begun, or when patience is at its end; say whether one had."""
    with suppress(ChaosError):
        stage.wait_until(lambda: bool(archive.uploads()), "an upload", within_s=30.0)
    stage.sleep(stage.rng.uniform(0.0, 0.5))
    is_cut_off = bool(archive.uploads())
    with stage.fault("SIGKILL", "S3"):
        server.kill()
        stage.sleep(stage.rng.uniform(0.5, 3.0))
        server.start()
    return is_cut_off


async def _finish(stage: Stage, classes: Sequence[SimulatedClass]) -> None:
    """Send the last callback of each class."""
    (address, *_) = stage.deployment.addresses
    async with Sender(address, key=None, patience=Patience()) as sender:
        for cls in classes:
            await sender.send(cls.callbacks[-1])


#: Room for all parts of the kills, as the target is away.
_DISK_BYTES = 256 * 1024 * 1024


def _arrange(stage: Stage, servers: Servers, stack: ExitStack) -> Wiring:
    wiring = arrange_directly(stage, servers, stack)
    # Their callbacks are unsigned, so that the harness's key is nobody else's.
    return msgspec.structs.replace(wiring, ingest_environ={"TIW_ALLOW_UNSIGNED": str(OTHER_APP)})


def _arrange_kills(stage: Stage, servers: Servers, stack: ExitStack) -> Wiring:
    is_mounted = cannot_mount() is None
    disk = SmallDisk(stage.folder / "staging", size_bytes=_DISK_BYTES) if is_mounted else None
    stage.props["disk"] = None if disk is None else stack.enter_context(disk)
    stage.props["target"] = folder_target(stage.folder)
    return _arrange(stage, servers, stack)


def _no_s3() -> str | None:
    return None if PROGRAM.exists() else "rclone is not installed: ./dev installs it with the tests' requirements"


_SCENARIO: Callable[..., Scenario] = partial(
    Scenario,
    layout=Layout(ingest_nodes=1, workers=1),
    traffic=Traffic(callbacks=200, rate=5.0),
    arrange=_arrange,
)

SCENARIOS = (
    _SCENARIO(
        name="archive-lost-callbacks",
        sentence="every callback of 200 classes is lost; their files are found and archived, though processes that "
        "ask and archive are killed",
        inject=_inject_lost,
    ),
    _SCENARIO(
        name="archive-faults",
        sentence="callbacks are lost, repeated and forged; the vendor's API and files and an S3 bucket fail in all "
        "ways; every file is archived, once, with its bytes",
        inject=_inject_faults,
        cannot_run=_no_s3,
    ),
    _SCENARIO(
        name="archive-kills",
        sentence="processes that archive are killed in the middle of files; their disk is full, the target away for a "
        "while; no file is fetched from its start twice, none is marked that is not there",
        inject=_inject_kills,
        arrange=_arrange_kills,
        # The ledger's recordings have files, too, which nobody may fetch.
        traffic=Traffic(callbacks=100, rate=2.0),
    ),
    _SCENARIO(
        name="archive-target-away",
        sentence="an S3 server is killed in the middle of uploads, which it forgets, and is away for an hour of "
        "classes; files go on being fetched, each once, and all are archived with their bytes",
        inject=_inject_away,
        cannot_run=_no_s3,
    ),
)
