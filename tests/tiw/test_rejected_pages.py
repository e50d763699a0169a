"""What the console sees of refused callbacks over the admin listener: what the command prints, and never a Sign."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from broker import BrokerError, EmbeddedTransport, Message, Transport
from ingest import read_rejected
from schemas import RejectedRow, Reverified
from telemetry import AdminListener, Readiness
from tests.tiw.test_rejected import APP, KEY, arguments, callback, keep, rejected
from tiw.commands.rejected import list_all, reverify
from tiw.console_token import known_console_token, open_console_token
from tiw.opening import ingest_pages, open_transport
from tiw.rejected import rejected_pages
from tiw.settings import Address, Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        database_url=f"sqlite+aiosqlite:///{tmp_path}/store.db",
        data_dir=tmp_path,
        callback_keys=json.dumps({APP: [KEY]}),
    )


class Node:
    """The admin listener of an ingest node, and a console that asks it."""

    def __init__(self, listener: AdminListener, token: str | None) -> None:
        self.listener = listener
        self.headers = {"Authorization": f"Bearer {token}"}

    async def ask(self, method: str, path: str) -> tuple[int, Any, str]:
        url = f"http://127.0.0.1:{self.listener.port}{path}"
        async with aiohttp.ClientSession() as session, session.request(method, url, headers=self.headers) as answer:
            text = await answer.text()
            return answer.status, json.loads(text), text


@asynccontextmanager
async def node(settings: Settings, opened: Any = None) -> AsyncIterator[Node]:
    token = open_console_token(settings).token
    pages = ingest_pages(settings)
    if opened is not None:
        pages = rejected_pages(settings, token=known_console_token(settings), opened=opened)
    async with AdminListener("127.0.0.1", 0, ready=Readiness, pages=pages) as listener:
        yield Node(listener, token)


def left(settings: Settings) -> int:
    return len(read_rejected(settings.data_dir / "rejected", now_us=time.time_ns() // 1000))


async def test_the_list_is_what_the_command_prints_without_sign_and_body(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    body = callback("class-1")
    keep(settings, rejected(body, age_s=60), rejected(callback("class-2"), age_s=10), rejected(b"\xff", age_s=5))
    list_all(settings, arguments())
    printed = json.loads(capsys.readouterr().out)
    async with node(settings) as running:
        status, document, text = await running.ask("GET", "/rejected")
        assert (status, document) == (200, printed)
        assert (await running.ask("GET", "/rejected?limit=1"))[1] == printed[:1]
    assert msgspec.convert(document, list[RejectedRow])
    assert json.loads(body)["Sign"] not in text
    assert "tic_record_user" not in text


@pytest.mark.parametrize("limit", ["0", "-1", "1e3", "10001", "99999999999999999999", "\u0661", "", "x", "1&limit=2"])
async def test_a_limit_that_is_none_is_refused(settings: Settings, limit: str) -> None:
    async with node(settings) as running:
        assert (await running.ask("GET", f"/rejected?limit={limit}"))[0] == 400


async def test_who_is_authentic_now_is_let_in_over_the_page_as_by_the_command(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(
        settings,
        *(rejected(callback(f"t{number}", expires_in_s=-10_000), age_s=9_800) for number in range(3)),
        rejected(callback("forged", key="not ours"), age_s=50),
    )
    await reverify(settings, arguments(dry_run=True))
    printed = json.loads(capsys.readouterr().out)
    async with node(settings) as running:
        assert (await running.ask("POST", "/rejected/reverify?dry_run=1"))[:2] == (200, printed)
        assert left(settings) == 4
        status, done, _ = await running.ask("POST", "/rejected/reverify")
        assert (status, done) == (200, {"authentic": 3, "let_in": 3, "remaining": 1, "refused": {"wrong_sign": 1}})
    assert left(settings) == 1
    async with EmbeddedTransport(settings.data_dir) as transport:
        (state,) = await transport.inspect(["started"])
    assert state.ready == 3


@pytest.mark.parametrize("query", ["dry_run=true", "dry_run=", "dry_run=01", "dryrun=1", "dry_run=1&dry_run=0", "x"])
async def test_what_is_unclear_is_never_taken_for_the_real_thing(settings: Settings, query: str) -> None:
    keep(settings, rejected(callback("t1"), age_s=1))
    async with node(settings) as running:
        assert (await running.ask("POST", f"/rejected/reverify?{query}"))[0] == 400
        assert (await running.ask("GET", "/rejected/reverify"))[0] == 405
    assert left(settings) == 1


async def test_many_at_once_let_each_in_once(settings: Settings) -> None:
    published: list[Message] = []
    keep(settings, *(rejected(callback(f"t{number}"), age_s=60 - number) for number in range(20)))

    @asynccontextmanager
    async def opened() -> AsyncIterator[Transport]:
        async with open_transport(settings, may_be_new=True) as transport:
            publish = transport.publish

            async def note(message: Message) -> None:
                published.append(message)
                await publish(message)

            transport.publish = note  # type: ignore[method-assign]  # to see what goes through it
            yield transport

    async with node(settings, opened) as running:
        answers = await asyncio.gather(*(running.ask("POST", "/rejected/reverify") for _ in range(10)))
    done = [msgspec.convert(document, Reverified) for status, document, _ in answers if status == 200]
    assert {status for status, *_ in answers} <= {200, 503}
    assert sum(one.let_in for one in done) == len(published) == 20
    assert left(settings) == 0


async def test_a_broker_that_is_away_is_told_and_nothing_is_lost(settings: Settings) -> None:
    keep(settings, *(rejected(callback(f"t{number}"), age_s=30 - number) for number in range(2)))

    class Away:
        async def wait_ready(self) -> None:
            return

        async def publish(self, message: Message) -> None:
            del message
            raise BrokerError("no confirm")

    def opened() -> AbstractAsyncContextManager[Any]:
        @asynccontextmanager
        async def enter() -> AsyncIterator[Away]:
            yield Away()

        return enter()

    async with node(settings, opened) as running:
        status, document, _ = await running.ask("POST", "/rejected/reverify")
    assert (status, document) == (503, {"error": "stopped after 0 callbacks: no confirm: run it again"})
    assert left(settings) == 2


async def test_keys_and_files_that_cannot_be_used_are_told_without_them(settings: Settings) -> None:
    keep(settings, rejected(callback("t1"), age_s=1))
    broken = Settings(database_url=settings.database_url, data_dir=settings.data_dir, callback_keys='{"5": [5]}')
    async with node(broken) as running:
        status, document, _ = await running.ask("POST", "/rejected/reverify")
        assert status == 503
        assert document["error"].startswith("TIW_CALLBACK_KEYS: ")
    (settings.data_dir / "rejected" / "rejected.db").write_bytes(b"no database at all" * 100)
    async with node(settings) as running:
        for method, path in (("GET", "/rejected"), ("POST", "/rejected/reverify")):
            status, document, _ = await running.ask(method, path)
            assert status == 503
            assert "is damaged" in document["error"]


async def test_texts_of_any_length_are_cut(settings: Settings) -> None:
    keep(settings, *(rejected(callback("x" * 100_000, EventType="y" * 100_000), age_s=n + 1) for n in range(3)))
    async with node(settings) as running:
        _, document, text = await running.ask("GET", "/rejected")
    assert len(text) < 3000
    assert document[0]["task_id"] == f"{'x' * 255}…"


async def test_there_is_no_such_page_where_the_console_is_off_or_no_token_is_known(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tiw.console_token._LOOK_EVERY_S", 0.0)
    async with AdminListener("127.0.0.1", 0, ready=Readiness, pages=ingest_pages(settings)) as listener:
        assert (await Node(listener, None).ask("GET", "/rejected"))[0] == 404
        # It is made by a console that starts later.
        token = open_console_token(settings).token
        assert (await Node(listener, token).ask("GET", "/rejected"))[0] == 200
    off = Settings(database_url=settings.database_url, data_dir=settings.data_dir, console=None)
    assert ingest_pages(off) == ()
    assert Settings(database_url="").console == Address(host="127.0.0.1", port=8090)
