import asyncio

import pytest
from sqlalchemy import func, select, update

from store import Claim, Store, claim, complete, forget, prune_completions, release, renew
from store.tables import completions

DAY_US = 86_400 * 1_000_000


async def ask(store: Store, owner: str, *, consumer: str = "c", event_id: str = "e", lease_s: float = 60.0) -> Claim:
    return await claim(store, consumer=consumer, event_id=event_id, owner=owner, lease_s=lease_s)


async def test_one_owner_at_a_time_handles_an_event(store: Store) -> None:
    assert await ask(store, "one") is Claim.CLAIMED
    assert await ask(store, "other") is Claim.LEASED
    assert await ask(store, "one") is Claim.CLAIMED


async def test_a_completed_event_is_not_claimed_again_by_anybody(store: Store) -> None:
    await ask(store, "one")
    await complete(store, consumer="c", event_id="e", owner="one")
    assert await ask(store, "one") is Claim.COMPLETED
    assert await ask(store, "other") is Claim.COMPLETED


async def test_consumers_and_events_do_not_share_claims(store: Store) -> None:
    assert await ask(store, "one") is Claim.CLAIMED
    assert await ask(store, "other", consumer="d") is Claim.CLAIMED
    assert await ask(store, "other", event_id="f") is Claim.CLAIMED


async def test_a_lease_that_ran_out_is_taken_over(store: Store) -> None:
    assert await ask(store, "one", lease_s=0) is Claim.CLAIMED
    assert await ask(store, "other") is Claim.CLAIMED
    assert await ask(store, "one") is Claim.LEASED


async def test_a_released_lease_is_free_and_a_lost_one_is_not_released(store: Store) -> None:
    await ask(store, "one")
    await release(store, consumer="c", event_id="e", owner="other")
    assert await ask(store, "other") is Claim.LEASED
    await release(store, consumer="c", event_id="e", owner="one")
    assert await ask(store, "other") is Claim.CLAIMED


async def test_a_completion_is_not_released(store: Store) -> None:
    await complete(store, consumer="c", event_id="e", owner="one")
    await release(store, consumer="c", event_id="e", owner="one")
    assert await ask(store, "other") is Claim.COMPLETED


async def test_a_completion_counts_even_if_the_lease_was_lost(store: Store) -> None:
    await ask(store, "one", lease_s=0)
    await ask(store, "other")
    await complete(store, consumer="c", event_id="e", owner="one")
    assert await ask(store, "third") is Claim.COMPLETED


async def test_the_first_completion_stays(store: Store) -> None:
    await complete(store, consumer="c", event_id="e", owner="one")
    async with store.reading() as connection:
        first = (await connection.execute(select(completions))).one()
    await complete(store, consumer="c", event_id="e", owner="other")
    async with store.reading() as connection:
        assert (await connection.execute(select(completions))).one() == first


async def test_renewing_keeps_the_owners_unfinished_leases_alone(store: Store) -> None:
    await ask(store, "one", lease_s=0)
    await ask(store, "one", event_id="f", lease_s=0)
    await ask(store, "other", event_id="g", lease_s=0)
    await ask(store, "one", event_id="h")
    await complete(store, consumer="c", event_id="h", owner="one")
    await renew(store, owner="one", lease_s=60)
    assert await ask(store, "third") is Claim.LEASED
    assert await ask(store, "third", event_id="f") is Claim.LEASED
    assert await ask(store, "third", event_id="g") is Claim.CLAIMED
    assert await ask(store, "third", event_id="h") is Claim.COMPLETED


async def test_forgetting_lets_an_event_be_handled_again_but_ends_no_lease(store: Store) -> None:
    await complete(store, consumer="c", event_id="e", owner="one")
    await complete(store, consumer="d", event_id="e", owner="one")
    await ask(store, "one", event_id="f")
    assert await forget(store, consumer="c", event_ids=["e", "f", "absent"]) == 1
    assert await ask(store, "other") is Claim.CLAIMED
    assert await ask(store, "other", consumer="d") is Claim.COMPLETED
    assert await ask(store, "other", event_id="f") is Claim.LEASED


async def test_pruning_deletes_what_is_old_and_nothing_else(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.completions.PRUNED_AT_ONCE", 2)
    for number in range(5):
        await complete(store, consumer="old", event_id=str(number), owner="one")
        await ask(store, "one", consumer="expired", event_id=str(number))
    async with store.writing() as connection:
        await connection.execute(
            update(completions).values(
                completed_at_us=completions.c.completed_at_us - 8 * DAY_US,
                leased_until_us=completions.c.leased_until_us - 8 * DAY_US,
            )
        )
    await complete(store, consumer="new", event_id="e", owner="one")
    await ask(store, "one", consumer="running")
    assert await prune_completions(store) == 10
    async with store.reading() as connection:
        assert set((await connection.execute(select(completions.c.consumer))).scalars()) == {"new", "running"}
    assert await prune_completions(store, older_than_s=-1) == 1


async def test_of_many_at_once_one_gets_the_event(store: Store) -> None:
    for number in range(10):
        claims = await asyncio.gather(*(ask(store, f"owner-{n}", event_id=str(number)) for n in range(10)))
        assert sorted(claims) == [Claim.CLAIMED, *[Claim.LEASED] * 9]


async def test_of_many_at_once_one_takes_over_a_lease_that_ran_out(store: Store) -> None:
    for number in range(10):
        await ask(store, "gone", event_id=str(number), lease_s=0)
        claims = await asyncio.gather(*(ask(store, f"owner-{n}", event_id=str(number)) for n in range(10)))
        assert sorted(claims) == [Claim.CLAIMED, *[Claim.LEASED] * 9]


async def test_handling_at_once_happens_once(store: Store) -> None:
    handled: list[str] = []

    async def deliver(owner: str, event_id: str) -> None:
        while True:
            claimed = await ask(store, owner, event_id=event_id)
            if claimed is Claim.COMPLETED:
                return
            if claimed is Claim.CLAIMED:
                handled.append(event_id)
                await complete(store, consumer="c", event_id=event_id, owner=owner)
                return
            await asyncio.sleep(0.001)

    await asyncio.gather(*(deliver(f"owner-{owner}", str(number)) for number in range(5) for owner in range(6)))
    assert sorted(handled) == ["0", "1", "2", "3", "4"]
    async with store.reading() as connection:
        assert (await connection.execute(select(func.count()).select_from(completions))).scalar_one() == 5
