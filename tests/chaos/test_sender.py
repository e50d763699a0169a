"""The sender tries as the vendor does, behind a load balancer, and writes down each try."""

import asyncio
import socket
from itertools import islice
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from chaos.evidence import GaveUp, LineWriter, Sent, Tried, read_lines
from chaos.traffic.sender import Order, Sender, Stalls, stream
from simulator import Patience

APP = 1400000001


async def send(
    count: int, *addresses: str, folder: Path, duplicates: float = 0.0, forged: float = 0.0
) -> list[Sent | Tried | GaveUp]:
    """Send as many callbacks, and return what was written down."""
    order = Order(
        addresses=addresses,
        sdk_app_id=APP,
        key="4fd1c0a96b7e4c7f8a2e5d3b1c9f7a60",
        seed=1,
        rate=None,
        concurrency=4,
        duplicates=duplicates,
        forged=forged,
        body_bytes=0,
        ledger=str(folder / "ledger.jsonl"),
    )
    items = islice(stream(1, sdk_app_id=APP, duplicates=duplicates, forged=forged), count)
    with LineWriter(Path(order.ledger)) as ledger:
        async with Stalls() as stalls:
            await Sender(order, ledger, stalls, asyncio.Event()).send_all(items)
    return list(read_lines(Path(order.ledger), Sent | Tried | GaveUp))


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chaos.traffic.sender.Patience", lambda: Patience(timeout_s=0.5, retry_delay_s=0.01))
    monkeypatch.setattr("chaos.traffic.sender._REPEATED_AFTER_S", 0.01)


def answering(*statuses: int) -> TestServer:
    """Answer one status after the other, the last one for ever."""
    rest = list(statuses)

    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=rest.pop(0) if len(rest) > 1 else rest[0])

    application = web.Application()
    application.router.add_post("/", answer)
    return TestServer(application)


def free_address() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}/"


async def test_a_callback_is_tried_until_it_is_answered_200(tmp_path: Path) -> None:
    async with answering(503, 202, 200) as server:
        records = await send(1, str(server.make_url("/")), folder=tmp_path)
    tries = [(one.attempt, one.status) for one in records if isinstance(one, Tried)]
    assert isinstance(records[0], Sent)
    assert tries == [(1, 503), (2, 202), (3, 200)]


async def test_after_six_tries_it_is_given_up(tmp_path: Path) -> None:
    records = await send(1, free_address(), folder=tmp_path)
    tries = [one for one in records if isinstance(one, Tried)]
    assert [one.failure for one in tries] == ["not connected"] * 6
    assert isinstance(records[-1], GaveUp)


async def test_a_node_that_refuses_the_connection_costs_no_try(tmp_path: Path) -> None:
    async with answering(200) as server:
        records = await send(8, free_address(), str(server.make_url("/")), folder=tmp_path)
    assert [one.status for one in records if isinstance(one, Tried)] == [200] * 8


async def test_what_was_accepted_is_sent_once_more_where_the_stream_says_so(tmp_path: Path) -> None:
    async with answering(200) as server:
        records = await send(3, str(server.make_url("/")), folder=tmp_path, duplicates=1.0)
    assert sorted(one.attempt for one in records if isinstance(one, Tried)) == [0, 0, 0, 1, 1, 1]


async def test_a_forgery_is_tried_once_and_named(tmp_path: Path) -> None:
    async with answering(401) as server:
        items = await send(2, str(server.make_url("/")), folder=tmp_path, forged=0.999)
    forged = {one.event_id for one in items if isinstance(one, Sent) and one.forged}
    assert forged
    assert [one.attempt for one in items if isinstance(one, Tried) and one.event_id in forged] == [1] * len(forged)
