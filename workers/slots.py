"""Slots: a handler's calls at once, without a task for each, and plain functions in threads.

A plain function runs in a thread of its own, not in a ThreadPoolExecutor: its threads are joined at interpreter exit,
so that one hung handler would keep a worker from ever stopping, and a hung thread keeps its place in the pool for good.

A slot is a task that calls the handler again and again, for as long as something waits. A handler that does not wait
costs no switch of tasks; one that does holds up its own slot alone. One timer looks after the deadlines of all.

A slot is not used again once its handler was interrupted, or has set a context variable: the next event would see it.
"""

import asyncio
import contextvars
import inspect
import os
import threading
import time
from collections.abc import Callable
from contextvars import Context as ContextVariables
from contextvars import copy_context
from enum import Enum, auto
from typing import Any, Generic, NoReturn, TypeVar

import structlog
from msgspec import Struct

from workers.api import Consumer

_log = structlog.get_logger()


#: How often this process was forked on its way from the first one.
_generation = 0


def _count_fork() -> None:
    global _generation  # noqa: PLW0603 - of the process, as the fork is
    _generation += 1


os.register_at_fork(after_in_child=_count_fork)


def _end_with_handler(error: BaseException | None) -> NoReturn:
    """End the process that a handler has forked, and that came back from the handler as if it were the worker.

    Its loop, its connections and its deliveries are the worker's: it must touch none of them.
    """
    code = error.code if isinstance(error, SystemExit) else error and 1
    if error is not None and not isinstance(error, SystemExit):
        _log.error("forked_process_failed", exc_info=error)
    os._exit(code if isinstance(code, int) else int(code is not None))


def run_in_thread(
    function: Callable[..., Any], *arguments: Any, name: str
) -> "asyncio.Future[tuple[Any, BaseException | None]]":
    """Call `function` in a daemon thread of its own; the future has its result and the error that it raised.

    Cancelling the future forgets both; a thread cannot be interrupted and runs on.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()
    context = contextvars.copy_context()
    generation = _generation

    def settle(result: Any, error: BaseException | None) -> None:
        # Both as a result: a future refuses StopIteration for its exception, and SystemExit would end the loop.
        if not future.cancelled():
            future.set_result((result, error))

    def run() -> None:
        result: Any = None
        error: BaseException | None = None
        try:
            result = context.run(function, *arguments)
        except BaseException as raised:  # noqa: BLE001 - handed on to whoever awaits the future
            error = raised
        if generation != _generation:
            _end_with_handler(error)
        if not loop.is_closed():
            try:
                loop.call_soon_threadsafe(settle, result, error)
            except RuntimeError:
                return  # the loop was closed between the check and the call: nobody waits any more

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


#: How long a handler may take to end once it was cancelled, before it is left to itself.
CANCELLATION_GRACE_S = 1.0

#: How long a slot goes on without letting the event loop turn.
_TURN_S = 0.01

Call = TypeVar("Call")


class Interruption(Enum):
    """Why a handler was cancelled."""

    TIMED_OUT = auto()
    STOPPED = auto()


class Ending(Struct, frozen=True):
    """How a call ended: with `result`, with `error`, or by an interruption, whatever the handler made of it.

    `is_left_behind`: the handler still runs, and what it does from now on counts for nothing.
    """

    took_s: float
    result: Any = None
    error: BaseException | None = None
    interruption: Interruption | None = None
    is_left_behind: bool = False


class _Slot(Generic[Call]):
    """What one slot is doing. `call` is None while it has nothing to do."""

    __slots__ = ("began_s", "call", "interruption", "is_left_behind", "task", "wake")

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.wake: asyncio.Future[None] | None = None
        self.call: Call | None = None
        self.began_s = 0.0
        self.interruption: Interruption | None = None
        self.is_left_behind = False


class Slots(Generic[Call]):
    """Calls a consumer's handler, at most `consumer.concurrency` times at once.

    `take` gives the next call, or None if nothing waits; `wake` says that something may wait, and `is_waiting` whether
    something still does. `arguments` are those of a call. `ended` is told once of each call, when it has ended.

    A handler that takes longer than `consumer.timeout_s` is cancelled. One that does not end within
    `CANCELLATION_GRACE_S` then, or runs in a thread, is left behind, and another slot takes the place of its own.
    """

    def __init__(
        self,
        consumer: Consumer,
        *,
        take: Callable[[], Call | None],
        is_waiting: Callable[[], bool],
        arguments: Callable[[Call], tuple[Any, ...]],
        ended: Callable[[Call, Ending], None],
    ) -> None:
        self._consumer = consumer
        self._take = take
        self._is_waiting = is_waiting
        self._arguments = arguments
        self._ended = ended
        self._is_async = consumer.is_async
        self._variables = copy_context()
        self._slots: set[_Slot[Call]] = set()
        self._idle: list[_Slot[Call]] = []
        self._left_behind: set[asyncio.Task[None]] = set()
        self._is_waking = False
        self._is_stopped = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def running(self) -> int:
        """How many calls run now."""
        return sum(slot.call is not None for slot in self._slots)

    def wake(self) -> None:
        """Look for something to do, with the slots that have nothing."""
        # One at a time: it wakes the next before it begins, so that few are woken for nothing.
        if self._is_waking or self._is_stopped:
            return
        if self._idle:
            self._is_waking = True
            slot = self._idle.pop()
            if slot.wake is not None and not slot.wake.done():
                slot.wake.set_result(None)
        elif len(self._slots) < self._consumer.concurrency:
            self._is_waking = True
            self._open()

    async def stop(self) -> None:
        """Cancel what runs, wait for it as long as for any cancelled handler, and end all slots."""
        self._is_stopped = True
        running = [slot for slot in self._slots if slot.call is not None]
        for slot in running:
            self._interrupt(slot, Interruption.STOPPED)
        tasks = [slot.task for slot in self._slots if slot.task is not None]
        for slot in self._slots:
            if slot.call is None and slot.task is not None:
                slot.task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CANCELLATION_GRACE_S)
        for slot in running:
            self._leave_behind(slot)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _open(self) -> None:
        slot = _Slot[Call]()
        self._slots.add(slot)
        # Each starts with the variables that were there before any handler ran.
        slot.task = asyncio.get_running_loop().create_task(
            self._drive(slot), name=f"slot of {self._consumer.name}", context=self._variables.copy()
        )
        slot.task.add_done_callback(lambda task: self._closed(slot, task))

    def _closed(self, slot: _Slot[Call], task: asyncio.Task[None]) -> None:
        self._slots.discard(slot)
        self._left_behind.discard(task)
        if slot in self._idle:
            self._idle.remove(slot)
        error = None if task.cancelled() else task.exception()
        if slot.is_left_behind or (error is None and not task.cancelled()):
            return
        if error is not None:
            # What it was at stays unsettled and comes back, counted as a crash: never silent, never lost.
            _log.error("runner_failed", consumer=self._consumer.name, exc_info=error)
        # It may have been the one that was to wake the others.
        self._is_waking = False
        self.wake()

    async def _drive(self, slot: _Slot[Call]) -> None:
        clean = copy_context()
        self._is_waking = False
        turn_began_s = time.monotonic()
        while True:
            call = self._take()
            if call is None:
                await self._wait(slot)
                turn_began_s = time.monotonic()
                continue
            if self._is_waiting():
                self.wake()
            if not await self._call(slot, call) or not _are_same(copy_context(), clean):
                self._replace(slot)
                return
            if slot.began_s - turn_began_s > _TURN_S:
                await asyncio.sleep(0)
                turn_began_s = time.monotonic()

    async def _wait(self, slot: _Slot[Call]) -> None:
        slot.wake = asyncio.get_running_loop().create_future()
        self._idle.append(slot)
        await slot.wake
        self._is_waking = False

    def _replace(self, slot: _Slot[Call]) -> None:
        self._slots.discard(slot)
        if self._is_waiting():
            self.wake()

    async def _call(self, slot: _Slot[Call], call: Call) -> bool:
        """Run the handler once; False if the slot is not to be used again."""
        slot.call = call
        slot.began_s = began_s = time.monotonic()
        if self._timer is None:
            self._watch(self._consumer.timeout_s)
        result: Any = None
        error: BaseException | None = None
        is_in_thread = not self._is_async
        generation = _generation
        try:
            if self._is_async:
                result = await self._consumer.function(*self._arguments(call))
            else:
                result, error = await self._in_thread(*self._arguments(call))
                is_in_thread = False
            while result is not None and inspect.isawaitable(result):
                # A plain decorator stands on an `async def`, or an await was forgotten.
                result = await result
        except BaseException as raised:
            # Handed on to `ended`, what would end the program included.
            if isinstance(raised, GeneratorExit) and not _is_running(slot.task):
                raise  # the interpreter takes this task away
            error = raised
        if generation != _generation:
            _end_with_handler(error)
        if slot.is_left_behind:
            return False
        slot.call = None
        is_left_behind = slot.interruption is not None and is_in_thread
        ending = Ending(time.monotonic() - began_s, result, error, slot.interruption, is_left_behind)
        # A handler that was cancelled, by whomever, may have left that to be felt by the next.
        is_as_new = not isinstance(error, asyncio.CancelledError) and not (slot.task and slot.task.cancelling())
        # Its traceback holds this frame, and the frame would hold it.
        error = None
        self._ended(call, ending)
        return slot.interruption is None and is_as_new

    def _in_thread(self, *arguments: Any) -> "asyncio.Future[tuple[Any, BaseException | None]]":
        return run_in_thread(self._consumer.function, *arguments, name=f"tiw-{self._consumer.name}")

    def _watch(self, delay_s: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._look_at_the_time)

    def _look_at_the_time(self) -> None:
        """Interrupt what is over its time; come back when the next will be."""
        self._timer = None
        now_s = time.monotonic()
        running = [slot for slot in self._slots if slot.call is not None and slot.interruption is None]
        left_s = {slot: slot.began_s + self._consumer.timeout_s - now_s for slot in running}
        for slot in [slot for slot, seconds in left_s.items() if seconds <= 0]:
            del left_s[slot]
            self._interrupt(slot, Interruption.TIMED_OUT)
            asyncio.get_running_loop().call_later(CANCELLATION_GRACE_S, self._leave_behind, slot)
        if left_s:
            self._watch(min(left_s.values()))

    def _interrupt(self, slot: _Slot[Call], interruption: Interruption) -> None:
        if slot.interruption is None:
            slot.interruption = interruption
        if slot.task is not None:
            slot.task.cancel()

    def _leave_behind(self, slot: _Slot[Call]) -> None:
        """Let another slot take the place of one whose handler does not end."""
        if slot.call is None or slot.task is None or slot.is_left_behind:
            return
        call, slot.call = slot.call, None
        slot.is_left_behind = True
        self._left_behind.add(slot.task)
        self._slots.discard(slot)
        took_s = time.monotonic() - slot.began_s
        self._ended(call, Ending(took_s, interruption=slot.interruption, is_left_behind=True))
        if self._is_waiting():
            self.wake()


def _is_running(task: "asyncio.Task[None] | None") -> bool:
    try:
        return asyncio.current_task() is task
    except RuntimeError:
        return False  # no event loop runs


def _are_same(variables: ContextVariables, others: ContextVariables) -> bool:
    try:
        # Where nothing was set the two share one mapping, and are the same at a glance.
        return variables == others
    except Exception:  # noqa: BLE001 - values are compared with ==, and those of users may raise anything
        return False
