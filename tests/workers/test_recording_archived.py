"""RecordingArchived, an event of ours: it reaches who asks for it, and is kept beside those of its recording."""

import json
import random
import time
from typing import Any

import msgspec
import pytest

from broker import Message
from schemas import (
    RECORDING_ARCHIVED,
    UNRECOGNIZED,
    Event,
    OnlineRecordFinished,
    RecordingArchived,
    RecordingEvent,
    Unrecognized,
    decode,
    redecode,
)
from store import KeptEvent, apply_events, find_recordings, find_traces, forget_recording, list_events, pages_for_replay
from tests.workers.house import House, archived_message, as_message, eventually, finished, has_events, started
from workers import Context, consumer
from workers.builtin import BUILT_IN, archived


async def test_it_reaches_a_users_consumer_whole_and_is_kept_once(house: House) -> None:
    seen: list[tuple[RecordingArchived, str]] = []

    @consumer
    async def publish(event: RecordingArchived, ctx: Context) -> None:
        seen.append((event, ctx.source))

    message = archived_message()
    async with house.working(*BUILT_IN, publish) as transport:
        for one in (message, started(), message):
            await transport.publish(one)
        await eventually(lambda: has_events(house, 2) if seen else False)

    (event, source), *_ = seen
    assert event == redecode(message.body, routing_key=RECORDING_ARCHIVED, received_at_us=message.received_at_us)
    assert (event.task_id, event.manifest.files[0].name, source) == ("task", "1_camera.mp4", "archive")
    (recording,) = await find_recordings(house.store, "task")
    assert [(ref.event_type, ref.source) for ref in recording.events] == [
        ("OnlineRecordStarted", ""),
        ("RecordingArchived", "archive"),
    ]
    # It was told, not found by asking.
    assert recording.found == ()


def test_a_consumer_takes_it_alone_in_a_union_and_among_all_events() -> None:
    @consumer
    def alone(event: RecordingArchived, ctx: Context) -> None: ...

    @consumer
    def union(event: RecordingArchived | OnlineRecordFinished, ctx: Context) -> None: ...

    @consumer
    def everything(event: Event, ctx: Context) -> None: ...

    @consumer
    def vendors(event: RecordingEvent, ctx: Context) -> None: ...

    assert alone.routing_keys == (RECORDING_ARCHIVED,)
    assert union.routing_keys == ("OnlineRecordFinished", RECORDING_ARCHIVED)
    assert everything.routing_keys[-2:] == (RECORDING_ARCHIVED, UNRECOGNIZED)
    assert RECORDING_ARCHIVED not in vendors.routing_keys


async def test_a_callback_that_claims_to_be_one_is_unrecognized(house: House) -> None:
    seen: list[Event] = []

    @consumer
    async def publish(event: RecordingArchived | Unrecognized, ctx: Context) -> None:
        seen.append(event)

    forged = as_message(archived_message().body)
    assert forged.routing_key == UNRECOGNIZED
    async with house.working(publish) as transport:
        await transport.publish(forged)
        await eventually(lambda: bool(seen))
    assert [type(event) for event in seen] == [Unrecognized]


@pytest.mark.parametrize("change", [{"Manifest": 5}, {"Manifest": {}}, {"TaskId": "\0"}, {"TaskId": "t" * 300}])
def test_a_message_that_is_none_is_unrecognized(change: dict[str, Any]) -> None:
    content = json.loads(archived_message().body)
    content["EventData"] |= change
    body = json.dumps(content).encode()
    assert isinstance(
        redecode(body, routing_key=RECORDING_ARCHIVED, received_at_us=time.time_ns() // 1000), Unrecognized
    )


def kept(message: Message) -> KeptEvent:
    event = redecode(message.body, routing_key=message.routing_key, received_at_us=message.received_at_us)
    return KeptEvent(
        event=event,
        event_id=message.event_id,
        received_at_us=message.received_at_us,
        body=message.body,
        source=message.source,
    )


@pytest.mark.parametrize("seed", range(5))
async def test_it_changes_no_recording_whenever_it_comes(house: House, seed: int) -> None:
    told = [kept(started()), kept(finished(TotalTime=5))]
    ours = [kept(archived_message(timestamp=timestamp)) for timestamp in (1, 1_700_000_000)]
    deliveries = [*told, *ours, *told, *ours]
    random.Random(seed).shuffle(deliveries)
    await apply_events(house.store, told)
    (before,) = await find_recordings(house.store, "task")
    (traces,) = await find_traces(house.store, "task")
    assert (await forget_recording(house.store, "task", traces)).events == 2
    for one in deliveries:
        await apply_events(house.store, [one])
    (after,) = await find_recordings(house.store, "task")
    assert msgspec.structs.replace(after, events=()) == msgspec.structs.replace(before, events=())
    assert len(after.events) == 4


async def test_it_makes_no_recording_is_replayed_and_forgotten(house: House) -> None:
    message = archived_message()
    await apply_events(house.store, [kept(message)])
    assert await find_recordings(house.store, "task") == []
    pages = pages_for_replay(house.store, event_types=archived.routing_keys, unrecognized=False, task_id="task")
    assert [(row.event_id, row.routing_key, row.body, row.source) async for page in pages for row in page] == [
        (message.event_id, RECORDING_ARCHIVED, message.body, "archive")
    ]
    assert decode(message.body, received_at_us=message.received_at_us).event_id == message.event_id
    (traces,) = await find_traces(house.store, "task")
    assert (await forget_recording(house.store, "task", traces)).events == 1
    assert await list_events(house.store) == []
    assert await find_traces(house.store, "task") == []
