"""`tiw doctor --await-callback` tells of the first callback, and explains every refusal on the way to it."""

import json
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ingest import Refusal
from tests.end_to_end.deployment import Deployment, embedded, free_port
from tests.end_to_end.programs import Program, eventually
from tests.end_to_end.sending import APP, KEY, callback, post, send, signed
from tests.tiw.described import check_described
from tiw.awaiting import Counts, read_counts
from tiw.explaining import ADVICE

TOKEN = "a-secret-part-of-the-address"
OTHER_APP = 1400000002
OTHER_KEY = "b92f4f0c1d0e4b7a9f6f1f0a4d3c2b1e"


def prepared(folder: Path, **settings: str) -> Deployment:
    http, admin = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    deployment = embedded(folder, TIW_HTTP=http, TIW_ADMIN=admin, TIW_PATH_TOKEN=TOKEN, **settings)
    deployment.address = f"http://{http}/callbacks/tiw/{TOKEN}"
    return deployment


def awaiting(deployment: Deployment, *arguments: str, **settings: str) -> Program:
    """Start the command and return once it waits."""
    program = deployment.program("doctor", "--await-callback", *arguments, **settings)
    if "--json" not in arguments:
        eventually(lambda: program.code is not None or "Waiting for the first callback" in program.out)
    return program


def ended(deployment: Deployment, program: Program) -> int:
    code = program.wait()
    deployment.programs.remove(program)
    assert "Traceback" not in program.err, program.err
    return code


def raw(deployment: Deployment, request: bytes, *, hang_up: bool = False) -> None:
    """Send bytes, and wait for the answer or hang up."""
    host, port = deployment.settings["TIW_HTTP"].split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(request)
        if not hang_up:
            connection.recv(65536)


def refuse_everything(deployment: Deployment) -> None:
    """Make the node refuse for every reason that a sender can cause."""
    address = deployment.address
    content = callback("OnlineRecordStarted", "refused")
    good = signed(content)
    post(address.removesuffix(TOKEN) + "another-token-of-22-letters", b"{}")
    head = f"/callbacks/tiw/{TOKEN} HTTP/1.1\r\nHost: h\r\n".encode()
    raw(deployment, b"GET " + head + b"\r\n")
    raw(deployment, b"POST " + head + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}")
    raw(deployment, b"POST " + head + b"Content-Length: 99999999\r\n\r\n")
    raw(deployment, b"POST " + head + b"Content-Length: 9\r\n\r\n{")  # 408 after 2 s
    raw(deployment, b"POST " + head + b"Content-Length: 9\r\n\r\n{", hang_up=True)
    raw(deployment, b"\x16\x03\x01\x02\x00 TLS\r\n\r\n")
    post(address, b"[]")
    post(address, json.dumps(good).encode().replace(b'"Sign"', b'"Sign": "x", "Sign"'))
    post(address, signed(callback("OnlineRecordStarted", "of-no-app", app=5), key="not the key, and long enough"))
    post(address, content)
    post(address, {**good, "Sign": "UPPER"})
    post(address, {**good, "ExpireTime": "soon"})
    post(address, signed(content, key="not the key, and long enough"))
    post(address, signed(content, expires_in_s=-3600))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Run a whole pipeline."""
    with prepared(tmp_path_factory.mktemp("running")) as deployment:
        deployment.up()
        yield deployment


def test_beside_a_node_it_tells_of_the_first_callback(running: Deployment) -> None:
    program = awaiting(running, TIW_CALLBACK_KEYS=json.dumps({str(APP): [OTHER_KEY]}))
    assert f"https://YOUR.HOST/callbacks/tiw/{TOKEN}" in program.out
    assert "An ingest node runs here" in program.out
    wrong = signed(callback("OnlineRecordStopped", "refused"), key="not the key, and long enough")
    assert post(running.address, wrong) == 401
    eventually(lambda: "TaskId refused" in program.out)
    # The node does not know it, but the settings do.
    assert post(running.address, signed(callback("OnlineRecordStopped", "newer"), key=OTHER_KEY)) == 401
    eventually(lambda: "TaskId newer" in program.out)
    send(running.address, callback("OnlineRecordStarted", "class-1"))
    assert ended(running, program) == 0
    assert f"refused    401 wrong_sign, SdkAppId {APP}, OnlineRecordStopped, TaskId refused" in program.out
    assert "the node has others. Start it again with these" in " ".join(program.out.split())
    assert f"accepted   200, SdkAppId {APP}, OnlineRecordStarted, TaskId class-1, after" in program.out


def test_where_nothing_runs_it_listens_itself_and_keeps_what_it_accepts(tmp_path: Path) -> None:
    with prepared(tmp_path) as deployment:
        program = awaiting(deployment)
        assert "No ingest node runs here" in program.out
        curl = program.out.partition("Try it here:\n\n")[2].partition("\n\n")[0].replace("'the callback key'", KEY)
        subprocess.run(["/bin/sh", "-c", curl], check=True, timeout=30, capture_output=True)
        assert ended(deployment, program) == 0
        assert f"accepted   200, SdkAppId {APP}, OnlineRecordStarted, TaskId hello, after" in program.out
        deployment.up()
        eventually(lambda: deployment.count("events") == 1)


def test_over_a_broker_what_it_accepts_reaches_the_workers(make_distributed: Callable[..., Deployment]) -> None:
    http, admin = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    deployment = make_distributed(TIW_HTTP=http, TIW_ADMIN=admin)
    assert deployment.run("migrate").code == 0
    program = awaiting(deployment)
    send(f"http://{http}/callbacks/tiw", callback("OnlineRecordStarted", "class-1"))
    assert ended(deployment, program) == 0
    assert "TaskId class-1" in program.out
    deployment.work("started")
    eventually(lambda: deployment.count("events") == 1)


def test_every_refusal_is_explained_without_sign_key_or_another_token(tmp_path: Path) -> None:
    assert set(ADVICE) == set(Refusal)
    with prepared(tmp_path) as deployment:
        program = awaiting(deployment)
        refuse_everything(deployment)
        caused = set(Refusal) - {Refusal.NO_ROOM, Refusal.NOT_CONFIRMED, Refusal.BROKEN}
        eventually(lambda: all(f"refused    {one.status} {one.label}" in program.out for one in caused))
        post(deployment.address, signed(callback("OnlineRecordStarted", "mixed-up", app=OTHER_APP)))
        eventually(lambda: "TaskId mixed-up" in program.out)
        program.signal(signal.SIGINT)
        assert ended(deployment, program) == 130
        text = " ".join(program.out.split())
        for refusal in caused:
            assert f": {refusal.sentence} {ADVICE[refusal]}" in text, refusal
        assert f"Its Sign is of the key that stands under {APP} here: write that key under {OTHER_APP}" in text
        assert "unknown_app, SdkAppId 5, OnlineRecordStarted, TaskId of-no-app" in text
        for secret in (KEY, "another-token", "UPPER", signed(callback("x", "x"), expires_in_s=-3600)["Sign"]):
            assert secret not in program.out + program.err


def test_one_json_document_says_how_the_wait_ended(running: Deployment) -> None:
    program = awaiting(running, "--json")
    # Its beginning cannot be seen: what it waits for is sent until it is noticed.
    number = 0
    while program.code is None:
        send(running.address, callback("OnlineRecordStarted", f"one-of-many-{number}"))
        number += 1
        time.sleep(0.1)
    assert ended(running, program) == 0
    found = json.loads(program.out)
    check_described("doctor --await-callback", found)
    assert (found["outcome"], found["listened"], found["refused"]) == ("accepted", False, [])
    assert (found["path"], found["accepted"]["event_type"]) == ("/callbacks/tiw/***", "OnlineRecordStarted")
    assert TOKEN not in program.out


def test_when_nothing_arrives_it_says_what_to_check(running: Deployment) -> None:
    told = running.run("doctor", "--await-callback", "--timeout", "0.2")
    assert told.code == 1
    assert "Nothing arrived within" in told.out
    assert "docs/vendor-console.md" in told.out
    counted = running.run("doctor", "--await-callback", "--timeout", "0.2", "--json")
    assert counted.code == 1
    document = json.loads(counted.out)
    assert (document["outcome"], document["accepted"], document["refused"]) == ("timeout", None, [])


def test_what_keeps_it_from_listening_is_one_sentence(running: Deployment, tmp_path: Path) -> None:
    elsewhere, another = f"127.0.0.1:{free_port()}", str(tmp_path / "another")
    beside = running.run("doctor", "--await-callback", TIW_ADMIN=elsewhere)
    assert (beside.code, beside.out) == (2, "")
    assert beside.err == (
        f"tiw: a `tiw up` uses {running.data} but does not answer at {elsewhere}: set TIW_ADMIN as it has it\n"
    )
    occupied = running.run("doctor", "--await-callback", TIW_ADMIN=elsewhere, TIW_DATA_DIR=another)
    assert (occupied.code, occupied.out) == (2, "")
    assert occupied.err.endswith("if an ingest node listens there, set TIW_ADMIN as it has it\n")
    keyless = running.run("doctor", "--await-callback", TIW_ADMIN=elsewhere, TIW_DATA_DIR=another, TIW_CALLBACK_KEYS="")
    assert (keyless.code, keyless.out) == (2, "")
    assert keyless.err.startswith("tiw: there is no callback key yet: `tiw keys add --app N`")
    alone = running.run("doctor", "--timeout", "3")
    assert (alone.code, alone.err) == (2, "tiw: --timeout is for --await-callback: give both, or neither\n")


def test_only_an_ingest_nodes_metrics_are_taken_for_such() -> None:
    assert read_counts("") is None
    assert read_counts("<html>not found</html>") is None
    assert read_counts("tiw_ready 1.0\n") is None
    counted = 'tiw_callbacks_accepted_total{routing_key="unrecognized"} 2.0\n'
    refused = 'tiw_callbacks_refused_total{reason="expired"} 1.0\ntiw_callbacks_not_kept_total{reason="no_room"} 3.0\n'
    assert read_counts(counted + refused) == Counts(accepted={"unrecognized": 2}, refused={"expired": 1, "no_room": 3})
