"""`tiw up` and `tiw reconcile` as processes: what no callback told of is found, by list, by command and by call."""

import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from simulator import ClassKind, SimulatedClass, VendorApi, make_class
from tests.end_to_end.deployment import Deployment, embedded
from tests.end_to_end.programs import Program, eventually, run
from tests.end_to_end.sending import APP
from tests.reconcile.serving import in_thread, settings_for

TOKEN = "a token of at least 22 characters".replace(" ", "-")


def a_class(seed: int, *, began_ago_s: int, length_s: int) -> SimulatedClass:
    started_at = int(time.time()) - began_ago_s
    return make_class(
        ClassKind.NORMAL, Random(seed), sdk_app_id=APP, room_id=seed, started_at=started_at, length_s=length_s
    )


RUNNING = a_class(101, began_ago_s=600, length_s=7200)
ENDED = a_class(102, began_ago_s=7200, length_s=1800)


@pytest.fixture
def api() -> Iterator[VendorApi]:
    with in_thread(VendorApi([RUNNING, ENDED], sdk_app_ids=[APP])) as api:
        yield api


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    with embedded(tmp_path) as deployment:
        yield deployment


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def register(port: int, token: str) -> int:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/recordings",
        data=json.dumps({"sdk_app_id": APP, "task_id": "registered"}).encode(),
        headers={"Authorization": f"Bearer {token}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - our own
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_up_finds_what_no_callback_told_of_and_takes_registrations(deployment: Deployment, api: VendorApi) -> None:
    port = free_port()
    register_settings = {"TIW_REGISTER": f"127.0.0.1:{port}", "TIW_REGISTER_TOKEN": TOKEN}
    deployment.settings |= settings_for(api) | register_settings | {"TIW_RECONCILE_LIST_EVERY_S": "1"}
    deployment.start()
    registered = run(deployment.settings, "register", ENDED.task_id, "--app", str(APP))
    assert registered.code == 0, registered.err
    assert (register(port, TOKEN), register(port, "wrong")) == (202, 401)

    select = "SELECT task_id, status FROM recordings"
    expected = {(RUNNING.task_id, "RECORDING"), (ENDED.task_id, "FINISHED")}
    eventually(lambda: {*deployment.select(select)} == expected)
    shown = run(deployment.settings, "recordings", "show", ENDED.task_id, "--json").json
    assert (shown["verified"], len(shown["videos"])) == (True, 3)
    assert [found["by"] for found in shown["found"]] == ["DescribeOnlineRecord"]
    state = run(deployment.settings, "reconcile", "show", "--json").json
    assert [(app["sdk_app_id"], app["pause_reason"]) for app in state["apps"]] == [(APP, None)]
    (up,) = deployment.programs
    up.stop(within_s=60)
    assert up.logged("recording_found", by="DescribeRunningTasks", task_id=RUNNING.task_id)
    for secret in (api.secret_key, api.secret_id, TOKEN):
        assert secret not in up.err + up.out


def test_one_round_from_cron_says_what_it_did_or_why_not(deployment: Deployment, api: VendorApi) -> None:
    deployment.start()
    without = run(deployment.settings, "reconcile", "--once")
    assert (without.code, "TIW_VENDOR_SECRET_ID" in without.err) == (2, True)
    with_credentials = deployment.settings | settings_for(api)
    done = run(with_credentials, "reconcile", "--once")
    assert (done.code, done.out) == (0, "0 questions asked\n"), done.err
    eventually(lambda: deployment.select("SELECT task_id FROM recordings") == [(RUNNING.task_id,)])
    refused = run(with_credentials | {"TIW_VENDOR_SECRET_ID": "AKIDwrong"}, "reconcile", "--once")
    assert refused.code == 1
    assert f"{APP} is paused" in refused.out
    doctor = run(deployment.settings, "doctor", "--json")
    details = [check["detail"] for check in json.loads(doctor.out) if check["check"] == "reconcile" and not check["ok"]]
    assert doctor.code == 1
    assert any("TIW_VENDOR_SECRET_ID" in detail for detail in details)


def test_a_service_without_credentials_idles_and_one_without_a_broker_says_so(tmp_path: Path) -> None:
    assert run({"TIW_DATA_DIR": str(tmp_path)}, "reconcile").code == 2
    idle = Program(
        tmp_path / "logs", {"TIW_AMQP_URL": "amqp://u:p@127.0.0.1:1/", "TIW_LOG_FORMAT": "json"}, "reconcile"
    )
    try:
        idle.wait_logged("reconcile_idle")
        idle.stop()
    finally:
        idle.kill()
    registering = {"TIW_DATA_DIR": str(tmp_path / "data"), "TIW_REGISTER": "127.0.0.1:0"}
    refused = run(registering, "up")
    assert refused.code == 2
    assert "TIW_REGISTER is set" in refused.err
