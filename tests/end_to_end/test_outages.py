"""RabbitMQ and PostgreSQL away under traffic: nothing is lost, nothing is given up, nobody starts anything again."""

import time
from collections import Counter
from collections.abc import Callable

from tests.end_to_end.deployment import Deployment
from tests.end_to_end.programs import eventually
from tests.end_to_end.traffic import Traffic
from tests.servers.postgres import PostgresServer
from tests.servers.rabbitmq import RabbitMQServer

#: How long a server is away: longer than a callback waits for it.
AWAY_S = 8.0

#: No callback is refused for the database; only the consumers wait.
DATABASE_AWAY_S = 5.0

RATE = 8.0
ENDS_S = 120.0


def handled(deployment: Deployment) -> Counter[str]:
    return Counter(line["event_id"] for line in deployment.logged("succeeded", consumer="counts"))


def test_a_broker_that_stops_or_crashes_under_traffic_loses_nothing_that_was_accepted(
    rabbitmq: RabbitMQServer, make_distributed: Callable[..., Deployment]
) -> None:
    deployment = make_distributed()
    deployment.install("counts")
    deployment.start()
    traffic = Traffic(deployment, classes=60, rate=RATE)
    eventually(lambda: deployment.count("events") > 10)
    rabbitmq.stop()
    time.sleep(AWAY_S)
    rabbitmq.start()
    at_start = deployment.count("events")
    eventually(lambda: deployment.count("events") > at_start + 10)
    rabbitmq.kill()
    rabbitmq.start()
    counts = traffic.counts(within_s=ENDS_S)
    assert (counts.retries, counts.gave_up) == (0, 0), "the spool takes what the broker does not"
    assert deployment.logged("publish_channel_lost"), "no callback met the outage"
    traffic.assert_recorded(counts)
    eventually(lambda: len(handled(deployment)) == counts.accepted)
    assert set(handled(deployment).values()) == {1}
    assert not deployment.logged("process_ended")


def test_a_database_that_stops_under_traffic_costs_no_attempt_and_no_event(
    postgres: PostgresServer, make_distributed: Callable[..., Deployment]
) -> None:
    deployment = make_distributed()
    deployment.install("counts")
    deployment.start()
    traffic = Traffic(deployment, classes=30, rate=RATE)
    eventually(lambda: deployment.count("events") > 10)
    postgres.stop()
    time.sleep(DATABASE_AWAY_S)
    postgres.start()
    counts = traffic.counts(within_s=ENDS_S)
    assert counts.retries == 0, "ingest does not need the database"
    traffic.assert_recorded(counts)
    eventually(lambda: len(handled(deployment)) == counts.accepted)
    assert set(handled(deployment).values()) == {1}
    assert {line["attempt"] for line in deployment.logged("succeeded", consumer="counts")} == {1}
    assert not deployment.logged("retry_scheduled")
    assert not deployment.logged("process_ended")
    consumers = ("counts", "started", "finished")
    assert all(deployment.logged("consumer_paused", consumer=consumer) for consumer in consumers)
    eventually(lambda: all(deployment.logged("consumer_resumed", consumer=consumer) for consumer in consumers))
