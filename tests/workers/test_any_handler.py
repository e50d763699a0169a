"""Whatever a handler returns or raises, each of its events comes to an end that can be seen, on both transports."""

import asyncio
import logging
import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from random import Random
from typing import Any

import pytest

from broker import Transport
from broker.amqp.transport import AmqpTransport
from broker.embedded.transport import EmbeddedTransport
from schemas import OnlineRecordStarted
from store import Store, list_dead_letters, migrate
from telemetry import configure_logging
from tests.workers.house import eventually, started
from workers import CONFIRM_TIMEOUT_S, Ack, Consumer, Context, DeadLetter, Drop, Retry, Worker, consumer

#: How many events are handled in the suite; `HYPOTHESIS_PROFILE=thorough` handles 10,000.
EVENTS = 10_000 if os.environ.get("HYPOTHESIS_PROFILE") == "thorough" else 200

DELAYS_S = (0.05, 0.1)


class Unspeakable(Exception):  # noqa: N818 - what a user might write
    """An error whose text cannot be made."""

    def __str__(self) -> str:
        raise SystemExit("no text")


class Liar(str):
    """A text that is none."""

    __slots__ = ()

    def __str__(self) -> str:
        return 5  # type: ignore[return-value]  # noqa: PLE0307 - as a user's code may


class BareError(BaseException):
    """Of nobody's hierarchy."""


class Endless(list[Any]):
    """A list that never ends when it is looked through."""

    def __iter__(self) -> Any:
        while True:
            yield Ack()


class OwnRetry(Retry):
    """A subclass that breaks what it inherits."""

    @property
    def reason(self) -> str:
        raise RuntimeError("no reason")

    @reason.setter
    def reason(self, value: str) -> None: ...


def _from(cause: BaseException) -> Exception:
    error = RuntimeError("wrapped")
    error.__cause__ = cause
    return error


async def _coroutine() -> None:
    await asyncio.sleep(0)


#: What ends well: it is handled, or dropped.
FINE: list[Callable[[], Any]] = [
    lambda: None,
    Ack,
    _coroutine,
    lambda: Drop("not wanted"),
    lambda: Drop(5),  # type: ignore[arg-type]
    lambda: Drop(Liar("x")),
    lambda: Drop("\ud800 \0 " * 1000),
]

#: What ends as a dead letter, at once or after its attempts.
BAD: list[Callable[[], Any]] = [
    lambda: 5,
    lambda: "text",
    lambda: [Ack(), None],
    lambda: (yield),
    Endless,
    lambda: object,
    lambda: DeadLetter("no"),
    lambda: DeadLetter(None),  # type: ignore[arg-type]
    lambda: DeadLetter("x" * 1_000_000),
    lambda: DeadLetter("\ud800\0"),
    Retry,
    lambda: Retry(reason=b"bytes"),  # type: ignore[arg-type]
    lambda: Retry(after_s=float("inf")),
    lambda: Retry(after_s="soon"),  # type: ignore[arg-type]
    lambda: Retry(after_s=float("nan")),
    OwnRetry,
]

#: What is raised, and ends as a dead letter.
RAISED: list[Callable[[], BaseException]] = [
    lambda: ValueError("v"),
    Unspeakable,
    BareError,
    lambda: SystemExit(3),
    KeyboardInterrupt,
    GeneratorExit,
    StopIteration,
    StopAsyncIteration,
    asyncio.CancelledError,
    MemoryError,
    lambda: RecursionError("deep"),
    lambda: RuntimeError("x" * 5_000_000),
    lambda: ValueError("\ud800 \0"),
    lambda: ExceptionGroup("g", [Retry(), DeadLetter("in a group")]),
    lambda: ExceptionGroup("g", [ExceptionGroup("h", [ValueError("v")]), Drop("d")]),
    lambda: BaseExceptionGroup("g", [SystemExit(1)]),
    lambda: _from(DeadLetter("the cause")),
    lambda: _from(_from(Retry())),
]

#: What is raised, and ends as a drop.
RAISED_FINE: list[Callable[[], BaseException]] = [
    lambda: Drop("d"),
    lambda: ExceptionGroup("g", [Drop("d"), Drop("e")]),
    lambda: _from(Drop("the cause")),
]


class Behaviours:
    """What each event is met with, drawn from all of these: by its TaskId, the same at every attempt."""

    def __init__(self, seed: int, count: int) -> None:
        rng = Random(seed)
        kinds = [*((make, False, True) for make in FINE), *((make, False, False) for make in BAD)]
        kinds += [*((make, True, False) for make in RAISED), *((make, True, True) for make in RAISED_FINE)]
        self._by_task = {f"task-{number}": rng.choice(kinds) for number in range(count)}
        self.tasks = list(self._by_task)
        self._met: set[tuple[str, str]] = set()

    @property
    def bad(self) -> set[str]:
        """The tasks that must end as dead letters."""
        return {task for task, (_, _, is_fine) in self._by_task.items() if not is_fine}

    def has_met(self, names: list[str]) -> bool:
        """Say whether each of the consumers of these names was called with every task."""
        return len(self._met) == len(names) * len(self.tasks)

    def meet(self, ctx: Context, task: str) -> Any:
        """Return what a handler returns for a task, or raise what it raises."""
        make, is_raised, _ = self._by_task[task]
        self._met.add((ctx.consumer, task))
        if is_raised:
            raise make()
        return make()

    def consumers(self) -> tuple[Consumer, ...]:
        """Return one of each kind: on the event loop, in a thread, behind a plain decorator."""
        meet = self.meet

        def plainly(function: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(function)
            def wrapped(event: OnlineRecordStarted, ctx: Context) -> Any:
                return function(event, ctx)

            return wrapped

        async def on_loop(event: OnlineRecordStarted, ctx: Context) -> Any:
            await asyncio.sleep(0)
            return meet(ctx, event.task_id)

        def in_thread(event: OnlineRecordStarted, ctx: Context) -> Any:
            return meet(ctx, event.task_id)

        @plainly
        async def decorated(event: OnlineRecordStarted, ctx: Context) -> Any:
            return meet(ctx, event.task_id)

        make = consumer(attempts=2, timeout_s=30, concurrency=20)
        return tuple(make(function) for function in (on_loop, in_thread, decorated))


@pytest.fixture(params=["embedded", "amqp"])
def make_transport(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[tuple[Consumer, ...]], Transport]:
    if request.param == "amqp":
        url: str = request.getfixturevalue("amqp_url")
        return lambda consumers: AmqpTransport(
            [url],
            consumers=[one.queues for one in consumers],
            retry_delays_s=DELAYS_S,
            # As workers have it: at a busy broker less makes copies, which make more copies.
            confirm_timeout_s=CONFIRM_TIMEOUT_S,
        )
    return lambda consumers: EmbeddedTransport(
        tmp_path / "transport", consumers=[one.queues for one in consumers], retry_delays_s=DELAYS_S
    )


async def test_each_event_comes_to_the_end_that_its_handler_meant(
    make_transport: Callable[[tuple[Consumer, ...]], Transport], tmp_path: Path
) -> None:
    configure_logging("json", level=logging.ERROR)
    behaviours = Behaviours(seed=EVENTS, count=EVENTS)
    consumers = behaviours.consumers()
    names = [one.name for one in consumers]
    wanted = {(name, started(task).event_id) for name in names for task in behaviours.bad}
    async with Store(f"sqlite+aiosqlite:///{tmp_path}/store.db") as store, make_transport(consumers) as transport:
        await migrate(store)
        async with Worker(consumers, transport=transport, store=store, retry_delays_s=DELAYS_S) as worker:
            await eventually(lambda: worker.is_ready)
            for task in behaviours.tasks:
                await transport.publish(started(task))
            await eventually(lambda: behaviours.has_met(names), deadline_s=120 + EVENTS / 20)

            async def are_letters_there() -> bool:
                return len(await list_dead_letters(store, limit=0)) >= len(wanted)

            await eventually(are_letters_there, deadline_s=120 + EVENTS / 20)
        # What was not settled would be in its queue again now.
        assert [(one.ready, one.dead) for one in await transport.inspect(names)] == [(0, 0)] * len(names)
        found = await list_dead_letters(store, limit=0)
    assert {(one.consumer, one.event_id) for one in found} == wanted
    assert all(one.reason.isprintable() and 0 < len(one.reason) <= 500 for one in found)
