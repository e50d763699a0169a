"""Virtual time: an event loop that never sleeps, the clocks that follow it, and threads that live on it.

So the real code of a thread runs, in virtual time, one step after another, and stops for good when its process dies.
https://greenlet.readthedocs.io/

A step of the loop takes no time at all. When nothing is left to do at a moment, the clock jumps to the next timer.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from contextvars import Context, copy_context
from queue import Empty
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet

from chaos.simulation.processes import PROCESS

#: From one thread to the other.
SWITCH_S = 0.0001


class VirtualThread:
    """A thread that runs when the event loop lets it."""

    def __init__(self, *, target: Callable[[], object], name: str) -> None:
        self.name = name
        self._loop = asyncio.get_running_loop()
        self._greenlet = _Greenlet(target)
        self._greenlet.thread = self

    def start(self) -> None:
        """Begin, a moment later."""
        process = PROCESS.get()
        if process is not None:
            process.threads.append(self)
            self._greenlet.gr_context = process.context.copy()
        self.resume_in(SWITCH_S)

    def resume_in(self, delay_s: float) -> None:
        """Let it go on later."""
        self._loop.call_later(delay_s, self._resume)

    def park(self) -> None:
        """Wait until somebody resumes it: to be called in the thread itself."""
        parent = self._greenlet.parent
        assert parent is not None  # noqa: S101 - a greenlet that runs has one
        parent.switch()

    def kill(self) -> None:
        """Unwind what it was at."""
        if bool(self._greenlet):
            self._greenlet.parent = getcurrent()
            self._greenlet.throw(GreenletExit)

    def _resume(self) -> None:
        if not self._greenlet.dead:
            self._greenlet.parent = getcurrent()
            self._greenlet.switch()


class _Greenlet(greenlet):  # type: ignore[misc]  # it has no types
    thread: VirtualThread


def this_thread() -> VirtualThread | None:
    """Return the virtual thread that runs, None on the event loop itself."""
    current = getcurrent()
    return current.thread if isinstance(current, _Greenlet) else None


def pause(delay_s: float) -> None:
    """Let a virtual thread wait; do nothing elsewhere."""
    thread = this_thread()
    if thread is not None:
        thread.resume_in(delay_s)
        thread.park()


class VirtualQueue:
    """As much of `queue.SimpleQueue` as is used; one thread gets."""

    def __init__(self) -> None:
        self._items: deque[Any] = deque()
        self._getter: VirtualThread | None = None

    def put(self, item: Any) -> None:
        """Add an item, and wake whoever waits for one."""
        self._items.append(item)
        if self._getter is not None:
            getter, self._getter = self._getter, None
            getter.resume_in(SWITCH_S)

    def get(self) -> Any:
        """Return the oldest item; wait for one if there is none."""
        while not self._items:
            self._getter = this_thread()
            assert self._getter is not None  # noqa: S101 - the event loop must not wait
            self._getter.park()
        return self._items.popleft()

    def get_nowait(self) -> Any:
        """Return the oldest item. Raises `Empty`."""
        if not self._items:
            raise Empty
        return self._items.popleft()


class VirtualThreads:
    """The threads of a spool."""

    def start(self, work: Callable[[], None], *, name: str) -> None:
        """Run `work` in a virtual thread."""
        VirtualThread(target=work, name=name).start()

    def inbox(self) -> VirtualQueue:
        """Return a queue that a virtual thread can wait for."""
        return VirtualQueue()


#: Where the wall clock begins: later than every Timestamp that the simulator makes up.
EPOCH_NS = 1_750_000_000 * 1_000_000_000

#: So many rounds of the loop at one moment mean that something turns round and round without waiting.
MAX_ROUNDS = 100_000


class StuckError(Exception):
    """Raised when nothing can ever happen again, or when time cannot go on."""


class Clock:
    """The time of one world: seconds on a monotonic clock that begins at 1000, and nanoseconds since the Unix epoch."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self._wall_step_ns = 0

    def monotonic(self) -> float:
        """Stand in for `time.monotonic`."""
        return self.now_s

    def time_ns(self) -> int:
        """Stand in for `time.time_ns`."""
        return EPOCH_NS + round(self.now_s * 1e9) + self._wall_step_ns

    def time(self) -> float:
        """Stand in for `time.time`."""
        return self.time_ns() / 1e9

    def step_wall_clock(self, by_s: float) -> None:
        """Set the wall clock; the monotonic one does not see it."""
        self._wall_step_ns += round(by_s * 1e9)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Let the `time` module of this interpreter tell this time. `time.perf_counter` still tells the real one."""
        real = time.monotonic, time.monotonic_ns, time.time, time.time_ns
        time.monotonic = self.monotonic
        time.monotonic_ns = lambda: round(self.now_s * 1e9)
        time.time = self.time
        time.time_ns = self.time_ns
        try:
            yield
        finally:
            time.monotonic, time.monotonic_ns, time.time, time.time_ns = real


class _JumpingSelector:
    """Waits for no file: lets the clock jump over every wait."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rounds = 0

    def select(self, timeout: float | None) -> list[object]:
        if timeout is None:
            raise StuckError("nothing is scheduled any more, and somebody still waits")
        if timeout > 0:
            self._clock.now_s += timeout
            self._rounds = 0
        else:
            self._rounds += 1
            if self._rounds > MAX_ROUNDS:
                raise StuckError(f"{MAX_ROUNDS} rounds of the event loop at one moment: a livelock")
        return []

    def close(self) -> None:
        """Do nothing: there is nothing to close."""


class VirtualLoop(asyncio.BaseEventLoop):
    """An asyncio event loop in the time of `clock`, in one thread, without any file or socket.

    What a simulated process schedules runs only while that process does: see `processes.Process`.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._selector = _JumpingSelector(clock)
        self.steps = 0
        # Leaves the world's own callbacks, which belong to no process.
        self.outside = copy_context()

    def time(self) -> float:
        """Return the clock's time."""
        return self._clock.now_s

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> asyncio.Handle:  # type: ignore[override]  # any callback, as in asyncio at run time
        """Schedule, on behalf of the process whose context it is."""
        self.steps += 1
        process = PROCESS.get() if context is None else context.get(PROCESS)
        if process is None:
            return super().call_soon(callback, *args, context=context)
        cell: list[asyncio.Handle] = []
        context = copy_context() if context is None else context
        handle = super().call_soon(process.step, cell, context, callback, args, context=context)
        cell.append(handle)
        return handle

    def call_at(  # type: ignore[override]  # any callback, as in asyncio at run time
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Schedule for a moment, on behalf of the process whose context it is."""
        self.steps += 1
        process = PROCESS.get() if context is None else context.get(PROCESS)
        if process is None:
            return super().call_at(when, callback, *args, context=context)
        cell: list[asyncio.Handle] = []
        context = copy_context() if context is None else context
        handle = super().call_at(when, process.step, cell, context, callback, args, context=context)
        cell.append(handle)
        return handle

    def create_task(self, coro: Any, **options: Any) -> Any:
        """Create a task that its process knows of."""
        context: Context | None = options.get("context")
        process = PROCESS.get() if context is None else context.get(PROCESS)
        task: asyncio.Task[Any] = super().create_task(coro, **options)
        if process is not None:
            process.keep(task)
        return task

    def call_soon_threadsafe(  # type: ignore[override]  # any callback, as in asyncio at run time
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Schedule: there is one thread."""
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(  # type: ignore[override]  # any function, as in asyncio at run time
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> "asyncio.Future[Any]":
        """Run in a virtual thread of its own."""
        del executor
        future: asyncio.Future[Any] = self.create_future()

        def run() -> None:
            if future.cancelled():
                return
            result: Any = None
            error: Exception | None = None
            try:
                result = func(*args)
            except Exception as raised:  # noqa: BLE001 - raised where the future is awaited
                error = raised
            if future.cancelled():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        VirtualThread(target=run, name="executor").start()
        return future

    def after(self, delay_s: float, callback: Callable[..., object], *args: Any) -> None:
        """Let the world do something later, whichever process asked for it and whatever becomes of it."""
        self.call_later(delay_s, callback, *args, context=self.outside)

    def _process_events(self, event_list: list[object]) -> None:
        """Do nothing: no event ever comes from outside."""

    def _write_to_self(self) -> None:
        """Do nothing: nobody wakes this loop from another thread."""
