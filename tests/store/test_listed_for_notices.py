"""What is looked for to tell people of it, and the notices as they are listed."""

import json
import time

from schemas import OnlineRecordFinished, OnlineRecordStarted, OnlineRecordStopped, RecognizedEvent, RecordingStatus
from store import (
    KeptEvent,
    Notice,
    NoticeResult,
    Store,
    add_notices,
    apply_events,
    claim_notices,
    end_notices,
    expire_notices,
    find_channel_states,
    list_contradicted,
    list_notices,
    list_unfinished,
    mark_verified,
    postpone_notices,
)

APP = 1400000001


def notice(number: int, channel: str = "wecom", *, expires_after_s: float = 60.0) -> Notice:
    return Notice(
        notice_id=f"{channel}-{number}",
        channel=channel,
        rule="failed",
        severity="critical",
        task_id=f"task-{number}",
        data={"room_id": number},
        expires_after_s=expires_after_s,
    )


async def claim(store: Store, channel: str = "wecom", limit: int = 1) -> list[str]:
    claimed = await claim_notices(store, channel=channel, lease_holder="me", lease_s=60, limit=limit)
    return [one.notice_id for one in claimed]


async def test_notices_are_listed_the_latest_first_with_what_became_of_them(store: Store) -> None:
    await add_notices(store, [notice(1)])
    await add_notices(store, [notice(2), notice(1, "slack")])
    ended = await claim(store)
    await end_notices(store, ended, lease_holder="me", result=NoticeResult.REFUSED, detail="93000")
    rows = await list_notices(store, channel="wecom")
    assert [row.notice_id for row in rows] == ["wecom-2", "wecom-1"]
    waiting, refused = rows
    assert (waiting.result, waiting.ended_at, waiting.attempts, waiting.data) == (None, None, 0, {"room_id": 2})
    assert (refused.result, refused.detail, refused.task_id) == (NoticeResult.REFUSED, "93000", "task-1")
    assert refused.ended_at is not None
    assert len(await list_notices(store)) == 3
    assert len(await list_notices(store, limit=1)) == 1
    assert await list_notices(store, since_us=round(time.time() * 1e6) + 60_000_000) == []


async def test_notices_of_a_channel_that_nobody_delivers_end_when_their_time_is_past(store: Store) -> None:
    await add_notices(store, [notice(1, "gone", expires_after_s=-10), notice(2, "gone"), notice(3, expires_after_s=-1)])
    assert await expire_notices(store, past_for_s=5) == {"gone": 1}
    assert await expire_notices(store, past_for_s=5) == {}
    held = await claim(store)
    assert held == ["wecom-3"]
    # Who holds one ends it.
    assert await expire_notices(store, past_for_s=0) == {}


async def test_the_state_of_a_channel_is_what_it_answered_last(store: Store) -> None:
    await add_notices(store, [notice(number) for number in range(5)])
    results = (NoticeResult.SENT, NoticeResult.REFUSED, NoticeResult.EXPIRED, NoticeResult.OVER)
    for result in results:
        await end_notices(store, await claim(store), lease_holder="me", result=result, detail=result.value)
    state = (await find_channel_states(store))["wecom"]
    assert (state.last_result, state.last_detail) == (NoticeResult.REFUSED, "refused")
    assert (state.waiting, state.waiting_detail) == (1, None)
    await postpone_notices(store, await claim(store), lease_holder="me", after_s=60, detail="it answered 503")
    state = (await find_channel_states(store))["wecom"]
    assert (state.waiting, state.waiting_detail) == (1, "it answered 503")


def kept(event: RecognizedEvent, event_id: str, *, at_us: int) -> KeptEvent:
    body = {
        "EventType": type(event).__name__,
        "Timestamp": event.timestamp,
        "SdkAppId": event.sdk_app_id,
        "EventData": {"TaskId": event.task_id},
    }
    return KeptEvent(event=event, event_id=event_id, received_at_us=at_us, body=json.dumps(body).encode())


async def test_recordings_without_an_end_are_found_by_when_they_were_last_heard_of(store: Store) -> None:
    hour_us = 3_600_000_000
    now_us = round(time.time() * 1e6)
    events: list[RecognizedEvent] = [
        OnlineRecordStarted(task_id="old", sdk_app_id=APP, timestamp=1),
        OnlineRecordStopped(task_id="stopped", sdk_app_id=APP, timestamp=1),
        OnlineRecordFinished(task_id="finished", sdk_app_id=APP, timestamp=1),
        OnlineRecordStarted(task_id="new", sdk_app_id=APP, timestamp=1),
    ]
    times = (now_us - 50 * hour_us, now_us - 2 * hour_us, now_us - 2 * hour_us, now_us)
    await apply_events(
        store,
        [kept(event, event.task_id, at_us=at_us) for event, at_us in zip(events, times, strict=True)],
    )
    (found,) = await list_unfinished(store, since_us=now_us - 24 * hour_us, until_us=now_us - hour_us)
    assert (found.task_id, found.status, found.active_at_us) == ("stopped", RecordingStatus.STOPPED, times[1])
    everything = await list_unfinished(store, since_us=0, until_us=now_us + 1)
    assert {one.task_id for one in everything} == {"old", "stopped", "new"}


async def test_events_that_the_vendor_contradicts_are_found(store: Store) -> None:
    now_us = round(time.time() * 1e6)
    events = [OnlineRecordFinished(task_id=f"t{number}", sdk_app_id=APP, timestamp=1) for number in range(3)]
    await apply_events(store, [kept(event, event.task_id, at_us=now_us) for event in events])
    assert await list_contradicted(store, since_us=0) == []
    await mark_verified(store, "t1", verified=False)
    await mark_verified(store, "t2", verified=True)
    (found,) = await list_contradicted(store, since_us=now_us)
    assert (found.event_id, found.task_id, found.verified) == ("t1", "t1", False)
    assert await list_contradicted(store, since_us=now_us + 1) == []
