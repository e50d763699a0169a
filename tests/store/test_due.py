"""Durable work of one kind, notices, stands for all: what is claimed, by whom, and in which order."""

import asyncio
from typing import Any

from sqlalchemy import select, update

from store import (
    Notice,
    Store,
    add_notices,
    claim_due,
    count_due,
    finish,
    finish_all,
    next_due_in_s,
    notices,
    postpone,
)


async def add(store: Store, *, count: int = 1, after_s: float = 0.0, channel: str = "c") -> None:
    """Add work `0`, `1` ... of which the last has the first deadline."""
    made = [
        Notice(
            notice_id=str(number),
            channel=channel,
            rule="r",
            severity="s",
            after_s=after_s,
            expires_after_s=1000 - number,
        )
        for number in range(count)
    ]
    assert await add_notices(store, made) == count


async def claimed(store: Store, *, limit: int = 100, lease_s: float = 60.0, lease_holder: str = "h") -> list[str]:
    rows = await claim_due(store, notices, lease_holder=lease_holder, lease_s=lease_s, limit=limit)
    return [row["notice_id"] for row in rows]


async def rows_of(store: Store) -> list[Any]:
    async with store.reading() as connection:
        return [*(await connection.execute(select(notices).order_by(notices.c.notice_id))).all()]


async def pass_time(store: Store, by_s: float) -> None:
    """Let everything have happened earlier."""
    columns = (notices.c.due_at_us, notices.c.leased_until_us, notices.c.deadline_at_us)
    earlier = {column.name: column - round(by_s * 1_000_000) for column in columns}
    async with store.writing() as connection:
        await connection.execute(update(notices).values(earlier))


async def test_what_is_due_is_claimed_once_in_the_order_of_its_deadline(store: Store) -> None:
    await add(store, count=12)
    ids = [str(number) for number in reversed(range(12))]
    assert await claimed(store, limit=5) == ids[:5]
    assert await claimed(store, limit=5, lease_holder="other") == ids[5:10]
    assert await claimed(store) == ids[10:]
    assert await claimed(store) == []


async def test_of_many_claimers_at_once_no_two_get_one_row(store: Store) -> None:
    await add(store, count=100)
    together: list[str] = []

    async def claim_all(lease_holder: str) -> None:
        async with Store(store.url) as own:
            while part := await claimed(own, limit=7, lease_holder=lease_holder):
                together.extend(part)
                if len(together) % 2:
                    await finish_all(own, notices, [(one,) for one in part], lease_holder=lease_holder)

    await asyncio.gather(*(claim_all(f"holder-{number}") for number in range(4)))
    # Every row is asked for until there is none: on PostgreSQL a claim passes over what another is just claiming.
    assert sorted(together) == sorted(str(number) for number in range(100))


async def test_a_lease_that_has_run_out_is_taken_over_and_the_lost_one_changes_nothing(store: Store) -> None:
    await add(store)
    assert await claimed(store, lease_holder="slow", lease_s=5) == ["0"]
    assert await claimed(store, lease_holder="next") == []
    await pass_time(store, 6)
    (row,) = await claim_due(store, notices, lease_holder="next", lease_s=5, limit=1)
    assert (row["attempts"], row["lease_holder"]) == (2, "next")

    before = await rows_of(store)
    assert not await postpone(store, notices, ("0",), lease_holder="slow", after_s=0, detail="slow")
    assert not await finish(store, notices, ("0",), lease_holder="slow", detail="slow")
    assert await rows_of(store) == before

    assert await finish(store, notices, ("0",), lease_holder="next", detail="next")
    (done,) = await rows_of(store)
    assert (done.state, done.lease_holder, done.leased_until_us, done.detail) == ("done", None, None, "next")
    assert not await finish(store, notices, ("0",), lease_holder="next")
    await pass_time(store, 1000)
    assert await claimed(store) == []


async def test_a_lease_that_has_run_out_is_still_the_holders_until_another_takes_it(store: Store) -> None:
    await add(store)
    await claimed(store, lease_holder="slow", lease_s=5)
    await pass_time(store, 6)
    assert await finish(store, notices, ("0",), lease_holder="slow")


async def test_what_is_postponed_is_due_again_then(store: Store) -> None:
    await add(store)
    await claimed(store)
    assert await postpone(store, notices, ("0",), lease_holder="h", after_s=30, detail="later")
    assert await claimed(store) == []
    assert 29 < (await next_due_in_s(store, notices) or 0) <= 30
    await pass_time(store, 31)
    (row,) = await claim_due(store, notices, lease_holder="h", lease_s=60, limit=1)
    assert (row["attempts"], row["detail"]) == (2, "later")


async def test_what_somebody_wants_sooner_meanwhile_is_due_then_although_it_is_postponed_or_finished(
    store: Store,
) -> None:
    await add(store, count=2)
    await claimed(store)
    async with store.writing() as connection:
        await connection.execute(update(notices).values(due_at_us=notices.c.due_at_us - 60_000_000))
    # But nobody gets it while it has a holder.
    assert await claimed(store, lease_holder="other") == []
    assert 59 < (await next_due_in_s(store, notices) or 0) <= 60
    assert await postpone(store, notices, ("0",), lease_holder="h", after_s=1000)
    assert await finish(store, notices, ("1",), lease_holder="h")
    assert await claimed(store, lease_holder="other") == ["1", "0"]


async def test_what_waits_is_counted_and_the_next_is_foretold(store: Store) -> None:
    assert await next_due_in_s(store, notices) is None
    assert await count_due(store, notices) == await count_due(store, notices, notices.c.channel == "other")
    await add(store, count=3, after_s=100)
    assert 99 < (await next_due_in_s(store, notices) or 0) <= 100
    assert (await count_due(store, notices)).due == 0
    await pass_time(store, 130)
    assert await next_due_in_s(store, notices) == 0
    assert await next_due_in_s(store, notices, notices.c.channel == "other") is None
    counts = await count_due(store, notices)
    assert counts.due == 3
    assert 30 <= counts.overdue_s < 90
    await claimed(store, limit=1)
    assert (await count_due(store, notices)).due == 2
    await claimed(store)
    assert await count_due(store, notices) == await count_due(store, notices, notices.c.channel == "other")


async def test_only_rows_that_come_into_question_are_claimed_and_get_the_values(store: Store) -> None:
    await add(store, count=2)
    rows = await claim_due(
        store, notices, notices.c.notice_id == "0", lease_holder="h", lease_s=60, limit=9, severity="claimed"
    )
    assert [(row["notice_id"], row["severity"]) for row in rows] == [("0", "claimed")]
    assert [row.severity for row in await rows_of(store)] == ["claimed", "s"]
    assert rows[0]["leased_until_us"] == rows[0]["claimed_at_us"] + 60_000_000
