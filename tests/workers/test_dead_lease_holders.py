"""Whose lease may be taken: only that of a process that has certainly ended."""

import os
import subprocess
import sys

from schemas import OnlineRecordStarted
from store import claim
from tests.workers.house import House, eventually, started
from workers import Context, consumer
from workers.memory import is_dead, new_lease_holder

IMITATION = "import workers.memory; print(workers.memory.new_lease_holder())"


def lease_holder_of_another_process() -> str:
    """Return the name that a process made which has ended since."""
    done = subprocess.run([sys.executable, "-c", IMITATION], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_names_are_never_the_same() -> None:
    assert new_lease_holder() != new_lease_holder()


def test_a_process_that_ended_is_dead() -> None:
    assert is_dead(lease_holder_of_another_process())


def test_one_that_runs_is_not_gone() -> None:
    host, namespace, _, token = new_lease_holder().rsplit("/", 3)

    assert not is_dead(new_lease_holder())
    assert not is_dead(f"{host}/{namespace}/{os.getppid()}/{token}")


def test_one_elsewhere_is_never_known_to_be_gone() -> None:
    _, namespace, pid, token = lease_holder_of_another_process().rsplit("/", 3)
    host, _, _, _ = new_lease_holder().rsplit("/", 3)

    assert not is_dead(f"elsewhere/{namespace}/{pid}/{token}")
    assert not is_dead(f"{host}/pid:[1]/{pid}/{token}")
    assert not is_dead("not a name of ours")


async def test_the_lease_of_a_killed_worker_does_not_have_to_run_out(house: House) -> None:
    handled: list[str] = []

    @consumer
    async def archive(event: OnlineRecordStarted, ctx: Context) -> None:
        handled.append(event.task_id)

    message = started()
    await claim(
        house.store,
        consumer="archive",
        event_ids=[message.event_id],
        lease_holder=lease_holder_of_another_process(),
        lease_s=3600,
    )

    async with house.working(archive) as transport:
        await transport.publish(message)
        await eventually(lambda: handled == ["task"])


async def test_nor_that_of_one_killed_beside_a_worker_that_runs(house: House) -> None:
    handled: list[str] = []

    @consumer
    async def archive(event: OnlineRecordStarted, ctx: Context) -> None:
        handled.append(event.task_id)

    message = started()
    async with house.working(archive) as transport:
        await claim(
            house.store,
            consumer="archive",
            event_ids=[message.event_id],
            lease_holder=lease_holder_of_another_process(),
            lease_s=3600,
        )
        await transport.publish(message)
        await eventually(lambda: handled == ["task"])
