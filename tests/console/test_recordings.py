"""Recordings are found by what a person knows of them, and an address that is passed on finds the same."""

import datetime as dt
import json
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
import pytest

from store import RecordingFilter, Store, apply_events, list_recordings, search_recordings
from tests.console.classes import HOSTILE, archive, lesson, now_s, of
from tests.console.world import World, elements, links, running, text_of
from tests.servers.migrated import copy_migrated_sqlite

DAY_S = 86_400
FIRST, SECOND, FAILED, PAUSED, FORGED, LATE = (
    f"{name}{'0' * (20 - len(name))}" for name in ("first", "second", "failed", "paused", "forged", "late")
)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running(tmp_path) as opened:
        yield opened


@pytest.fixture(params=["sqlite", "postgresql"])
async def either(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """Give a console on each kind of database in turn."""
    if request.param == "postgresql":
        url = str(request.getfixturevalue("migrated_postgres_url"))
    else:
        url = copy_migrated_sqlite(tmp_path / "recordings.db")
    async with Store(url) as store, running(tmp_path, store=store) as opened:
        yield opened


async def fill(store: Store) -> None:
    """Keep recordings of every kind, of two rooms and two applications."""
    now = now_s()
    error = {"Code": "FailedOperation.Record", "Message": "code: 40001, msg: invalid userid"}
    paused = {"RoomId": 77, "PauseTime": now - 600, "EstimateStopTime": now + 600}
    await apply_events(
        store,
        [
            *lesson(FIRST),
            *lesson(SECOND, room=99, app=5, start_s=now - 3 * DAY_S),
            of("Started", FAILED, at_s=now - 100, RoomId=77, RecordUserId="tic_record_user_77_1"),
            of("Finished", FAILED, at_s=now - 60, RoomId=77, RecordStartTime=0, Error=error, FinishReason="EXCEPTION"),
            of("Started", PAUSED, at_s=now - 900, RoomId=77),
            of("LongPauseWarning", PAUSED, at_s=now - 300, **paused),
            *lesson(FORGED, room=66),
            of("Finished", FORGED, at_s=now - 30, RoomId=13, verified=False, RecordStartTime=7),
            *lesson(LATE, room=55)[:1],
            of("Finished", LATE, at_s=now - 500, source="reconcile", verified=True, RecordStartTime=now - 900),
        ],
    )
    await archive(store, FIRST, "archived", "archived")
    await archive(store, SECOND, "archived", "lost", app=5)
    await archive(store, FORGED, None, "archived")


async def found(world: World, query: str) -> set[str]:
    page = await world.browser.get(f"/recordings?{query}")
    assert page.status == 200, page.text
    return set(re.findall(r"/recording\?app=\d+&amp;task=([a-z0-9]+)", page.text))


async def test_every_filter_finds_what_it_says(either: World) -> None:
    await fill(either.store)
    everything = {FIRST, SECOND, FAILED, PAUSED, FORGED, LATE}
    three_days_ago = (dt.datetime.now(dt.UTC) - dt.timedelta(days=3)).date().isoformat()
    for query, expected in {
        "": everything,
        "room=880528": {FIRST},
        f"task={FIRST}": {FIRST},
        "task=fir*": {FIRST},
        "teacher=tic_record_user_77_1": {FAILED},
        "teacher=teacher_1": {FIRST, SECOND, FORGED},
        "app=5": {SECOND},
        "status=PAUSED": {PAUSED},
        "failed=1": {FAILED},
        "contradicted=1": {FORGED},
        "found_late=1": {LATE},
        "not_archived=1": {SECOND, FORGED},
        "room=77&failed=1": {FAILED},
        f"from={three_days_ago}&until={three_days_ago}": {SECOND},
        # The box.
        "q=880528": {FIRST},
        f"q={FIRST}": {FIRST},
        "q=secon": {SECOND},
        "q=tic_record_user_77_1": {FAILED},
        "q=teacher_1": {FIRST, SECOND, FORGED},
        f"q={FIRST}%20": {FIRST},
        "q=880528&failed=1": set(),
    }.items():
        assert await found(either, query) == expected, query


async def test_the_json_form_is_the_document_of_the_command(either: World) -> None:
    await fill(either.store)
    answer = await either.browser.get("/recordings?format=json")
    listed = json.loads(msgspec.json.encode(await list_recordings(either.store)))
    assert sorted(json.loads(answer.text), key=str) == sorted(listed, key=str)
    filtered = await either.browser.get("/recordings?status=PAUSED", headers={"Accept": "application/json"})
    assert [one["task_id"] for one in json.loads(filtered.text)] == [PAUSED]


async def test_pages_follow_each_other_without_a_gap_and_keep_the_filters(either: World) -> None:
    start_s = now_s() - 5000
    await apply_events(
        either.store,
        [one for number in range(120) for one in lesson(f"t{number:019}", start_s=start_s + number, length_s=10)],
    )
    seen: list[str] = []
    address = "/recordings?q=880528"
    for _ in range(3):
        page = await either.browser.get(address)
        seen += dict.fromkeys(re.findall(r"task=(t\d+)\"", page.text))
        following = [link for link in elements(page.text, "a") if link.get("rel") == "next"]
        if not following:
            break
        address = following[0]["href"] or ""
        assert "q=880528" in address
    assert seen == [f"t{number:019}" for number in reversed(range(120))]
    answer = await either.browser.get("/recordings?format=json&room=880528")
    assert 'rel="next"' in answer.headers["Link"]


async def test_the_box_says_what_it_took_the_text_for_and_leads_to_the_other_meanings(world: World) -> None:
    await apply_events(world.store, [*lesson(FIRST), *lesson("880528aaaaaaaaaaaaaa", room=1)])
    page = await world.browser.get("/recordings?q=880528")
    assert "taken for a room number" in text_of(page.text)
    assert await found(world, "q=880528") == {FIRST}
    (other,) = [link for link in links(page.text) if "as=task" in link]
    assert await found(world, other.partition("?")[2]) == {"880528aaaaaaaaaaaaaa"}


async def test_an_empty_result_says_which_filter_to_drop(either: World) -> None:
    await fill(either.store)
    page = await either.browser.get("/recordings?room=880528&failed=1")
    text = text_of(page.text)
    assert "No recording has all of this at once" in text
    suggested = re.findall(r'<li><a href="([^"]+)">', page.text)
    assert sorted(suggested) == ["/recordings?failed=1", "/recordings?room=880528"]
    for link in suggested:
        assert await found(either, link.partition("?")[2])
    alone = text_of((await either.browser.get("/recordings?room=4711")).text)
    assert "No recording has this" in alone
    box = text_of((await either.browser.get("/recordings?q=nobody")).text)
    assert "“nobody”" in box
    assert "tiw register" in box


async def test_without_any_recording_it_says_what_to_look_at(world: World) -> None:
    text = text_of((await world.browser.get("/recordings")).text)
    assert "There is no recording yet" in text
    assert "tiw doctor --await-callback" in text


async def test_a_day_that_is_pressed_keeps_what_was_searched(world: World) -> None:
    page = await world.browser.get("/recordings?room=880528&failed=1&from=2025-11-30&until=2025-11-30&offset=480")
    form = re.search(r'<form id="days".*?</form>', page.text)
    assert form is not None
    sent = [(one["name"], one["value"]) for one in elements(form[0], "input")]
    assert sent == [("room", "880528"), ("failed", "1"), ("offset", "480")]


async def test_today_becomes_a_day_in_the_address_of_the_readers_zone(world: World) -> None:
    for offset in (-720, 0, 480, 840):
        page = await world.browser.get(f"/recordings?from=today&offset={offset}&failed=1")
        day = (dt.datetime.now(dt.UTC) + dt.timedelta(minutes=offset)).date().isoformat()
        assert page.url.query["from"] == page.url.query["until"] == day
        assert page.url.query["offset"] == str(offset)
        assert page.url.query["failed"] == "1"
        offsets = {one["value"] for one in elements(page.text, "input") if one["name"] == "offset"}
        assert offsets == {str(offset)}


async def test_the_address_has_no_filter_that_was_left_empty(world: World) -> None:
    await fill(world.store)
    page = await world.browser.get("/recordings?offset=480&q=&room=77&task=&teacher=&status=&from=&until=&failed=1")
    assert str(page.url.relative()) == "/recordings?room=77&failed=1"
    assert FAILED in page.text
    page = await world.browser.get("/recordings?offset=480&q=&room=")
    assert str(page.url.relative()) == "/recordings"
    page = await world.browser.get("/recordings?q=&from=2026-03-01&offset=480")
    assert str(page.url.relative()) == "/recordings?from=2026-03-01&offset=480"


async def test_a_day_is_that_of_the_readers_zone(world: World) -> None:
    # 2026-03-01 00:30 in China, when it is still February in UTC.
    start_s = int(dt.datetime(2026, 2, 28, 16, 30, tzinfo=dt.UTC).timestamp())
    await apply_events(world.store, lesson(FIRST, start_s=start_s, length_s=60))
    day = "from=2026-03-01&until=2026-03-01"
    assert await found(world, f"{day}&offset=480") == {FIRST}
    assert await found(world, f"{day}&offset=0") == set()


@pytest.mark.parametrize(
    "query",
    [
        "room=x",
        "room=99999999999999999999",
        "app=1.5",
        "status=NONE",
        "from=yesterdayish",
        "until=2026-02-30",
        "after=zzz",
        "after=%00",
    ],
)
async def test_what_cannot_be_meant_is_told_and_no_error(world: World, query: str) -> None:
    page = await world.browser.get(f"/recordings?{query}")
    assert page.status == 400
    assert "That cannot be meant" in page.text


async def test_what_is_typed_stays_text(either: World) -> None:
    for text in (HOSTILE, "x" * 5000, "%", "*", "**", "\U0001f600", "0" * 19, "-1", "9" * 19, "é" * 300):
        for name in ("q", "task", "teacher"):
            page = await either.browser.get(f"/recordings?{name}={quote(text)}")
            assert page.status == 200, (name, text)
            assert elements(page.text, "img") == []
            assert "\0" not in page.text
            # What stands in a field is what was typed.
            assert "\u202e" not in re.sub(r"<input[^>]*>", "", page.text)
        if "7 * 7" in text:
            assert "{{ 7 * 7 }} {t} %s" in text_of(page.text)


async def test_what_a_callback_says_stays_text_in_the_list(world: World) -> None:
    finished: dict[str, Any] = {
        "RecordUserId": HOSTILE,
        "Error": {"Code": HOSTILE, "Message": HOSTILE},
        "FinishReason": HOSTILE,
    }
    await apply_events(world.store, [of("Finished", "<b>&\"'task", at_s=now_s(), **finished)])
    page = await world.browser.get("/recordings")
    assert page.status == 200
    assert elements(page.text, "img") == []
    assert elements(page.text, "b") == []
    (address,) = {link for link in links(page.text) if link.startswith("/recording?")}
    opened = await world.browser.get(address)
    assert opened.status == 200
    assert elements(opened.text, "img") == []


async def test_a_row_says_what_is_wrong_in_words(world: World) -> None:
    await fill(world.store)
    rows = {}
    page = await world.browser.get("/recordings")
    for row in re.findall(r"<tr>.*?</tr>", page.text, re.DOTALL)[1:]:
        task = re.search(r"task=([a-z0-9]+)", row)
        assert task is not None
        rows[task[1]] = text_of(row)
    assert "archived" in rows[FIRST]
    assert "1:02:00" in rows[FIRST]
    assert "files missing" in rows[SECOND]
    assert "Failed" in rows[FAILED]
    assert "FailedOperation.Record" in rows[FAILED]
    pause = r"Paused since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d ; is stopped at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d unless"
    assert re.search(pause, rows[PAUSED])
    assert "contradicted" in rows[FORGED]
    assert "found late" in rows[LATE]


async def test_a_row_begins_with_the_start_that_is_known_and_says_where_none_is(world: World) -> None:
    start_s = 1_795_971_600
    await apply_events(
        world.store,
        [
            of("Started", "goes0on", at_s=start_s),
            *lesson("finished", start_s=start_s - 86_400),
            of("Started", "failed", at_s=start_s + 60),
            of("Finished", "failed", at_s=start_s + 120, RecordStartTime=0, Error={"Code": "X"}),
            of("Stopped", "nothing0told", at_s=start_s, received_s=start_s + 3600),
        ],
    )
    page = await world.browser.get("/recordings")
    starts = {
        task: text_of(shown).strip()
        for task, shown in re.findall(r'<a class="plain" href="[^"]*task=([a-z0-9]+)">(.*?)</a>', page.text, re.DOTALL)
    }
    assert starts == {
        "goes0on": "2026-11-29 17:00:00",
        "finished": "2026-11-28 17:00:00",
        "failed": "2026-11-29 17:01:00",
        "nothing0told": "start not known, last event 2026-11-29 18:00:00",
    }


async def test_a_pause_that_should_have_ended_is_not_said_to_go_on(world: World) -> None:
    now = now_s()
    over = {"PauseTime": now - 6000, "EstimateStopTime": now - 3000}
    await apply_events(world.store, [of("LongPauseWarning", PAUSED, at_s=now - 4000, **over)])
    text = text_of((await world.browser.get("/recordings")).text)
    assert "; was to be stopped at" in text
    assert "unless it goes on" not in text


async def test_it_is_there_in_chinese(world: World) -> None:
    await fill(world.store)
    page = await world.browser.get("/recordings?failed=1", headers={"Accept-Language": "zh-CN"})
    assert 'lang="zh-CN"' in page.text
    assert "失败" in page.text
    assert "房间号、用户或 TaskId" in page.text


async def test_the_command_below_does_the_same(world: World) -> None:
    for query, command in {
        "failed=1&app=5": "tiw recordings list --app 5 --failed --limit 50",
        "status=PAUSED": "tiw recordings list --status paused --limit 50",
        f"task={FIRST}": f"tiw recordings list --task {FIRST} --limit 50",
        f"{urlencode({'task': 'a b; rm -rf /'})}": "tiw recordings list --task 'a b; rm -rf /' --limit 50",
        "q=880528&from=2026-11-30&until=2026-11-30&offset=480": "tiw recordings list --room 880528 "
        "--since 2026-11-30T00:00+08:00 --until 2026-12-01T00:00+08:00 --limit 50",
    }.items():
        page = await world.browser.get(f"/recordings?{query}")
        assert command in text_of(page.text), query


async def test_a_search_takes_no_longer_than_it_may(world: World) -> None:
    await fill(world.store)
    before_s = time.monotonic()
    page = await search_recordings(world.store, RecordingFilter(teacher="nobody"))
    assert page.rows == []
    assert time.monotonic() - before_s < 5
