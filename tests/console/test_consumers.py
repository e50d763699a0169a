"""Each consumer: what waits for it and how long, what it gave up, and what to do where it does not work."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import pytest

from broker import ConsumerQueues, Message
from store import OverdueDelivery, keep_dead_letters, register_consumers, report_overdue
from tests.console.nodes import node
from tests.console.test_now import letter, opened
from tests.console.world import World, links, text_of

#: A name that no consumer can have, but a row of the store can.
HOSTILE = '<script>alert("x")</script>\u202e&name=y'


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("console.live.PATIENCE_S", 20.0)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    mine = ConsumerQueues(consumer="mine", routing_keys=("OnlineRecordStarted",))
    async with opened(tmp_path, consumers=[mine]) as world:
        await register_consumers(world.store, {"mine": ("OnlineRecordStarted",)})
        yield world


def message(event_id: str, *, ago_s: float = 0.0) -> Message:
    received_at_us = round((time.time() - ago_s) * 1e6)
    return Message(body=b"{}", event_id=event_id, routing_key="OnlineRecordStarted", received_at_us=received_at_us)


async def test_what_waits_is_shown_with_how_long_the_first_of_it_does(world: World) -> None:
    await world.transport.send("mine", message("a", ago_s=3700))
    await world.transport.send("mine", message("b"))
    async with world.transport.subscribe(
        ConsumerQueues(consumer="mine", routing_keys=("OnlineRecordStarted",)), lambda _: None, prefetch=0
    ):
        text = text_of((await world.browser.get("/consumers")).text)
        page = await world.browser.get("/consumer?name=mine")
    assert "mine does not keep up 2 1:01:4" in text
    assert "tiw consumers" in text
    assert "Waiting 2 Oldest waits 1:01:4" in text_of(page.text)
    assert "Takes OnlineRecordStarted" in text_of(page.text)


async def test_one_page_tells_what_it_gave_up_last_and_leads_there(world: World) -> None:
    await keep_dead_letters(world.store, [letter("mine", reason="<b>no</b> such bucket")])
    listed = await world.browser.get("/consumers")
    assert "<b>no</b> such bucket" in text_of(listed.text)
    page = await world.browser.get("/consumer?name=mine")
    assert "<b>no</b>" not in page.text + listed.text
    assert "<b>no</b> such bucket" in text_of(page.text)
    assert f"/dead-letter?consumer=mine&id={'e' * 32}" in links(page.text)
    assert "/test?consumer=mine" in links(page.text)
    assert "tiw consumers remove mine" in text_of(page.text), "nobody works for it"


async def test_one_that_hangs_is_told_with_what_to_do(world: World) -> None:
    overdue = OverdueDelivery(consumer="mine", event_id="e", lease_holder="h/1/2", unsettled_s=900)
    await report_overdue(world.store, [overdue], lease_holder="h/1/2")
    assert "hangs" in text_of((await world.browser.get("/consumers")).text)
    assert "Restart its worker" in text_of((await world.browser.get("/consumer?name=mine")).text)
    assert "A worker of mine hangs" in text_of((await world.browser.get("/")).text)


async def test_what_became_of_its_events_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("console.live.PEERS_EVERY_S", 0.1)
    metrics = 'tiw_deliveries_total{{consumer="started",outcome="ack"}} {0}\n'
    metrics += 'tiw_deliveries_total{{consumer="started",outcome="<i>newer</i>"}} {0}\n'
    async with node(metrics.format(1)) as asked, opened(tmp_path, peers=[asked.address]) as world, asyncio.timeout(20):
        await world.browser.get("/consumer?name=started")
        asked.text = metrics.format(3)
        text = ""
        while "2" not in text.partition("最近十分钟事件的处理结果")[2].partition("声明")[0]:
            page = await world.browser.get("/consumer?name=started", headers={"Accept-Language": "zh-CN"})
            text = text_of(page.text)
        assert "已处理 2 <i>newer</i> 2" in text.replace("<i>newer</i> 2 已处理 2", "已处理 2 <i>newer</i> 2")
        assert "<i>newer" not in page.text


async def test_the_json_form_is_what_the_command_prints(world: World) -> None:
    await world.transport.send("mine", message("a"))
    listed = json.loads((await world.browser.get("/consumers?format=json")).text)
    (one,) = [row for row in listed if row["name"] == "mine"]
    assert (one["ready"], one["queue"], one["events"]) == (1, "tiw.mine", ["OnlineRecordStarted"])
    assert json.loads((await world.browser.get("/consumer?name=mine&format=json")).text) == [one]


async def test_a_consumer_that_is_not_there_is_said_to_be_none(world: World) -> None:
    page = await world.browser.get(f"/consumer?name={quote(HOSTILE)}")
    assert page.status == 400
    assert "<script>alert" not in page.text
    assert "There is no consumer" in text_of(page.text)
    assert (await world.browser.get("/consumer")).status == 400
