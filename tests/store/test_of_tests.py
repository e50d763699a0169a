"""What somebody sends to try the consumers is kept like all else, and nothing is asked, fetched or told of it."""

import time
from typing import Any

import pytest

from store import (
    TEST_SOURCE,
    KeptEvent,
    Store,
    UnaccountedRoom,
    apply_events,
    find_recordings,
    find_unaccounted,
    find_unplanned,
    keep_unaccounted,
    known_apps,
    list_recordings,
    list_unfinished,
    recent_rooms,
    sweep,
)
from tests.store.classes import callback, keep

DAY_S = 86_400
VIDEOS = [{"VideoId": "1", "VideoUrl": "http://files.example/1.mp4"}]


def event(event_type: str, *, task: str, source: str, ago_s: float = 2 * DAY_S, **event_data: Any) -> KeptEvent:
    at_us = time.time_ns() // 1000 - round(ago_s * 1_000_000)
    content = callback(f"OnlineRecord{event_type}", at_us // 1_000_000, TaskId=task, RoomId=7, **event_data)
    return keep(content, received_at_us=at_us, source=source)


@pytest.fixture(params=["", "test", "both"])
async def source(store: Store, request: pytest.FixtureRequest) -> str:
    """Keep what three classes told, of which one was finished: by callbacks, for a test, or both."""
    for source in ("", TEST_SOURCE) if request.param == "both" else (request.param,):
        await apply_events(
            store,
            [
                event("Started", task="running", source=source),
                # The same classes told of otherwise, not the same events.
                event("Stopped", task="stopped", source=source, ago_s=DAY_S + len(source)),
                event("Finished", task="finished", source=source, ago_s=DAY_S + len(source), VideoInfos=VIDEOS),
            ],
        )
    return str(request.param)


async def test_the_vendor_is_not_asked_about_a_test(store: Store, source: str) -> None:
    assert await sweep(store, apps=[1], ask_after_s=900.0) == (0 if source == TEST_SOURCE else 3)


async def test_nothing_of_a_test_is_fetched(store: Store, source: str) -> None:
    found = await find_unplanned(store, since_us=0, needs_answer=False, limit=9)
    assert [one.task_id for one in found] == ([] if source == TEST_SOURCE else ["finished"])


async def test_nobody_waits_for_the_end_of_a_test(store: Store, source: str) -> None:
    found = await list_unfinished(store, since_us=0, until_us=time.time_ns() // 1000)
    assert {one.task_id for one in found} == (set() if source == TEST_SOURCE else {"running", "stopped"})


async def test_a_test_makes_no_application_and_no_room_known(store: Store, source: str) -> None:
    is_known = source != TEST_SOURCE
    assert await known_apps(store) == ({1} if is_known else set())
    assert await recent_rooms(store, 1, within_s=9 * DAY_S) == ([7] if is_known else [])
    day = time.strftime("%Y-%m-%d", time.gmtime(time.time() + 8 * 3600 - 2 * DAY_S))
    await keep_unaccounted(store, [UnaccountedRoom(sdk_app_id=1, day=day, room_id=7, minutes=5)])
    assert len(await find_unaccounted(store)) == (0 if is_known else 1)


async def test_a_test_is_listed_and_says_what_it_is_and_was_not_found_by_asking(store: Store, source: str) -> None:
    assert len(await list_recordings(store)) == 3
    (recording,) = await find_recordings(store, "finished")
    assert {one.source for one in recording.events} == ({"", TEST_SOURCE} if source == "both" else {source})
    assert recording.found == ()
