"""Consumers that take many events in one call: how groups form, and what becomes of each event in them."""

import asyncio
import threading
from collections import Counter

import pytest
from msgspec import structs

from schemas import OnlineRecordFinished, Unrecognized
from store import find_recordings, list_dead_letters
from tests.workers.house import (
    TEN,
    Batch,
    Calls,
    House,
    as_message,
    eventually,
    finished,
    has_events,
    has_letters,
    is_settled,
    started,
)
from workers import Ack, Context, DeadLetter, Drop, Outcome, Retry, consumer
from workers.builtin import finished as built_in


async def test_a_single_event_is_handled_at_once(house: House) -> None:
    calls = Calls()

    @consumer(batch=100)
    async def archive(batch: Batch) -> None:
        await calls.note(batch)

    async with house.working(archive) as transport:
        await transport.publish(started("only"))
        await eventually(lambda: calls.groups == [["only"]])
        await eventually(lambda: is_settled(house, "archive"))


async def test_what_waits_anyway_is_a_group_of_at_most_so_many(house: House) -> None:
    calls = Calls()

    @consumer(batch=4, concurrency=2)
    async def archive(batch: Batch) -> None:
        await calls.note(batch)

    async with house.transport([archive]) as transport:
        for number in range(13):
            await transport.send("archive", started(f"task-{number}"))
    async with house.working(archive):
        await eventually(lambda: len(calls.handled) == 13)

    # The first is taken alone, to see whether it is harmless.
    assert [len(group) for group in calls.groups] == [1, 4, 4, 4]


async def test_none_settles_all(house: House) -> None:
    calls = Calls()

    @consumer(batch=100, concurrency=1)
    async def archive(batch: Batch) -> None:
        await calls.note(batch)

    async with house.working(archive) as transport:
        await calls.form_group(house, transport, archive, TEN)
        await eventually(lambda: is_settled(house, "archive"))

    assert [sorted(group) for group in calls.groups] == [["first"], TEN]
    assert await list_dead_letters(house.store) == []


@pytest.mark.parametrize("remember", [True, False])
async def test_each_outcome_is_that_of_its_event(house: House, remember: bool) -> None:
    calls = Calls()
    outcomes: dict[tuple[str, int], Outcome] = {
        ("task-1", 1): Retry(),
        ("task-2", 1): Drop("a test room"),
        ("task-3", 1): DeadLetter("unknown room"),
        ("task-7", 1): Retry(after_s=0.1),
        ("task-7", 2): Retry(after_s=0.1),
    }

    @consumer(batch=100, concurrency=1, remember=remember)
    async def archive(batch: Batch) -> list[Outcome]:
        await calls.note(batch)
        return [outcomes.get((event.task_id, ctx.attempt), Ack()) for event, ctx in batch]

    async with house.working(archive) as transport:
        await calls.form_group(house, transport, archive, TEN)
        await eventually(lambda: calls.attempts["task-7", 3] == 1)
        await eventually(lambda: calls.attempts["task-1", 2] == 1)
        await eventually(lambda: is_settled(house, "archive"))

    attempts = [("first", 1), *((task_id, 1) for task_id in TEN), ("task-1", 2), ("task-7", 2), ("task-7", 3)]
    assert calls.attempts == Counter(attempts)
    (letter,) = await list_dead_letters(house.store)
    assert (letter.reason, letter.attempts) == ("unknown room", 1)


async def test_an_event_in_a_group_twice_is_handled_once(house: House) -> None:
    calls = Calls()

    @consumer(batch=100, concurrency=1)
    async def archive(batch: Batch) -> None:
        await calls.note(batch)

    async with house.working(archive) as transport:
        await calls.form_group(house, transport, archive, ["twice", "twice", "twice", "once"])
        await eventually(lambda: sorted(calls.handled) == ["first", "once", "twice"])
        await eventually(lambda: is_settled(house, "archive"))

    assert sorted(calls.handled) == ["first", "once", "twice"]


async def test_an_event_of_a_group_that_was_completed_is_not_handled_again(house: House) -> None:
    calls = Calls()

    @consumer(batch=100, concurrency=1)
    async def archive(batch: Batch) -> None:
        await calls.note(batch)

    async with house.working(archive) as transport:
        await calls.form_group(house, transport, archive, TEN)
        await eventually(lambda: is_settled(house, "archive"))
        await asyncio.gather(*(transport.publish(started(task_id)) for task_id in [*TEN, "new"]))
        await eventually(lambda: "new" in calls.handled)
        await eventually(lambda: is_settled(house, "archive"))

    assert sorted(calls.handled) == sorted(["first", *TEN, "new"])


async def test_groups_of_two_consumers_of_one_event_do_not_touch_each_other(house: House) -> None:
    calls = Calls()

    @consumer(batch=10, attempts=1)
    async def broken(batch: Batch) -> None:
        raise ValueError("broken")

    @consumer(batch=10)
    async def archive(batch: Batch) -> None:
        await calls.note(batch)

    async with house.working(broken, archive) as transport:
        await asyncio.gather(*(transport.publish(started(task_id)) for task_id in TEN))
        await eventually(lambda: sorted(calls.handled) == TEN)
        await eventually(lambda: has_letters(house, 10))


async def test_what_fails_after_its_effect_has_one_effect_in_the_store(house: House) -> None:
    failed: Counter[int] = Counter()

    @consumer(batch=100, remember=False)
    async def archive(batch: list[tuple[OnlineRecordFinished, Context]]) -> None:
        await built_in(batch)
        failed[len(batch)] += 1
        if failed[len(batch)] == 1:
            raise ValueError("written, and not acknowledged")

    async with house.transport([archive]) as transport:
        for task_id in TEN:
            await transport.send("archive", finished(task_id))
            await transport.send("archive", finished(task_id))
    async with house.working(archive):
        await eventually(lambda: is_settled(house, "archive"))
        await eventually(lambda: has_events(house, 10))

    for task_id in TEN:
        (recording,) = await find_recordings(house.store, task_id)
        assert len(recording.events) == 1


async def test_what_a_handler_need_not_see_is_taken_out_of_its_group(house: House) -> None:
    calls = Calls()
    kept: list[str] = []

    @consumer
    async def rest(event: Unrecognized, ctx: Context) -> None:
        kept.append(event.reason)

    @consumer(batch=100, concurrency=1)
    async def archive(batch: Batch) -> list[Outcome]:
        await calls.note(batch)
        return [Ack() for _ in batch]

    strange = structs.replace(as_message(b'{"EventType": "FromTheFuture"}'), routing_key="OnlineRecordStarted")
    async with house.transport([archive]) as transport:
        for message in (started("a"), started("b"), finished("unwanted"), strange, started("c")):
            await transport.send("archive", message)
    async with house.working(rest, archive):
        await eventually(lambda: sorted(calls.handled) == ["a", "b", "c"])
        await eventually(lambda: len(kept) == 1)
        await eventually(lambda: is_settled(house, "archive"))


async def test_a_plain_function_takes_groups_in_a_thread(house: House) -> None:
    seen: list[tuple[str, int]] = []

    @consumer(batch=100)
    def archive(batch: Batch) -> list[Outcome]:
        seen.append((threading.current_thread().name, len(batch)))
        return [Ack() for _ in batch]

    async with house.transport([archive]) as transport:
        for task_id in TEN:
            await transport.send("archive", started(task_id))
    async with house.working(archive):
        await eventually(lambda: sum(count for _, count in seen) == 10)
        await eventually(lambda: is_settled(house, "archive"))

    assert {name for name, _ in seen} == {"tiw-archive"}
