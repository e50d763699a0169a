"""Dramatiq: an actor that does nothing. `fill` sends the messages."""

import os
import signal
import sys
import time
from typing import Any

from bench.contenders.progress import Progress
from bench.peers.python.handling import AMQP_URL, MESSAGES, PREFETCH, QUEUE, events

# Read when a worker is made.
os.environ["dramatiq_queue_prefetch"] = str(PREFETCH)  # noqa: SIM112 - Dramatiq's own spelling

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.middleware import AgeLimit, Callbacks, Retries, ShutdownNotifications


class QuorumBroker(RabbitmqBroker):
    """Dramatiq declares classic queues; this one declares quorum queues."""

    def _build_queue_arguments(self, queue_name: str) -> dict[str, Any]:
        return {**super()._build_queue_arguments(queue_name), "x-queue-type": "quorum"}


# What the defaults add besides watches time limits, from a thread of its own, and counts for Prometheus.
broker = QuorumBroker(url=AMQP_URL, middleware=[AgeLimit(), ShutdownNotifications(), Callbacks(), Retries()])
dramatiq.set_broker(broker)
progress = None if "fill" in sys.argv else Progress()


@dramatiq.actor(queue_name=QUEUE)
def handle(event: dict[str, Any]) -> None:
    """Count it."""
    del event
    assert progress is not None  # noqa: S101 - whoever fills does not handle
    progress.handled()


def work() -> None:
    """Handle messages until SIGTERM, in one thread: it does nothing that another could do meanwhile."""
    worker = dramatiq.Worker(broker, worker_threads=1)
    worker.start()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        signal.pause()
    finally:
        worker.stop()


if __name__ == "__main__":
    if "fill" in sys.argv:
        for event in events():
            handle.send(event)
        # Nothing is confirmed: what the broker has not taken yet is lost with the connection.
        while broker.get_queue_message_counts(QUEUE)[0] < MESSAGES:
            time.sleep(0.05)
        broker.close()
    else:
        work()
