"""The console of `tiw up`: there when somebody comes, never in the way of callbacks, and gone with its parent."""

import http.client
import json
import os
import signal
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.deployment import Deployment, embedded, get
from tests.end_to_end.programs import Program, eventually, is_running
from tests.end_to_end.sending import APP, KEY, callback, post, send, signed
from tests.servers.rabbitmq import RabbitMQServer

TOKEN = "the-token-of-a-test-0123456789"
WITHHELD = ("TIW_CALLBACK_KEYS", "TIW_PATH_TOKEN", "TIW_VENDOR_SECRET_ID", "TIW_VENDOR_SECRET_KEY", "TIW_NOTIFY")


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    with embedded(tmp_path, TIW_CONSOLE="127.0.0.1:0") as deployment:
        yield deployment


def printed(program: Program, name: str) -> str:
    """Return what is printed behind a word at the beginning of a line."""

    def look() -> str:
        assert program.code is None, program.err
        lines = [line for line in program.out.splitlines() if line.startswith(f"{name} ")]
        return lines[0].removeprefix(name).strip() if lines else ""

    return eventually(look)


def consoles(program: Program) -> list[int]:
    return [pid for pid in program.children() if b"--listen-fd" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def visited(address: str) -> str:
    """Return a page, once it is there: on a busy machine the console takes longer to start than `get` waits."""

    def look() -> str:
        status, page = get(address)
        return page if status == 200 else ""

    return eventually(look)


def environment_of(pid: int) -> dict[str, str]:
    variables = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(variable.split("=", 1) for variable in variables if variable)


def ask(address: str, token: str, *, method: str = "GET") -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
    request = urllib.request.Request(address, method=method, headers=headers)  # noqa: S310 - our own
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        return answer.status, json.load(answer)


def test_it_begins_when_somebody_comes_and_ends_with_the_pipeline(deployment: Deployment) -> None:
    up = deployment.up()
    address, _, token = printed(up, "console").partition("/login#")
    assert consoles(up) == []
    assert token == (deployment.data / "console_token").read_text().strip()
    assert token not in up.err
    assert "<form" in visited(f"{address}/login")
    (console,) = consoles(up)
    send(deployment.address, callback("OnlineRecordStarted", "class-1"))
    eventually(lambda: "class-1" in json.dumps(ask(f"{address}/recordings?format=json", token)[1]))
    # Another start prints no token: what is printed is kept by systemd, or in a container's log.
    up.stop()
    assert not is_running(console)
    again = deployment.up()
    assert token not in again.out + again.err
    assert "tiw keys show --console --reveal" in printed(again, "console")
    assert json.loads(deployment.run("keys", "show", "--console", "--reveal", "--json").out)["token"] == token


def test_it_has_no_key_and_no_secret_of_the_vendor(deployment: Deployment) -> None:
    deployment.settings |= {
        "TIW_CONSOLE_TOKEN": TOKEN,
        "TIW_PATH_TOKEN": "a-path-token-0123456789",
        "TIW_VENDOR_SECRET_ID": "AKIDwhatever",
        "TIW_VENDOR_SECRET_KEY": "whatever",
        "TIW_VENDOR_ENDPOINT": "http://127.0.0.1:9",
        "TIW_NOTIFY": "webhook=http://127.0.0.1:9/nobody",
    }
    up = deployment.up()
    address = printed(up, "console").partition("/login")[0]
    assert TOKEN not in up.out
    assert visited(f"{address}/login")
    (console,) = consoles(up)
    assert not {*WITHHELD} & environment_of(console).keys()
    # Of what ingest refused it sees, over the admin listener of its parent, what a command shows.
    body = json.dumps(signed(callback("OnlineRecordStarted", "refused"), key="another key of 24 letters")).encode()
    assert post(deployment.address, body) == 401
    admin = printed(up, "health").removesuffix("/readyz")
    rows = eventually(lambda: ask(f"{admin}/rejected", TOKEN)[1])
    assert [(row["task_id"], row["sign"]) for row in rows] == [("refused", "***")]
    assert ask(f"{admin}/rejected/reverify", TOKEN, method="POST")[1]["refused"] == {"wrong_sign": 1}


def test_an_address_that_is_taken_stops_no_callback(deployment: Deployment) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        deployment.settings["TIW_CONSOLE"] = address = f"127.0.0.1:{taken.getsockname()[1]}"
        up = deployment.up()
        said = up.wait_logged("console_not_opened")["reason"]
        assert said == f"TIW_CONSOLE is {address}, where nothing can listen (Address already in use): choose another"
        send(deployment.address, callback("OnlineRecordStarted", "class-1"))
        eventually(lambda: deployment.count("events") == 1)
        assert "console" not in up.out


def test_one_that_is_killed_is_there_again_and_it_ends_when_its_parent_is_killed(deployment: Deployment) -> None:
    up = deployment.up()
    address = printed(up, "console").partition("/login")[0]
    assert visited(f"{address}/login")
    (first,) = consoles(up)
    os.kill(first, signal.SIGKILL)
    up.wait_logged("process_ended", process="console", exit="signal SIGKILL")
    assert visited(f"{address}/login")
    (second,) = consoles(up)
    assert second != first
    os.kill(up.pid, signal.SIGKILL)
    deployment.note_killed(up)
    eventually(lambda: not is_running(second))


def test_where_it_is_off_nothing_is_opened_and_nothing_made(deployment: Deployment) -> None:
    deployment.settings["TIW_CONSOLE"] = "off"
    up = deployment.up()
    assert "console" not in up.out
    assert not (deployment.data / "console_token").exists()
    assert get(f"{printed(up, 'health').removesuffix('/readyz')}/rejected")[0] == 404


def test_the_command_serves_it_alone_and_says_so_where_there_is_nothing_yet(tmp_path: Path) -> None:
    with embedded(tmp_path, TIW_CONSOLE="127.0.0.1:0", TIW_CONSOLE_TOKEN=TOKEN) as deployment:
        refused = deployment.run("console")
        assert (refused.code, refused.out) == (1, "")
        assert "nothing is kept in" in refused.err
        deployment.up()
        alone = deployment.program("console")
        address = printed(alone, "console").partition("/login")[0]
        assert ask(f"{address}/recordings?format=json", TOKEN)[0] == 200
        alone.stop()
    with embedded(tmp_path / "off", TIW_CONSOLE="off") as deployment:
        idle = deployment.program("console")
        idle.wait_logged("console_idle")


def test_a_parent_of_several_ingest_processes_answers_for_them(tmp_path: Path, rabbitmq: RabbitMQServer) -> None:
    vhost = rabbitmq.create_vhost()
    settings = {"TIW_AMQP_URL": rabbitmq.url(vhost), "TIW_CONSOLE": "127.0.0.1:8090", "TIW_CONSOLE_TOKEN": TOKEN}
    with embedded(tmp_path, **settings) as deployment:
        keys = tmp_path / "keys.json"
        keys.write_text(json.dumps({APP: ["a wrong key of 24 letters"]}))
        del deployment.settings["TIW_CALLBACK_KEYS"]
        deployment.settings |= {"TIW_CALLBACK_KEYS_FILE": str(keys)}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            admin = f"127.0.0.1:{free.getsockname()[1]}"
        deployment.ingest("--processes", "2", TIW_ADMIN=admin)
        body = json.dumps(signed(callback("OnlineRecordStarted", "class-1"))).encode()
        assert post(deployment.address, body) == 401
        rows = eventually(lambda: ask(f"http://{admin}/rejected", TOKEN)[1])
        assert [row["task_id"] for row in rows] == ["class-1"]
        keys.write_text(json.dumps({APP: [KEY]}))
        done = ask(f"http://{admin}/rejected/reverify", TOKEN, method="POST")[1]
        assert (done["authentic"], done["let_in"], done["remaining"]) == (1, 1, 0)
        assert ask(f"http://{admin}/rejected", TOKEN)[1] == []
        connection = http.client.HTTPConnection(admin, timeout=10)
        connection.request("GET", "/rejected")
        assert connection.getresponse().status == 401
        connection.close()
    rabbitmq.delete_vhost(vhost)
