"""Celery: a task that does nothing, acknowledged late. `fill` sends the tasks."""

import sys
from typing import Any

from celery import Celery
from kombu import Queue

from bench.contenders.progress import Progress
from bench.peers.python.handling import AMQP_URL, PREFETCH, QUEUE, events

app = Celery("bench", broker=AMQP_URL)
app.conf.update(
    task_queues=[Queue(QUEUE, queue_arguments={"x-queue-type": "quorum"})],
    task_default_queue=QUEUE,
    task_ignore_result=True,
    task_acks_late=True,
    worker_prefetch_multiplier=PREFETCH,
    worker_enable_remote_control=False,
    worker_send_task_events=False,
)
progress = None if "fill" in sys.argv else Progress()


@app.task(name="handle")
def handle(event: dict[str, Any]) -> None:
    """Count it."""
    del event
    assert progress is not None  # noqa: S101 - whoever fills does not handle
    progress.handled()


if __name__ == "__main__":
    if "fill" in sys.argv:
        with app.producer_or_acquire() as producer:
            for event in events():
                handle.apply_async((event,), producer=producer)
    else:
        # solo: in this process, without a pipe between two.
        options = ["--pool=solo", "--concurrency=1", "--without-gossip", "--without-mingle", "--without-heartbeat"]
        app.worker_main(["worker", *options, "--loglevel=error"])
