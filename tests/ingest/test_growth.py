"""However many callbacks came, and however they ended, nothing of them stays."""

import asyncio
import os
import random
import stat
from contextlib import suppress
from pathlib import Path

import structlog

from broker import NotPublishedError
from ingest import IngestConfig, IngestServer, KeyRing
from tests.ingest.callback_bodies import KEYS, callback
from tests.ingest.raw_http import chunked, connected, request
from tests.ingest.recording_transport import RecordingTransport
from tests.ingest.waiting import until

ROUNDS = 3
SENDERS = 12
EACH = 100


def open_sockets() -> int:
    def is_socket(descriptor: str) -> bool:
        with suppress(OSError):
            return stat.S_ISSOCK(os.fstat(int(descriptor)).st_mode)
        return False

    return sum(is_socket(path.name) for path in Path("/proc/self/fd").iterdir())


class FailingTransport(RecordingTransport):
    """Fails now and then, and now and then takes a while."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self._chance = chance

    async def publish(self, message: object) -> None:
        """Do one of three things, and remember nothing."""
        del message
        if self._chance.random() < 0.3:
            await asyncio.sleep(0)
        if self._chance.random() < 0.2:
            raise NotPublishedError("no confirm")


async def send(port: int, chance: random.Random) -> int:
    """Send in many ways, on as many connections as it takes; return how many were answered."""
    body = callback()
    wrong = [
        request(body, path="/wrong"),
        request(body, method="PUT"),
        request(body[:-1]),
        request(callback(key="another key")),
        chunked(body),
        b"nonsense\r\n\r\n",
        request(callback(Padding="x" * 3000)),
    ]
    answered = 0
    while answered < EACH:
        async with connected(port) as connection:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                for _ in range(chance.randrange(1, 8)):
                    fate = chance.random()
                    if fate < 0.1:
                        await connection.send(request(body)[: -chance.randrange(1, 200)])
                        break
                    if fate < 0.15:
                        await connection.send(request(body))
                        break
                    await connection.send(chance.choice(wrong) if fate < 0.5 else request(body) * 2)
                    await connection.answer()
                    answered += 1
    return answered


async def test_tasks_sockets_and_bytes_in_flight_do_not_grow() -> None:
    chance = random.Random(1)
    transport = FailingTransport(chance)
    with structlog.testing.capture_logs():
        async with IngestServer(IngestConfig(port=0, max_body_bytes=2000), transport, KeyRing(KEYS)) as server:
            tasks, sockets = len(asyncio.all_tasks()), open_sockets()
            for _ in range(ROUNDS):
                answered = await asyncio.gather(*(send(server.port, chance) for _ in range(SENDERS)))
                assert sum(answered) >= SENDERS * EACH
                callbacks = server._callbacks
                await until(lambda: len(asyncio.all_tasks()) == tasks and open_sockets() == sockets)
                assert (callbacks.running, callbacks.in_flight.taken, callbacks.in_flight.taken_bytes) == (0, 0, 0)
                assert not callbacks._durability._publishing._waiting
                assert server._connections is not None
                assert server._connections.connections == []
