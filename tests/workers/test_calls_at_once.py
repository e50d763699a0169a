"""Slots: calls at once without a task for each, deadlines, and what a handler cannot leave behind for the next."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import OnlineRecordStarted
from tests.workers.house import eventually
from workers import Consumer
from workers.slots import Ending, Interruption, Slots

VARIABLE: ContextVar[str] = ContextVar("VARIABLE", default="clean")


class Desk:
    """Gives calls, of one argument each, to slots, and notes how each ended."""

    def __init__(self, handler: Callable[[Any], Any], *, concurrency: int = 3, timeout_s: float = 10) -> None:
        self.waiting: deque[Any] = deque()
        self.endings: list[tuple[Any, Ending]] = []
        self.slots = Slots[Any](
            Consumer(
                name="desk",
                function=handler,
                event_types=(OnlineRecordStarted,),
                concurrency=concurrency,
                timeout_s=timeout_s,
            ),
            take=lambda: self.waiting.popleft() if self.waiting else None,
            is_waiting=lambda: bool(self.waiting),
            arguments=lambda call: (call,),
            ended=lambda call, ending: self.endings.append((call, ending)),
        )

    def give(self, calls: Iterable[Any]) -> None:
        self.waiting.extend(calls)
        self.slots.wake()

    async def ended(self, count: int) -> dict[Any, Ending]:
        await eventually(lambda: len(self.endings) == count)
        return dict(self.endings)


async def test_many_calls_that_do_not_wait_take_no_task_each(monkeypatch: pytest.MonkeyPatch) -> None:
    made = 0
    loop = asyncio.get_running_loop()
    create_task = loop.create_task

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal made
        made += 1
        return create_task(*args, **kwargs)

    async def handler(call: int) -> int:
        return -call

    monkeypatch.setattr(loop, "create_task", counted)
    desk = Desk(handler)
    for start in range(1, 2001, 20):
        desk.give(range(start, start + 20))
        await asyncio.sleep(0)
    endings = await desk.ended(2000)
    monkeypatch.undo()
    await desk.slots.stop()

    assert {call: ending.result for call, ending in endings.items()} == {call: -call for call in range(1, 2001)}
    assert made <= 3


async def test_the_loop_turns_while_many_calls_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = 0
    now_s = 0.0

    async def handler(call: int) -> None:
        # Each call takes a millisecond of a clock of our own: how fast the machine is does not matter.
        nonlocal now_s
        now_s += 0.001

    monkeypatch.setattr("workers.slots.time", SimpleNamespace(monotonic=lambda: now_s))

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    desk = Desk(handler)
    turning = asyncio.create_task(turn())
    desk.give(range(1, 10_001))
    await desk.ended(10_000)
    turning.cancel()
    await desk.slots.stop()

    assert turns > 10


async def test_a_variable_that_a_handler_sets_is_not_seen_by_the_next() -> None:
    seen: list[str] = []

    async def handler(call: int) -> None:
        seen.append(VARIABLE.get())
        VARIABLE.set(f"set by {call}")
        if call % 2:
            await asyncio.sleep(0)
        assert VARIABLE.get() == f"set by {call}"

    desk = Desk(handler, concurrency=2)
    desk.give(range(1, 21))
    endings = await desk.ended(20)
    await desk.slots.stop()

    assert seen == ["clean"] * 20
    assert all(ending.error is None for ending in endings.values())


async def test_variables_that_were_set_before_are_seen_by_all() -> None:
    seen: list[str] = []

    async def handler(call: int) -> None:
        seen.append(VARIABLE.get())
        VARIABLE.set("changed")

    VARIABLE.set("from outside")
    desk = Desk(handler)
    desk.give([1, 2, 3])
    await desk.ended(3)
    await desk.slots.stop()

    assert seen == ["from outside"] * 3


async def test_a_variable_whose_values_cannot_be_compared_does_no_harm() -> None:
    class Array:
        def __eq__(self, other: object) -> bool:
            raise ValueError("ambiguous")

        __hash__ = None  # type: ignore[assignment]  # as arrays have it

    holder: ContextVar[Array] = ContextVar("holder")
    holder.set(Array())

    async def handler(call: int) -> None:
        holder.set(Array())

    desk = Desk(handler)
    desk.give([1, 2, 3])
    endings = await desk.ended(3)
    await desk.slots.stop()

    assert all(ending.error is None for ending in endings.values())


async def test_as_many_run_at_once_as_the_consumer_says_and_no_more() -> None:
    running, most = 0, 0
    go_on = asyncio.Event()

    async def handler(call: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await go_on.wait()
        running -= 1

    desk = Desk(handler, concurrency=3)
    desk.give(range(1, 11))
    await eventually(lambda: running == 3)
    assert desk.slots.running == 3
    go_on.set()
    await desk.ended(10)
    await desk.slots.stop()

    assert most == 3


async def test_each_call_has_its_whole_time() -> None:
    ended_after_s: dict[int, float] = {}
    loop = asyncio.get_running_loop()

    async def handler(call: int) -> None:
        began_s = loop.time()
        try:
            await asyncio.Event().wait()
        finally:
            ended_after_s[call] = loop.time() - began_s

    desk = Desk(handler, concurrency=3, timeout_s=0.2)
    for call in (1, 2, 3):
        desk.give([call])
        await asyncio.sleep(0.07)
    endings = await desk.ended(3)
    await desk.slots.stop()

    assert {ending.interruption for ending in endings.values()} == {Interruption.TIMED_OUT}
    assert min(ended_after_s.values()) >= 0.195


async def test_a_handler_left_behind_frees_its_slot() -> None:
    stubborn_may_end = asyncio.Event()
    said: list[str] = []

    async def handler(call: str) -> str:
        while call == "stubborn" and not stubborn_may_end.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await stubborn_may_end.wait()
        said.append(call)
        return call

    desk = Desk(handler, concurrency=1, timeout_s=0.05)
    desk.give(["stubborn", "next"])
    endings = await desk.ended(2)
    assert endings["stubborn"].is_left_behind
    assert endings["stubborn"].interruption is Interruption.TIMED_OUT
    assert endings["next"].result == "next"

    stubborn_may_end.set()
    await eventually(lambda: said == ["next", "stubborn"])
    assert len(desk.endings) == 2
    await desk.slots.stop()


@pytest.mark.parametrize("when", ["idle", "running"])
async def test_a_slot_that_somebody_else_cancels_is_replaced(when: str) -> None:
    tasks: list[asyncio.Task[Any] | None] = []

    async def handler(call: int) -> None:
        tasks.append(asyncio.current_task())
        if when == "running" and call == 1:
            await asyncio.Event().wait()

    desk = Desk(handler, concurrency=1)
    desk.give([1])
    await eventually(lambda: len(tasks) == 1)
    await asyncio.sleep(0)
    assert tasks[0] is not None
    tasks[0].cancel()
    desk.give([2, 3])
    endings = await desk.ended(3)
    await desk.slots.stop()

    assert isinstance(endings[1].error, asyncio.CancelledError) == (when == "running")
    assert (endings[2].error, endings[3].error) == (None, None)


async def test_stopping_interrupts_what_runs_and_says_so() -> None:
    async def handler(call: int) -> None:
        await asyncio.Event().wait()

    desk = Desk(handler, concurrency=2)
    desk.give([1, 2, 3])
    await eventually(lambda: desk.slots.running == 2)
    await desk.slots.stop()
    desk.give([4])
    await asyncio.sleep(0.01)

    assert {call: ending.interruption for call, ending in desk.endings} == dict.fromkeys((1, 2), Interruption.STOPPED)
    assert list(desk.waiting) == [3, 4]


BEHAVIOURS = st.sampled_from(["return", "wait", "raise", "set", "cancel self", "hang", "swallow", "timeout inside"])


@settings(max_examples=40, deadline=None)
@given(behaviours=st.lists(BEHAVIOURS, min_size=1, max_size=20), concurrency=st.integers(1, 4))
def test_whatever_handlers_do_each_call_ends_once_and_as_it_did(behaviours: list[str], concurrency: int) -> None:
    asyncio.run(_check_each_ends_once(behaviours, concurrency))


async def _check_each_ends_once(behaviours: list[str], concurrency: int) -> None:
    running, most = 0, 0

    async def handler(call: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            assert VARIABLE.get() == "clean"
            return await _behave(behaviours[call - 1], call)
        finally:
            running -= 1

    desk = Desk(handler, concurrency=concurrency, timeout_s=0.02)
    desk.give(range(1, len(behaviours) + 1))
    endings = await desk.ended(len(behaviours))
    await desk.slots.stop()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert len(desk.endings) == len(behaviours) == len(endings)
    assert most <= concurrency
    for call, behaviour in enumerate(behaviours, start=1):
        assert _kind(endings[call]) == EXPECTED[behaviour], behaviour


EXPECTED = {
    "return": "result",
    "wait": "result",
    "set": "result",
    "timeout inside": "result",
    "raise": "ValueError",
    "cancel self": "CancelledError",
    "hang": "TIMED_OUT",
    "swallow": "TIMED_OUT",
}


def _kind(ending: Ending) -> str:
    if ending.interruption is not None:
        return ending.interruption.name
    return "result" if ending.error is None else type(ending.error).__name__


async def _behave(behaviour: str, call: int) -> int:
    match behaviour:
        case "wait":
            await asyncio.sleep(0)
        case "raise":
            raise ValueError(call)
        case "set":
            VARIABLE.set(str(call))
        case "cancel self":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)
        case "hang":
            await asyncio.Event().wait()
        case "swallow":
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
        case "timeout inside":
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0):
                    await asyncio.Event().wait()
        case _:
            pass
    return call
