"""A request without a target is answered, and its connection closed: aiohttp does neither by itself."""

from telemetry import AdminListener, Readiness
from tests.ingest.callback_bodies import callback
from tests.ingest.conftest import Serve
from tests.ingest.raw_http import connected, request

WITHOUT_TARGET = b"CONNECT \r\n\r\n"


async def test_ingest_answers_404_and_hangs_up(serve: Serve) -> None:
    server = await serve()
    async with connected(server.port) as connection:
        await connection.send(WITHOUT_TARGET)
        assert (await connection.answer()).status == 404
        assert await connection.is_closed_by_the_server()


async def test_it_is_not_taken_for_the_request_before_it(serve: Serve) -> None:
    server = await serve()
    async with connected(server.port) as connection:
        await connection.send(request(callback()) + WITHOUT_TARGET)
        assert [(await connection.answer()).status for _ in range(2)] == [200, 404]
        assert await connection.is_closed_by_the_server()


async def test_the_admin_listener_answers_404_and_hangs_up() -> None:
    async with AdminListener("127.0.0.1", 0, ready=Readiness) as listener, connected(listener.port) as connection:
        await connection.send(WITHOUT_TARGET)
        assert (await connection.answer()).status == 404
        assert await connection.is_closed_by_the_server()
