"""A consumer that remembers: claims and completions of many events together, and never an ack before them."""

import asyncio
from collections import Counter
from collections.abc import Collection
from typing import Any

import pytest
from msgspec import structs

import workers.memory
from schemas import OnlineRecordStarted
from store import Claim, StoreUnavailableError, claim, list_dead_letters
from tests.workers.house import House, eventually, started
from workers import Consumer, Context, Retry, consumer
from workers.job import Disposition
from workers.memory import Claims
from workers.settling import Settler
from workers.store_watch import StoreWatch


class Counted:
    """Counts the transactions of one of the store's operations; `fails` makes some of them fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.groups: list[list[str]] = []
        self.bad: set[str] = set()
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()
        self._operation = getattr(workers.memory, name)
        monkeypatch.setattr(workers.memory, name, self)

    async def __call__(self, *args: Any, event_ids: Collection[str], **kwargs: Any) -> Any:
        self.groups.append(list(event_ids))
        await self.may_go_on.wait()
        if self.bad.intersection(event_ids):
            raise ValueError("an id that no database takes")
        return await self._operation(*args, event_ids=event_ids, **kwargs)


def noting(handled: Counter[str], *, concurrency: int = 50, attempts: int = 8) -> Consumer:
    @consumer(concurrency=concurrency, attempts=attempts)
    async def archive(event: OnlineRecordStarted, ctx: Context) -> None:
        handled[event.task_id] += 1

    return archive


async def test_many_events_are_claimed_and_completed_in_few_transactions(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims, completions = Counted(monkeypatch, "claim"), Counted(monkeypatch, "complete")
    handled: Counter[str] = Counter()
    archive = noting(handled)

    async with house.transport([archive]) as transport:
        await asyncio.gather(*(transport.send("archive", started(f"task-{number}")) for number in range(200)))
    async with house.working(archive):
        await eventually(lambda: is_settled(house))

    assert set(handled.values()) == {1}
    for counted in (claims, completions):
        assert sum(map(len, counted.groups)) == 200
        assert len(counted.groups) <= 50


async def test_an_event_is_acknowledged_only_when_its_completion_is_durable(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    completions = Counted(monkeypatch, "complete")
    completions.may_go_on.clear()
    handled: Counter[str] = Counter()
    archive = noting(handled)
    message = started()

    async with house.working(archive) as transport:
        await transport.publish(message)
        await eventually(lambda: len(completions.groups) == 1)
        await asyncio.sleep(0.1)
        assert (await house.queue("archive")).unacked == 1
        assert await ask(house, message.event_id) is Claim.LEASED
        completions.may_go_on.set()
        await eventually(lambda: is_settled(house))
    assert await ask(house, message.event_id) is Claim.COMPLETED


async def test_what_comes_while_completions_are_written_is_handled_meanwhile(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    completions = Counted(monkeypatch, "complete")
    completions.may_go_on.clear()
    handled: Counter[str] = Counter()

    async with house.working(noting(handled, concurrency=5)) as transport:
        for number in range(10):
            await transport.publish(started(f"task-{number}"))
            await eventually(lambda count=number + 1: sum(handled.values()) == count)  # type: ignore[misc]  # a lambda's default
        completions.may_go_on.set()
        await eventually(lambda: is_settled(house))

    assert [len(group) for group in completions.groups] == [1, 9]


@pytest.mark.parametrize("operation", ["claim", "complete"])
async def test_an_event_that_the_store_cannot_take_fails_alone(
    house: House, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    messages = [started(f"task-{number}") for number in range(20)]
    counted = Counted(monkeypatch, operation)
    counted.bad.add(messages[7].event_id)
    handled: Counter[str] = Counter()
    archive = noting(handled, attempts=2)

    async with house.transport([archive]) as transport:
        for message in messages:
            await transport.send("archive", message)
    async with house.working(archive):
        await eventually(lambda: _has_letter(house))
        await eventually(lambda: is_settled(house))

    (letter,) = await list_dead_letters(house.store)
    assert (letter.event_id, letter.reason) == (messages[7].event_id, "ValueError: an id that no database takes")
    assert all(handled[f"task-{number}"] == 1 for number in range(20) if number != 7)


async def test_the_lease_of_an_event_that_is_retried_is_given_back_first(house: House) -> None:
    owners: list[Claim] = []

    @consumer
    async def archive(event: OnlineRecordStarted, ctx: Context) -> None:
        if ctx.attempt == 1:
            raise Retry
        owners.append(await ask(house, ctx.event_id))

    async with house.working(archive) as transport:
        await transport.publish(started())
        await eventually(lambda: owners == [Claim.LEASED])
        await eventually(lambda: is_settled(house))


async def test_leases_of_what_is_handed_back_are_free_for_others(house: House) -> None:
    entered = asyncio.Event()

    @consumer(concurrency=2)
    async def archive(event: OnlineRecordStarted, ctx: Context) -> None:
        entered.set()
        await asyncio.Event().wait()

    messages = [started(f"task-{number}") for number in range(4)]
    async with house.transport([archive]) as transport:
        for message in messages:
            await transport.send("archive", message)
    async with house.working(archive, drain_grace_s=0.1):
        await entered.wait()

        async def all_here() -> bool:
            return (await house.queue("archive")).unacked == 4

        await eventually(all_here)

    for message in messages:
        assert await ask(house, message.event_id) is Claim.CLAIMED
    assert (await house.queue("archive")).ready == 4


async def test_a_lease_that_could_not_be_given_back_is_given_back_later(house: House) -> None:
    async with StoreWatch(house.store) as watch:
        memory = Claims("archive", store=house.store, store_watch=watch, lease_holder="here/ns/1/cd", lease_s=60)
        assert await memory.claim(["a", "b"]) == {"a": Claim.CLAIMED, "b": Claim.CLAIMED}
        watch.report_away()
        await memory.release(["a", "b"])
        # Taken again meanwhile: it is not given away under the handler.
        assert await memory.claim(["b"]) == {"b": Claim.CLAIMED}
        assert await ask(house, "a") is Claim.LEASED
        await watch.wait()
        await memory.release_owed()
    assert await ask(house, "a") is Claim.CLAIMED
    assert await ask(house, "b") is Claim.LEASED


async def test_a_worker_gives_back_what_it_owes_instead_of_renewing_it_for_ever(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed = asyncio.Event()

    # The claim is committed, but the connection is lost before that is known.
    async def commit_and_lose(*args: Any, **kwargs: Any) -> None:
        await claim(*args, **kwargs)
        monkeypatch.setattr(workers.memory, "claim", claim)
        claimed.set()
        raise StoreUnavailableError("the connection was lost")

    monkeypatch.setattr(workers.memory, "claim", commit_and_lose)
    # As if another worker got what is requeued: this one would simply take over its own lease.
    monkeypatch.setattr(Settler, "requeue", lambda settler, job: settler.ack(job, Disposition.DUPLICATE))
    message = started()
    async with house.working(noting(Counter()), lease_s=0.6) as transport:
        await transport.send("archive", message)
        await claimed.wait()

        async def is_free() -> bool:
            return await ask(house, message.event_id) is Claim.CLAIMED

        await eventually(is_free)


async def test_two_workers_at_the_same_events_handle_each_once(house: House) -> None:
    handled: Counter[str] = Counter()
    archive = noting(handled, concurrency=10)
    messages = [started(f"task-{number}") for number in range(100)]

    async with house.working(archive) as transport, house.working(structs.replace(archive, concurrency=3)):
        await asyncio.gather(*(transport.send("archive", message) for message in [*messages, *messages]))
        await eventually(lambda: is_settled(house))

    assert handled == Counter(f"task-{number}" for number in range(100))


async def ask(house: House, event_id: str) -> Claim:
    claims = await claim(
        house.store, consumer="archive", event_ids=[event_id], lease_holder="elsewhere/ns/1/ab", lease_s=60
    )
    return claims[event_id]


async def is_settled(house: House) -> bool:
    state = await house.queue("archive")
    return state.ready == 0 and state.unacked == 0 and state.dead == 0


async def _has_letter(house: House) -> bool:
    return len(await list_dead_letters(house.store)) == 1
