"""Simulated processes of an operating system: several of them on one event loop, each can die or stop at any step.

A process is a context variable. Whatever is scheduled where it is set belongs to the process: its tasks' steps, its
timers, its callbacks. A process that has died runs no further step, so nothing of its code is executed after the moment
of its death: no `finally`, no `except`. A stopped one (SIGSTOP) does what became due meanwhile when it goes on.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from enum import Enum, auto
from typing import Any

PROCESS: ContextVar["Process | None"] = ContextVar("PROCESS", default=None)

#: A step that was due while its process was stopped: its handle, its context, its callback.
_Held = tuple[list[asyncio.Handle], Context, Callable[..., object], tuple[Any, ...]]

#: Beyond this the tasks that are done are sorted out.
_MANY_TASKS = 64


class State(Enum):
    """What a process does. UNWINDING: the world is over, and what its death left behind is put away."""

    RUNNING = auto()
    STOPPED = auto()
    DEAD = auto()
    UNWINDING = auto()


class Process:
    """One incarnation of a program, from its start to its end.

    `on_death` are called at the moment of its death, outside of it. `crash_in_steps` and `crash_at` say when it is to
    die: after so many more steps, or when it passes the point of this name.
    """

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop, *, tell: Callable[..., None]) -> None:
        self.name = name
        self.state = State.RUNNING
        self.steps = 0
        self.crash_in_steps: int | None = None
        self.crash_at: str | None = None
        self.on_death: list[Callable[[], None]] = []
        #: All that are not done. Held on to: one that is garbage would be unwound, and the dead do nothing.
        self.tasks: set[asyncio.Task[Any]] = set()
        self.threads: list[Any] = []
        self.was_stopped = False
        self._loop = loop
        self._tell = tell
        self._held: list[_Held] = []
        self._most_tasks = _MANY_TASKS
        self.context = copy_context()
        self.context.run(PROCESS.set, self)

    @property
    def is_running(self) -> bool:
        """Whether it executes code now."""
        return self.state is State.RUNNING

    @property
    def is_dead(self) -> bool:
        """Whether it has died."""
        return self.state in (State.DEAD, State.UNWINDING)

    def keep(self, task: "asyncio.Task[Any]") -> None:
        """Hold on to a task until it is done."""
        if len(self.tasks) > self._most_tasks:
            self.tasks = {one for one in self.tasks if not one.done()}
            self._most_tasks = max(_MANY_TASKS, 2 * len(self.tasks))
        self.tasks.add(task)

    def spawn(self, work: Coroutine[Any, Any, Any], *, name: str) -> "asyncio.Task[Any]":
        """Start a task of this process."""
        return self._loop.create_task(work, name=name, context=self.context.copy())

    def step(
        self, cell: list[asyncio.Handle], context: Context, callback: Callable[..., object], args: tuple[Any, ...]
    ) -> None:
        """Run one step, if the process runs."""
        if self.state in (State.STOPPED, State.DEAD):
            self._held.append((cell, context, callback, args))
            return
        if cell[0].cancelled():
            return
        self.steps += 1
        if self.crash_in_steps is not None:
            self.crash_in_steps -= 1
            if self.crash_in_steps < 0:
                self._held.append((cell, context, callback, args))
                self.crash("between two steps")
                return
        callback(*args)

    def crash(self, where: str) -> None:
        """End without another step: SIGKILL, or the loss of its machine."""
        if self.is_dead:
            return
        self._tell(self.name, "crashed", where)
        self.state = State.DEAD
        for told in self.on_death:
            self._loop.call_soon(told, context=_outside())

    def stop(self) -> None:
        """Execute nothing for now: SIGSTOP."""
        if self.is_running:
            self._tell(self.name, "stopped")
            self.state = State.STOPPED
            self.was_stopped = True

    def go_on(self) -> None:
        """Do what became due meanwhile, and go on: SIGCONT."""
        if self.state is State.STOPPED:
            self._tell(self.name, "goes on")
            self.state = State.RUNNING
            self._release_held()

    def unwind(self) -> None:
        """Let what was never run come to an end, now that the world is over and nothing counts any more."""
        self.state = State.UNWINDING
        self.crash_in_steps = self.crash_at = None
        self._release_held()

    def _release_held(self) -> None:
        held, self._held = self._held, []
        for cell, context, callback, args in held:
            # Outside, or it would be wrapped a second time.
            self._loop.call_soon(_enter, self, cell, context, callback, args, context=_outside())

    def dies_at(self, point: str) -> bool:
        """Die if this is the point where it has to; say whether it has died."""
        if self.crash_at == point and self.is_running:
            self.crash_at = None
            self.crash(point)
        return self.is_dead

    async def passes(self, point: str) -> None:
        """Go on, or die here: then this never returns."""
        if self.dies_at(point):
            await self._loop.create_future()


def _enter(
    process: Process,
    cell: list[asyncio.Handle],
    context: Context,
    callback: Callable[..., object],
    args: tuple[Any, ...],
) -> None:
    context.run(process.step, cell, context, callback, args)


def _outside() -> Context:
    context = copy_context()
    context.run(PROCESS.set, None)
    return context
