"""The disk under the spool is full, broken or slow, while the broker cannot be reached either."""

import errno
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from msgspec import Struct, structs
from yarl import URL

from chaos.faults.interposer import Interposer, cannot_interpose
from chaos.faults.proxy import Kind, Proxy, Toxic
from chaos.faults.small_disk import SmallDisk, cannot_mount
from chaos.machine.servers import Servers
from chaos.scenario import Layout, Scenario, Traffic, Wiring, arrange_directly
from chaos.scenarios.connections import through
from chaos.stage import Stage, wait_moving

#: Shared by all ingest nodes of the scenario: `Layout.shares_data`.
DATA = "data-ingest"

#: More than the room that the spool leaves to others, so that there is some for it.
SMALL_DISK_BYTES = 64 * 1024 * 1024

#: The promise: normal again within this time.
NORMAL_WITHIN_S = 5.0

#: Longer than what a callback has for the disk.
SLOWEST_S = 6.0

#: How long the broker is away before its absence is known to every ingest node, and the disk is all there is.
_KNOWN_AFTER_S = 4.0


class Trouble(Struct, frozen=True, kw_only=True):
    """What befalls the disk. `nothing_durable`: no callback can be kept on it, not even one."""

    name: str
    begin: Callable[[Stage], None]
    end: Callable[[Stage], None]
    nothing_durable: bool


def _interposer(stage: Stage) -> Interposer:
    interposer: Interposer = stage.props["interposer"]
    return interposer


def _small_disk(stage: Stage) -> SmallDisk:
    disk: SmallDisk = stage.props["disk"]
    return disk


def _lie(name: str, begin: Callable[[Interposer], None], *, nothing_durable: bool = True) -> Trouble:
    return Trouble(
        name=name,
        begin=lambda stage: begin(_interposer(stage)),
        end=lambda stage: _interposer(stage).heal(),
        nothing_durable=nothing_durable,
    )


TROUBLES = (
    _lie("EIO on every fsync", lambda interposer: interposer.fail_syncs(errno.EIO)),
    _lie("ENOSPC on every write", lambda interposer: interposer.fail_writes(errno.ENOSPC)),
    # What is written too late for its answer is kept nevertheless, and the first one began before.
    _lie(f"fsync takes {SLOWEST_S:g} s", lambda interposer: interposer.delay_syncs(SLOWEST_S), nothing_durable=False),
    _lie("EIO on every write", lambda interposer: interposer.fail_writes(errno.EIO)),
    _lie("fsync takes 1 s", lambda interposer: interposer.delay_syncs(1.0), nothing_durable=False),
)
FULL = Trouble(
    name="the disk is full",
    begin=lambda stage: _small_disk(stage).fill(),
    end=lambda stage: _small_disk(stage).free(),
    nothing_durable=True,
)


def _arrange(stage: Stage, servers: Servers, stack: ExitStack) -> Wiring:
    wiring = arrange_directly(stage, servers, stack)
    broker = URL(wiring.direct_amqp_url)
    proxy = stage.props["proxy"] = stack.enter_context(Proxy(str(broker.host), broker.port or 0, seed=stage.seed))
    return structs.replace(wiring, ingest_amqp_url=through(wiring.direct_amqp_url, proxy))


def _arrange_lies(stage: Stage, servers: Servers, stack: ExitStack) -> Wiring:
    interposer = stack.enter_context(Interposer(stage.folder, disk=stage.folder / DATA))
    stage.props["interposer"] = interposer
    return structs.replace(_arrange(stage, servers, stack), ingest_environ=interposer.environ)


def _arrange_small_disk(stage: Stage, servers: Servers, stack: ExitStack) -> Wiring:
    stage.props["disk"] = stack.enter_context(SmallDisk(stage.folder / DATA, size_bytes=SMALL_DISK_BYTES))
    return _arrange(stage, servers, stack)


def _inject(stage: Stage, troubles: tuple[Trouble, ...], *, short: int, full: int) -> None:
    count = stage.pick(short, full)
    chosen = [trouble for trouble, _ in zip(itertools.cycle(troubles), range(count), strict=False)]
    stage.rng.shuffle(chosen)
    stage.plan(", ".join(trouble.name for trouble in chosen))
    for trouble in chosen:
        _befall(stage, trouble)
        wait_moving(stage)


def _befall(stage: Stage, trouble: Trouble) -> None:
    proxy: Proxy = stage.props["proxy"]
    with stage.fault("broker not reached", "ingest-broker"):
        proxy.inject(Toxic(kind=Kind.REFUSE))
        stage.sleep(_KNOWN_AFTER_S)
        with _disk_in(stage, trouble):
            stage.sleep(stage.rng.uniform(3.0, 8.0))
        _measure_normal(stage, trouble)
        proxy.heal()


@contextmanager
def _disk_in(stage: Stage, trouble: Trouble) -> Iterator[None]:
    # From before the window to after it: what is answered 200 within it cannot have met a disk that works.
    try:
        trouble.begin(stage)
        with stage.fault(trouble.name, "disk of the spool", nothing_durable=trouble.nothing_durable):
            yield
    finally:
        trouble.end(stage)


def _measure_normal(stage: Stage, trouble: Trouble) -> None:
    began_s = time.monotonic()
    stage.wait_accepted(1)
    stage.measure(f"first 200 after {trouble.name}", time.monotonic() - began_s, "s", at_most=NORMAL_WITHIN_S)
    stage.sleep(1.0)


_SCENARIO = partial(
    Scenario,
    layout=Layout(ingest_nodes=2, workers=1, shares_data=True),
    traffic=Traffic(callbacks=200, rate=20.0, tail_s=2.0),
    settles_within_s=120.0,
)

SCENARIOS = (
    _SCENARIO(
        name="disk-full",
        sentence="the disk of the spool is full (a small file system, filled and freed) while the broker is away",
        inject=partial(_inject, troubles=(FULL,), short=1, full=10),
        arrange=_arrange_small_disk,
        cannot_run=cannot_mount,
    ),
    _SCENARIO(
        name="disk-errors",
        sentence="the disk of the spool fails with ENOSPC or EIO, or takes seconds, while the broker is away",
        inject=partial(_inject, troubles=TROUBLES, short=3, full=20),
        arrange=_arrange_lies,
        cannot_run=cannot_interpose,
    ),
)
