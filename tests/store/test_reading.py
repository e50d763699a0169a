import json
from typing import Any

import msgspec
import pytest

from schemas import EVENT_TYPES
from store import (
    EventFilter,
    KeptRow,
    RecordingFilter,
    RecordingStatus,
    Store,
    apply_events,
    count_events,
    find_kept,
    find_recordings,
    fold,
    list_events,
    list_recordings,
    pages_for_replay,
)
from tests.store.classes import START_US, callback, keep

STARTED = keep(callback("OnlineRecordStarted", sdk_app_id=1, TaskId="a"), received_at_us=START_US)
FINISHED = keep(
    callback("OnlineRecordFinished", sdk_app_id=1, TaskId="a", Error={"Code": "c"}), received_at_us=START_US + 3
)
OTHER = keep(callback("OnlineRecordStarted", sdk_app_id=2, TaskId="b"), received_at_us=START_US + 1)
STRANGE = keep(callback("TranscodeFinished", sdk_app_id=2, TaskId="b"), received_at_us=START_US + 2)
EVERYTHING = [STARTED, FINISHED, OTHER, STRANGE]


async def test_a_recording_is_shown_as_documented(store: Store) -> None:
    await apply_events(store, EVERYTHING)
    (recording,) = await find_recordings(store, "a")
    document = json.loads(msgspec.json.encode(recording))
    assert list(document) == [
        *["sdk_app_id", "task_id", "room_id", "group_id", "record_user_id", "status", "finish_reason", "error"],
        *["record_start_time", "record_stop_time", "total_time_ms", "exception_count", "pause_time"],
        *["estimate_stop_time", "force_stop_time", "omitted_durations", "verified"],
        *["videos", "events", "found"],
    ]
    assert document["error"] == {"code": "c", "message": None}
    assert document["found"] == []
    assert document["events"] == [
        {
            "event_id": FINISHED.event_id,
            "event_type": "OnlineRecordFinished",
            "timestamp": 100,
            "received_at": "2023-11-14T22:13:20.000003Z",
            "source": "",
            "verified": None,
        },
        {
            "event_id": STARTED.event_id,
            "event_type": "OnlineRecordStarted",
            "timestamp": 100,
            "received_at": "2023-11-14T22:13:20.000000Z",
            "source": "",
            "verified": None,
        },
    ]


async def test_a_listing_has_the_same_without_videos_events_and_findings(store: Store) -> None:
    await apply_events(store, EVERYTHING)
    documents = json.loads(msgspec.json.encode(await list_recordings(store)))
    expected = [json.loads(msgspec.json.encode(fold(kept))) for kept in ([STARTED, FINISHED], [OTHER])]
    for document in expected:
        del document["videos"], document["events"], document["found"]
    assert documents == expected


async def test_recordings_are_listed_by_their_latest_activity_and_filtered(store: Store) -> None:
    await apply_events(store, EVERYTHING)

    async def tasks(limit: int = 1000, **chosen: Any) -> list[str]:
        return [one.task_id for one in await list_recordings(store, RecordingFilter(**chosen), limit=limit)]

    assert await tasks() == ["a", "b"]
    assert await tasks(limit=1) == ["a"]
    assert await tasks(limit=0) == ["a", "b"]
    assert await tasks(app=2) == ["b"]
    assert await tasks(status=RecordingStatus.RECORDING) == ["b"]
    assert await tasks(from_us=START_US + 2) == ["a"]
    assert await tasks(from_us=START_US + 4) == []
    stopped = keep(callback("OnlineRecordStopped", sdk_app_id=2, TaskId="b"), received_at_us=START_US + 9)
    await apply_events(store, [stopped])
    assert await tasks() == ["b", "a"]


async def test_events_are_listed_as_documented(store: Store) -> None:
    error_only = keep(callback("OnlineRecordFinished", Error={"Code": "c"}), received_at_us=START_US + 5)
    await apply_events(store, [STARTED, error_only])
    assert json.loads(msgspec.json.encode(await list_events(store))) == [
        {
            "event_id": error_only.event_id,
            "event_type": "OnlineRecordFinished",
            "sdk_app_id": 1,
            "task_id": None,
            "timestamp": 100,
            "received_at": "2023-11-14T22:13:20.000005Z",
            "source": "",
            "verified": None,
        },
        {
            "event_id": STARTED.event_id,
            "event_type": "OnlineRecordStarted",
            "sdk_app_id": 1,
            "task_id": "a",
            "timestamp": 100,
            "received_at": "2023-11-14T22:13:20.000000Z",
            "source": "",
            "verified": None,
        },
    ]


async def test_events_are_listed_newest_first_and_filtered(store: Store) -> None:
    await apply_events(store, EVERYTHING)

    async def ids(limit: int = 1000, **chosen: Any) -> list[str]:
        return [row.event_id for row in await list_events(store, EventFilter(**chosen), limit=limit)]

    newest_first = [one.event_id for one in (FINISHED, STRANGE, OTHER, STARTED)]
    assert await ids() == newest_first
    assert await ids(limit=2) == newest_first[:2]
    assert await ids(limit=0) == newest_first
    assert await ids(app=2) == [STRANGE.event_id, OTHER.event_id]
    assert await ids(from_us=START_US + 2) == newest_first[:2]
    assert await ids(unrecognized=True) == [STRANGE.event_id]
    assert await ids(event_type="OnlineRecordStarted") == [OTHER.event_id, STARTED.event_id]
    assert await ids(task="a") == [FINISHED.event_id, STARTED.event_id]
    assert await ids(source="") == newest_first
    assert await ids(source="test") == []
    assert await ids(task="\0") == []
    assert await count_events(store) == 4


async def test_bodies_are_shown_byte_for_byte(store: Store) -> None:
    binary = keep({}, received_at_us=START_US)
    binary = msgspec.structs.replace(binary, body=b"\xff\xfe")
    await apply_events(store, [STARTED, binary])
    rows = {row.event_id: row for row in await list_events(store, bodies=True)}
    assert rows[STARTED.event_id].body == STARTED.body.decode()
    assert rows[binary.event_id].body_base64 == "//4="
    assert "body" not in json.loads(msgspec.json.encode(rows[binary.event_id]))


async def replayed(store: Store, **options: object) -> list[KeptRow]:
    chosen: dict[str, object] = {"event_types": [*EVENT_TYPES], "unrecognized": True} | options
    return [row async for rows in pages_for_replay(store, **chosen) for row in rows]  # type: ignore[arg-type]


@pytest.mark.parametrize("page", [1, 2, 3, 4, 500])
async def test_a_replay_gives_every_event_once_the_oldest_first(store: Store, page: int) -> None:
    same_moment = [keep(callback("OnlineRecordStopped", TaskId="c", RoomId=number)) for number in range(4)]
    await apply_events(store, [*EVERYTHING, *same_moment])
    rows = await replayed(store, page=page)
    assert [(row.received_at_us, row.event_id) for row in rows] == sorted(
        (one.received_at_us, one.event_id) for one in [*EVERYTHING, *same_moment]
    )


async def test_a_replay_has_what_publishing_needs(store: Store) -> None:
    await apply_events(store, EVERYTHING)
    rows = {row.event_id: row for row in await replayed(store)}
    assert rows[STARTED.event_id] == KeptRow(
        event_id=STARTED.event_id, routing_key="OnlineRecordStarted", received_at_us=START_US, body=STARTED.body
    )
    assert rows[STRANGE.event_id].routing_key == "unrecognized"
    assert {event_id: await find_kept(store, event_id) for event_id in rows} == rows
    assert await find_kept(store, "\0") is None


async def test_a_replay_can_be_narrowed(store: Store) -> None:
    async def ids(**options: object) -> list[str]:
        return [row.event_id for row in await replayed(store, **options)]

    assert await ids() == []
    await apply_events(store, EVERYTHING)
    assert await ids(unrecognized=False) == [STARTED.event_id, OTHER.event_id, FINISHED.event_id]
    assert await ids(event_types=[]) == [STRANGE.event_id]
    assert await ids(event_types=["OnlineRecordFinished"], unrecognized=False) == [FINISHED.event_id]
    assert await ids(since_us=START_US + 2) == [STRANGE.event_id, FINISHED.event_id]
    assert await ids(task_id="a") == [STARTED.event_id, FINISHED.event_id]
    assert await ids(event_id=OTHER.event_id) == [OTHER.event_id]
    assert await ids(event_id=OTHER.event_id, task_id="a") == []
    assert await ids(event_types=[], unrecognized=False) == []


async def test_a_replay_ends_although_events_keep_coming(store: Store) -> None:
    await apply_events(store, EVERYTHING)
    seen: list[str] = []
    async for rows in pages_for_replay(store, event_types=[*EVENT_TYPES], unrecognized=True, page=1):
        seen.extend(row.event_id for row in rows)
        late = callback("OnlineRecordStarted", TaskId=f"late-{len(seen)}")
        await apply_events(store, [keep(late, received_at_us=START_US + 100 + len(seen))])
    assert len(seen) == 4
