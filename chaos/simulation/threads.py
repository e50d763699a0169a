"""Threads on the event loop: each is a greenlet that gives way wherever a real thread would wait.

So the real code of a thread runs, in virtual time, one step after another, and stops for good when its process dies.
https://greenlet.readthedocs.io/
"""

import asyncio
from collections import deque
from collections.abc import Callable
from queue import Empty
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet

from chaos.simulation.processes import PROCESS

#: From one thread to the other.
SWITCH_S = 0.0001


class VirtualThread:
    """As much of `threading.Thread` as is used."""

    def __init__(
        self, *, target: Callable[..., object], args: tuple[Any, ...] = (), daemon: bool = True, name: str = ""
    ) -> None:
        del daemon
        self.name = name
        self._loop = asyncio.get_running_loop()
        self._greenlet = _Greenlet(lambda: target(*args))
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


class Threading:
    """In the place of the module `threading`."""

    Thread = VirtualThread
