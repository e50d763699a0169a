"""Users' consumers of a world: their effects are outside the store, and some events give them trouble."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from random import Random
from typing import TypeAlias

from chaos.simulation.evidence import Notes
from chaos.simulation.processes import PROCESS, Process
from schemas import Event, OnlineRecordFinished, OnlineRecordStarted
from workers import Ack, Consumer, Context, DeadLetter, Drop, Outcome, Retry
from workers import consumer as make_consumer

#: Why a handler gives an event up at its first attempt.
CANNOT_BE_HANDLED = "cannot be handled"

#: What a handler may take before it is interrupted.
TIMEOUT_S = 20.0


class Manner(StrEnum):
    """What a handler does with an event, before the fault is mended."""

    FINE = "fine"
    FAILS_AT_FIRST = "fails at first"
    ASKS_AGAIN = "asks again"
    HANGS_AT_FIRST = "hangs at first"
    FAILS = "fails"
    GIVES_UP = "gives up"
    DROPS = "drops"
    KILLS = "kills"


_WEIGHTS = {
    Manner.FINE: 60,
    Manner.FAILS_AT_FIRST: 10,
    Manner.ASKS_AGAIN: 8,
    Manner.HANGS_AT_FIRST: 6,
    Manner.FAILS: 4,
    Manner.GIVES_UP: 5,
    Manner.DROPS: 4,
    Manner.KILLS: 1,
}

#: Attempts that fail where only the first ones do.
_FIRST = 2

_ManySome: TypeAlias = OnlineRecordStarted | OnlineRecordFinished


class Handlers:
    """The handlers of a world. Once it is `mended` every event is handled well."""

    def __init__(self, seed: int, manners: Sequence[Manner], notes: Notes) -> None:
        self._seed = seed
        self._manners = manners
        self._notes = notes
        self.is_mended = False

    def manner(self, consumer: str, event_id: str) -> Manner:
        """Return what this consumer does with this event, by the world's seed."""
        if self.is_mended:
            return Manner.FINE
        rng = Random(f"manner {self._seed} {consumer} {event_id}")
        return rng.choices(self._manners, [_WEIGHTS[manner] for manner in self._manners])[0]

    def consumers(self) -> tuple[Consumer, ...]:
        """Return one consumer that takes every event alone, and one that takes some in groups."""

        async def single(_: Event, ctx: Context) -> Outcome | None:
            (outcome,) = await self._handle([ctx])
            return outcome

        async def grouped(batch: list[tuple[_ManySome, Context]]) -> list[Outcome]:
            return [outcome or Ack() for outcome in await self._handle([ctx for _, ctx in batch])]

        return (
            make_consumer(timeout_s=TIMEOUT_S, concurrency=4)(single),
            make_consumer(batch=5, timeout_s=TIMEOUT_S, concurrency=2)(grouped),
        )

    async def _handle(self, contexts: list[Context]) -> list[Outcome | None]:
        """Let all effects of a group happen at its end: one that fails as a whole has none."""
        process, began_us = _this_process(), self._notes.now_us
        await process.passes("effect begun")
        await asyncio.sleep(0.01)
        outcomes = [await _MANNERS[self.manner(ctx.consumer, ctx.event_id)](ctx, process) for ctx in contexts]
        for ctx, outcome in zip(contexts, outcomes, strict=True):
            if outcome is None:
                self._notes.handled(process.name, ctx, began_us=began_us, what="effect")
            elif isinstance(outcome, Drop):
                self._notes.handled(process.name, ctx, began_us=began_us, what="dropped")
        await process.passes("effect done")
        await asyncio.sleep(0.001)
        return outcomes


async def _fine(ctx: Context, process: Process) -> None:
    del ctx, process


async def _fails(ctx: Context, process: Process) -> Outcome | None:
    raise RuntimeError(f"attempt {ctx.attempt} on {process.name}")


async def _fails_at_first(ctx: Context, process: Process) -> Outcome | None:
    return await _fails(ctx, process) if ctx.attempt <= _FIRST else None


async def _asks_again(ctx: Context, process: Process) -> Outcome | None:
    del process
    return Retry(after_s=10.0 * ctx.attempt) if ctx.attempt <= _FIRST else None


async def _hangs_at_first(ctx: Context, process: Process) -> Outcome | None:
    del process
    if ctx.attempt == 1:
        await asyncio.sleep(10 * TIMEOUT_S)
    return None


async def _gives_up(ctx: Context, process: Process) -> Outcome | None:
    del ctx, process
    return DeadLetter(CANNOT_BE_HANDLED)


async def _drops(ctx: Context, process: Process) -> Outcome | None:
    del ctx, process
    return Drop("not wanted")


async def _kills(ctx: Context, process: Process) -> Outcome | None:
    process.crash(f"killed by {ctx.event_id[:8]}")
    await asyncio.get_running_loop().create_future()
    return None


_MANNERS: dict[Manner, Callable[[Context, Process], Awaitable[Outcome | None]]] = {
    Manner.FINE: _fine,
    Manner.FAILS: _fails,
    Manner.FAILS_AT_FIRST: _fails_at_first,
    Manner.ASKS_AGAIN: _asks_again,
    Manner.HANGS_AT_FIRST: _hangs_at_first,
    Manner.GIVES_UP: _gives_up,
    Manner.DROPS: _drops,
    Manner.KILLS: _kills,
}


def _this_process() -> Process:
    process = PROCESS.get()
    assert process is not None  # noqa: S101 - handlers run in workers
    return process
