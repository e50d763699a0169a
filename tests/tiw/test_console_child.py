"""The console of `tiw up`: started when somebody connects, without a secret, and never in the way of callbacks."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs
from structlog.types import EventDict

from tests.tiw.test_processes import until
from tiw import console_child
from tiw.console_child import ConsoleChild, console_environment, open_console
from tiw.settings import Address, Settings, UsageError

LOOPBACK = Address(host="127.0.0.1", port=0)

#: Notes its start, answers as many connections as it is told, and ends with a code.
_CONSOLE = """
import os, pathlib, select, socket, sys
descriptor, starts, count, code = sys.argv[1:]
pathlib.Path(starts).open("a").write(f"{os.getpid()}\\n")
listening = socket.socket(fileno=int(descriptor.partition("=")[2]))
for _ in range(int(count)):
    select.select([listening, 0], [], [])
    try:
        connection, _ = listening.accept()
    except BlockingIOError:
        sys.exit(0)
    connection.sendall(b"%d" % os.getpid())
    connection.close()
sys.exit(int(code))
"""


class Stand:
    """What is started in place of the console."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "starts"
        self.answers = 1
        self.code = 0

    def command(self, *arguments: str) -> list[str]:
        assert arguments[:2] == ("console", "--child")
        return [sys.executable, "-c", _CONSOLE, arguments[2], str(self.file), str(self.answers), str(self.code)]

    @property
    def starts(self) -> list[int]:
        return [int(line) for line in self.file.read_text().splitlines()] if self.file.exists() else []


@pytest.fixture
def stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stand:
    stand = Stand(tmp_path)
    monkeypatch.setattr(console_child, "tiw_command", stand.command)
    monkeypatch.setattr(console_child, "FIRST_PAUSE_S", 0.01)
    return stand


@pytest.fixture
async def logs() -> AsyncIterator[list[EventDict]]:
    structlog.reset_defaults()
    with capture_logs() as captured:
        yield captured


async def ask(port: int) -> bytes:
    """Connect, and return what comes; nothing if we are turned away."""
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""
        finally:
            writer.close()


def child() -> ConsoleChild:
    return ConsoleChild(LOOPBACK, environ=os.environ)


async def test_nobody_is_started_for_nobody(stand: Stand) -> None:
    async with child() as console:
        assert console.port > 0
        await asyncio.sleep(0.05)
    assert stand.starts == []
    with pytest.raises(ConnectionRefusedError):
        await ask(console.port)


async def test_who_connects_first_is_answered_by_the_console_and_so_are_those_after_it_has_ended(stand: Stand) -> None:
    async with child() as console:
        first = await ask(console.port)
        second = await ask(console.port)
        # More than one console answers: those that come while one ends wait for the next.
        others = await asyncio.gather(*(ask(console.port) for _ in range(3)))
    answered = [int(pid) for pid in (first, second, *others)]
    assert len(set(answered)) == 5
    assert stand.starts == answered[:2] + sorted(answered[2:], key=stand.starts.index)


async def test_one_console_answers_many(stand: Stand) -> None:
    stand.answers = 20
    async with child() as console:
        answers = await asyncio.gather(*(ask(console.port) for _ in range(20)))
    assert {int(pid) for pid in answers} == set(stand.starts)
    assert len(stand.starts) == 1


async def test_one_that_fails_is_said_and_tried_again_for_who_still_asks(stand: Stand, logs: list[EventDict]) -> None:
    stand.answers, stand.code = 0, 3
    async with child() as console:
        assert await ask(console.port) == b"", "who waited is turned away, and waits no longer"
        assert await ask(console.port) == b""
        assert len(stand.starts) == 2
    ended = [entry for entry in logs if entry["event"] == "process_ended"]
    assert [(entry["process"], entry["exit"]) for entry in ended] == [("console", "code 3")] * 2
    assert [entry["restart_in_s"] for entry in ended] == [0.01, 0.02]


async def test_it_is_ended_with_its_parent(stand: Stand) -> None:
    stand.answers = 2
    async with child() as console:
        pid = int(await ask(console.port))
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_one_that_is_killed_is_started_again(stand: Stand, logs: list[EventDict]) -> None:
    stand.answers = 2
    async with child() as console:
        pid = int(await ask(console.port))
        os.kill(pid, signal.SIGKILL)
        await until(lambda: any(entry["event"] == "process_ended" for entry in logs))
        assert int(await ask(console.port)) != pid
    assert "signal SIGKILL" in {entry.get("exit") for entry in logs}


async def test_one_that_cannot_be_started_is_said(logs: list[EventDict], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_child, "tiw_command", lambda *_: ["/nowhere/at/all"])
    async with child() as console:
        assert await ask(console.port) == b""
    assert [entry["exit"] for entry in logs] == ["not started: No such file or directory"]


def test_the_console_gets_no_key_and_no_secret_but_what_reads_the_archive() -> None:
    secrets = {
        *("TIW_CALLBACK_KEYS", "TIW_CALLBACK_KEYS_FILE", "TIW_PATH_TOKEN", "TIW_PATH_TOKEN_FILE"),
        *("TIW_VENDOR_SECRET_ID", "TIW_VENDOR_SECRET_KEY", "TIW_VENDOR_SECRET_ID_FILE", "TIW_VENDOR_SECRET_KEY_FILE"),
        *("TIW_REGISTER_TOKEN", "TIW_REGISTER_TOKEN_FILE", "TIW_NOTIFY", "TIW_NOTIFY_FILE"),
    }
    kept = {
        *("TIW_CONSOLE_TOKEN", "TIW_DATABASE_URL", "TIW_AMQP_URL", "TIW_ARCHIVE", "TIW_ARCHIVE_S3_SECRET", "PATH"),
    }
    given = dict.fromkeys(secrets | kept, "x") | {"TIW_CONSOLE_PEERS": "http://b:2,http://a:1", "TIW_ADMIN": "h:1"}
    got = console_environment(given, address=Address(host="h", port=1), peers=("http://a:1",))
    assert not secrets & got.keys()
    assert kept <= got.keys()
    assert got["TIW_CONSOLE"] == "h:1"
    assert got["TIW_CONSOLE_PEERS"] == "http://a:1,http://b:2"
    assert "TIW_ADMIN" not in got


async def test_an_address_that_is_taken_is_named(tmp_path: Path) -> None:
    settings = Settings(database_url=f"sqlite+aiosqlite:///{tmp_path}/store.db", data_dir=tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = Address(host="127.0.0.1", port=taken.getsockname()[1])
        async with AsyncExitStack() as stack:
            with pytest.raises(UsageError, match=f"TIW_CONSOLE is {address}, where nothing can listen"):
                await open_console(stack, settings, address, admin=None, environ={})
