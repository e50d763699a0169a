"""The built-in consumers: each keeps its event and brings the recording up to date."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
import structlog
from msgspec import structs

from schemas import EVENT_TYPES, RECORDING_ARCHIVED, UNRECOGNIZED, OnlineRecordFinished, RecordingError
from store import (
    KeptEvent,
    RecordingStatus,
    Store,
    apply_events,
    find_recordings,
    list_dead_letters,
    list_events,
)
from tests.workers.house import House, archived_message, as_message, eventually, published
from workers import BUILT_IN, Ack, Consumer, run_batch, run_consumer
from workers.builtin import finished, started

SAMPLES = Path(__file__).parent.parent / "samples"


def test_each_event_has_exactly_one() -> None:
    keys = [key for consumer in BUILT_IN for key in consumer.routing_keys]

    assert sorted(keys) == sorted([*EVENT_TYPES, RECORDING_ARCHIVED, UNRECOGNIZED])


@pytest.mark.parametrize("consumer", BUILT_IN, ids=lambda consumer: consumer.name)
async def test_each_can_run_alone(house: House, consumer: Consumer) -> None:
    (key,) = consumer.routing_keys
    if key == RECORDING_ARCHIVED:
        message = archived_message("task")
    else:
        message = published("SomethingElse" if key == UNRECOGNIZED else key, "task")
    message = structs.replace(message, source="reconcile")

    async with house.working(consumer) as transport:
        await transport.publish(message)
        await eventually(lambda: _has(house, 1))

    (event,) = await list_events(house.store)
    assert (event.event_id, event.source, event.verified) == (message.event_id, "reconcile", None)


async def test_together_they_make_the_recordings_of_the_samples(house: House) -> None:
    messages = [as_message(file.read_bytes()) for file in sorted(SAMPLES.glob("*.json"))]

    async with house.working(*BUILT_IN) as transport:
        await asyncio.gather(*(transport.publish(message) for message in messages))
        await eventually(lambda: _has(house, len(messages)))

    (recording,) = await find_recordings(house.store, "bj0mt2l23osdj300hl30", app=1_400_000_001)
    assert recording.status is RecordingStatus.STOPPED
    assert (recording.pause_time, recording.force_stop_time) == (1_575_545_412, 1_575_546_412)
    assert {event.event_id for event in await list_events(house.store)} == {m.event_id for m in messages}
    (unsigned,) = await find_recordings(house.store, "bj0mt2l23osdj300hl30", app=0)
    assert unsigned.status is RecordingStatus.RECORDING


async def test_one_can_be_tried_on_an_event_without_a_broker(house: House) -> None:
    event = as_message((SAMPLES / "finished.json").read_bytes())
    kind = EVENT_TYPES["OnlineRecordFinished"]

    assert await run_consumer(finished, kind(task_id="t", timestamp=1), body=event.body, store=house.store) == Ack()
    assert len(await find_recordings(house.store, "t")) == 1


@pytest.mark.parametrize(("count", "lines"), [(1, 1), (10, 10), (11, 1)])
async def test_a_large_group_is_told_of_in_one_line(house: House, count: int, lines: int) -> None:
    kind = EVENT_TYPES["OnlineRecordStarted"]
    tasks = [f"t{number}" for number in range(count)]
    with structlog.testing.capture_logs() as logs:
        await run_batch(started, [kind(task_id=task, timestamp=1) for task in tasks], store=house.store)

    told = [line for line in logs if line["event"] == "recording_started"]
    assert len(told) == lines
    assert [task for line in told for task in line.get("task_ids") or [line["task_id"]]] == tasks


async def test_each_failed_recording_is_told_of(house: House) -> None:
    error = RecordingError(code="c")
    events = [OnlineRecordFinished(task_id=f"t{number}", timestamp=1, error=error) for number in range(20)]
    with structlog.testing.capture_logs() as logs:
        await run_batch(finished, events, store=house.store)

    assert [line["task_id"] for line in logs if line["event"] == "recording_failed"] == [e.task_id for e in events]


async def test_what_waits_is_written_together_and_an_event_that_cannot_be_written_fails_alone(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[int] = []
    messages = [published("OnlineRecordStarted", f"task-{number}") for number in range(50)]
    bad = messages[30].event_id

    async def apply(store: Store, kept: Sequence[KeptEvent]) -> None:
        groups.append(len(kept))
        if any(one.event_id == bad for one in kept):
            raise ValueError("cannot be written")
        await apply_events(store, kept)

    monkeypatch.setattr("workers.builtin.apply_events", apply)
    async with house.transport([started]) as transport:
        await asyncio.gather(*(transport.send("started", message) for message in messages))
    async with house.working(started):
        await eventually(lambda: _has(house, 49))
        await eventually(lambda: _has_letter(house))

    (letter,) = await list_dead_letters(house.store)
    assert (letter.event_id, letter.reason) == (bad, "ValueError: cannot be written")
    # The first alone, to see whether it is harmless; then those that wait, which one of them spoils.
    assert max(groups) > 10
    assert [event.event_id for event in await list_events(house.store)].count(bad) == 0


async def _has_letter(house: House) -> bool:
    return len(await list_dead_letters(house.store)) == 1


async def _has(house: House, count: int) -> bool:
    return len(await list_events(house.store)) == count
