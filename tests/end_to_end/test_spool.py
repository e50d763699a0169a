"""The spool for real: a broker that is gone, an ingest node that is killed, and the commands beside them."""

import json
import signal
import time
from collections.abc import Callable

from tests.end_to_end.deployment import Deployment
from tests.end_to_end.programs import eventually
from tests.end_to_end.sending import APP, callback, event_id, post, send, signed
from tests.servers.rabbitmq import RabbitMQServer
from tests.tiw.described import check_described

TASKS = [f"task-{number}" for number in range(12)]


def listed(deployment: Deployment) -> list[dict[str, object]]:
    finished = deployment.run("spool", "list", "--json")
    assert finished.code == 0, finished.err
    rows: list[dict[str, object]] = json.loads(finished.out)
    return rows


def test_what_an_ingest_node_spooled_outlives_it_and_is_drained_by_the_next(
    rabbitmq: RabbitMQServer, make_distributed: Callable[..., Deployment]
) -> None:
    deployment = make_distributed()
    deployment.start()
    ingest = deployment.programs[-1]
    rabbitmq.kill()
    callbacks = [callback("OnlineRecordStarted", task) for task in TASKS]
    began_s = time.monotonic()
    send(deployment.address, *callbacks)
    assert time.monotonic() - began_s < 8 * len(callbacks)
    rows = listed(deployment)
    assert sorted(str(row["event_id"]) for row in rows) == sorted(map(event_id, callbacks))
    assert {(row["event_type"], row["sdk_app_id"], row["set_aside"]) for row in rows} == {
        ("OnlineRecordStarted", APP, False)
    }
    assert {row["task_id"] for row in rows} == set(TASKS)
    files = [file.read_bytes() for file in (deployment.data / "spool").iterdir()]
    assert any(b"OnlineRecordStarted" in content for content in files)
    assert not any(b"Sign" in content or b"ExpireTime" in content for content in files)
    ingest.signal(signal.SIGKILL)
    deployment.note_killed(ingest)
    drain = deployment.run("spool", "drain", "--dry-run", "--json")
    assert (drain.code, json.loads(drain.out)) == (0, {"drained": 0, "matching": len(TASKS)})
    deployment.ingest()
    rabbitmq.start()
    eventually(lambda: deployment.count("recordings") == len(TASKS))
    eventually(lambda: not listed(deployment))
    assert deployment.run("spool", "verify").code == 0
    assert post(deployment.address, signed(callback("OnlineRecordStopped", TASKS[0]))) == 200


def test_the_spool_of_a_node_that_does_not_come_back_is_drained_by_a_command(
    rabbitmq: RabbitMQServer, make_distributed: Callable[..., Deployment]
) -> None:
    deployment = make_distributed()
    assert deployment.run("migrate").code == 0
    rabbitmq.kill()
    ingest = deployment.ingest()
    send(deployment.address, *(callback("OnlineRecordStarted", task) for task in TASKS))
    owned = deployment.run("spool", "verify", "--json")
    assert [(state["owned"], state["waiting"]) for state in json.loads(owned.out)] == [(True, len(TASKS))]
    ingest.stop()
    rabbitmq.start()
    drained = deployment.run("spool", "drain", "--json")
    check_described("spool drain", json.loads(drained.out))
    assert (drained.code, json.loads(drained.out)) == (0, {"drained": len(TASKS), "left": 0, "owned_files": 0})
    deployment.work()
    eventually(lambda: deployment.count("recordings") == len(TASKS))
