"""The built-in consumers: each keeps its event and brings the recording up to date."""

import asyncio
from pathlib import Path

import pytest

from schemas import EVENT_TYPES, UNRECOGNIZED
from store import RecordingStatus, find_recordings, list_events
from tests.workers.house import House, as_message, eventually, published
from workers import BUILT_IN, Ack, Consumer, run_consumer
from workers.builtin import finished

SAMPLES = Path(__file__).parent.parent / "samples"


def test_each_event_has_exactly_one() -> None:
    keys = [key for consumer in BUILT_IN for key in consumer.routing_keys]

    assert sorted(keys) == sorted([*EVENT_TYPES, UNRECOGNIZED])


@pytest.mark.parametrize("consumer", BUILT_IN, ids=lambda consumer: consumer.name)
async def test_each_can_run_alone(house: House, consumer: Consumer) -> None:
    (key,) = consumer.routing_keys
    message = published("SomethingElse" if key == UNRECOGNIZED else key, "task")

    async with house.working(consumer) as transport:
        await transport.publish(message)
        await eventually(lambda: _has(house, 1))

    (event,) = await list_events(house.store)
    assert event.event_id == message.event_id


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


async def _has(house: House, count: int) -> bool:
    return len(await list_events(house.store)) == count
