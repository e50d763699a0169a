"""`tiw work`: which consumers run, where, and how they share."""

import asyncio
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from broker import Message
from broker.amqp.transport import AmqpTransport
from tests.end_to_end.deployment import CONSUMERS, Deployment
from tests.end_to_end.programs import eventually
from tests.end_to_end.sending import callback, send
from tiw.parser import main


def test_every_users_consumer_runs_in_a_process_of_its_own(make_distributed: Callable[..., Deployment]) -> None:
    deployment = make_distributed()
    deployment.install("counts", "slow")
    deployment.start()
    (worker, _) = deployment.programs
    assert len(worker.children()) == 3
    started = [line["consumers"] for line in worker.logged("worker_started")]
    assert sorted(names for names in started if len(names) == 1) == [["counts"], ["slow"]]
    assert len(started) == 3
    send(deployment.address, callback("OnlineRecordStarted", "class-1"))
    (slow,) = eventually(lambda: deployment.logged("succeeded", consumer="slow"))
    (counts,) = eventually(lambda: deployment.logged("succeeded", consumer="counts"))
    assert {slow["pid"], counts["pid"]} < set(worker.children())


def test_one_consumer_alone_and_scaled_shares_its_queue(make_distributed: Callable[..., Deployment]) -> None:
    deployment = make_distributed()
    assert deployment.run("migrate").code == 0
    deployment.ingest()
    one, two = deployment.work("finished"), deployment.work("finished")
    tasks = [f"class-{number:03}" for number in range(120)]
    send(deployment.address, *(callback("OnlineRecordFinished", task) for task in tasks))
    send(deployment.address, callback("OnlineRecordStarted", "class-000"))
    eventually(lambda: deployment.count("events") == len(tasks))
    handled = [Counter(worker.told("recording_finished")) for worker in (one, two)]
    assert all(handled), "one of the two had nothing to do"
    assert handled[0] + handled[1] == Counter(tasks)
    states = {state["name"]: state for state in deployment.run("consumers", "--json").json}
    assert states["finished"] == {
        "name": "finished",
        "events": ["OnlineRecordFinished"],
        "queue": "tiw.finished",
        "ready": 0,
        # A queue does not tell over AMQP.
        "unacked": None,
        "connected": 2,
        # Retries of all consumers wait in the same queues.
        "retrying": None,
        "next_retry_at": None,
        "dead": 0,
        "overdue": 0,
        "abandoned": False,
    }
    # Nobody works on the others; what they would take waits.
    assert (states["started"]["ready"], states["started"]["abandoned"]) == (1, True)


def test_retries_of_all_consumers_are_counted_in_a_sentence_as_rabbitmq_does_not_tell_whose(
    amqp_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    delay_s = 600.0

    async def let_one_wait() -> None:
        message = Message(body=b"{}", event_id="e" * 32, routing_key="OnlineRecordFinished", received_at_us=1)
        async with AmqpTransport([amqp_url], retry_delays_s=[delay_s]) as transport:
            await transport.wait_ready()
            await transport.retry("finished", message, delay_s=delay_s)

    asyncio.run(let_one_wait())
    monkeypatch.setenv("TIW_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("TIW_AMQP_URL", amqp_url)
    monkeypatch.setenv("TIW_RETRY_DELAYS_S", str(delay_s))
    assert main(["migrate"]) == 0
    assert main(["consumers"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[-1] == "1 events of all consumers wait for their next attempt; RabbitMQ does not tell whose."
    (finished,) = [line.split() for line in told if line.startswith(" finished ")]
    assert finished[:4] == ["finished", "no", "worker", "0"]


def test_a_folder_of_plugins_is_idle_until_a_file_appears_in_it(make_distributed: Callable[..., Deployment]) -> None:
    deployment = make_distributed()
    deployment.install()
    assert deployment.run("migrate").code == 0
    deployment.ingest()
    worker = deployment.program("work", "--custom")
    worker.wait_logged("idle")
    unfinished = deployment.plugins / "_counts.py.part"
    shutil.copy(CONSUMERS / "counts.py", unfinished)
    unfinished.rename(deployment.plugins / "counts.py")
    worker.wait_logged("consumer_started", queue="tiw.counts")
    send(deployment.address, callback("OnlineRecordStarted", "class-1"))
    eventually(lambda: worker.logged("succeeded", consumer="counts"))


def test_an_idle_worker_ends_when_it_is_asked_to(make_distributed: Callable[..., Deployment], tmp_path: Path) -> None:
    deployment = make_distributed()
    deployment.install()
    worker = deployment.program("work", "--custom")
    worker.wait_logged("idle")
    # Not a second SIGTERM before that: it could come when the loop is gone, and with it the handler.
    worker.stop()


def test_workers_wait_for_the_schema_say_so_and_then_work(make_distributed: Callable[..., Deployment]) -> None:
    deployment = make_distributed()
    deployment.install("counts")
    deployment.ingest()
    worker = deployment.program("work")
    awaited = worker.wait_logged("schema_awaited")
    assert "run `tiw migrate`" in awaited["reason"]
    send(deployment.address, callback("OnlineRecordStarted", "class-1"))
    assert not worker.logged("worker_started")
    assert deployment.run("migrate").code == 0
    worker.wait_logged("worker_started", consumers=["counts"])
    eventually(lambda: deployment.count("events") == 1)
    assert "Traceback" not in worker.err
