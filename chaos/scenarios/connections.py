"""A TCP proxy between each pair, and everything that can be wrong with a connection there."""

from contextlib import ExitStack
from functools import partial
from random import Random

from msgspec import Struct, structs
from yarl import URL

from chaos.errors import ChaosError
from chaos.faults.proxy import AnswerTimes, Kind, Proxy, Toxic, draw
from chaos.machine.servers import Servers
from chaos.scenario import Arrange, Scenario, Traffic, Wiring, arrange_directly
from chaos.stage import Stage, wait_moving

#: Longer than the confirm's time-out in each case, and in some than what a peer's silence may last.
LASTS_S = (3.0, 4.0, 5.0, 12.0)
SHORT_LASTS_S = (2.0, 3.0)

#: The promise, and what two shared cores may add to what is seen from beside.
ANSWERED_WITHIN_S = 8.5

SEEDS = 5
KINDS_IN_SHORT_RUN = 3


class Run(Struct, frozen=True, kw_only=True):
    """One fault of a plan."""

    toxic: Toxic
    lasts_s: float


def plan_runs(rng: Random, *, is_full: bool) -> list[Run]:
    """Return every kind of fault, as often as there are seeds; in the short run some kinds of chance, once."""
    kinds = list(Kind) * SEEDS if is_full else rng.sample(list(Kind), KINDS_IN_SHORT_RUN)
    rng.shuffle(kinds)
    lasts_s = LASTS_S if is_full else SHORT_LASTS_S
    return [Run(toxic=draw(kind, rng), lasts_s=rng.choice(lasts_s)) for kind in kinds]


def through(url: str, proxy: Proxy) -> str:
    """Return a server's URL with the proxy's address in place of its own."""
    return str(URL(url).with_host(proxy.host).with_port(proxy.port))


def _proxied(stage: Stage, stack: ExitStack, url: str) -> str:
    target = URL(url)
    if target.host is None or target.port is None:
        raise ChaosError("a server's address has no host or no port")
    proxy = stack.enter_context(Proxy(target.host, target.port, seed=stage.seed))
    stage.props.setdefault("proxies", []).append(proxy)
    return through(url, proxy)


def _before_ingest(stage: Stage, servers: Servers, stack: ExitStack) -> Wiring:
    times = stage.props["answers"] = AnswerTimes()
    proxies = stage.props["proxies"] = []
    fronts: dict[str, str] = {}

    def front(address: str) -> str:
        if address not in fronts:
            target = URL(address)
            proxy = Proxy(str(target.host), target.port or 0, seed=stage.seed, observe=times.observe)
            proxies.append(stack.enter_context(proxy))
            fronts[address] = through(address, proxy)
        return fronts[address]

    return structs.replace(arrange_directly(stage, servers, stack), front=front)


def _before_ingests_broker(stage: Stage, servers: Servers, stack: ExitStack) -> Wiring:
    wiring = arrange_directly(stage, servers, stack)
    return structs.replace(wiring, ingest_amqp_url=_proxied(stage, stack, wiring.direct_amqp_url))


def _before_workers_broker(stage: Stage, servers: Servers, stack: ExitStack) -> Wiring:
    wiring = arrange_directly(stage, servers, stack)
    return structs.replace(wiring, worker_amqp_url=_proxied(stage, stack, wiring.direct_amqp_url))


def _before_database(stage: Stage, servers: Servers, stack: ExitStack) -> Wiring:
    wiring = arrange_directly(stage, servers, stack)
    return structs.replace(wiring, worker_database_url=_proxied(stage, stack, wiring.direct_database_url))


def _inject(stage: Stage, link: str) -> None:
    runs = plan_runs(stage.rng, is_full=stage.is_full)
    stage.plan(", ".join(f"{run.toxic.kind} {run.lasts_s:g} s" for run in runs))
    for run in runs:
        _spoil(stage, link, run)
        wait_moving(stage)
    answers: AnswerTimes | None = stage.props.get("answers")
    if answers is not None:
        stage.measure("longest answer of an ingest node", answers.longest_s, "s", at_most=ANSWERED_WITHIN_S)


def _spoil(stage: Stage, link: str, run: Run) -> None:
    proxies: list[Proxy] = stage.props["proxies"]
    hits = sum(proxy.hits for proxy in proxies)
    # What the network does to the way between sender and ingest is no answer of ours: that is measured beside it.
    with stage.fault(f"TCP {run.toxic.kind}", link, excuses_deadline="answers" in stage.props):
        for proxy in proxies:
            proxy.inject(run.toxic)
        stage.sleep(run.lasts_s)
        for proxy in proxies:
            proxy.heal()
    if sum(proxy.hits for proxy in proxies) == hits:
        raise ChaosError(f"{run.toxic.kind} between {link} met no connection")


def _scenario(link: str, arrange: Arrange, *, between: str) -> Scenario:
    return Scenario(
        name=f"tcp-{link}",
        sentence=f"a TCP proxy between {between}: latency, black hole, reset, half-open, slow close, one byte at a "
        "time, little bandwidth, cut in the middle of what the server says, refused connections",
        inject=partial(_inject, link=link),
        arrange=arrange,
        traffic=Traffic(callbacks=150, rate=12.0, tail_s=2.0),
        settles_within_s=120.0,
    )


SCENARIOS = (
    _scenario("sender-ingest", _before_ingest, between="the sender and the ingest nodes"),
    _scenario("ingest-broker", _before_ingests_broker, between="the ingest nodes and the broker"),
    _scenario("worker-broker", _before_workers_broker, between="the workers and the broker"),
    _scenario("worker-database", _before_database, between="the workers and PostgreSQL"),
)
