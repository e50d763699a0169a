"""The targets, as data: what is to be reached on the same machine in the same run, by medians."""

from msgspec import Struct

from bench.comparisons import accepting, archive, end_to_end, handling, handling_real, memory, spooling, start_up
from bench.contenders import accepting as accepting_servers
from bench.contenders import handling as handling_workers
from bench.contenders import storing as storing_workers
from bench.results import CPU_US, PER_S
from bench.runs import archiving


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


TARGETS = (
    Target(
        comparison=accepting.NAME,
        contender=accepting_servers.OURS.name,
        text="accepting, to FastAPI + FastStream",
        peers=(accepting_servers.FASTAPI_FASTSTREAM.name,),
        at_least=8,
    ),
    Target(
        comparison=accepting.NAME,
        contender=accepting_servers.OURS.name,
        text="accepting, to FastAPI + aio-pika",
        peers=(accepting_servers.FASTAPI_AIO_PIKA.name,),
        at_least=5,
    ),
    Target(
        comparison=accepting.NAME,
        contender=accepting_servers.OURS.name,
        text="accepting, to Node fastify + amqplib",
        peers=(accepting_servers.FASTIFY_AMQPLIB.name,),
        at_least=1.2,
    ),
    Target(
        comparison=accepting.NAME,
        contender=accepting_servers.OURS.name,
        text="accepting, CPU per callback, to Node fastify + amqplib",
        metric=CPU_US,
        peers=(accepting_servers.FASTIFY_AMQPLIB.name,),
        at_most=1.0,
    ),
    Target(
        comparison=accepting.NAME,
        contender=accepting_servers.OURS.name,
        text="accepting, to bare aiohttp that publishes nothing",
        peers=(accepting_servers.BARE_AIOHTTP.name,),
        at_least=1.0,
    ),
    Target(
        comparison=accepting.NAME,
        contender=accepting_servers.OURS_EMBEDDED.name,
        text="accepting, embedded, fsynced, to bare aiohttp",
        peers=(accepting_servers.BARE_AIOHTTP.name,),
        at_least=0.9,
    ),
    Target(
        comparison=spooling.NAME,
        contender=accepting_servers.OURS_SPOOLING.name,
        text="spooling, to accepting with the embedded transport",
        peers=(accepting_servers.OURS_EMBEDDED.name,),
        at_least=0.5,
    ),
    Target(
        comparison=handling.NAME,
        contender=handling_workers.OURS.name,
        text="handling without work, to the best Python peer",
        peers=tuple(peer.name for peer in handling_workers.PYTHON_PEERS),
        at_least=3,
    ),
    Target(
        comparison=handling.NAME,
        contender=handling_workers.OURS.name,
        text="handling without work, to Node amqplib",
        peers=(handling_workers.AMQPLIB.name,),
        at_least=0.6,
    ),
    Target(
        comparison=handling_real.NAME,
        contender=storing_workers.OURS.name,
        text="handling with the real work, to FastStream + asyncpg",
        peers=(storing_workers.FASTSTREAM.name,),
        at_least=12,
    ),
    Target(
        comparison=handling_real.NAME,
        contender=storing_workers.OURS.name,
        text="handling with the real work, to aio-pika + asyncpg",
        peers=(storing_workers.AIO_PIKA.name,),
        at_least=7,
    ),
    Target(
        comparison=handling_real.NAME,
        contender=storing_workers.OURS.name,
        text="handling with the real work, to Node amqplib + pg",
        peers=(storing_workers.AMQPLIB.name,),
        at_least=5,
    ),
    Target(
        comparison=end_to_end.NAME,
        contender=end_to_end.contender_name(end_to_end.TARGET_RATE),
        text="200 to visible row at 500/s, p50",
        metric="p50_ms",
        at_most=10,
        unit="ms",
    ),
    Target(
        comparison=end_to_end.NAME,
        contender=end_to_end.contender_name(end_to_end.TARGET_RATE),
        text="200 to visible row at 500/s, p99",
        metric="p99_ms",
        at_most=50,
        unit="ms",
    ),
    Target(
        comparison=memory.NAME,
        contender=accepting_servers.OURS.name,
        text="ingest process, idle, resident",
        metric="idle_mb",
        at_most=60,
        unit="MB",
    ),
    Target(
        comparison=memory.NAME,
        contender=accepting_servers.OURS.name,
        text="ingest process, at full load, resident",
        metric="loaded_mb",
        at_most=80,
        unit="MB",
    ),
    Target(
        comparison=start_up.NAME,
        contender=start_up.HELP,
        text="python -m tiw --help",
        metric=start_up.ELAPSED_MS,
        at_most=150,
        unit="ms",
    ),
    Target(
        comparison=archive.NAME,
        contender=archive.OURS,
        text="fetching 1 GB with its SHA-256, to curl | tee | sha256sum",
        metric=archiving.MB_PER_S,
        peers=(archive.CURL,),
        at_least=0.9,
    ),
    *(
        Target(
            comparison=archive.NAME,
            contender=contender,
            text=f"archiving {contender}, resident",
            metric=archiving.PEAK_MB,
            at_most=100,
            unit="MB",
        )
        for contender in (archive.TO_FOLDER, archive.TO_BUCKET)
    ),
    Target(comparison=archive.NAME, contender=archive.CLAIMING, text=archive.CLAIMING, at_least=1000, unit="/s"),
)
