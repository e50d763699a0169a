"""A group that fails, is interrupted or loses its store costs no event more than it must."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec import structs

from broker.embedded.transport import EmbeddedTransport
from store import StoreUnavailableError, list_dead_letters
from tests.workers.house import TEN, Batch, Calls, House, eventually, has_letters, is_settled, started
from workers import Ack, Drop, Outcome, Retry, consumer


@pytest.mark.parametrize("remember", [True, False])
async def test_one_bad_event_in_a_group_of_many_fails_alone(house: House, remember: bool) -> None:
    calls = Calls()

    @consumer(batch=100, attempts=2, concurrency=1, remember=remember)
    async def archive(batch: Batch) -> None:
        if "task-5" in await calls.note(batch):
            raise ValueError("no bucket")

    async with house.working(archive) as transport:
        await calls.form_group(house, transport, archive, TEN)
        await eventually(lambda: has_letters(house, 1))
        await eventually(lambda: is_settled(house, "archive"))

    (letter,) = await list_dead_letters(house.store)
    assert (letter.reason, letter.attempts) == ("ValueError: no bucket", 2)
    assert letter.traceback.endswith("ValueError: no bucket")
    # In the group, then alone; the bad one once more, as its second attempt. The group is not counted as one.
    seen = Counter({(task_id, 1): 2 for task_id in TEN}) + Counter([("first", 1), ("task-5", 2)])
    assert calls.attempts == seen
    assert all(len(group) == 1 for group in calls.groups[2:])


async def has_dead_letters(house: House) -> bool:
    return bool(await list_dead_letters(house.store))


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

    def has_tried_again(task_id: str) -> bool:
        return calls.attempts[task_id, 2] > 0

    calls._may_go_on.set()
    async with house.transport([archive]) as transport:
        for task_id in ["first", *TEN]:
            await transport.send("archive", started(task_id))
    async with house.working(archive):
        # They come back one by one or, on a busy machine, together: then task-1 lets all of them run out of time again.
        await eventually(lambda: has_tried_again("task-2") and has_tried_again("task-1"))
        await eventually(lambda: has_dead_letters(house))
        await eventually(lambda: is_settled(house, "archive"))

    # Nobody was held on to for longer, and nobody lost an attempt but by running out of time.
    assert {letter.reason for letter in await list_dead_letters(house.store)} == {"no answer within 0.3 s"}
    assert {task_id for group in calls.groups for task_id in group} == {"first", *TEN}
    assert calls.attempts["task-2", 2] == 1


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
        # Their leases were released too.
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
        await eventually(lambda: has_letters(house, 1))

    assert {beside[f"suspect-{number}"] for number in range(3)} == {1}
    assert "fatal" not in calls.handled
    assert (await list_dead_letters(house.store))[0].reason == "worker crashed"


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
