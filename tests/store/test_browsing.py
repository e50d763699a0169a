"""Recordings as people look for them."""

import pytest

from schemas import RecordingStatus
from store import RecordingFilter, Store, apply_events, find_recording_details, search_recordings
from tests.store.classes import START_US, callback, keep


async def found(store: Store, **chosen: object) -> list[str]:
    page = await search_recordings(store, RecordingFilter(**chosen))  # type: ignore[arg-type]
    assert page.next is None
    return [row.summary.task_id for row in page.rows]


async def test_recordings_are_found_by_each_filter(store: Store) -> None:
    await apply_events(
        store,
        [
            keep(callback("OnlineRecordStarted", TaskId="a", RoomId=1, RecordUserId="bot_1"), received_at_us=START_US),
            keep(
                callback("OnlineRecordFinished", TaskId="ab", RoomId=2, VideoInfos=[{"UserId": 'te"acher'}]),
                received_at_us=START_US + 1,
            ),
            keep(
                callback("OnlineRecordFinished", sdk_app_id=2, TaskId="b", Error={"Code": "c"}),
                received_at_us=START_US + 2,
            ),
            keep(callback("OnlineRecordStarted", TaskId="late"), received_at_us=START_US + 3, source="reconcile"),
            keep(callback("OnlineRecordStarted", TaskId="forged"), received_at_us=START_US + 4, verified=False),
            keep(callback("OnlineRecordStarted", TaskId="test"), received_at_us=START_US + 5, source="test"),
        ],
    )
    assert await found(store) == ["test", "forged", "late", "b", "ab", "a"]
    assert await found(store, app=2) == ["b"]
    assert await found(store, task="a") == ["a"]
    assert await found(store, task="a*") == ["ab", "a"]
    assert await found(store, room=2) == ["ab"]
    assert await found(store, teacher="bot_1") == ["a"]
    assert await found(store, teacher='te"acher') == ["ab"]
    assert await found(store, teacher="acher") == []
    assert await found(store, status=RecordingStatus.FINISHED) == ["b", "ab"]
    assert await found(store, from_us=START_US + 1, until_us=START_US + 2) == ["ab"]
    assert await found(store, failed=True) == ["b"]
    assert await found(store, found_late=True) == ["late"]
    assert await found(store, contradicted=True) == ["forged"]
    assert await found(store, not_archived=True) == []
    details = await find_recording_details(store, 1, "test")
    assert details is not None
    assert details.listed.is_test
    assert await find_recording_details(store, 1, "b") is None


@pytest.mark.parametrize("limit", [1, 2, 3, 10])
async def test_pages_have_every_recording_once(store: Store, limit: int) -> None:
    await apply_events(
        store,
        [
            keep(callback("OnlineRecordStarted", sdk_app_id=number % 2, TaskId=f"t{number}"), received_at_us=START_US)
            for number in range(7)
        ],
    )
    seen, after = [], None
    while True:
        page = await search_recordings(store, RecordingFilter(), after=after, limit=limit)
        seen += [row.summary.task_id for row in page.rows]
        after = page.next
        if after is None:
            break
    assert seen == ["t5", "t3", "t1", "t6", "t4", "t2", "t0"]
    with pytest.raises(ValueError, match="begin at its first page"):
        await search_recordings(store, RecordingFilter(), after="x")
