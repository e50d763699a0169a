"""Callbacks over a unix socket: its file is had by one, replaces nobody's, and goes when its process does."""

import asyncio
import contextlib
import socket
import stat
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from ingest import UnixSocket
from tests.ingest.callback_bodies import callback
from tests.ingest.conftest import Serve
from tests.ingest.raw_http import Connection, request
from tests.ingest.recording_transport import RecordingTransport
from tests.ingest.waiting import until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ingest.sock"


@asynccontextmanager
async def connected(path: Path) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()


@contextmanager
def bound(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
        one.bind(str(path))
        yield one


def is_there(path: Path) -> bool:
    return path.exists()


def refusal(path: Path) -> str:
    with pytest.raises(OSError, match="Errno 0") as raised, UnixSocket(path):
        pass
    return str(raised.value.strerror)


async def test_callbacks_and_health_checks_are_answered(
    serve: Serve, transport: RecordingTransport, path: Path
) -> None:
    server = await serve(unix_socket=path)
    assert server.port == 0
    async with connected(path) as connection:
        await connection.send(request(callback()))
        assert (await connection.answer()).status == 200
        await connection.send(request(method="GET", path="/healthz"))
        assert (await connection.answer()).status == 200
    assert len(transport.published) == 1
    await server.drain()
    assert not is_there(path)


async def test_who_has_connected_before_a_drain_is_answered(
    serve: Serve, transport: RecordingTransport, path: Path
) -> None:
    server = await serve(unix_socket=path)
    transport.gate.clear()
    with ExitStack() as stack:
        # In the queue of the socket: until the drain begins, the loop gets no turn to accept them.
        waiting = [stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) for _ in range(50)]
        for one in waiting:
            one.settimeout(10)
            one.connect(str(path))
            one.sendall(request(callback()))
        draining = asyncio.create_task(server.drain())
        await until(lambda: transport.waiting == len(waiting))
        assert not is_there(path)
        transport.gate.set()
        await draining
        answers = [one.recv(1000) for one in waiting]
    assert all(answer.startswith(b"HTTP/1.1 200 ") and b"Connection: close" in answer for answer in answers)


def test_every_user_who_may_enter_the_folder_may_connect(path: Path) -> None:
    with UnixSocket(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o666


def test_what_a_dead_process_has_left_is_replaced(path: Path) -> None:
    with bound(path) as dead:
        dead.listen()
    assert path.is_socket()
    with UnixSocket(path), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(path))
    assert not path.exists()


@pytest.mark.parametrize("backlog", [5, 0])
def test_where_somebody_listens_is_left_to_him(path: Path, backlog: int) -> None:
    with bound(path) as living, ExitStack() as stack:
        living.listen(backlog)
        if not backlog:
            # His queue is full: he lives all the same.
            first = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            first.connect(str(path))
        assert refusal(path) == "another process listens there"
        assert path.is_socket()


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_no_socket_is_never_removed(path: Path, kind: str) -> None:
    if kind == "file":
        path.write_text("mine")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(path.with_name("elsewhere"))
    assert refusal(path) == "what is there is not a socket"
    assert path.is_symlink() or path.exists()


def test_a_socket_of_another_kind_is_left_alone(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        assert "may be another's" in refusal(path)
        assert path.is_socket()


def test_a_folder_that_is_missing_is_told(tmp_path: Path) -> None:
    assert refusal(tmp_path / "run" / "ingest.sock") == f"there is no folder {tmp_path / 'run'}: create it"


def test_leaving_removes_no_file_of_another(path: Path) -> None:
    with UnixSocket(path):
        path.unlink()
        path.write_text("mine")
    assert path.read_text() == "mine"


def test_of_many_that_start_together_one_listens(path: Path) -> None:
    with bound(path):
        pass  # what a dead process has left: each of them would replace it
    together, had, refused = threading.Barrier(8), list[UnixSocket](), list[str]()

    def start() -> None:
        one = UnixSocket(path)
        together.wait(10)
        try:
            had.append(one.__enter__())
        except OSError as error:
            refused.append(str(error.strerror))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert (len(had), len(refused)) == (1, 7)
    assert {reason.partition(" in ")[0] for reason in refused} <= {
        "another process listens there",
        "another process is about to listen",
    }
    with contextlib.closing(had[0]), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(path))
