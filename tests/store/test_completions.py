import asyncio
import random
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import func, select, update

from store import (
    Claim,
    OverdueDelivery,
    Store,
    claim,
    complete,
    forget,
    list_overdue,
    prune_completions,
    release,
    renew,
    report_overdue,
)
from store.tables import completions, overdue_deliveries

DAY_US = 86_400 * 1_000_000


@pytest.fixture(params=["direct", "careful"])
async def store(request: pytest.FixtureRequest, store_url: str) -> AsyncIterator[Store]:
    """Give an empty store with its tables, of each kind and with each way into it in turn."""
    async with Store(store_url, is_direct=request.param == "direct") as store:
        yield store


async def ask(
    store: Store, lease_holder: str, *, consumer: str = "c", event_id: str = "e", lease_s: float = 60.0
) -> Claim:
    claims = await claim(store, consumer=consumer, event_ids=[event_id], lease_holder=lease_holder, lease_s=lease_s)
    return claims[event_id]


async def done(store: Store, lease_holder: str, *, consumer: str = "c", event_id: str = "e") -> None:
    await complete(store, consumer=consumer, event_ids=[event_id], lease_holder=lease_holder)


async def test_one_owner_at_a_time_handles_an_event(store: Store) -> None:
    assert await ask(store, "one") is Claim.CLAIMED
    assert await ask(store, "other") is Claim.LEASED
    assert await ask(store, "one") is Claim.CLAIMED


async def test_a_completed_event_is_not_claimed_again_by_anybody(store: Store) -> None:
    await ask(store, "one")
    await done(store, "one")
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
    await release(store, consumer="c", event_ids=["e"], lease_holder="other")
    assert await ask(store, "other") is Claim.LEASED
    await release(store, consumer="c", event_ids=["e"], lease_holder="one")
    assert await ask(store, "other") is Claim.CLAIMED


async def test_a_completion_is_not_released(store: Store) -> None:
    await done(store, "one")
    await release(store, consumer="c", event_ids=["e"], lease_holder="one")
    assert await ask(store, "other") is Claim.COMPLETED


async def test_a_completion_counts_even_if_the_lease_was_lost(store: Store) -> None:
    await ask(store, "one", lease_s=0)
    await ask(store, "other")
    await done(store, "one")
    assert await ask(store, "third") is Claim.COMPLETED


async def test_the_first_completion_stays(store: Store) -> None:
    await done(store, "one")
    async with store.reading() as connection:
        first = (await connection.execute(select(completions))).one()
    await done(store, "other")
    async with store.reading() as connection:
        assert (await connection.execute(select(completions))).one() == first


async def test_renewing_keeps_the_owners_unfinished_leases_alone(store: Store) -> None:
    await ask(store, "one", lease_s=0)
    await ask(store, "one", event_id="f", lease_s=0)
    await ask(store, "other", event_id="g", lease_s=0)
    await ask(store, "one", event_id="h")
    await done(store, "one", event_id="h")
    await renew(store, lease_holder="one", lease_s=60)
    assert await ask(store, "third") is Claim.LEASED
    assert await ask(store, "third", event_id="f") is Claim.LEASED
    assert await ask(store, "third", event_id="g") is Claim.CLAIMED
    assert await ask(store, "third", event_id="h") is Claim.COMPLETED


async def test_forgetting_lets_an_event_be_handled_again_but_ends_no_lease(store: Store) -> None:
    await done(store, "one")
    await done(store, "one", consumer="d")
    await ask(store, "one", event_id="f")
    assert await forget(store, consumer="c", event_ids=["e", "f", "absent"]) == 1
    assert await ask(store, "other") is Claim.CLAIMED
    assert await ask(store, "other", consumer="d") is Claim.COMPLETED
    assert await ask(store, "other", event_id="f") is Claim.LEASED


async def test_pruning_deletes_what_is_old_and_nothing_else(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.completions.PRUNED_AT_ONCE", 2)
    for number in range(5):
        await done(store, "one", consumer="old", event_id=str(number))
        await ask(store, "one", consumer="expired", event_id=str(number))
    async with store.writing() as connection:
        await connection.execute(
            update(completions).values(
                completed_at_us=completions.c.completed_at_us - 8 * DAY_US,
                leased_until_us=completions.c.leased_until_us - 8 * DAY_US,
            )
        )
    await done(store, "one", consumer="new")
    await ask(store, "one", consumer="running")
    assert await prune_completions(store) == 10
    async with store.reading() as connection:
        assert set((await connection.execute(select(completions.c.consumer))).scalars()) == {"new", "running"}
    assert await prune_completions(store, older_than_s=-1) == 1


async def test_of_many_at_once_one_gets_the_event(store: Store) -> None:
    for number in range(10):
        claims = await asyncio.gather(*(ask(store, f"holder-{n}", event_id=str(number)) for n in range(10)))
        assert sorted(claims) == [Claim.CLAIMED, *[Claim.LEASED] * 9]


async def test_of_many_at_once_one_takes_over_a_lease_that_ran_out(store: Store) -> None:
    for number in range(10):
        await ask(store, "gone", event_id=str(number), lease_s=0)
        claims = await asyncio.gather(*(ask(store, f"holder-{n}", event_id=str(number)) for n in range(10)))
        assert sorted(claims) == [Claim.CLAIMED, *[Claim.LEASED] * 9]


async def test_handling_at_once_happens_once(store: Store) -> None:
    handled: list[str] = []

    async def deliver(lease_holder: str, event_id: str) -> None:
        while True:
            claimed = await ask(store, lease_holder, event_id=event_id)
            if claimed is Claim.COMPLETED:
                return
            if claimed is Claim.CLAIMED:
                handled.append(event_id)
                await done(store, lease_holder, event_id=event_id)
                return
            await asyncio.sleep(0.001)

    await asyncio.gather(
        *(deliver(f"holder-{lease_holder}", str(number)) for number in range(5) for lease_holder in range(6))
    )
    assert sorted(handled) == ["0", "1", "2", "3", "4"]
    async with store.reading() as connection:
        assert (await connection.execute(select(func.count()).select_from(completions))).scalar_one() == 5


async def test_of_a_group_each_event_gets_its_own_answer(store: Store) -> None:
    await ask(store, "other", event_id="leased")
    await ask(store, "one", event_id="mine")
    await ask(store, "gone", event_id="run out", lease_s=0)
    await done(store, "other", event_id="completed")
    group = ["new", "leased", "mine", "run out", "completed", "new"]
    assert await claim(store, consumer="c", event_ids=group, lease_holder="one", lease_s=60) == {
        "new": Claim.CLAIMED,
        "leased": Claim.LEASED,
        "mine": Claim.CLAIMED,
        "run out": Claim.CLAIMED,
        "completed": Claim.COMPLETED,
    }


async def test_a_group_is_completed_as_a_whole_and_again_without_harm(store: Store) -> None:
    await claim(store, consumer="c", event_ids=["1", "2"], lease_holder="one", lease_s=60)
    await complete(store, consumer="c", event_ids=["1", "2", "3", "3"], lease_holder="one")
    await complete(store, consumer="c", event_ids=["1", "2", "3"], lease_holder="other")
    claims = await claim(store, consumer="c", event_ids=["1", "2", "3", "4"], lease_holder="one", lease_s=60)
    assert claims == dict.fromkeys("123", Claim.COMPLETED) | {"4": Claim.CLAIMED}


async def test_of_a_group_only_the_owners_unfinished_leases_are_released(store: Store) -> None:
    await claim(store, consumer="c", event_ids=["1", "2"], lease_holder="one", lease_s=60)
    await ask(store, "other", event_id="3")
    await done(store, "one", event_id="4")
    await release(store, consumer="c", event_ids=["1", "3", "4", "absent"], lease_holder="one")
    claims = await claim(store, consumer="c", event_ids=["1", "2", "3", "4"], lease_holder="third", lease_s=60)
    assert claims == {"1": Claim.CLAIMED, "2": Claim.LEASED, "3": Claim.LEASED, "4": Claim.COMPLETED}


async def test_an_empty_group_is_nothing(store: Store) -> None:
    assert await claim(store, consumer="c", event_ids=[], lease_holder="one", lease_s=60) == {}
    await complete(store, consumer="c", event_ids=[], lease_holder="one")
    await release(store, consumer="c", event_ids=[], lease_holder="one")


async def test_more_events_than_a_statement_takes_values_are_one_group(store: Store) -> None:
    group = [f"{number:032x}" for number in range(40_000)]
    claims = await claim(store, consumer="c", event_ids=group, lease_holder="one", lease_s=60)
    assert set(claims.values()) == {Claim.CLAIMED}
    await complete(store, consumer="c", event_ids=group, lease_holder="one")
    async with store.reading() as connection:
        assert (await connection.execute(select(func.count(completions.c.completed_at_us)))).scalar_one() == 40_000


async def test_groups_in_each_others_way_come_to_an_end_and_each_event_is_handled_once(store: Store) -> None:
    handled: list[str] = []

    async def work(lease_holder: str, seed: int) -> None:
        order = random.Random(seed)
        waiting = [str(number) for number in range(12)]
        while waiting:
            group = order.sample(waiting, min(len(waiting), order.randint(1, 12)))
            claims = await claim(store, consumer="c", event_ids=group, lease_holder=lease_holder, lease_s=60)
            mine = [event_id for event_id in group if claims[event_id] is Claim.CLAIMED]
            done_here, given_back = mine[::2], mine[1::2]
            handled.extend(done_here)
            await complete(store, consumer="c", event_ids=done_here, lease_holder=lease_holder)
            await release(store, consumer="c", event_ids=given_back, lease_holder=lease_holder)
            finished = {*done_here, *(event_id for event_id in group if claims[event_id] is Claim.COMPLETED)}
            waiting = [event_id for event_id in waiting if event_id not in finished]

    async with asyncio.timeout(60):
        await asyncio.gather(*(work(f"holder-{number}", number) for number in range(6)))
    assert sorted(handled) == sorted(str(number) for number in range(12))


def overdue(event_id: str, *, lease_holder: str = "one", unsettled_s: float = 100.0) -> OverdueDelivery:
    return OverdueDelivery(consumer="c", event_id=event_id, lease_holder=lease_holder, unsettled_s=unsettled_s)


async def overdue_events(store: Store) -> list[str]:
    return [one.event_id for one in await list_overdue(store)]


async def test_overdue_deliveries_are_those_that_each_worker_named_last_the_oldest_first(store: Store) -> None:
    await report_overdue(store, [overdue("a"), overdue("b", unsettled_s=200)], lease_holder="one")
    await report_overdue(store, [overdue("c", lease_holder="other", unsettled_s=150)], lease_holder="other")
    assert await overdue_events(store) == ["b", "c", "a"]
    (oldest, *_) = await list_overdue(store)
    assert (oldest.consumer, oldest.lease_holder) == ("c", "one")
    assert 200 <= oldest.unsettled_s < 260
    await report_overdue(store, [overdue("a", unsettled_s=115)], lease_holder="one")
    assert await overdue_events(store) == ["c", "a"]
    await report_overdue(store, [], lease_holder="one")
    assert await overdue_events(store) == ["c"]


async def test_what_a_worker_does_not_repeat_is_overdue_no_more_and_forgotten_in_the_end(store: Store) -> None:
    await report_overdue(store, [overdue("a")], lease_holder="one")
    columns = overdue_deliveries.c

    async def grow_older(by_s: int) -> None:
        async with store.writing() as connection:
            await connection.execute(
                update(overdue_deliveries).values(seen_at_us=columns.seen_at_us - by_s * 1_000_000)
            )

    await grow_older(61)
    assert await overdue_events(store) == []
    await grow_older(600)
    await report_overdue(store, [], lease_holder="other")
    async with store.reading() as connection:
        assert (await connection.execute(select(func.count()).select_from(overdue_deliveries))).scalar_one() == 0
