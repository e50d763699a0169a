"""Events in a browser: found, understood or said why not, and given to a consumer once more."""

import asyncio
import re
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote, urlencode

import msgspec
import pytest
from msgspec import structs

import console.events
from broker import BUILT_IN_CONSUMERS, ConsumerQueues
from console.events import _WHYS
from console.rendering import Texts
from schemas import Decoded, decode
from store import (
    DeadLetter,
    EventFilter,
    EventRow,
    KeptEvent,
    apply_events,
    claim,
    complete,
    keep_dead_letters,
    list_changes,
    list_events,
    register_consumers,
)
from tests.broker.inbox import AckingInbox
from tests.console.world import READ_TOKEN, Page, World, elements, links, running, text_of

ROOT = Path(__file__).resolve().parents[2]
DAY_US = 86_400 * 1_000_000
RECEIVED_US = 1_767_225_600_000_000  # 2026-01-01
MINE = ConsumerQueues(consumer="archive", routing_keys=("OnlineRecordStarted",))
HOSTILE = "<script>alert(1)</script>\u202e{{ 7*7 }}\"'><img src=x onerror=alert(1)>&amp;\x1b[31m"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running(tmp_path, consumers=[*BUILT_IN_CONSUMERS, MINE]) as opened:
        await register_consumers(opened.store, {"archive": MINE.routing_keys})
        yield opened


def kept(
    body: bytes, *, received_at_us: int = RECEIVED_US, source: str = "", verified: bool | None = None
) -> KeptEvent:
    decoded = decode(body, received_at_us=received_at_us)
    return KeptEvent(
        event=decoded.event,
        event_id=decoded.event_id,
        received_at_us=received_at_us,
        body=body,
        source=source,
        verified=verified,
    )


def started(task: str = "task", *, app: int = 1400000001, **options: object) -> KeptEvent:
    callback = {
        "EventType": "OnlineRecordStarted",
        "Timestamp": 1575545412,
        "SdkAppId": app,
        "EventData": {"TaskId": task},
    }
    return kept(msgspec.json.encode(callback), **options)  # type: ignore[arg-type]


def form_of(page: Page) -> dict[str, str]:
    assert 'action="/events/replay"' in page.text
    hidden = [field for field in elements(page.text, "input") if field.get("type") == "hidden"]
    return {field["name"] or "": field["value"] or "" for field in hidden}


async def shown(world: World, query: str) -> set[str]:
    """Return the events that a listing shows."""
    page = await world.browser.get(f"/events?{query}")
    assert page.status == 200, page.text
    return {link.removeprefix("/event?id=") for link in links(page.text) if link.startswith("/event?id=")}


async def test_before_anything_came_the_page_says_what_to_do(world: World) -> None:
    assert "No event has come in yet" in text_of((await world.browser.get("/events")).text)
    assert "No events are like that." in text_of((await world.browser.get("/events?app=5")).text)


async def test_events_are_found_by_what_is_known_of_them(world: World) -> None:
    events = {
        "first": started("first"),
        "other app": started("second", app=7),
        "asked": started("third", source="reconcile", verified=True),
        "test": started("fourth", source="test"),
        "late": started("fifth", received_at_us=RECEIVED_US + 3 * DAY_US),
        "odd": kept(b'{"EventType":"SomethingElse","Timestamp":1,"SdkAppId":7,"EventData":{}}'),
    }
    await apply_events(world.store, [*events.values()])
    ids = {name: event.event_id for name, event in events.items()}
    every = set(ids.values())
    for query, wanted in (
        ("", every),
        ("type=OnlineRecordStarted", every - {ids["odd"]}),
        ("task=first", {ids["first"]}),
        ("app=7", {ids["other app"], ids["odd"]}),
        ("app=7&type=OnlineRecordStarted", {ids["other app"]}),
        ("source=callback", every - {ids["asked"], ids["test"]}),
        ("source=reconcile", {ids["asked"]}),
        ("source=test", {ids["test"]}),
        ("unrecognized=1", {ids["odd"]}),
        ("from=2026-01-02", {ids["late"]}),
        ("until=2026-01-01", every - {ids["late"]}),
        ("from=2026-01-01&until=2026-01-01&offset=480", every - {ids["late"]}),
        ("until=2025-12-31&offset=-60", every - {ids["late"]}),
        ("consumer=archive", every - {ids["odd"]}),
        ("task=%00", set()),
    ):
        assert await shown(world, query) == wanted, query


@pytest.mark.parametrize(
    "query",
    ["app=x", "app=99999999999999999999", "source=mars", "from=yesterday", "until=2026-13-01", "after=nonsense"],
)
async def test_what_cannot_be_meant_is_told(world: World, query: str) -> None:
    page = await world.browser.get(f"/events?{query}")
    assert page.status == 400


async def test_a_long_list_comes_page_by_page_with_its_filters_and_as_the_commands_document(world: World) -> None:
    await apply_events(
        world.store, [started(f"t{number}", received_at_us=RECEIVED_US + number) for number in range(70)]
    )
    page = await world.browser.get("/events?app=1400000001")
    (older,) = [link for link in links(page.text) if "after=" in link]
    assert "app=1400000001" in older
    rest = await world.browser.get(older)
    seen = {link for one in (page, rest) for link in links(one.text) if link.startswith("/event?id=")}
    assert len(seen) == 70
    answer = await world.browser.get("/events?format=json")
    assert msgspec.json.decode(answer.text, type=list[EventRow]) == (await list_events(world.store))[:50]
    assert "tiw events list --type OnlineRecordStarted --app 5 --source test --since 2026-01-02" in text_of(
        (await world.browser.get("/events?type=OnlineRecordStarted&app=5&source=test&from=2026-01-02")).text
    )


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"not json", "It is no JSON."),
        (b'{"EventType":"OnlineRecordStarted","EventType":"x"}', "A name stands twice"),
        (b'{"EventType":"SomethingElse","Timestamp":1,"SdkAppId":7,"EventData":{}}', "none of the five of recordings"),
        (b"\xff\xfe\x00", "It is no text in UTF-8."),
        (b"[]", "but no object"),
        (b'{"EventType":"OnlineRecordStarted","Timestamp":"x","SdkAppId":7,"EventData":{}}', "Timestamp"),
    ],
)
async def test_what_nobody_understood_says_why(world: World, body: bytes, why: str) -> None:
    event = kept(body)
    await apply_events(world.store, [event])
    listing = text_of((await world.browser.get("/events?unrecognized=1")).text)
    assert why in listing
    page = text_of((await world.browser.get(f"/event?id={event.event_id}")).text)
    assert "Unrecognized:" in page
    assert why in page
    document = msgspec.json.decode(
        (await world.browser.get("/events?unrecognized=1&format=json")).text, type=list[EventRow]
    )
    assert document == await list_events(world.store, EventFilter(unrecognized=True))


async def test_what_takes_long_to_understand_holds_up_nobody_else(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[threading.Thread] = set()

    def look(body: bytes, *, received_at_us: int) -> Decoded:
        threads.add(threading.current_thread())
        return decode(body, received_at_us=received_at_us)

    monkeypatch.setattr(console.events, "decode", look)
    event = kept(b"[" * 100_000)
    await apply_events(world.store, [event])
    for address in ("/events?unrecognized=1", f"/event?id={event.event_id}"):
        threads.clear()
        assert (await world.browser.get(address)).status == 200
        assert threads
        assert threading.main_thread() not in threads


async def test_one_event_is_shown_whole_with_what_each_consumer_did(world: World) -> None:
    event = started(verified=False)
    await apply_events(world.store, [event])
    await register_consumers(world.store, dict.fromkeys(("broken", "busy", "fresh"), MINE.routing_keys))
    await claim(world.store, consumer="archive", event_ids=[event.event_id], lease_holder="h", lease_s=30)
    await complete(world.store, consumer="archive", event_ids=[event.event_id], lease_holder="h")
    await claim(world.store, consumer="busy", event_ids=[event.event_id], lease_holder="h", lease_s=600)
    await keep_dead_letters(
        world.store,
        [
            DeadLetter(
                consumer="broken",
                event_id=event.event_id,
                event_type="OnlineRecordStarted",
                sdk_app_id=1400000001,
                attempts=8,
                reason="KeyError: 'x'",
                first_failed_at_us=1,
                last_failed_at_us=RECEIVED_US,
                body=event.body,
                routing_key="OnlineRecordStarted",
                received_at_us=1,
            )
        ],
    )
    page = await world.browser.get(f"/event?id={event.event_id}")
    text = text_of(page.text)
    assert "archive handled" in text
    assert "busy in work" in text
    assert "broken dead letter after 8 attempts" in text
    assert "KeyError: 'x'" in text
    assert "fresh not known" in text
    assert "started handled: it is kept here" in text
    assert "contradicted" in text
    assert '{"EventType":"OnlineRecordStarted"' in text
    assert '"TaskId": "task"' in text
    assert "tiw-routing-key OnlineRecordStarted" in text
    assert f"/dead-letter?id={event.event_id}&consumer=broken" in links(page.text)
    assert any(link.startswith("/recording?app=1400000001&task=task") for link in links(page.text))
    assert f"tiw events show {event.event_id}" in text
    answer = await world.browser.get(f"/event?id={event.event_id}&format=json")
    assert msgspec.json.decode(answer.text, type=list[EventRow]) == await list_events(world.store, bodies=True)


async def test_one_that_is_not_there_is_told(world: World) -> None:
    for query in ("", "id=x", "id=%00", "id=%ED%A0%80"):
        page = await world.browser.get(f"/event?{query}")
        assert page.status == 404
        assert "There is no such event" in text_of(page.text)


async def test_an_event_is_given_to_one_consumer_again_and_it_is_noted(world: World) -> None:
    event = started()
    await apply_events(world.store, [event])
    page = await world.browser.get(f"/event?id={event.event_id}")
    (to_replay,) = [link for link in links(page.text) if link.startswith("/events/replay") and "archive" in link]
    preview = await world.browser.get(to_replay)
    assert "archive gets the event again" in text_of(preview.text)
    assert "No worker runs for archive now" in text_of(preview.text)
    done = await world.browser.post("/events/replay", form_of(preview))
    assert "The event was replayed for archive." in text_of(done.text)
    inbox = AckingInbox()
    async with world.transport.subscribe(MINE, inbox, prefetch=5):
        (delivery,) = await inbox.wait(1)
    assert (delivery.message.event_id, delivery.message.body) == (event.event_id, event.body)
    (change,) = (await list_changes(world.store)).rows
    assert (change.action, change.result) == ("events.replay", "replayed")
    assert change.detail == {"consumer": "archive", "event_id": event.event_id}


async def test_two_who_press_at_once_give_it_once(world: World) -> None:
    event = started()
    await apply_events(world.store, [event])
    form = form_of(await world.browser.get(f"/events/replay?id={event.event_id}&consumer=archive"))
    await asyncio.gather(*(world.browser.post("/events/replay", form, allow_redirects=False) for _ in range(4)))
    (state,) = await world.transport.inspect(["archive"])
    assert state.ready == 1
    results = sorted(change.result for change in (await list_changes(world.store)).rows)
    assert results == ["replayed", *["somebody else did meanwhile"] * 3]
    again = form_of(await world.browser.get(f"/events/replay?id={event.event_id}&consumer=archive"))
    assert "The event was replayed for" in text_of((await world.browser.post("/events/replay", again)).text)


async def test_what_does_not_go_together_is_refused(world: World) -> None:
    event = started()
    await apply_events(world.store, [event])
    for consumer, event_id in (("stopped", event.event_id), ("nobody", event.event_id), ("archive", "nothing")):
        page = await world.browser.get(f"/events/replay?{urlencode({'consumer': consumer, 'id': event_id})}")
        assert page.status == 400
        form = {"consumer": consumer, "id": event_id, "seen": "1"}
        assert (await world.browser.act("/events/replay", form, seen="/changes")).status == 400
    form = {"consumer": "archive", "id": event.event_id}
    assert (await world.browser.act("/events/replay", form, seen="/changes")).status == 400


async def test_a_consumer_without_a_queue_gets_nothing_and_the_page_says_how_to_start_it(world: World) -> None:
    event = started()
    await apply_events(world.store, [event])
    await register_consumers(world.store, {"queueless": MINE.routing_keys})
    preview = await world.browser.get(f"/events/replay?id={event.event_id}&consumer=queueless")
    assert "queueless has no queue" in text_of(preview.text)
    assert 'action="/events/replay"' not in preview.text
    form = {"consumer": "queueless", "id": event.event_id, "seen": "1"}
    done = await world.browser.act("/events/replay", form, seen="/changes")
    assert "queueless has no queue" in text_of(done.text)


async def test_without_the_broker_a_replay_says_why(tmp_path: Path) -> None:
    async with running(tmp_path, consumers=[*BUILT_IN_CONSUMERS]) as world:
        event = started()
        await apply_events(world.store, [event])
        await world.transport.__aexit__(None, None, None)
        preview = await world.browser.get(f"/events/replay?id={event.event_id}&consumer=started")
        assert "The broker does not answer now" in text_of(preview.text)
        done = await world.browser.post("/events/replay", form_of(preview))
        assert "It was not replayed:" in text_of(done.text)
        assert (await world.browser.get("/events")).status == 200


async def test_whoever_may_only_look_changes_nothing(world: World) -> None:
    event = started()
    await apply_events(world.store, [event])
    async with world.another() as reader:
        await reader.log_in(READ_TOKEN)
        page = await reader.get(f"/events/replay?id={event.event_id}&consumer=archive")
        assert "You may look, but not change anything" in text_of(page.text)
        form = {"consumer": "archive", "id": event.event_id, "seen": "1"}
        assert (await reader.act("/events/replay", form)).status == 403
    (state,) = await world.transport.inspect(["archive"])
    assert state.ready == 0


@pytest.mark.parametrize("language", ["en", "zh"])
async def test_whatever_stands_in_an_event_is_text_on_every_page(world: World, language: str) -> None:
    callback = {"EventType": HOSTILE, "Timestamp": 1, "SdkAppId": 1, "EventData": {"TaskId": HOSTILE, "Any": HOSTILE}}
    hostile = [
        started(HOSTILE),
        kept(msgspec.json.encode(callback)),
        kept(HOSTILE.encode() + b"\0" + b"x" * 1_000_000),
        kept(b"\xff" + HOSTILE.encode() * 20_000),
        kept(msgspec.json.encode({"a": HOSTILE * 10_000})),
        kept(b"[" * 100_000),
        structs.replace(started("t"), source=HOSTILE),
    ]
    await apply_events(world.store, hostile)
    await register_consumers(world.store, {HOSTILE: ("OnlineRecordStarted",)})
    addresses = [
        "/events",
        "/events?unrecognized=1",
        f"/events?{urlencode({'type': HOSTILE, 'task': HOSTILE, 'consumer': HOSTILE})}",
        f"/events/replay?{urlencode({'id': hostile[0].event_id, 'consumer': HOSTILE})}",
        *(f"/event?id={quote(event.event_id)}" for event in hostile),
    ]
    for address in addresses:
        page = await world.browser.get(address, headers={"Accept-Language": language})
        assert page.status == 200, address
        assert not elements(page.text, "img"), address
        assert all(script.get("src") for script in elements(page.text, "script")), address
        assert not set(text_of(page.text)) & set("\0\x1b\u202e"), address
        assert len(page.text.encode()) < 150_000, (address, len(page.text.encode()))
        whole = await world.browser.get(f"{address}{'&' if '?' in address else '?'}format=json")
        assert whole.status == 200


def test_every_fixed_answer_of_the_decoder_is_said_in_both_languages() -> None:
    sources = "".join((ROOT / "schemas" / name).read_text() for name in ("decoding.py", "strict_json.py"))
    fixed = set(re.findall(r'(?:_UnfittingError|NotStrictError)\("([^"{]+)"\)', sources))
    assert fixed == set(_WHYS)
    assert {f"events.why.{key}" for key in _WHYS.values()} <= set(Texts().texts)
