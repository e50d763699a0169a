"""What is going on, on one page: numbers of now, and where one is not known, since when, and why."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import console.live
from broker import BrokerError
from store import DeadLetter, Store, StoreError, StoreUnavailableError, apply_events, keep_dead_letters
from tests.console.nodes import node
from tests.console.world import TOKEN, World, elements, links, running, text_of
from tests.store.classes import callback, keep

METRICS = """
# HELP tiw_callbacks_accepted_total Callbacks answered 200, by routing key.
tiw_callbacks_accepted_total{{routing_key="OnlineRecordStarted"}} {accepted}
tiw_callbacks_refused_total{{reason="wrong_sign"}} {refused}
tiw_answer_seconds_bucket{{le="0.001"}} {fast}
tiw_answer_seconds_bucket{{le="0.01"}} {accepted}
tiw_answer_seconds_bucket{{le="+Inf"}} {accepted}
tiw_callbacks_in_flight 0
tiw_ready 1
tiw_spool_callbacks 7
tiw_spool_oldest_age_seconds 90
"""


def letter(consumer: str, **values: Any) -> DeadLetter:
    given: dict[str, Any] = {
        "event_id": "e" * 32,
        "event_type": "OnlineRecordStarted",
        "sdk_app_id": 1,
        "attempts": 8,
        "reason": "it broke",
        "first_failed_at_us": 1,
        "last_failed_at_us": 2,
        "body": b"{}",
        "routing_key": "OnlineRecordStarted",
        "received_at_us": 1,
    }
    return DeadLetter(consumer=consumer, **given | values)


@asynccontextmanager
async def opened(folder: Path, **options: Any) -> AsyncIterator[World]:
    """Run a console that looked at nothing yet."""
    async with running(folder, log_in=False, **options) as world:
        await world.browser.post("/login", {"token": TOKEN, "back": "/changes"})
        yield world


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask more often than a person needs, and wait for a slow machine."""
    monkeypatch.setattr(console.live, "PATIENCE_S", 20.0)
    for name in ("PEERS_EVERY_S", "BROKER_EVERY_S", "STORE_EVERY_S"):
        monkeypatch.setattr(console.live, name, 0.2)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with opened(tmp_path) as world:
        yield world


async def test_the_page_shows_what_waits_and_what_needs_somebody(world: World) -> None:
    await keep_dead_letters(world.store, [letter("started")])
    page = await world.browser.get("/")
    assert page.status == 200
    text = text_of(page.text)
    assert "No consumer runs" in text
    assert "started gave up one event" in text
    assert "tiw work" in text
    assert "/dead-letters?consumer=started" in links(page.text)
    assert "Set TIW_CONSOLE_PEERS" in text
    assert "All is well" not in text


async def test_the_page_is_live_by_scripts_of_ours_and_reads_without(world: World) -> None:
    page = await world.browser.get("/")
    scripts = [one["src"] or "" for one in elements(page.text, "script")]
    assert all(src.startswith("/static/") for src in scripts)
    assert any(src.endswith("live.js") for src in scripts)
    (live,) = [one for one in elements(page.text, "div") if "sse-connect" in one]
    assert (live["sse-connect"], live["sse-close"]) == ("/live", "end")
    assert "style=" not in page.text
    assert "Load the page again to see newer numbers" in text_of(page.text)


async def test_it_is_told_in_chinese(world: World) -> None:
    page = await world.browser.get("/", headers={"Accept-Language": "zh-CN"})
    assert "没有消费者在运行" in text_of(page.text)


async def test_numbers_come_from_the_processes_that_are_asked(tmp_path: Path) -> None:
    first = METRICS.format(accepted=100, fast=40, refused=0)
    async with node(first) as asked, opened(tmp_path, peers=[asked.address]) as world:
        page = await world.browser.get("/")
        assert "being measured" in text_of(page.text)
        assert f"{asked.address} ready" in text_of(page.text)
        asked.text = METRICS.format(accepted=130, fast=55, refused=3)
        # Until the page has seen the second look; each asks nobody who was asked a moment ago.
        shown = await _shown(world, lambda found: found["refused"] == 3 and found["counted_s"] >= 1)
        assert shown["answer_p50_s"] == pytest.approx(0.001)
        assert shown["spooled"] == 7
        assert [one["kind"] for one in shown["attention"]] == ["spool", "no_consumer", "refused"]
        text = text_of((await world.browser.get("/")).text)
        assert "7 callbacks wait on the disk" in text
        assert re.search(r"Rejected 3 since the ingest nodes were started 3 in the last [1-9][0-9]* seconds", text), (
            text
        )


async def test_what_was_refused_before_anybody_looked_is_counted(tmp_path: Path) -> None:
    async with (
        node(METRICS.format(accepted=100, fast=40, refused=5)) as asked,
        opened(tmp_path, peers=[asked.address]) as world,
    ):
        page = await world.browser.get("/")
        assert "Rejected 5 since the ingest nodes were started" in text_of(page.text)
        document = json.loads((await world.browser.get("/?format=json")).text)
        assert (document["refused_since_start"], document["refused"]) == (5, 0)


async def test_what_nobody_recognized_and_what_failed_is_said_apart_and_tests_are_not_counted(world: World) -> None:
    now_us = time.time_ns() // 1000
    await apply_events(
        world.store,
        [
            keep(callback("OnlineRecordFinished", TaskId="well"), received_at_us=now_us),
            keep(callback("OnlineRecordFinished", TaskId="failed", Error={"Code": "c"}), received_at_us=now_us),
            keep(callback("Strange"), received_at_us=now_us),
            keep(callback("OnlineRecordFinished", TaskId="test-1"), received_at_us=now_us, source="test"),
            keep(callback("Strange", 2), received_at_us=now_us, source="test"),
        ],
    )
    page = await world.browser.get("/")
    text = text_of(page.text)
    assert "Events kept: 3 in the last minute" in text
    assert "Not recognized in the last day: 1 Tests in the last day, not counted here: 2" in text
    assert {"/events?unrecognized=1", "/events?source=test"} <= {*links(page.text)}
    assert "Finished without error: 1 Failed: 1" in text


async def test_a_process_that_is_away_is_told_since_when(tmp_path: Path) -> None:
    async with (
        node(METRICS.format(accepted=1, fast=1, refused=0)) as asked,
        opened(tmp_path, peers=[asked.address, "http://127.0.0.1:1"]) as world,
    ):
        text = text_of((await world.browser.get("/")).text)
    assert "The process at http://127.0.0.1:1 does not answer: Connection refused" in text
    assert "Not known since" in text
    assert "All is well" not in text


async def test_a_process_that_need_not_run_is_no_warning_while_it_does_not(tmp_path: Path) -> None:
    async with (
        node(METRICS.format(accepted=1, fast=1, refused=0)) as asked,
        opened(tmp_path, peers=[asked.address, "http://archive.invalid:9080?"]) as world,
    ):
        text = text_of((await world.browser.get("/")).text)
        document = json.loads((await world.browser.get("/?format=json")).text)
    assert "http://archive.invalid:9080 not running, and need not" in text
    assert "The process at" not in text
    assert document["unknown"] == {}


async def test_a_process_that_never_ends_its_answer_holds_no_page_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console.live, "PATIENCE_S", 0.1)
    async with node() as asked, opened(tmp_path, peers=[asked.address]) as world:
        asked.answers.clear()
        page = await world.browser.get("/")
        assert page.status == 200
        assert "not known yet" in text_of(page.text)


async def test_what_a_process_tells_is_text_and_never_markup(tmp_path: Path) -> None:
    hostile = 'tiw_deliveries_total{consumer="<script>alert(1)</script>",outcome="<b>\u202e"} 1\n' * 50 + "\0\n"
    hostile += f'tiw_callbacks_accepted_total{{routing_key="{"x" * 100_000}"}} 1e308\nnonsense{{ 5\n'
    hostile += 'tiw_spool_callbacks{a="1"} 1e308\ntiw_spool_callbacks{a="2"} 1e308\n'
    async with node(hostile) as asked, opened(tmp_path, peers=[asked.address]) as world:
        page = await world.browser.get("/")
        assert page.status == 200
        assert "<script>alert" not in page.text
        assert "\u202e" not in page.text
        assert len(page.text) < 60_000


async def test_while_the_store_is_away_the_rest_is_shown_and_old_numbers_are_marked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.browser.get("/")

    def away(_: Store) -> Any:
        raise StoreUnavailableError("the database is <away>")

    monkeypatch.setattr(Store, "reading", away)
    await _shown(world, lambda found: "store" in found["unknown"])
    page = await world.browser.get("/")
    text = text_of(page.text)
    assert "The database does not answer: the database is <away>" in text
    assert "<away>" not in page.text
    assert "old, of" in text
    assert "Waiting events 0" in text
    document = json.loads((await world.browser.get("/?format=json")).text)
    assert document["dead_letters"] is None
    assert document["waiting"] == 0


async def test_while_the_broker_is_away_the_rest_is_shown_and_consumers_are_not_known(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> Any:
        raise BrokerError("no broker can be reached")

    monkeypatch.setattr(type(world.transport), "inspect", away)
    page = await world.browser.get("/")
    text = text_of(page.text)
    assert "The broker does not answer: no broker can be reached" in text
    assert "Events kept: 0 in the last minute" in text
    assert "not known yet" in text
    answer = await world.browser.get("/consumers?format=json")
    assert answer.status == 503, "a script must not take what is old for what is now"


async def test_a_store_with_other_tables_is_said_to_be(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def wrong(_: Store) -> Any:
        raise StoreError("the tables are those of another version")

    monkeypatch.setattr("console.live.count_overview", wrong)
    page = await world.browser.get("/")
    assert page.status == 200
    assert "another version" in text_of(page.text)


async def test_a_fault_of_ours_in_one_part_leaves_the_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(_: Store) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr("console.live.count_overview", broken)
    page = await world.browser.get("/")
    assert page.status == 200
    assert "console_part_failed" in text_of(page.text)
    assert "Waiting events 0" in text_of(page.text)


async def _shown(world: World, wanted: Any) -> dict[str, Any]:
    """Return the page's JSON once it is as it should be."""
    async with asyncio.timeout(20):
        while True:
            found: dict[str, Any] = json.loads((await world.browser.get("/?format=json")).text)
            if wanted(found):
                return found
            await asyncio.sleep(0.05)
