"""From an outcome to a settled delivery: remembered first, in groups, if its consumer remembers."""

from contextlib import AsyncExitStack
from typing import Self

import structlog

from workers.admission import Work
from workers.consumer import Consumer
from workers.gathering import Gathering
from workers.judging import describe
from workers.memory import Memory
from workers.outcomes import Ack, DeadLetter, Drop, Outcome, Retry
from workers.settling import Settler

_log = structlog.get_logger()


class Concluding:
    """Brings work to its end; an async context manager. `running` loses the events that came to theirs.

    Leaving cuts short what waits for the store, and leaves it unsettled.
    """

    def __init__(self, consumer: Consumer, settler: Settler, memory: Memory | None, running: dict[str, int]) -> None:
        self._consumer = consumer
        self._settler = settler
        self._memory = memory
        self._running = running
        self._completing = Gathering(self._complete, name=f"completions of {consumer.name}")
        self._releasing = Gathering(self._release, name=f"releases of {consumer.name}")
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        if self._memory is not None:
            await self._stack.enter_async_context(self._completing)
            await self._stack.enter_async_context(self._releasing)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    def conclude(self, work: Work, outcome: Outcome) -> None:
        """Let an outcome take effect, once the store remembers what it has to."""
        if self._memory is None:
            self._settle(work, outcome)
        elif isinstance(outcome, Ack | Drop):
            self._completing.add((work, outcome))
        else:
            self._releasing.add((work, outcome))

    def give_back(self, work: Work) -> None:
        """Put an event back into the queue as if nobody had seen it."""
        if self._memory is None:
            self._settle(work, None)
        else:
            self._releasing.add((work, None))

    async def _complete(self, concluded: list[tuple[Work, Outcome]]) -> None:
        """Remember completions in one transaction, then acknowledge."""
        if self._memory is not None:
            try:
                await self._memory.complete([work.context.event_id for work, _ in concluded])
            except Exception as error:  # noqa: BLE001 - logged below; one bad event must not fail its neighbours
                if len(concluded) > 1:
                    for one in concluded:
                        await self._complete([one])
                    return
                _log.exception("completion_failed", consumer=self._consumer.name)
                concluded = [(work, Retry(reason=describe(error))) for work, _ in concluded]
        for work, outcome in concluded:
            self._settle(work, outcome)

    async def _release(self, concluded: list[tuple[Work, Outcome | None]]) -> None:
        """Let go of leases in one transaction, then publish what became of the events."""
        if self._memory is not None:
            try:
                await self._memory.release([work.context.event_id for work, _ in concluded])
            except Exception:  # noqa: BLE001 - leases run out by themselves
                _log.exception("release_failed", consumer=self._consumer.name)
        for work, outcome in concluded:
            self._settle(work, outcome)

    def _settle(self, work: Work, outcome: Outcome | None) -> None:
        self._running.pop(work.context.event_id, None)
        match outcome:
            case Ack():
                self._settler.ack(work.delivery, "ack")
            case Drop():
                self._settler.ack(work.delivery, "drop", reason=outcome.reason)
            case DeadLetter():
                self._settler.bury(work.delivery, outcome.reason)
            case Retry():
                self._settler.retry(work.delivery, outcome)
            case None:
                self._settler.hand_back(work.delivery)
