"""Group: what comes while an operation runs is the next group."""

import asyncio

import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.workers.house import eventually
from workers.job import Group


class Operation:
    """Notes its groups; each of them lasts until `go_on`."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.go_on = asyncio.Event()

    async def __call__(self, group: list[int]) -> None:
        self.groups.append(group)
        await self.go_on.wait()


async def test_a_single_item_waits_for_no_other() -> None:
    operation = Operation()
    async with Group(operation, name="test") as gathering:
        gathering.add(1)
        await eventually(lambda: operation.groups == [[1]])


async def test_what_comes_while_an_operation_runs_is_the_next_group() -> None:
    operation = Operation()
    async with Group(operation, name="test", at_most=3) as gathering:
        gathering.add(1)
        await eventually(lambda: operation.groups == [[1]])
        for item in (2, 3, 4, 5):
            gathering.add(item)
        assert not gathering.is_idle
        operation.go_on.set()
        await eventually(lambda: gathering.is_idle)

    assert operation.groups == [[1], [2, 3, 4], [5]]


async def test_an_operation_that_fails_is_logged_and_does_not_hold_up_the_next() -> None:
    done: list[int] = []

    async def operate(group: list[int]) -> None:
        if 1 in group:
            raise ValueError("a mistake")
        done.extend(group)

    with structlog.testing.capture_logs() as logs:
        async with Group(operate, name="test") as gathering:
            gathering.add(1)
            await eventually(lambda: bool(logs))
            gathering.add(2)
            await eventually(lambda: done == [2])

    assert [(entry["event"], entry["task"]) for entry in logs] == [("runner_failed", "test")]


@settings(max_examples=50, deadline=None)
@given(
    steps=st.lists(st.one_of(st.just("turn"), st.integers(1, 5)), max_size=30),
    turns=st.integers(0, 3),
    at_most=st.integers(1, 6),
)
def test_every_item_is_handed_over_once_in_the_order_it_came(steps: list[int | str], turns: int, at_most: int) -> None:
    async def check() -> None:
        groups: list[list[int]] = []
        added = 0

        async def operate(group: list[int]) -> None:
            groups.append(group)
            for _ in range(turns):
                await asyncio.sleep(0)

        async with Group(operate, name="test", at_most=at_most) as gathering:
            for step in steps:
                if isinstance(step, str):
                    await asyncio.sleep(0)
                    continue
                for _ in range(step):
                    gathering.add(added)
                    added += 1
            await eventually(lambda: gathering.is_idle)
        assert [item for group in groups for item in group] == list(range(added))
        assert all(1 <= len(group) <= at_most for group in groups)

    asyncio.run(check())
