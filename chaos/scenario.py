"""A scenario as data: what runs, what is sent to it, and which faults are injected meanwhile."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from msgspec import Struct

if TYPE_CHECKING:
    from chaos.machine.servers import Servers
    from chaos.stage import Stage


class Traffic(Struct, frozen=True, kw_only=True):
    """What the sender does: at least `callbacks` distinct ones, for as long as faults are injected, then a tail.

    With a `rate` (callbacks per second) it is an open loop, as the vendor's sender is. Without one, `concurrency`
    callbacks are under way at any moment. Each callback is tried as the vendor does it: 10 s for an answer, five
    repetitions 5 s apart, only 200 counts. `duplicates` is the share of accepted callbacks that are sent once more,
    `forged` the share of callbacks that nobody may accept. `body_bytes`: every body is made as large as that (0: as
    the vendor's are).
    """

    callbacks: int = 500
    rate: float | None = 60.0
    concurrency: int = 32
    tail_s: float = 5.0
    duplicates: float = 0.05
    forged: float = 0.03
    body_bytes: int = 0


class Layout(Struct, frozen=True, kw_only=True):
    """Which processes run. Each `tiw work` runs the built-in consumers and those of `consumers`.

    `processes`: of each ingest node. `shares_data`: whether the ingest nodes share one TIW_DATA_DIR. `consumers` are
    files of `chaos/consumers`.
    """

    ingest_nodes: int = 2
    processes: int = 1
    workers: int = 2
    shares_data: bool = False
    consumers: tuple[str, ...] = ("effects",)


class Wiring(Struct, frozen=True, kw_only=True):
    """Who reaches what at which address. `direct` is for looking, past every fault; the others are for the pipeline.

    `front` makes of an ingest node's address (`http://127.0.0.1:PORT/callbacks/tiw`) the one that the sender uses.
    `ingest_environ` and `worker_environ` come on top of the environment of those processes, which run the `code` of
    this folder (None: ours).
    """

    direct_amqp_url: str
    direct_database_url: str
    ingest_amqp_url: str
    worker_amqp_url: str
    worker_database_url: str
    front: Callable[[str], str] = str
    ingest_environ: dict[str, str] = {}
    worker_environ: dict[str, str] = {}
    code: Path | None = None


Arrange: TypeAlias = "Callable[[Stage, Servers, ExitStack], Wiring]"


def arrange_directly(stage: "Stage", servers: "Servers", stack: ExitStack) -> Wiring:
    """Connect everything to the servers that all scenarios share, in a virtual host and a database of its own."""
    del stage
    amqp_url = stack.enter_context(servers.vhost())
    database_url = stack.enter_context(servers.database())
    return Wiring(
        direct_amqp_url=amqp_url,
        direct_database_url=database_url,
        ingest_amqp_url=amqp_url,
        worker_amqp_url=amqp_url,
        worker_database_url=database_url,
    )


def _nothing_missing() -> str | None:
    return None


class Scenario(Struct, frozen=True, kw_only=True):
    """One line of the fault matrix.

    `inject` is called once callbacks flow through the whole pipeline. It injects faults, each within `stage.fault`,
    and returns when the last one has ended; everything random comes from `stage.rng`. The harness then lets traffic
    go on for its tail, waits until all that was accepted has had its effects, ends the processes in order, collects
    the evidence and has it judged. `inject` asserts nothing: the checker judges, from the evidence alone.

    `arrange` wires the processes: proxies and clusters come in here. `cannot_run` returns why this machine cannot run
    it, or None; a scenario that cannot run is shown as such, never as passed. A scenario runs `rounds` (whole:
    `full_rounds`) times, each with a seed of its own. `sentence` says what happens, for the list and the docs.
    """

    name: str
    sentence: str
    inject: "Callable[[Stage], None]"
    traffic: Traffic = Traffic()
    full_traffic: Traffic | None = None
    layout: Layout = Layout()
    arrange: Arrange = arrange_directly
    cannot_run: Callable[[], str | None] = _nothing_missing
    rounds: int = 1
    full_rounds: int = 1
    #: Moving again after the end of each fault that says nothing else: invariant I11.
    recovers_within_s: float = 30.0
    #: How long the backlog may take to get its effects once traffic has ended.
    settles_within_s: float = 90.0
    #: Why a callback may be given up by the sender here, None if it may not: invariant I14.
    may_give_up: str | None = None
    #: Consumers (of `layout.consumers`) whose dead letters are meant.
    meant_to_fail: tuple[str, ...] = ()
    #: False: only with --full.
    in_short_run: bool = True
