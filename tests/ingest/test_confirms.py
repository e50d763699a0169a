"""200 means kept: no byte of an answer leaves before the confirm of its own callback."""

import asyncio
import random
from contextlib import AsyncExitStack
from functools import partial

from broker import NotPublishedError
from ingest import IngestConfig, IngestServer, KeyRing
from ingest.config import Budget
from tests.ingest.callback_bodies import KEYS, callback
from tests.ingest.controlled_transport import ControlledTransport
from tests.ingest.raw_http import connected, request
from tests.ingest.waiting import until


def of_task(task_id: str) -> bytes:
    return request(callback(EventData={"TaskId": task_id}))


async def nothing_is_read(reader: asyncio.StreamReader) -> bool:
    """Say whether the server stays silent, for some turns of both loops at least."""
    await asyncio.sleep(0.02)
    return not reader._buffer  # type: ignore[attr-defined]  # what has arrived and was not read


async def test_no_byte_leaves_before_the_confirm_in_whatever_order_confirms_come() -> None:
    transport = ControlledTransport()
    names = [f"task-{number}" for number in range(20)]
    async with (
        asyncio.timeout(30),
        IngestServer(IngestConfig(port=0), transport, KeyRing(KEYS)) as server,
        AsyncExitStack() as stack,
    ):
        by_name = {name: await stack.enter_async_context(connected(server.port)) for name in names}
        for name, connection in by_name.items():
            await connection.send(of_task(name))
        await until(lambda: set(transport.confirms) == set(names))
        order = list(names)
        random.Random(7).shuffle(order)
        for number, name in enumerate(order):
            for waiting in order[number : number + 2]:
                assert await nothing_is_read(by_name[waiting].reader)
            if number % 5 == 4:
                transport.confirms[name].set_exception(NotPublishedError("nacked"))
            else:
                transport.confirms[name].set_result(None)
            assert (await by_name[name].answer()).status == (503 if number % 5 == 4 else 200)
        for connection in by_name.values():
            assert await nothing_is_read(connection.reader)


async def test_requests_of_one_connection_wait_for_their_own_confirms() -> None:
    transport = ControlledTransport()
    async with (
        IngestServer(IngestConfig(port=0), transport, KeyRing(KEYS)) as server,
        connected(server.port) as connection,
    ):
        await connection.send(of_task("a") + of_task("b"))
        for name in ("a", "b"):
            await until(partial(transport.confirms.__contains__, name))
            assert await nothing_is_read(connection.reader)
            transport.confirms[name].set_result(None)
            assert (await connection.answer()).status == 200
        assert await nothing_is_read(connection.reader)


async def test_a_confirm_that_comes_too_late_makes_no_200() -> None:
    transport = ControlledTransport()
    config = IngestConfig(port=0, budget=Budget(confirm_s=0.05))
    async with (
        IngestServer(config, transport, KeyRing(KEYS)) as server,
        connected(server.port) as connection,
    ):
        await connection.send(of_task("a"))
        assert (await connection.answer()).status == 503
        transport.confirms["a"].set_result(None)
        assert await nothing_is_read(connection.reader)
