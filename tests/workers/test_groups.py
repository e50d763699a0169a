"""Consumers that take many events in one call: how groups form, and what becomes of each event in them."""

import asyncio
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec import structs

from broker import Transport
from broker.embedded.transport import EmbeddedTransport
from schemas import OnlineRecordFinished, OnlineRecordStarted, Unrecognized
from store import StoreUnavailableError, count_events, find_recordings, list_dead_letters
from tests.workers.house import House, as_message, eventually, finished, started
from workers import Ack, Consumer, Context, DeadLetter, Drop, Outcome, Retry, consumer
from workers.builtin import finished as built_in

Batch = list[tuple[OnlineRecordStarted, Context]]


class Calls:
    """What a batch consumer was called with. The first call waits until `release`, so that a group can form."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.attempts: Counter[tuple[str, int]] = Counter()
        self._may_go_on = asyncio.Event()

    async def note(self, batch: Batch) -> list[str]:
        task_ids = [event.task_id for event, _ in batch]
        self.groups.append(task_ids)
        self.attempts.update((event.task_id, ctx.attempt) for event, ctx in batch)
        if task_ids == ["first"]:
            await self._may_go_on.wait()
        return task_ids

    @property
    def handled(self) -> list[str]:
        return [task_id for group in self.groups for task_id in group]

    async def form_group(self, house: House, transport: Transport, consumer: Consumer, task_ids: Sequence[str]) -> None:
        """Let `task_ids` wait behind the first call, then let it end."""
        await transport.publish(started("first"))
        await eventually(lambda: self.groups == [["first"]])
        await asyncio.gather(*(transport.publish(started(task_id)) for task_id in task_ids))

        async def all_wait() -> bool:
            return (await house.queue(consumer.name)).unacked == len(task_ids) + 1

        await eventually(all_wait)
        self._may_go_on.set()


async def is_settled(house: House, name: str) -> bool:
    state = await house.queue(name)
    return state.ready == 0 and state.unacked == 0 and state.dead == 0


TEN = [f"task-{number}" for number in range(10)]


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


@pytest.mark.parametrize("remember", [True, False])
async def test_one_bad_event_in_a_group_of_many_fails_alone(house: House, remember: bool) -> None:
    calls = Calls()

    @consumer(batch=100, attempts=2, concurrency=1, remember=remember)
    async def archive(batch: Batch) -> None:
        if "task-5" in await calls.note(batch):
            raise ValueError("no bucket")

    async with house.working(archive) as transport:
        await calls.form_group(house, transport, archive, TEN)
        await eventually(lambda: _has_letters(house, 1))
        await eventually(lambda: is_settled(house, "archive"))

    (letter,) = await list_dead_letters(house.store)
    assert (letter.reason, letter.attempts) == ("ValueError: no bucket", 2)
    # In the group, then alone; the bad one once more, as its second attempt. The group is not counted as one.
    seen = Counter({(task_id, 1): 2 for task_id in TEN}) + Counter([("first", 1), ("task-5", 2)])
    assert calls.attempts == seen
    assert all(len(group) == 1 for group in calls.groups[2:])


async def _hang(_: Sequence[str]) -> None:
    await asyncio.Event().wait()


async def _raise_drop(_: Sequence[str]) -> None:
    raise Drop("all of it")


async def _return_text(_: Sequence[str]) -> str:
    return "done"


async def _return_too_few(_: Sequence[str]) -> list[Outcome]:
    return [Ack()]


async def _return_something_else_in_it(task_ids: Sequence[str]) -> list[Any]:
    return [None for _ in task_ids]


@pytest.mark.parametrize(
    "behave",
    [_hang, _raise_drop, _return_text, _return_too_few, _return_something_else_in_it],
    ids=lambda f: f.__name__,
)
async def test_a_group_that_fails_as_a_whole_is_run_one_by_one(house: House, behave: Any) -> None:
    calls = Calls()

    @consumer(batch=100, timeout_s=0.3, concurrency=1)
    async def archive(batch: Batch) -> Any:
        task_ids = await calls.note(batch)
        return await behave(task_ids) if len(batch) > 1 else None

    calls._may_go_on.set()
    async with house.transport([archive]) as transport:
        for task_id in ["first", *TEN]:
            await transport.send("archive", started(task_id))
    async with house.working(archive):
        await eventually(lambda: len(calls.groups) == 12)
        await eventually(lambda: is_settled(house, "archive"))

    assert [len(group) for group in calls.groups] == [1, 10, *[1] * 10]
    assert set(calls.attempts) == {(task_id, 1) for task_id in ["first", *TEN]}
    assert await list_dead_letters(house.store) == []


async def test_a_group_that_took_too_long_to_run_again_alone_takes_the_ladder(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls()
    monkeypatch.setattr("workers.execution.SETTLED_WITHIN_S", 0.5)

    @consumer(batch=100, attempts=2, timeout_s=0.3, concurrency=1)
    async def archive(batch: Batch) -> None:
        if "task-1" in await calls.note(batch):
            await asyncio.Event().wait()

    calls._may_go_on.set()
    async with house.transport([archive]) as transport:
        for task_id in ["first", *TEN]:
            await transport.send("archive", started(task_id))
    async with house.working(archive):
        await eventually(lambda: _has_letters(house, 1))
        await eventually(lambda: is_settled(house, "archive"))

    # Nobody was held on to for longer, and nobody lost an attempt but by running out of time.
    assert {letter.reason for letter in await list_dead_letters(house.store)} == {"no answer within 0.3 s"}
    assert {task_id for group in calls.groups for task_id in group} == {"first", *TEN}
    assert calls.attempts["task-2", 2] == 1


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
        await eventually(lambda: _has_letters(house, 10))


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
        await eventually(lambda: _has_events(house, 10))

    for task_id in TEN:
        (recording,) = await find_recordings(house.store, task_id)
        assert len(recording.events) == 1


async def test_a_group_that_is_interrupted_is_handed_back_as_it_was(house: House) -> None:
    calls = Calls()

    @consumer(batch=5, concurrency=1)
    async def archive(batch: Batch) -> None:
        await calls.note(batch)
        await asyncio.Event().wait()

    async with house.transport([archive]) as transport:
        for task_id in TEN:
            await transport.send("archive", started(task_id))
    async with house.working(archive, drain_grace_s=0.1):
        await eventually(lambda: len(calls.groups) == 1)

    crashes: list[int] = []
    async with house.transport() as transport:
        subscription = transport.subscribe(
            archive.queues, lambda delivery: crashes.append(delivery.crashes), prefetch=20
        )
        async with subscription:
            await eventually(lambda: len(crashes) == 10)
    assert crashes == [0] * 10

    again = Calls()

    @consumer(batch=5, concurrency=1)
    async def archive_again(batch: Batch) -> None:
        await again.note(batch)

    async with house.working(structs.replace(archive_again, name="archive")):
        # Their leases were given back too.
        await eventually(lambda: sorted(again.handled) == TEN)
    assert set(again.attempts) == {(task_id, 1) for task_id in TEN}


async def test_a_store_that_is_away_costs_a_group_no_attempt(house: House) -> None:
    calls = Calls()

    @consumer(batch=100, concurrency=1)
    async def archive(batch: Batch) -> None:
        await calls.note(batch)
        if len(calls.groups) in (2, 3):
            raise StoreUnavailableError("away")

    async with house.working(archive) as transport:
        await calls.form_group(house, transport, archive, TEN)
        await eventually(lambda: is_settled(house, "archive"))

    assert set(calls.attempts) == {(task_id, 1) for task_id in ["first", *TEN]}
    assert await list_dead_letters(house.store) == []


async def test_a_delivery_that_crashed_often_is_a_group_of_its_own_with_nothing_beside_it(house: House) -> None:
    calls = Calls()
    running = 0
    beside: dict[str, int] = {}

    @consumer(batch=100)
    async def archive(batch: Batch) -> None:
        nonlocal running
        running += len(batch)
        await calls.note(batch)
        await asyncio.sleep(0.05)
        beside.update({event.task_id: running for event, _ in batch})
        running -= len(batch)

    async with house.transport([archive]) as transport:
        for task_id in TEN:
            await transport.send("archive", started(task_id))
        for number in range(3):
            await transport.send("archive", structs.replace(started(f"suspect-{number}"), crashes=3))
        await transport.send("archive", structs.replace(started("fatal"), crashes=6))
    async with house.working(archive):
        await eventually(lambda: len(beside) == 13)
        await eventually(lambda: _has_letters(house, 1))

    assert {beside[f"suspect-{number}"] for number in range(3)} == {1}
    assert "fatal" not in calls.handled
    assert (await list_dead_letters(house.store))[0].reason == "worker crashed"


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


async def test_retries_of_a_group_are_published_at_once_and_not_one_after_the_other(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, most = 0, 0
    all_wait = asyncio.Event()
    publish = EmbeddedTransport.retry

    async def retry(self: EmbeddedTransport, *args: Any, **kwargs: Any) -> None:
        nonlocal waiting, most
        waiting += 1
        most = max(most, waiting)
        if most == len(TEN):
            all_wait.set()
        async with asyncio.timeout(10):
            await all_wait.wait()
        waiting -= 1
        await publish(self, *args, **kwargs)

    monkeypatch.setattr(EmbeddedTransport, "retry", retry)
    calls = Calls()

    @consumer(batch=100, concurrency=1)
    async def archive(batch: Batch) -> list[Outcome]:
        await calls.note(batch)
        return [Retry() if ctx.attempt == 1 and event.task_id != "first" else Ack() for event, ctx in batch]

    async with house.working(archive) as transport:
        await calls.form_group(house, transport, archive, TEN)
        await eventually(lambda: all(calls.attempts[task_id, 2] == 1 for task_id in TEN))

    assert most == len(TEN)


async def _has_letters(house: House, count: int) -> bool:
    return len(await list_dead_letters(house.store)) >= count


async def _has_events(house: House, count: int) -> bool:
    return await count_events(house.store) == count
