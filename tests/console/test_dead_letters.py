"""Dead letters in a browser: what each needs, what a press of a button would do, and that it does just that."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote, urlencode

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from broker import BUILT_IN_CONSUMERS, ConsumerQueues, Message
from console.dead_letters import needs_of
from console.rendering import Texts
from schemas import decode
from store import (
    DeadLetter,
    DeadLetterRow,
    KeptEvent,
    apply_events,
    keep_dead_letters,
    list_changes,
    list_dead_letters,
    mark_replayed,
    pattern_of,
    register_consumers,
)
from tests.console.world import READ_TOKEN, Page, World, elements, links, running, text_of

BODY = b'{"EventType":"OnlineRecordStarted","Timestamp":1575545412,"SdkAppId":1400000001,"EventData":{"TaskId":"task"}}'
EVENT = decode(BODY, received_at_us=1)
TRACEBACK = "Traceback (most recent call last):\n  File \"archive.py\", line 3, in archive\nKeyError: 'bucket'"
LETTER = DeadLetter(
    consumer="started",
    event_id=EVENT.event_id,
    event_type="OnlineRecordStarted",
    sdk_app_id=1400000001,
    attempts=8,
    reason="KeyError: 'bucket'",
    first_failed_at_us=1_767_225_600_000_000,
    last_failed_at_us=1_767_225_700_000_000,
    body=BODY,
    routing_key="OnlineRecordStarted",
    received_at_us=1_767_225_500_000_000,
    traceback=TRACEBACK,
)
HOSTILE = "<script>alert(1)</script>\u202e{{ 7*7 }}\"'><img src=x onerror=alert(1)>&amp;\x1b[31m"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    consumers: list[ConsumerQueues] = [*BUILT_IN_CONSUMERS]
    async with running(tmp_path, consumers=consumers) as opened:
        yield opened


def letters(count: int, **changes: object) -> list[DeadLetter]:
    return [structs.replace(LETTER, event_id=f"{number:032}", **changes) for number in range(count)]


async def left(world: World) -> int:
    return len(await list_dead_letters(world.store, limit=0))


def form_of(page: Page, path: str) -> dict[str, str]:
    """Return what a press of the form's button sends, without what a person fills in."""
    assert f'action="{path}"' in page.text
    hidden = [field for field in elements(page.text, "input") if field.get("type") == "hidden"]
    return {field["name"] or "": field["value"] or "" for field in hidden}


async def press(world: World, path: str, query: dict[str, str], **filled: str) -> Page:
    """Look at a preview and press its button."""
    page = await world.browser.get(f"{path}?{urlencode(query)}")
    return await world.browser.post(path, form_of(page, path) | filled)


async def test_without_any_the_page_says_so(world: World) -> None:
    page = await world.browser.get("/dead-letters")
    assert page.status == 200
    assert "no consumer has given up on anything" in text_of(page.text)
    assert "tiw dead-letters list" in text_of(page.text)


async def test_what_fails_for_one_reason_stands_together_with_what_it_needs(world: World) -> None:
    await keep_dead_letters(world.store, [*letters(3), structs.replace(LETTER, consumer="stopped", reason="x: gone")])
    page = await world.browser.get("/dead-letters")
    text = text_of(page.text)
    assert "3 dead letters" in text
    assert "KeyError: 'bucket'" in text
    assert "Remove the cause" in text
    assert "1 dead letter " in text
    assert "gave up on purpose" in text
    only = text_of((await world.browser.get("/dead-letters?consumer=stopped")).text)
    assert "x: gone" in only
    assert "KeyError" not in only


async def test_the_way_from_a_group_to_its_replay_needs_no_typing(world: World) -> None:
    await keep_dead_letters(world.store, [*letters(3), structs.replace(LETTER, consumer="stopped", reason="other")])
    page = await world.browser.get("/dead-letters")
    (to_replay,) = [link for link in links(page.text) if link.startswith("/dead-letters/replay") and "started" in link]
    preview = await world.browser.get(to_replay)
    assert await left(world) == 4, "looking changes nothing"
    assert "3 go back to started" in text_of(preview.text)
    done = await world.browser.post("/dead-letters/replay", form_of(preview, "/dead-letters/replay"))
    assert "3 dead letters went back to their consumers." in text_of(done.text)
    assert [row.consumer for row in await list_dead_letters(world.store)] == ["stopped"]
    (state,) = await world.transport.inspect(["started"])
    assert state.ready == 3
    (change,) = (await list_changes(world.store)).rows
    assert (change.action, change.result) == ("dead-letters.replay", "3 replayed")
    assert change.detail == {"consumer": "started", "reason": "KeyError: '…'"}


async def test_reasons_that_name_what_changes_are_one_group_from_its_card_to_its_replay(world: World) -> None:
    some = [structs.replace(letter, reason=f"KeyError: 'TASK_{at}'") for at, letter in enumerate(letters(3))]
    await keep_dead_letters(world.store, [*some, structs.replace(LETTER, event_id="x", reason="KeyError: 'a' and b")])
    page = await world.browser.get("/dead-letters")
    text = text_of(page.text)
    assert "KeyError: '…' … stands for what changes from letter to letter." in text
    assert "For example: KeyError: 'TASK_0' · KeyError: 'TASK_2' 3 dead letters" in text
    assert "KeyError: 'a' and b 1 dead letter" in text, "one alone says all"
    group = urlencode({"consumer": "started", "reason": "KeyError: '…'"})
    listing = text_of((await world.browser.get(f"/dead-letters?{group}")).text)
    assert all(f"KeyError: 'TASK_{at}'" in listing for at in range(3))
    assert "and b" not in listing
    letter = await world.browser.get(f"/dead-letter?consumer=started&id={some[0].event_id}")
    assert f"/dead-letters?{group}" in links(letter.text)
    preview = await world.browser.get(f"/dead-letters/replay?{group}")
    assert "3 go back to started" in text_of(preview.text)
    assert "tiw dead-letters replay --consumer started --reason 'KeyError: '\"'\"'…'\"'\"'' --dry-run" in text_of(
        preview.text
    )
    await world.browser.post("/dead-letters/replay", form_of(preview, "/dead-letters/replay"))
    assert [row.event_id for row in await list_dead_letters(world.store)] == ["x"]
    empty = await world.browser.get(f"/dead-letters?{group}")
    assert "There are no dead letters of this kind" in text_of(empty.text)
    assert not [link for link in links(empty.text) if link.startswith("/dead-letters/replay")], "nothing is left"


async def test_after_a_replay_it_is_told_what_became_of_each(world: World) -> None:
    await register_consumers(world.store, {"copies": ["OnlineRecordStarted"]})
    event = KeptEvent(event=EVENT.event, event_id=EVENT.event_id, received_at_us=1, body=BODY)
    await keep_dead_letters(world.store, [LETTER, *letters(2)])
    done = await press(world, "/dead-letters/replay", {"consumer": "started"})
    assert done.url.path == "/dead-letters/replayed"
    assert "0 handled 0 failed again 3 still on their way" in text_of(done.text)
    assert "started: no worker runs" in text_of(done.text)
    assert 'hx-trigger="every 2s"' in done.text

    await apply_events(world.store, [event])
    again = structs.replace(letters(1)[0], reason="OSError: again", last_failed_at_us=time.time_ns() // 1000)
    await keep_dead_letters(world.store, [again])
    address = f"{done.url.path}?{done.url.query_string}"
    page = await world.browser.get(address)
    assert "1 handled 1 failed again 1 still on their way Why they failed again" in text_of(page.text)
    (failed,) = [link for link in links(page.text) if link.startswith("/dead-letters?replay=")]
    listing = await world.browser.get(failed)
    assert "OSError: again" in text_of(listing.text)
    assert address in links(listing.text)
    assert not [link for link in links(listing.text) if link.startswith("/dead-letters/purge")]
    document = (await world.browser.get(f"{address}&format=json")).text
    assert msgspec.json.decode(document) == [
        {"consumer": "started", "count": 3, "handled": 1, "failed_again": 1, "open": 1}
    ]


async def test_what_became_of_an_old_replay_is_told_and_not_looked_for_again_and_again(world: World) -> None:
    await keep_dead_letters(world.store, [LETTER])
    await mark_replayed(world.store, [LETTER], replay_at_us=1_767_225_800_000_000)
    page = await world.browser.get("/dead-letters/replayed?at=1767225800000000")
    assert "1 still on their way" in text_of(page.text)
    assert "hx-get" not in page.text
    assert "Nothing is known of this replay" in text_of((await world.browser.get("/dead-letters/replayed?at=1")).text)
    for wrong in ("", "?at=", "?at=x", f"?at={'9' * 30}"):
        assert (await world.browser.get(f"/dead-letters/replayed{wrong}")).status == 400


async def test_a_replay_that_takes_two_presses_is_told_of_as_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await keep_dead_letters(world.store, letters(150))
    ticks = iter([0.0, 0.0, 30.0])
    with monkeypatch.context() as slow:
        slow.setattr("workers.replaying.time", SimpleNamespace(monotonic=lambda: next(ticks)))
        part = await press(world, "/dead-letters/replay", {"consumer": "started"})
    assert "100 dead letters went back to their consumers. The time was up" in text_of(part.text)
    done = await world.browser.post("/dead-letters/replay", form_of(part, "/dead-letters/replay"))
    assert "50 dead letters went back" in text_of(done.text)
    assert "150 still on their way" in text_of(done.text)


async def test_one_letter_is_shown_whole_and_leads_to_its_event_and_its_recording(world: World) -> None:
    kept = KeptEvent(event=EVENT.event, event_id=EVENT.event_id, received_at_us=1, body=BODY)
    await apply_events(world.store, [kept])
    await keep_dead_letters(world.store, [LETTER])
    address = f"/dead-letter?consumer=started&id={LETTER.event_id}"
    page = await world.browser.get(address)
    text = text_of(page.text)
    assert "in archive KeyError: 'bucket'" in text
    assert '"TaskId":"task"' in text
    assert '"TaskId": "task"' in text
    assert f"/event?id={LETTER.event_id}" in links(page.text)
    assert any(link.startswith("/recording?app=1400000001&task=task") for link in links(page.text))
    assert f"tiw dead-letters show --consumer started --event-id {LETTER.event_id}" in text
    document = msgspec.json.decode((await world.browser.get(f"{address}&format=json")).text, type=list[DeadLetterRow])
    assert document == await list_dead_letters(world.store, bodies=True)


async def test_a_worker_that_crashed_leaves_no_traceback_and_the_page_says_why(world: World) -> None:
    await keep_dead_letters(world.store, [structs.replace(LETTER, reason="worker crashed", traceback="")])
    text = text_of((await world.browser.get(f"/dead-letter?consumer=started&id={LETTER.event_id}")).text)
    assert "the worker crashed while it handled the event" in text
    assert "ended the worker's whole process" in text


async def test_one_that_is_not_there_is_told(world: World) -> None:
    page = await world.browser.get("/dead-letter?consumer=%00&id=%F0%9F")
    assert page.status == 404
    assert "There is no such dead letter" in text_of(page.text)


async def test_one_that_was_replayed_says_so_and_is_found_again(world: World) -> None:
    await keep_dead_letters(world.store, [LETTER])
    await press(world, "/dead-letters/replay", {"consumer": "started", "id": LETTER.event_id})
    text = text_of((await world.browser.get(f"/dead-letter?consumer=started&id={LETTER.event_id}")).text)
    assert "It was replayed since" in text
    assert LETTER.event_id in (await world.browser.get("/dead-letters?resolved=1")).text
    assert LETTER.event_id not in (await world.browser.get("/dead-letters?all=1")).text


async def test_the_letters_of_a_group_come_page_by_page_and_as_the_commands_document(world: World) -> None:
    many = [structs.replace(letter, last_failed_at_us=10**15 + at) for at, letter in enumerate(letters(70))]
    await keep_dead_letters(world.store, many)
    page = await world.browser.get(f"/dead-letters?consumer=started&reason={quote(LETTER.reason)}")
    seen = {link for link in links(page.text) if link.startswith("/dead-letter?")}
    (older,) = [link for link in links(page.text) if "after=" in link]
    seen |= {link for link in links((await world.browser.get(older)).text) if link.startswith("/dead-letter?")}
    assert len(seen) == 70
    answer = await world.browser.get("/dead-letters?format=json")
    rows = msgspec.json.decode(answer.text, type=list[DeadLetterRow])
    assert rows == (await list_dead_letters(world.store))[:50]
    assert 'rel="next"' in answer.headers["Link"]
    assert (await world.browser.get("/dead-letters?all=1&after=nonsense")).status == 400


async def test_a_consumer_without_a_queue_is_left_and_the_page_says_what_to_do_first(world: World) -> None:
    await keep_dead_letters(world.store, [structs.replace(LETTER, consumer="gone"), LETTER])
    assert "has no queue" in text_of((await world.browser.get("/dead-letters")).text)
    preview = await world.browser.get("/dead-letters/replay")
    text = text_of(preview.text)
    assert "1 of gone stays here: it has no queue. Start it once: tiw work gone" in text
    assert "No worker runs for started now" in text
    done = await world.browser.post("/dead-letters/replay", form_of(preview, "/dead-letters/replay"))
    assert "Those of gone were left" in text_of(done.text)
    assert [row.consumer for row in await list_dead_letters(world.store)] == ["gone"]
    only = await world.browser.get("/dead-letters/replay?consumer=gone")
    assert 'action="/dead-letters/replay"' not in only.text
    assert "fails again" not in text_of(only.text), "nothing goes"


async def test_many_are_deleted_only_by_whoever_types_how_many(world: World) -> None:
    await keep_dead_letters(world.store, letters(3))
    query = {"consumer": "started", "reason": LETTER.reason}
    refused = await press(world, "/dead-letters/purge", query, count="2")
    assert refused.status == 400
    assert "type exactly 3" in text_of(refused.text)
    assert (await press(world, "/dead-letters/purge", query)).status == 400
    assert await left(world) == 3
    done = await press(world, "/dead-letters/purge", query, count=" 3 ")
    assert "3 dead letters were deleted for good." in text_of(done.text)
    assert await left(world) == 0
    results = [change.result for change in (await list_changes(world.store)).rows]
    assert results == ["3 deleted", "not confirmed", "not confirmed"]


async def test_one_is_deleted_with_a_tick(world: World) -> None:
    await keep_dead_letters(world.store, letters(2))
    query = {"consumer": "started", "id": f"{1:032}"}
    assert "tick the box" in text_of((await press(world, "/dead-letters/purge", query)).text)
    await press(world, "/dead-letters/purge", query, count="1")
    assert [row.event_id for row in await list_dead_letters(world.store)] == [f"{0:032}"]


async def test_what_fails_while_somebody_looks_is_neither_replayed_nor_deleted(world: World) -> None:
    await keep_dead_letters(world.store, letters(2))
    preview = await world.browser.get("/dead-letters/purge?consumer=started")
    later = structs.replace(LETTER, event_id="later", last_failed_at_us=time.time_ns() // 1000 + 1_000_000)
    await keep_dead_letters(world.store, [later])
    await world.browser.post("/dead-letters/purge", form_of(preview, "/dead-letters/purge") | {"count": "2"})
    assert [row.event_id for row in await list_dead_letters(world.store)] == ["later"]


async def test_two_operators_at_once_do_each_thing_once(world: World) -> None:
    await keep_dead_letters(world.store, letters(150))
    preview = await world.browser.get("/dead-letters/replay?consumer=started")
    form = form_of(preview, "/dead-letters/replay")
    purge = form_of(await world.browser.get("/dead-letters/purge?consumer=started"), "/dead-letters/purge")
    pages = await asyncio.gather(
        world.browser.post("/dead-letters/replay", form, allow_redirects=False),
        world.browser.post("/dead-letters/replay", form, allow_redirects=False),
        world.browser.post("/dead-letters/purge", purge | {"count": "150"}, allow_redirects=False),
    )
    assert [page.status for page in pages] == [303, 303, 303]
    assert await left(world) == 0
    (state,) = await world.transport.inspect(["started"])
    results = [change.result for change in (await list_changes(world.store)).rows]
    assert sorted(results) in (
        sorted(["150 replayed", "0 replayed", "0 deleted"]),
        sorted(["0 replayed", "0 replayed", "150 deleted"]),
    )
    assert state.ready == (150 if "150 replayed" in results else 0)


async def test_whoever_may_only_look_sees_the_preview_and_changes_nothing(world: World) -> None:
    await keep_dead_letters(world.store, [LETTER])
    async with world.another() as reader:
        await reader.log_in(READ_TOKEN)
        page = await reader.get("/dead-letters/replay?consumer=started")
        assert "You may look, but not change anything" in text_of(page.text)
        assert 'action="/dead-letters/replay"' not in page.text
        for action in ("replay", "purge"):
            answer = await reader.act(f"/dead-letters/{action}", {"consumer": "started", "expected": "1", "count": "1"})
            assert answer.status == 403
    assert await left(world) == 1


async def test_a_replay_without_the_broker_says_so_and_keeps_all(tmp_path: Path) -> None:
    consumers: list[ConsumerQueues] = [*BUILT_IN_CONSUMERS]
    async with running(tmp_path, consumers=consumers) as world:
        await keep_dead_letters(world.store, [LETTER])
        form = form_of(await world.browser.get("/dead-letters/replay?consumer=started"), "/dead-letters/replay")
        await world.transport.__aexit__(None, None, None)
        page = await world.browser.get("/dead-letters")
        assert page.status == 200
        assert "Not known right now" in text_of(page.text)
        assert "KeyError" in text_of(page.text)
        preview = await world.browser.get("/dead-letters/replay?consumer=started")
        assert "The broker does not answer now" in text_of(preview.text)
        assert 'action="/dead-letters/replay"' not in preview.text, "it would stop at once"
        assert "/dead-letters/replay?consumer=started" in links(preview.text), "it can be looked at again"
        done = await world.browser.post("/dead-letters/replay", form)
        assert "It stopped:" in text_of(done.text)
        assert await left(world) == 1


async def test_what_is_still_in_a_queue_is_told(world: World) -> None:
    message = Message(body=BODY, event_id="e", routing_key="OnlineRecordStarted", received_at_us=1)
    await world.transport.dead_letter("started", message)
    text = text_of((await world.browser.get("/dead-letters")).text)
    assert "Still on their way from the queue to this list: 1 of started" in text


@pytest.mark.parametrize("language", ["en", "zh"])
async def test_whatever_stands_in_a_letter_is_text_on_every_page(world: World, language: str) -> None:
    hostile = structs.replace(
        LETTER,
        consumer=HOSTILE,
        event_id=HOSTILE,
        event_type=HOSTILE,
        reason=HOSTILE,
        traceback=HOSTILE * 100,
        body=HOSTILE.encode() * 10_000 + b"\xff\x00",
    )
    await keep_dead_letters(
        world.store, [hostile, structs.replace(hostile, consumer="c", body=b"\0" + b"x" * 1_000_000)]
    )
    query = urlencode({"consumer": HOSTILE, "id": HOSTILE})
    group = urlencode({"consumer": HOSTILE, "reason": HOSTILE})
    for address in (
        "/dead-letters",
        "/dead-letters?all=1",
        f"/dead-letters?{group}",
        f"/dead-letter?{query}",
        f"/dead-letter?{urlencode({'consumer': 'c', 'id': HOSTILE})}",
        f"/dead-letters/replay?{query}",
        f"/dead-letters/purge?{group}",
        f"/dead-letters?consumer={quote(HOSTILE)}",
    ):
        page = await world.browser.get(address, headers={"Accept-Language": language})
        assert page.status == 200, address
        assert not elements(page.text, "img"), address
        assert all(script.get("src") for script in elements(page.text, "script")), address
        assert "alert(1)" in text_of(page.text), address
        assert not set(text_of(page.text)) & set("\0\x1b\u202e"), address
        assert len(page.text.encode()) < 150_000, address
        assert "49" not in text_of(page.text).replace("7*7", ""), address
    done = await press(world, "/dead-letters/purge", {"consumer": HOSTILE, "reason": HOSTILE}, count="1")
    assert "1 dead letter was deleted" in text_of(done.text)
    assert await left(world) == 1


@pytest.mark.parametrize("value", ["x", "-1", "9" * 30, ""])
async def test_a_form_that_nobody_was_given_changes_nothing(world: World, value: str) -> None:
    await keep_dead_letters(world.store, [LETTER])
    answer = await world.browser.act("/dead-letters/replay", {"consumer": "started", "until": value}, seen="/changes")
    assert answer.status == 400
    assert await left(world) == 1


@pytest.mark.parametrize(
    ("reason", "needs"),
    [
        ("worker crashed", "crashed"),
        ("the broker gave up: it came back unsettled too often", "crashed"),
        ("not verified within 24 h: is `tiw reconcile` running?", "not_verified"),
        ("it cannot be verified: it has no TaskId to ask the vendor about", "unverifiable"),
        ("the vendor contradicts it: 2 files instead of 3", "contradicted"),
        ("no answer within 30 s", "too_slow"),
        ("the handler returned str: return nothing, or an outcome", "returned"),
        ("ConnectionRefusedError: [Errno 111]", "elsewhere"),
        ("ClientConnectorError: cannot connect", "elsewhere"),
        ("TimeoutError", "elsewhere"),
        ("gaierror: no address", "elsewhere"),
        ("the handler asked for another attempt", "asked"),
        ("KeyError: 'bucket'", "raised"),
        ("ExceptionGroup: two (2 sub-exceptions)", "raised"),
        ("the endpoint answered 410: it wants no more events", "given_up"),
        ("unknown", "given_up"),
        ("", "given_up"),
    ],
)
def test_each_reason_needs_something_that_is_said_in_plain_words(reason: str, needs: str) -> None:
    assert needs_of(reason) == needs
    assert needs_of(pattern_of(reason)) == needs, "also where it is grouped with others"


TEXTS = Texts().texts


@given(st.text())
def test_every_reason_has_an_answer(reason: str) -> None:
    assert f"dead_letters.needs.{needs_of(reason)}" in TEXTS
