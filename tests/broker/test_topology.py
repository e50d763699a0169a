import pytest

from broker import BUILT_IN_CONSUMERS, DEFAULT_RETRY_DELAYS_S, RESERVED_NAMES, ConsumerQueues, queue_name
from broker.topology import (
    ALTERNATE_EXCHANGE,
    EVENTS_EXCHANGE,
    HOME_EXCHANGE,
    ORPHANED_QUEUE,
    ORPHANS_EXCHANGE,
    ROUTING_KEYS,
    Queue,
    Topology,
    dead_queue_name,
    retry_name,
    topology,
)

#: What rabbit_quorum_queue of 3.10 accepts; it refuses a declaration with any other argument.
KNOWN_TO_3_10 = {
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-dead-letter-strategy",
    "x-delivery-limit",
    "x-expires",
    "x-max-length",
    "x-max-length-bytes",
    "x-message-ttl",
    "x-overflow",
    "x-queue-leader-locator",
    "x-queue-type",
    "x-quorum-initial-group-size",
    "x-single-active-consumer",
}


@pytest.fixture
def whole() -> Topology:
    archive = ConsumerQueues(consumer="archive", routing_keys=("OnlineRecordFinished", "OnlineRecordStopped"))
    return topology((*BUILT_IN_CONSUMERS, archive), retry_delays_s=DEFAULT_RETRY_DELAYS_S)


def _queue(whole: Topology, name: str) -> Queue:
    (queue,) = [queue for queue in whole.queues if queue.name == name]
    return queue


def _retry_queues(whole: Topology) -> list[Queue]:
    return [queue for queue in whole.queues if queue.name.startswith("tiw.retry.")]


def test_every_queue_is_a_quorum_queue_that_3_10_can_declare(whole: Topology) -> None:
    for queue in whole.queues:
        assert queue.arguments["x-queue-type"] == "quorum"
        assert set(queue.arguments) <= KNOWN_TO_3_10


def test_every_event_has_a_built_in_consumer() -> None:
    bound = [key for consumer in BUILT_IN_CONSUMERS for key in consumer.routing_keys]
    assert sorted(bound) == sorted(ROUTING_KEYS)


def test_a_consumer_is_bound_to_its_events_and_to_its_own_name(whole: Topology) -> None:
    assert set(_queue(whole, "tiw.archive").bindings) == {
        (EVENTS_EXCHANGE, "OnlineRecordFinished"),
        (EVENTS_EXCHANGE, "OnlineRecordStopped"),
        (HOME_EXCHANGE, "tiw.archive"),
    }


def test_what_no_binding_takes_is_unrecognized(whole: Topology) -> None:
    (events,) = [exchange for exchange in whole.exchanges if exchange.name == EVENTS_EXCHANGE]
    assert events.alternate == ALTERNATE_EXCHANGE
    assert (ALTERNATE_EXCHANGE, "") in _queue(whole, "tiw.unrecognized").bindings


def test_what_finds_no_home_is_orphaned(whole: Topology) -> None:
    (home,) = [exchange for exchange in whole.exchanges if exchange.name == HOME_EXCHANGE]
    assert (home.kind, home.alternate) == ("direct", ORPHANS_EXCHANGE)
    assert _queue(whole, ORPHANED_QUEUE).bindings == ((ORPHANS_EXCHANGE, ""),)


def test_a_retry_queue_leads_home_and_loses_nothing_on_the_way(whole: Topology) -> None:
    for queue in _retry_queues(whole):
        assert queue.arguments["x-dead-letter-exchange"] == HOME_EXCHANGE
        assert queue.arguments["x-dead-letter-strategy"] == "at-least-once"
        assert queue.arguments["x-overflow"] == "reject-publish"
        assert queue.bindings == ((queue.name, ""),)
        # A key of its own would replace the name of the consumer to come home to.
        assert "x-dead-letter-routing-key" not in queue.arguments


def test_the_exchange_of_a_retry_queue_keeps_the_routing_key(whole: Topology) -> None:
    kinds = {exchange.name: exchange.kind for exchange in whole.exchanges}
    assert {kinds[queue.name] for queue in _retry_queues(whole)} == {"fanout"}


def test_nothing_is_dead_lettered_to_the_default_exchange(whole: Topology) -> None:
    assert "" not in {queue.arguments.get("x-dead-letter-exchange") for queue in whole.queues}


def test_no_queue_has_a_bound_on_its_length(whole: Topology) -> None:
    assert not any(name.startswith("x-max-length") for queue in whole.queues for name in queue.arguments)


def test_looking_at_dead_letters_does_not_lose_them(whole: Topology) -> None:
    for consumer in BUILT_IN_CONSUMERS:
        dead = _queue(whole, dead_queue_name(consumer.consumer))
        assert dead.arguments["x-delivery-limit"] == 1_000_000_000


def test_what_the_broker_itself_takes_out_of_a_consumers_queue_is_a_dead_letter(whole: Topology) -> None:
    for consumer in BUILT_IN_CONSUMERS:
        queue = _queue(whole, queue_name(consumer.consumer))
        dead = _queue(whole, dead_queue_name(consumer.consumer))
        leads_to = queue.arguments["x-dead-letter-exchange"], queue.arguments["x-dead-letter-routing-key"]
        assert dead.bindings == (leads_to,)
        assert dead.arguments["x-dead-letter-exchange"] == ORPHANS_EXCHANGE
        for one in (queue, dead):
            assert one.arguments["x-overflow"] == "reject-publish"
            # One supervisor of a node has the workers of all of that strategy, and can give up.
            assert "x-dead-letter-strategy" not in one.arguments


def test_an_alternate_exchange_stands_before_what_names_it(whole: Topology) -> None:
    declared: set[str] = set()
    for exchange in whole.exchanges:
        assert exchange.alternate is None or exchange.alternate in declared
        declared.add(exchange.name)
    assert {exchange for queue in whole.queues for exchange, _ in queue.bindings} <= declared


def test_names_are_unique(whole: Topology) -> None:
    queues = [queue.name for queue in whole.queues]
    exchanges = [exchange.name for exchange in whole.exchanges]
    assert len(set(queues)) == len(queues)
    assert len(set(exchanges)) == len(exchanges)


def test_a_reserved_name_is_no_built_in_consumer() -> None:
    assert RESERVED_NAMES.isdisjoint(consumer.consumer for consumer in BUILT_IN_CONSUMERS)
    assert queue_name("orphaned") == ORPHANED_QUEUE


@pytest.mark.parametrize(
    ("delay_s", "name"),
    [
        (1, "tiw.retry.1s"),
        (5, "tiw.retry.5s"),
        (30, "tiw.retry.30s"),
        (120, "tiw.retry.2m"),
        (600, "tiw.retry.10m"),
        (3600, "tiw.retry.1h"),
        (90, "tiw.retry.90s"),
        (0.2, "tiw.retry.200ms"),
        (1.5, "tiw.retry.1500ms"),
    ],
)
def test_a_retry_queue_is_named_by_its_delay(delay_s: float, name: str) -> None:
    assert retry_name(delay_s) == name
