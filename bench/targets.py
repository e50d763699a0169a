"""The targets, as data: what is to be reached on the same machine in the same run, by medians."""

from collections.abc import Iterator

from msgspec import Struct

from bench.comparisons import (
    accepting,
    archive,
    demo,
    end_to_end,
    growth_bodies,
    handling,
    handling_real,
    latency,
    lonely,
    sitting,
    spooling,
    start_up,
)
from bench.contenders import accepting as servers
from bench.contenders import handling as handling_workers
from bench.contenders import storing
from bench.results import CPU_US, PER_S
from bench.runs import archiving
from bench.runs.sitting import DAY_S, IDLE_PERCENT


class Target(Struct, frozen=True, kw_only=True):
    """A bound on what one contender reaches: of the metric itself, or of its ratio to the best of `peers`.

    Either `at_least` or `at_most` is given; the best peer is the one with the greatest or the least median.
    """

    comparison: str
    text: str
    contender: str
    metric: str = PER_S
    peers: tuple[str, ...] = ()
    at_least: float | None = None
    at_most: float | None = None
    unit: str = ""

    @property
    def wanted(self) -> str:
        """The bound in words."""
        bound = self.at_least if self.at_least is not None else self.at_most
        return f"{'≥' if self.at_least is not None else '≤'} {bound:g} {'x' if self.peers else self.unit}"


def _accepting() -> Iterator[Target]:
    def target(
        text: str,
        peer: servers.Server,
        ours: servers.Server = servers.OURS,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> Target:
        metric = CPU_US if at_least is None else PER_S
        return Target(
            comparison=accepting.NAME,
            contender=ours.name,
            text=text,
            metric=metric,
            peers=(peer.name,),
            at_least=at_least,
            at_most=at_most,
        )

    yield target("accepting, CPU per callback, to Node fastify + amqplib", servers.FASTIFY_AMQPLIB, at_most=0.75)
    yield target("accepting, to Node fastify + amqplib", servers.FASTIFY_AMQPLIB, at_least=1.1)
    yield target("accepting, CPU, to bare aiohttp that publishes nothing", servers.BARE_AIOHTTP, at_most=1.1)
    yield target("the same, further", servers.BARE_AIOHTTP, at_most=0.8)
    yield target("accepting, to FastAPI + FastStream", servers.FASTAPI_FASTSTREAM, at_least=6)
    yield target("accepting, to FastAPI + aio-pika", servers.FASTAPI_AIO_PIKA, at_least=4.5)
    yield target("accepting, CPU, to Go net/http + amqp091", servers.GO_AMQP091, at_most=1.5)
    yield target("accepting, embedded, to bare aiohttp", servers.BARE_AIOHTTP, servers.OURS_EMBEDDED, at_least=0.8)
    yield target(
        "embedded, all running, CPU per callback, to before",
        servers.OURS_EMBEDDED_ALL_BEFORE,
        servers.OURS_EMBEDDED_ALL,
        at_most=0.6,
    )
    yield target(
        "embedded, all running, CPU per callback, to accepting alone",
        servers.OURS_EMBEDDED,
        servers.OURS_EMBEDDED_ALL,
        at_most=1.5,
    )
    yield Target(
        comparison=latency.NAME,
        contender=servers.OURS.name,
        text="1,000 connections, p99 at the same rate, to Node fastify + amqplib",
        metric="p99_ms",
        peers=(servers.FASTIFY_AMQPLIB.name,),
        at_most=0.8,
    )
    for size_kib in growth_bodies.SIZES_KIB:
        yield Target(
            comparison=growth_bodies.NAME,
            contender=growth_bodies.contender_name(servers.OURS, size_kib),
            text=f"bodies of {size_kib} KiB, CPU, to Node fastify + amqplib",
            metric=CPU_US,
            peers=(growth_bodies.contender_name(servers.FASTIFY_AMQPLIB, size_kib),),
            at_most=1.0,
        )
    yield Target(
        comparison=spooling.NAME,
        contender=servers.OURS_SPOOLING.name,
        text="spooling, to accepting with the embedded transport",
        peers=(servers.OURS_EMBEDDED.name,),
        at_least=0.5,
    )


def _handling() -> Iterator[Target]:
    for text, peers, least in (
        ("handling without work, to the best Python peer", handling_workers.PYTHON_PEERS, 4.0),
        ("handling without work, to Node amqplib", (handling_workers.AMQPLIB,), 1.3),
    ):
        yield Target(
            comparison=handling.NAME,
            contender=handling_workers.OURS.name,
            text=text,
            peers=tuple(peer.name for peer in peers),
            at_least=least,
        )
    for text, metric, bound in (
        ("a lonely event, the whole worker's CPU, to before", CPU_US, 0.45),
        ("a lonely event, the database's CPU, to before", "database_cpu_us", 0.7),
    ):
        yield Target(
            comparison=lonely.NAME,
            contender=storing.OURS.name,
            text=text,
            metric=metric,
            peers=(storing.OURS_BEFORE.name,),
            at_most=bound,
        )
    yield Target(
        comparison=handling_real.NAME,
        contender=storing.OURS.name,
        text="groups with the real work, CPU per event, to before",
        metric=CPU_US,
        peers=(storing.OURS_BEFORE.name,),
        at_most=0.55,
    )
    for peer, least in ((storing.AMQPLIB, 5.0), (storing.AIO_PIKA, 7.0), (storing.FASTSTREAM, 13.0)):
        yield Target(
            comparison=handling_real.NAME,
            contender=storing.OURS.name,
            text=f"groups with the real work, to {peer.name}",
            peers=(peer.name,),
            at_least=least,
        )
    for metric, most in (("p50_ms", 2.0), ("p99_ms", 4.0)):
        yield Target(
            comparison=end_to_end.NAME,
            contender=end_to_end.contender_name(end_to_end.TARGET_RATE),
            text=f"200 to visible row at 500/s, {metric.removesuffix('_ms')}, to a bare confirm, then commit",
            metric=metric,
            peers=(end_to_end.ROUND_TRIP,),
            at_most=most,
        )


def _sitting_and_starting() -> Iterator[Target]:
    for comparison, contender, text, metric, most, unit in (
        (accepting.NAME, servers.OURS.name, "ingest, loaded, resident", "loaded_mb", 50, "MB"),
        (handling_real.NAME, storing.OURS.name, "worker, loaded, resident", "loaded_mb", 72, "MB"),
        (sitting.NAME, sitting.UP, "tiw up, idle, resident", "idle_mb", 75, "MB"),
        (sitting.NAME, sitting.UP, "tiw up, idle, of a processor", IDLE_PERCENT, 0.05, "%"),
        (sitting.NAME, sitting.UP, "a day of a school, 2,000 callbacks, CPU", DAY_S, 60, "s"),
        (demo.NAME, demo.DEMO, "./dev demo, after the first", demo.ELAPSED_S, 8, "s"),
        (start_up.NAME, start_up.HELP, "python -m tiw --help", start_up.ELAPSED_MS, 150, "ms"),
    ):
        yield Target(comparison=comparison, contender=contender, text=text, metric=metric, at_most=most, unit=unit)


def _archiving() -> Iterator[Target]:
    yield Target(
        comparison=archive.NAME,
        contender=archive.OURS,
        text="fetching 1 GB with its SHA-256, to curl | tee | sha256sum",
        metric=archiving.MB_PER_S,
        peers=(archive.CURL,),
        at_least=0.9,
    )
    for contender in (archive.TO_FOLDER, archive.TO_BUCKET):
        yield Target(
            comparison=archive.NAME,
            contender=contender,
            text=f"archiving {contender}, resident",
            metric=archiving.PEAK_MB,
            at_most=100,
            unit="MB",
        )
    yield Target(comparison=archive.NAME, contender=archive.CLAIMING, text=archive.CLAIMING, at_least=1000, unit="/s")


TARGETS = (*_accepting(), *_handling(), *_sitting_and_starting(), *_archiving())
