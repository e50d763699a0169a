"""A test callback: it reaches consumers as a real one does, and is marked as a test wherever it comes."""

import html
import json
import re
import shlex
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from broker import ConsumerQueues, Delivery, NotPublishedError
from schemas import OnlineRecordFinished, OnlineRecordStarted, Unrecognized, decode
from store import find_question, find_recordings, list_events, register_consumers
from tests.console.test_now import opened
from tests.console.world import READ_TOKEN, World, links, text_of
from tests.workers.house import eventually
from workers import TEST_EVENT_TYPES, Consumer, Context, DeadLetter, Worker, consumer, make_test, new_test_task_id
from workers.builtin import BUILT_IN

APP = 1400000001
FORM = {"kind": "started", "app": str(APP), "room": "880528", "consumer": ""}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    mine = ConsumerQueues(consumer="mine", routing_keys=("OnlineRecordStarted",))
    async with opened(tmp_path, consumers=[mine]) as world:
        await register_consumers(world.store, {"mine": ("OnlineRecordStarted",)})
        yield world


async def send(world: World, **form: str) -> Any:
    return await world.browser.act("/test", FORM | form, seen="/test")


@pytest.mark.parametrize("kind", TEST_EVENT_TYPES)
def test_each_kind_is_what_the_vendor_would_send_and_says_that_it_is_a_test(kind: str) -> None:
    task = new_test_task_id()
    message = make_test(kind, app=APP, room=880528, task=task, now_s=1_796_000_000.25)
    decoded = decode(message.body, received_at_us=message.received_at_us)
    assert message.source == "test"
    assert message.event_id == decoded.event_id
    assert decoded.odd_members == ()
    content = json.loads(message.body)
    assert content["EventData"]["TaskId"] == task
    assert task.startswith("test-")
    assert "Sign" not in content
    assert isinstance(decoded.event, Unrecognized) == (kind == "unknown")
    if isinstance(decoded.event, OnlineRecordFinished):
        assert bool(decoded.event.video_infos) == (kind == "finished")
        assert all(".example/" in (video.video_url or "") for video in decoded.event.video_infos)


def run(world: World, *consumers: Consumer) -> Worker:
    return Worker([*BUILT_IN, *consumers], transport=world.transport, store=world.store)


async def test_the_command_of_the_page_sends_what_the_form_would(world: World) -> None:
    async def command(address: str) -> tuple[str, ...]:
        page = await world.browser.get(address)
        (shown,) = re.findall(r'<p class="command"><span>[^<]*</span> <code>([^<]*)</code>', page.text)
        return tuple(shlex.split(html.unescape(shown)))

    started = ("tiw", "send-test", "started", "--app", str(APP), "--room", "880528")
    assert await command("/test") == started
    chosen = "kind=failed&app=5&room=7&task=test-20261130-000000-0a1b2c3d&consumer=mine"
    assert await command(f"/test?{chosen}") == (
        *("tiw", "send-test", "failed", "--app", "5", "--room", "7"),
        *("--task", "test-20261130-000000-0a1b2c3d", "--consumer", "mine"),
    )
    # What a link may say, and no form.
    assert await command("/test?kind=--help&task=;reboot") == started
    sent = await send(world)
    assert await command(sent.url.path_qs) == ("tiw", "events", "show", sent.url.query["sent"])


async def test_a_test_is_kept_followed_and_marked(world: World) -> None:
    seen: list[tuple[str, str]] = []

    async def handler(event: OnlineRecordStarted, ctx: Context) -> None:
        seen.append((event.task_id, ctx.source))

    handler.__name__ = "mine"
    page = await send(world)
    assert page.url.path == "/test"
    assert "The test callback was sent" in text_of(page.text)
    assert "mine not known" in text_of(page.text)
    async with run(world, consumer(handler)):
        await eventually(lambda: bool(seen))
        await eventually(lambda: has_states(world, page.url.path_qs, {"started": "kept", "mine": "done"}))
    (event,) = await list_events(world.store)
    assert (event.source, event.task_id) == ("test", seen[0][0])
    assert seen == [(event.task_id, "test")]
    (recording,) = await find_recordings(world.store, event.task_id or "")
    assert (recording.room_id, recording.found) == (880528, ())
    asked = await world.browser.act("/recording/ask", {"app": str(APP), "task": event.task_id or ""}, seen="/test")
    assert "it is not asked" in text_of(asked.text)
    assert await find_question(world.store, APP, event.task_id or "") is None
    after = await world.browser.get(page.url.path_qs)
    assert "hx-trigger" not in after.text, "all of it is known: nothing is looked for any more"
    assert f"/recording?app={APP}&task={event.task_id}" in links(after.text)


async def has_states(world: World, address: str, wanted: dict[str, str]) -> bool:
    found = json.loads((await world.browser.get(f"{address}&format=json")).text)
    return {one["consumer"]: one["state"] for one in found["consumers"]}.items() >= wanted.items()


async def test_a_failing_consumer_is_shown_with_its_reason(world: World) -> None:
    async def handler(event: OnlineRecordStarted, ctx: Context) -> None:
        raise DeadLetter("<b>the bucket</b> is gone")

    handler.__name__ = "mine"
    page = await send(world, consumer="mine")
    async with run(world, consumer(handler)):
        await eventually(lambda: has_states(world, page.url.path_qs, {"mine": "gave_up"}))
    after = await world.browser.get(page.url.path_qs)
    assert "<b>the bucket</b> is gone" in text_of(after.text)
    assert "<b>the" not in after.text
    assert await list_events(world.store) == [], "it went to one consumer alone"


async def test_a_test_for_one_consumer_reaches_that_one_alone(world: World) -> None:
    await send(world, consumer="mine")
    states = {one.consumer: one.ready for one in await world.transport.inspect(["mine", "started"])}
    assert states == {"mine": 1, "started": 0}


async def test_the_message_that_goes_out_has_the_mark(world: World) -> None:
    taken: list[Delivery] = []
    await send(world, consumer="mine")
    mine = ConsumerQueues(consumer="mine", routing_keys=("OnlineRecordStarted",))
    async with world.transport.subscribe(mine, taken.append, prefetch=1):
        await eventually(lambda: bool(taken))
    assert taken[0].message.source == "test"


@pytest.mark.parametrize(
    ("form", "sentence"),
    [
        ({"kind": "nonsense"}, "Choose what happened"),
        ({"app": "x"}, "whole numbers"),
        ({"app": "9" * 17}, "whole numbers"),
        ({"room": "-1"}, "whole numbers"),
        ({"room": "٣"}, "whole numbers"),
        ({"consumer": "<i>nobody</i>"}, "There is no consumer <i>nobody</i>"),
        ({"consumer": "mine", "kind": "stopped"}, "mine does not take OnlineRecordStopped"),
        ({"task": "a real class"}, "begins with test-"),
        ({"task": "test-" + "a" * 300}, "begins with test-"),
    ],
)
async def test_what_cannot_be_meant_is_said_and_nothing_is_sent(
    world: World, form: dict[str, str], sentence: str
) -> None:
    page = await send(world, **form)
    assert page.status == 400
    assert sentence in text_of(page.text)
    assert "<i>" not in page.text
    assert [state.ready for state in await world.transport.inspect(["mine", "started", "stopped"])] == [0, 0, 0]


async def test_more_of_the_same_test_class_can_be_sent(world: World) -> None:
    page = await send(world)
    (following,) = [link for link in links(page.text) if "kind=finished" in link]
    form = await world.browser.get(following)
    task = re.search(r'name="task" value="(test-[^"]+)"', form.text)
    assert task is not None
    sent = await send(world, kind="finished", task=task[1])
    assert sent.url.query["task"] == task[1]


async def test_what_the_broker_does_not_take_is_said_not_to_be_sent(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: object) -> None:
        raise NotPublishedError("the disk is full")

    monkeypatch.setattr(type(world.transport), "publish", refused)
    page = await send(world)
    assert "It was not sent: the disk is full" in text_of(page.text)
    (change,) = json.loads((await world.browser.get("/changes?format=json")).text)
    assert change["result"] == "not sent: the disk is full"


async def test_who_may_only_look_sends_none(world: World) -> None:
    async with world.another() as other:
        await other.log_in(READ_TOKEN)
        page = await other.get("/test")
        assert "You may look, but not send" in text_of(page.text)
        token = re.search(r'name="form_token" value="([^"]+)"', page.text)
        assert token is not None
        refused = await other.post("/test", FORM | {"form_token": token[1]})
        assert refused.status == 403
    assert (await world.transport.inspect(["mine"]))[0].ready == 0


async def test_the_page_of_a_test_tells_nothing_of_what_is_none(world: World) -> None:
    assert (await world.browser.get("/test?sent=<script>")).status == 400
    page = await world.browser.get(f"/test?sent={'a' * 32}&key=OnlineRecordStarted&task=<b>&at=1e999&app=<i>")
    assert page.status == 200
    assert "<b>" not in page.text
    assert "<i>" not in page.text
