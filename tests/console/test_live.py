"""A live page: told to everybody at once while somebody watches, and nobody is asked while nobody does."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

import console.live
import console.now
from console.live import Known, Viewer, frame_of
from tests.console.nodes import node
from tests.console.world import TOKEN, World, running

DEADLINE_S = 20.0


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running(tmp_path) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask and tell more often than a person needs."""
    for name in ("PEERS_EVERY_S", "BROKER_EVERY_S", "STORE_EVERY_S"):
        monkeypatch.setattr(console.live, name, 0.2)
    monkeypatch.setattr(console.live, "TOLD_EVERY_S", 0.1)
    monkeypatch.setattr(console.live, "TOLD_AGAIN_S", 0.3)
    monkeypatch.setattr(console.live, "WATCHED_FOR_S", 0.5)


def stream(world: World, **options: Any) -> Any:
    return world.browser.session.get(world.browser.base.join(URL("/live")), **options)


async def next_event(answer: aiohttp.ClientResponse) -> dict[str, str]:
    """Return the next event of a stream, comments and settings passed over."""
    event: dict[str, str] = {}
    async with asyncio.timeout(DEADLINE_S):
        while True:
            line = (await answer.content.readline()).decode()
            assert line, "the stream ended"
            if line == "\n":
                if "event" in event:
                    return event
                event = {}
                continue
            name, _, value = line.rstrip("\n").partition(":")
            value = value.removeprefix(" ")
            event[name] = f"{event[name]}\n{value}" if name in event else value


async def test_a_live_page_is_told_again_and_again_with_numbered_events(world: World) -> None:
    async with stream(world) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/event-stream"
        assert answer.headers["Cache-Control"] == "no-store"
        first, second = await next_event(answer), await next_event(answer)
        rest = [await next_event(answer) for _ in range(4)]
    assert [one["event"] for one in (first, second, *rest[:3])] == [*console.now.SECTIONS]
    assert rest[3]["event"] == first["event"]
    assert int(first["id"]) == int(second["id"]) < int(rest[3]["id"])
    assert 'id="attention"' in first["data"]
    assert "<html" not in first["data"]


async def test_everybody_is_told_the_same_in_his_language_and_each_part_is_asked_once_for_all(tmp_path: Path) -> None:
    async with (
        node("tiw_ready 1\n") as asked,
        running(tmp_path, peers=[asked.address]) as world,
        AsyncExitStack() as stack,
    ):
        answers = [
            await stack.enter_async_context(stream(world, headers={"Accept-Language": language}))
            for language in ("en", "zh", "en", "zh", "en")
        ]
        before, began_s = asked.asked, time.monotonic()
        for answer in answers:
            told = await next_event(answer)
            heading = "What needs you" if answer is answers[0] else None
            assert heading is None or heading in told["data"]
        chinese = ""
        while "需要处理的事项" not in chinese:
            chinese = (await next_event(answers[1]))["data"]
        looks = (time.monotonic() - began_s) / 0.2 + 2
        assert asked.asked - before <= looks, "five viewers, asked as for one"


async def test_nobody_is_asked_while_nobody_watches(tmp_path: Path) -> None:
    async with node("tiw_ready 1\n") as asked, running(tmp_path, peers=[asked.address]) as world:
        async with stream(world) as answer:
            await next_event(answer)
        await world.browser.get("/changes")
        assert asked.asked > 0
        count = -1
        async with asyncio.timeout(DEADLINE_S):
            while count != asked.asked:
                count = asked.asked
                await asyncio.sleep(0.8)
        await world.browser.get("/")
        assert asked.asked > count, "a page asks again"


async def test_a_stream_ends_when_the_session_does_and_is_not_asked_for_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console.now, "HEARTBEAT_S", 0.1)
    async with stream(world) as answer:
        await next_event(answer)
        await world.browser.act("/logout", {}, seen="/test")
        told = {"event": ""}
        while told["event"] in ("", *console.now.SECTIONS):
            told = await next_event(answer)
        assert told["event"] == "end"
        assert await answer.content.read() == b""
    async with stream(world) as refused:
        assert refused.status == 204


async def test_a_silent_time_is_filled_with_comments(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console.now, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(console.live, "TOLD_EVERY_S", 60.0)
    async with stream(world) as answer:
        async with asyncio.timeout(DEADLINE_S):
            while not (await answer.content.readline()).startswith(b":"):
                pass


async def test_more_viewers_than_there_is_room_for_are_sent_away(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console.live, "MOST_VIEWERS", 1)
    async with stream(world) as first:
        await next_event(first)
        async with stream(world) as second:
            assert second.status == 503
            assert second.headers["Retry-After"] == "30"
    async with asyncio.timeout(DEADLINE_S):
        while True:
            async with stream(world) as third:
                if third.status == 200:
                    break
            await asyncio.sleep(0.05)


async def test_the_console_stops_with_open_streams_at_once(tmp_path: Path) -> None:
    async with AsyncExitStack() as outer:
        async with running(tmp_path) as world:
            session = await outer.enter_async_context(aiohttp.ClientSession())
            headers = {"Authorization": f"Bearer {TOKEN}"}
            answer = await session.get(f"http://127.0.0.1:{world.port}/live", headers=headers)
            await next_event(answer)
            began_s = time.monotonic()
        assert time.monotonic() - began_s < 5
        rest = await answer.content.read()
        assert b"event: end" not in rest, "a browser comes back after a restart"


async def test_only_who_is_logged_in_gets_a_stream(world: World) -> None:
    async with world.another() as stranger:
        assert (await stranger.get("/live")).status == 204
    async with stream(world, headers={"Authorization": f"Bearer {TOKEN}"}) as answer:
        assert answer.status == 200


async def test_who_asks_for_the_headers_alone_is_no_viewer(world: World) -> None:
    answer = await world.browser.request("HEAD", "/live")
    assert (answer.status, answer.headers["Content-Type"], answer.text) == (200, "text/event-stream", "")


async def test_who_reads_slowly_gets_the_newest_alone() -> None:
    viewer = Viewer("en")
    for number in range(5):
        viewer.give(str(number).encode())
    assert await viewer.take(within_s=1) == b"4"
    assert await viewer.take(within_s=0.01) is None
    viewer.wake()
    assert await viewer.take(within_s=1) is None


def test_no_line_of_a_page_ends_an_event() -> None:
    frame = frame_of({"one": "<p>a\r\n\r\nb</p>\n\n\n  <i>c\rd</i>\n", "none": "\n"}, number=7)
    one = b"id: 7\nevent: one\ndata: <p>a\ndata: b</p>\ndata:   <i>cd</i>\n\n"
    assert frame == one + b"id: 7\nevent: none\ndata:\n\n"


def test_what_is_known_says_since_when_it_is_not_any_more() -> None:
    known = Known[int]().found(5, 100.0)
    assert known.is_current
    lost = known.failed("gone", 110.0).failed("still gone", 120.0)
    assert (lost.value, lost.at_s, lost.reason, lost.since_s, lost.is_current) == (5, 100.0, "still gone", 110.0, False)
    assert lost.found(6, 130.0).is_current
    assert known.seen_at(110.0).is_current
    old = known.seen_at(200.0)
    assert (old.is_current, old.since_s) == (False, 100.0)
    assert not Known[int]().is_current
