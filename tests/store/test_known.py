"""What is known already: applications, rooms, how far recordings have come, and rooms of which nothing is known."""

from datetime import date
from typing import Any

from sqlalchemy import update

from store import (
    ListedTask,
    Progress,
    Question,
    RecordingStatus,
    Store,
    UnaccountedRoom,
    apply_events,
    ask,
    claim_questions,
    find_progress,
    find_reconciled_apps,
    find_unaccounted,
    finish_question,
    keep_unaccounted,
    known_apps,
    known_rooms,
    mark_listed,
    note_listing,
    recent_rooms,
)
from store.tables import unaccounted_rooms
from tests.store.classes import callback, keep

#: Noon of 5 January 2026 in China.
NOON = 1_767_585_600
HOUR = 3600


async def told(store: Store, event_type: str, at: int, **event_data: Any) -> None:
    await apply_events(store, [keep(callback(event_type, at, **event_data), received_at_us=at * 1_000_000)])


async def test_an_application_is_known_by_a_recording_or_by_a_question(store: Store) -> None:
    assert await known_apps(store) == frozenset()
    await apply_events(
        store,
        [
            keep(callback("OnlineRecordStarted", sdk_app_id=3, TaskId="a")),
            keep(callback("OnlineRecordStarted", sdk_app_id=3, TaskId="b")),
            keep({"EventType": "OnlineRecordStarted", "Timestamp": 1, "EventData": {"TaskId": "of none"}}),
        ],
    )
    await ask(store, [Question(sdk_app_id=8, task_id="c", why="it was registered")])
    assert await known_apps(store) == {3, 8}


async def test_rooms_are_those_of_which_something_came_lately(store: Store) -> None:
    now_us = 4_000_000_000_000_000
    for room, at_us in ((5, now_us), (6, now_us), (5, now_us), (7, 1_000_000)):
        content = callback("OnlineRecordStarted", TaskId=f"{room} {at_us}", RoomId=room)
        await apply_events(store, [keep(content, received_at_us=at_us)])
    assert await recent_rooms(store, 1, within_s=60) == [5, 6]
    assert await recent_rooms(store, 2, within_s=60) == []


async def test_progress_is_what_events_say_and_whether_more_is_to_be_asked(store: Store) -> None:
    await told(store, "OnlineRecordStopped", NOON, TaskId="stopped")
    await ask(store, [Question(sdk_app_id=1, task_id="asked", why="it was registered")])
    await ask(store, [Question(sdk_app_id=1, task_id="settled", why="it was registered", after_s=-9)])
    (question,) = await claim_questions(store, apps=[1], lease_holder="me", lease_s=9, limit=1)
    assert await finish_question(store, question, lease_holder="me", answer_status="NOT_FOUND")
    progress = await find_progress(store, 1, ["stopped", "asked", question.task_id, "nobody's"])
    assert progress["stopped"] == Progress(status=RecordingStatus.STOPPED)
    assert progress["asked" if question.task_id == "settled" else "settled"] == Progress()
    assert progress["nobody's"] == Progress()
    settled = progress[question.task_id]
    assert (settled.status, settled.is_settled) == (None, True)
    assert settled.asked_ago_s is not None
    assert 0 <= settled.asked_ago_s < HOUR


async def test_a_room_is_known_on_the_days_on_which_its_recordings_went_on(store: Store) -> None:
    times = {"RecordStartTime": NOON, "RecordStopTime": NOON + 11 * HOUR}
    await told(store, "OnlineRecordFinished", NOON + 11 * HOUR, TaskId="day", RoomId=1, **times)
    times = {"RecordStartTime": NOON + 11 * HOUR, "RecordStopTime": NOON + 13 * HOUR}
    await told(store, "OnlineRecordFinished", NOON + 13 * HOUR, TaskId="midnight", RoomId=2, **times)
    await told(store, "OnlineRecordStarted", NOON, TaskId="unfinished", RoomId=3)
    failed = {"RecordStartTime": 0, "RecordStopTime": 0, "Error": {"Code": "c"}}
    await told(store, "OnlineRecordFinished", NOON + 20 * HOUR, TaskId="failed", RoomId=4, **failed)
    assert await known_rooms(store, 1, date(2026, 1, 4)) == frozenset()
    assert await known_rooms(store, 1, date(2026, 1, 5)) == {1, 2, 3}
    assert await known_rooms(store, 1, date(2026, 1, 6)) == {2, 4}
    assert await known_rooms(store, 2, date(2026, 1, 5)) == frozenset()


async def test_a_room_of_which_nothing_is_known_is_kept_once_until_something_is(store: Store) -> None:
    rooms = [UnaccountedRoom(sdk_app_id=1, day="2026-01-05", room_id=room, minutes=30) for room in (9, 7)]
    assert await keep_unaccounted(store, rooms) == rooms[::-1]
    assert await keep_unaccounted(store, rooms) == []
    assert await keep_unaccounted(store, []) == []
    later = UnaccountedRoom(sdk_app_id=1, day="2026-01-06", room_id=7, minutes=5)
    assert await keep_unaccounted(store, [*rooms, later]) == [later]
    assert await find_unaccounted(store) == [later, rooms[1], rooms[0]]
    assert await find_unaccounted(store, since=date(2026, 1, 6)) == [later]
    await told(store, "OnlineRecordStarted", NOON, TaskId="t", RoomId=7)
    await told(store, "OnlineRecordFinished", NOON + HOUR, TaskId="t", RoomId=7, RecordStopTime=NOON + HOUR)
    assert await find_unaccounted(store) == [later, rooms[0]]


async def test_a_room_of_which_nothing_is_known_is_forgotten_after_a_year(store: Store) -> None:
    rooms = [UnaccountedRoom(sdk_app_id=1, day="2026-01-05", room_id=room, minutes=30) for room in (7, 9)]
    await keep_unaccounted(store, rooms[:1])
    long_ago = update(unaccounted_rooms).values(found_at_us=unaccounted_rooms.c.found_at_us - 367 * 86_400_000_000)
    await store.write(lambda connection: connection.execute(long_ago))
    assert await keep_unaccounted(store, rooms[1:]) == rooms[1:]
    assert await find_unaccounted(store) == rooms[1:]


async def test_a_list_of_many_is_kept_whole_and_again(store: Store) -> None:
    tasks = [ListedTask(task_id=f"t{number}", room_id=number, created_at=NOON) for number in range(300)]
    assert len(await note_listing(store, 1, tasks, found_by="DescribeRunningTasks", is_complete=True)) == 300
    assert len(await note_listing(store, 1, tasks[:-1], found_by="DescribeRunningTasks", is_complete=True)) == 299
    (gone,) = await claim_questions(store, apps=[1], lease_holder="me", lease_s=9, limit=9)
    assert (gone.task_id, gone.room_id, gone.created_at, gone.gone_from_list) == ("t299", 299, NOON, True)


async def test_an_application_that_is_listed_room_by_room_was_listed(store: Store) -> None:
    await mark_listed(store, 5)
    listed_ago_s = (await find_reconciled_apps(store))[5].listed_ago_s
    assert listed_ago_s is not None
    assert 0 <= listed_ago_s < HOUR
