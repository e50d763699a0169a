"""A cluster of three: nodes killed, frozen and lost for good, networks parted, large bodies meanwhile."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from random import Random
from typing import TypeAlias

from chaos.faults.cluster import SIZE, Cluster
from chaos.faults.network import cannot_network
from chaos.machine.servers import Servers
from chaos.scenario import Layout, Scenario, Traffic, Wiring
from chaos.stage import Stage, wait_moving

#: Whose leaders are sought out: queues that callbacks flow through.
QUEUES = ("tiw.started", "tiw.stopped", "tiw.finished", "tiw.effects")

#: In seconds: shorter and longer than the cluster takes to notice, and longer than a client's heartbeats take.
PARTED_S = (4.0, 10.0, 30.0)
SHORT_PARTED_S = (8.0,)

#: Longer than every time-out of the cluster and of its clients.
FROZEN_S = 45.0

#: What an operator's supervisor takes to start a node again.
_RESTART_AFTER_S = 2.0

#: A node that paused itself comes back by itself, and a killed one has to start.
_RECOVERS_WITHIN_S = 30.0

_LARGE_BODY_BYTES = 1024 * 1024

#: A way to part a network: the cluster, the leader of some queue, chance; returns who is parted from whom.
Part: TypeAlias = Callable[[Cluster, int, Random], str]


def _leader_alone(cluster: Cluster, leader: int, rng: Random) -> str:
    del rng
    cluster.network.part((leader,), _others(leader))
    return f"node {leader}, the leader, from the others"


def _follower_alone(cluster: Cluster, leader: int, rng: Random) -> str:
    follower = rng.choice(_others(leader))
    cluster.network.part((follower,), _others(follower))
    return f"node {follower}, a follower, from the others"


def _leader_deaf(cluster: Cluster, leader: int, rng: Random) -> str:
    del rng
    cluster.network.deafen(leader, *_others(leader))
    return f"node {leader}, the leader, hears nobody and is heard"


def _leader_unheard(cluster: Cluster, leader: int, rng: Random) -> str:
    del rng
    for other in _others(leader):
        cluster.network.deafen(other, leader)
    return f"node {leader}, the leader, hears all and is not heard"


def _bridge(cluster: Cluster, leader: int, rng: Random) -> str:
    other = rng.choice(_others(leader))
    cluster.network.part((leader,), (other,))
    return f"nodes {leader} and {other} from each other, the third hears both"


def _everyone_alone(cluster: Cluster, leader: int, rng: Random) -> str:
    del leader, rng
    for node in range(SIZE):
        cluster.network.deafen(node, *_others(node))
    return "every node from every other"


def _leader_from_clients(cluster: Cluster, leader: int, rng: Random) -> str:
    del rng
    cluster.network.hide(leader)
    return f"node {leader}, the leader, from all clients"


PARTS: tuple[Part, ...] = (
    _leader_alone,
    _bridge,
    _leader_deaf,
    _leader_from_clients,
    _everyone_alone,
    _follower_alone,
    _leader_unheard,
)


def _others(node: int) -> tuple[int, ...]:
    return tuple(other for other in range(SIZE) if other != node)


def _arrange(stage: Stage, servers: Servers, stack: ExitStack) -> Wiring:
    cluster = stage.props["cluster"] = servers.cluster
    cluster.mend()
    vhost = stage.props["vhost"] = cluster.create_vhost()
    stack.callback(cluster.delete_vhost, vhost)
    database_url = stack.enter_context(servers.database())
    urls = [node.url(vhost) for node in cluster.nodes]
    return Wiring(
        direct_amqp_url=urls[0],
        direct_database_url=database_url,
        ingest_amqp_url=",".join(urls),
        # Workers prefer another node than ingest does.
        worker_amqp_url=",".join([*urls[1:], urls[0]]),
        worker_database_url=database_url,
    )


def _inject_nodes(stage: Stage) -> None:
    acts = {"kill": _kill_leader, "freeze": _freeze_leader, "lose": _lose_a_member}
    turns = stage.pick({"kill": 1, "lose": 1}, {"kill": 10, "freeze": 4, "lose": 4})
    plan = [name for name, count in turns.items() for _ in range(count)]
    stage.rng.shuffle(plan)
    stage.plan(", ".join(plan))
    for name in plan:
        acts[name](stage)
        _unite(stage)


def _kill_leader(stage: Stage) -> None:
    cluster: Cluster = stage.props["cluster"]
    leader = _leader(stage)
    with stage.fault("SIGKILL of a queue's leader", f"broker node {leader}", recovers_within_s=_RECOVERS_WITHIN_S):
        cluster.nodes[leader].kill()
        stage.sleep(_RESTART_AFTER_S + stage.rng.uniform(0.0, 8.0))
        cluster.nodes[leader].start()


def _freeze_leader(stage: Stage) -> None:
    cluster: Cluster = stage.props["cluster"]
    leader = _leader(stage)
    with stage.fault("SIGSTOP of a queue's leader", f"broker node {leader}"):
        cluster.nodes[leader].pause()
        stage.sleep(FROZEN_S)
        cluster.nodes[leader].resume()


def _lose_a_member(stage: Stage) -> None:
    cluster: Cluster = stage.props["cluster"]
    member = stage.rng.randrange(SIZE)
    with stage.fault("member wiped, added again", f"broker node {member}"):
        cluster.wipe(member)
        stage.sleep(stage.rng.uniform(1.0, 5.0))
        cluster.replace(member)


def _inject_partitions(stage: Stage, *, short: int, full: int) -> None:
    count = stage.pick(short, full)
    parts = [PARTS[(stage.seed + number) % len(PARTS)] for number in range(count)]
    lengths_s = [stage.rng.choice(stage.pick(SHORT_PARTED_S, PARTED_S)) for _ in parts]
    stage.plan(
        ", ".join(f"{part.__name__.strip('_')} {length_s:g} s" for part, length_s in zip(parts, lengths_s, strict=True))
    )
    for part, length_s in zip(parts, lengths_s, strict=True):
        _part(stage, part, length_s)
        _unite(stage)


def _part(stage: Stage, part: Part, length_s: float) -> None:
    cluster: Cluster = stage.props["cluster"]
    leader = _leader(stage)
    with stage.fault("partition", part.__name__.strip("_").replace("_", " ")):
        stage.say(f"parted: {part(cluster, leader, stage.rng)}")
        stage.sleep(length_s)
        cluster.network.heal()


def _leader(stage: Stage) -> int:
    cluster: Cluster = stage.props["cluster"]
    return cluster.leader(stage.props["vhost"], stage.rng.choice(QUEUES))


def _unite(stage: Stage) -> None:
    """Look for effects first: the cluster need not be whole for them."""
    wait_moving(stage)
    cluster: Cluster = stage.props["cluster"]
    for number in cluster.unite():
        stage.say(f"broker node {number} stayed apart, and was started again")


_SCENARIO = partial(
    Scenario,
    arrange=_arrange,
    cannot_run=cannot_network,
    layout=Layout(ingest_nodes=2, workers=1),
    settles_within_s=180.0,
)

SCENARIOS = (
    _SCENARIO(
        name="cluster-nodes",
        sentence="three RabbitMQ nodes: the leader of a queue killed, or stopped for longer than every time-out; a "
        "member wiped and added again",
        inject=_inject_nodes,
        traffic=Traffic(callbacks=150, rate=12.0, tail_s=2.0),
    ),
    _SCENARIO(
        name="cluster-partitions",
        sentence="three RabbitMQ nodes, parted: the leader alone, a follower alone, one-way, a bridge, everyone "
        "alone, the leader from its clients",
        inject=partial(_inject_partitions, short=1, full=15),
        traffic=Traffic(callbacks=150, rate=12.0, tail_s=2.0),
    ),
    _SCENARIO(
        name="cluster-large-bodies",
        sentence="three RabbitMQ nodes, parted, while bodies of the maximum size come in",
        inject=partial(_inject_partitions, short=1, full=7),
        traffic=Traffic(callbacks=60, rate=4.0, tail_s=2.0, body_bytes=_LARGE_BODY_BYTES, duplicates=0.02, forged=0.02),
    ),
)
