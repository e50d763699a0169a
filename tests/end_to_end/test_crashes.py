"""Workers that die in the middle of a handler, once or every time."""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

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


def succeeded(deployment: Deployment, consumer: str) -> Counter[str]:
    return Counter(line["task_id"] for line in deployment.logged("succeeded", consumer=consumer))


def assert_dead_lettered_alone(deployment: Deployment, consumer: str) -> None:
    """Assert that the poison is the one dead letter, and that its neighbours were all handled.

    At least once: one whose process dies between its effect and remembering it runs again.
    """
    eventually(lambda: deployment.select("SELECT 1 FROM dead_letters"), within_s=POISONED_S, every_s=0.2)
    eventually(lambda: len(succeeded(deployment, consumer)) == len(NEIGHBOURS))
    (letter,) = deployment.run("dead-letters", "list", "--json").json
    assert (letter["consumer"], letter["reason"]) == (consumer, "worker crashed")
    assert set(succeeded(deployment, consumer)) == set(NEIGHBOURS)
    deaths = [line for line in deployment.logged("attempted", consumer=consumer) if line["task_id"] == "poison"]
    assert len(deaths) == 6
    # The built-in consumer of the same events never noticed.
    assert len(deployment.told("recording_finished", consumer="finished")) == len(NEIGHBOURS) + 1


def poison_supervised(deployment: Deployment, consumer: str = "poisoned") -> None:
    """Let the parent of the poisoned child start it again each time."""
    deployment.install(consumer)
    deployment.start()
    post_poison(deployment)
    assert_dead_lettered_alone(deployment, consumer)


def poison_group(deployment: Deployment) -> None:
    """Let the poison come among others in one call."""
    poison_supervised(deployment, "poisoned_group")


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
                deployment.note_killed(program)
                pair[place] = deployment.program("work", "poisoned")
        time.sleep(0.1)
    assert_dead_lettered_alone(deployment, "poisoned")
    for program in pair:
        # One that has only just begun ends at once, and says so by its exit code.
        program.wait_logged("consumer_started", queue="tiw.poisoned")


def kill_supervised(deployment: Deployment) -> None:
    deployment.install("slow")
    deployment.start()
    kill_once(deployment, lambda: None)


def kill_alone(deployment: Deployment) -> None:
    deployment.install("slow")
    assert deployment.run("migrate").code == 0
    deployment.ingest()
    killed = deployment.work("slow")

    def restart() -> None:
        deployment.note_killed(killed)
        deployment.work("slow")

    kill_once(deployment, restart)


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


STORIES: dict[str, tuple[str, Callable[[Deployment], None]]] = {
    "poison under up": ("embedded", poison_supervised),
    "poison under work": ("distributed", poison_supervised),
    "poison in a group": ("embedded", poison_group),
    "poison shared by two": ("distributed", poison_pair),
    "killed once under up": ("embedded", kill_supervised),
    "killed once alone": ("distributed", kill_alone),
}


@pytest.fixture(scope="module")
def told(
    rabbitmq: RabbitMQServer, postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[None]]]:
    """Run all stories at once: they wait most of the time."""
    folders = {name: tmp_path_factory.mktemp("crash") / name.replace(" ", "-") for name in STORIES}

    def tell(name: str) -> None:
        kind, story = STORIES[name]
        folder = folders[name]
        with embedded(folder) if kind == "embedded" else distributed(folder, rabbitmq, postgres) as deployment:
            story(deployment)

    with ThreadPoolExecutor(max_workers=len(STORIES)) as pool:
        yield {name: pool.submit(tell, name) for name in STORIES}


@pytest.mark.parametrize("story", [name for name in STORIES if name.startswith("killed")])
def test_an_event_whose_worker_is_killed_is_handled_again_and_once_completed_never_again(
    told: dict[str, Future[None]], story: str
) -> None:
    told[story].result()


@pytest.mark.parametrize("story", [name for name in STORIES if name.startswith("poison")])
def test_an_event_that_always_kills_its_worker_ends_as_a_dead_letter_and_its_neighbours_are_handled(
    told: dict[str, Future[None]], story: str
) -> None:
    told[story].result()
