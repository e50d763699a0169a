"""Notices what no commit of this process tells: other processes' commits and deaths, and retries that are due."""

import asyncio
from contextlib import suppress
from typing import Protocol

import structlog

from broker.embedded_group_commit import GroupCommit, Level
from broker.embedded_owner import Owner
from broker.embedded_queues import Sight, give_space_back, look, now_us, tidy

_log = structlog.get_logger()

#: How long another process's message or death may go unnoticed.
LOOK_INTERVAL_S = 0.05


class Watched(Protocol):
    """A subscription, as far as it is told about messages."""

    id: int
    queue: str

    @property
    def is_consuming(self) -> bool:
        """Whether its last claim went well."""

    def wake(self) -> None:
        """Look for messages: some may be ready."""

    async def close(self) -> None:
        """Let go of everything."""


class Watch:
    """Looks at the file for as long as anybody has subscribed; wakes the subscriptions for which something changed."""

    def __init__(self, commits: GroupCommit, owner: Owner) -> None:
        self._commits = commits
        self._owner = owner
        self._watched: set[Watched] = set()
        self._task: asyncio.Task[None] | None = None
        self._is_failing = False

    @property
    def held(self) -> frozenset[int]:
        """The ids of the subscriptions that are alive in this transport."""
        return frozenset(watched.id for watched in self._watched)

    def add(self, watched: Watched) -> None:
        """Begin to wake a subscription."""
        self._watched.add(watched)
        if self._task is None:
            self._task = asyncio.create_task(self._keep_looking())

    def discard(self, watched: Watched) -> None:
        """Stop waking a subscription. What it holds returns to its queue."""
        self._watched.discard(watched)

    def on_commit(self, touched: set[str]) -> None:
        """Wake the subscriptions of the queues that a commit of this process touched."""
        for watched in tuple(self._watched):
            if watched.queue in touched:
                watched.wake()

    async def close(self) -> None:
        """Close all subscriptions and stop looking."""
        for watched in tuple(self._watched):
            await watched.close()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _keep_looking(self) -> None:
        version = 0
        while True:
            sight = await self._look()
            if sight is not None and sight.version != version:
                version = sight.version
                self._wake_all()
            elif self._is_failing or not all(watched.is_consuming for watched in self._watched):
                self._wake_all()
            await asyncio.sleep(_pause_s(sight))

    async def _look(self) -> Sight | None:
        """Look, and do what is to be done; None if that failed, which is logged once."""
        try:
            sight = await self._commits.submit(look(self._owner, self.held), Level.READ)
            if sight.abandoned or (sight.due_at_us is not None and sight.due_at_us <= now_us()):
                await self._commits.submit(tidy(self._owner, self.held), Level.WRITE)
            if sight.wastes_space:
                await self._commits.submit(give_space_back, Level.WRITE)
        except Exception as error:  # noqa: BLE001 - whatever it was, retries must not wait for ever
            if not self._is_failing:
                _log.warning("embedded_transport_failed", error=str(error))
            self._is_failing = True
            return None
        self._is_failing = False
        return sight

    def _wake_all(self) -> None:
        for watched in tuple(self._watched):
            watched.wake()


def _pause_s(sight: Sight | None) -> float:
    """Return how long to wait for the next look: until the next retry is due, if that is sooner."""
    if sight is None or sight.due_at_us is None:
        return LOOK_INTERVAL_S
    return max(0.001, min(LOOK_INTERVAL_S, (sight.due_at_us - now_us()) / 1e6))
