"""Workers that die in the middle of a handler, once or every time."""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.end_to_end.deployment import Deployment, distributed, embedded
from tests.end_to_end.programs import eventually
from tests.end_to_end.sending import callback, send
from tests.servers.postgres import PostgresServer
from tests.servers.rabbitmq import RabbitMQServer

NEIGHBOURS = [f"neighbour-{number:02}" for number in range(20)]
BEFORE, BEHIND = NEIGHBOURS[:10], NEIGHBOURS[10:]

#: Six deaths, and the growing pauses before a worker is started again.
POISONED_S = 90.0


def post_poison(deployment: Deployment) -> None:
    for task_id in (*BEFORE, "poison", *BEHIND):
        send(deployment.address, callback("OnlineRecordFinished", task_id))


def succeeded(deployment: Deployment) -> Counter[str]:
    return Counter(line["task_id"] for line in deployment.logged("succeeded", consumer="poisoned"))


def assert_buried_alone(deployment: Deployment) -> None:
    """Assert that the poison is the one dead letter, and that its neighbours were all handled.

    At least once: one whose process dies between its effect and remembering it runs again.
    """
    eventually(lambda: deployment.select("SELECT 1 FROM dead_letters"), within_s=POISONED_S, every_s=0.2)
    eventually(lambda: len(succeeded(deployment)) == len(NEIGHBOURS))
    (letter,) = deployment.run("dead-letters", "list", "--json").json
    assert (letter["consumer"], letter["reason"]) == ("poisoned", "worker crashed")
    assert set(succeeded(deployment)) == set(NEIGHBOURS)
    deaths = [line for line in deployment.logged("attempted", consumer="poisoned") if line["task_id"] == "poison"]
    assert len(deaths) == 6
    # The built-in consumer of the same events never noticed.
    assert len(deployment.logged("recording_finished", consumer="finished")) == len(NEIGHBOURS) + 1


def poison_supervised(deployment: Deployment) -> None:
    """Let the parent of the poisoned child start it again each time."""
    with deployment:
        deployment.install("poisoned")
        deployment.start()
        post_poison(deployment)
        assert_buried_alone(deployment)


def poison_pair(deployment: Deployment) -> None:
    """Let two workers share the poisoned queue; whoever runs them starts them again at once."""
    deployment.install("poisoned")
    assert deployment.run("migrate").code == 0
    deployment.ingest()
    deployment.work("started", "finished")
    pair = [deployment.work("poisoned"), deployment.work("poisoned")]
    post_poison(deployment)
    deadline_s = time.monotonic() + POISONED_S
    while not deployment.select("SELECT 1 FROM dead_letters"):
        assert time.monotonic() < deadline_s, deployment.log
        for place, program in enumerate(pair):
            if program.code is not None:
                deployment.bury(program)
                pair[place] = deployment.program("work", "poisoned")
        time.sleep(0.1)
    assert_buried_alone(deployment)


def test_an_event_that_kills_its_worker_every_time_ends_as_a_dead_letter_and_its_neighbours_are_handled(
    rabbitmq: RabbitMQServer, postgres: PostgresServer, tmp_path: Path
) -> None:
    def on_embedded() -> None:
        poison_supervised(embedded(tmp_path / "embedded"))

    def on_distributed() -> None:
        with distributed(tmp_path / "distributed", rabbitmq, postgres) as deployment:
            poison_supervised(deployment)

    def on_pair() -> None:
        with distributed(tmp_path / "pair", rabbitmq, postgres) as deployment:
            poison_pair(deployment)

    # All wait most of the time, so they wait together.
    with ThreadPoolExecutor() as pool:
        runs = [pool.submit(run) for run in (on_embedded, on_distributed, on_pair)]
        for run in runs:
            run.result()


def test_an_event_whose_worker_is_killed_is_handled_again_and_once_completed_never_again(
    rabbitmq: RabbitMQServer, postgres: PostgresServer, tmp_path: Path
) -> None:
    def on_embedded() -> None:
        with embedded(tmp_path / "embedded") as deployment:
            deployment.install("slow")
            deployment.start()
            kill_once(deployment, lambda: None)

    def on_distributed() -> None:
        with distributed(tmp_path / "distributed", rabbitmq, postgres) as deployment:
            deployment.install("slow")
            assert deployment.run("migrate").code == 0
            deployment.ingest()
            killed = deployment.work("slow")

            def restart() -> None:
                deployment.bury(killed)
                deployment.work("slow")

            kill_once(deployment, restart)

    with ThreadPoolExecutor() as pool:
        for run in [pool.submit(on_embedded), pool.submit(on_distributed)]:
            run.result()


def kill_once(deployment: Deployment, restart: Callable[[], None]) -> None:
    send(deployment.address, callback("OnlineRecordStarted", "class-1"))
    (first,) = eventually(lambda: deployment.logged("attempted", consumer="slow"))
    os.kill(first["pid"], signal.SIGKILL)
    restart()
    (done,) = eventually(lambda: deployment.logged("succeeded", consumer="slow"))
    assert done["pid"] != first["pid"]
    # The crash was no attempt of the handler's.
    assert [line["attempt"] for line in deployment.logged("attempted", consumer="slow")] == [1, 1]
    eventually(lambda: deployment.select("SELECT 1 FROM completions WHERE completed_at_us IS NOT NULL"))
    send(deployment.address, callback("OnlineRecordStarted", "class-1"))
    duplicate = eventually(lambda: deployment.logged("delivery_duplicate", consumer="slow"))
    assert duplicate[0]["event_id"] == first["event_id"]
    assert len(deployment.logged("succeeded", consumer="slow")) == 1
