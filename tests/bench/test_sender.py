"""The open loop: on time, whatever becomes of those before."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bench.load.payloads import Payload
from bench.load.sender import Sender


@asynccontextmanager
async def receiver(
    *, status: int = 200, answers_after: int = 1, hangs_up: bool = False
) -> AsyncIterator[tuple[str, list[bytes]]]:
    bodies: list[bytes] = []
    serving: set[asyncio.Task[None]] = set()
    enough = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if task := asyncio.current_task():
            serving.add(task)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length:"))
                bodies.append(await reader.readexactly(length))
                if hangs_up:
                    return
                if len(bodies) >= answers_after:
                    enough.set()
                await enough.wait()
                # In pieces, as a network may deliver it.
                for piece in (b"HTTP/1.1 %d Any\r\nContent-" % status, b"Length: 4\r\n\r\nab", b"cd"):
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/callbacks/tiw", bodies
    finally:
        server.close()
        await server.wait_closed()
        await asyncio.gather(*serving)


def payloads(count: int) -> list[Payload]:
    return [Payload(body=b"body %d" % number, event_id=str(number)) for number in range(count)]


async def test_every_callback_is_sent_and_its_answer_noted() -> None:
    due: list[str] = []
    async with receiver() as (url, bodies), Sender(url) as sender:
        sent = await sender.send_all(payloads(30), per_s=1000, on_due=due.append)
    assert [one.event_id for one in sent] == due == [str(number) for number in range(30)]
    assert {one.status for one in sent} == {200}
    assert sorted(bodies) == sorted(payload.body for payload in payloads(30))


async def test_a_refusal_is_noted_and_stops_nothing() -> None:
    async with receiver(status=503) as (url, _), Sender(url) as sender:
        sent = await sender.send_all(payloads(3), per_s=1000, on_due=lambda _: None)
    assert [one.status for one in sent] == [503, 503, 503]


async def test_missing_answers_do_not_delay_those_that_are_due() -> None:
    async with receiver(answers_after=100) as (url, _), Sender(url) as sender, asyncio.timeout(30):
        sent = await sender.send_all(payloads(100), per_s=1000, on_due=lambda _: None)
    assert len(sent) == 100


async def test_a_latency_counts_from_when_it_was_due() -> None:
    async with receiver(answers_after=20) as (url, _), Sender(url) as sender:
        sent = await sender.send_all(payloads(20), per_s=100, on_due=lambda _: None)
    # The first waits for the twentieth, which is due 190 ms later.
    assert sent[0].latency_ms >= 190
    assert [round((one.due_at_s - sent[0].due_at_s) * 100) for one in sent] == list(range(20))


async def test_a_connection_that_breaks_is_an_error() -> None:
    async with receiver(hangs_up=True) as (url, _), Sender(url) as sender:
        with pytest.raises(ConnectionResetError):
            await sender.send_all(payloads(1), per_s=1000, on_due=lambda _: None)
