"""Publishes of the embedded transport: those of one turn of the event loop are one operation of the group commit.

If that fails, each is an operation of its own, so that none suffers from its neighbours.
"""

import asyncio
from collections.abc import Callable
from functools import partial

import structlog
from msgspec import Struct

from broker.api import BrokerError, Message, NotPublishedError, OnPublished
from broker.embedded.commit import GroupCommit, Level
from broker.embedded.database import is_full, is_trouble
from broker.embedded.queues import Publishable, publish, publishable

_log = structlog.get_logger()


class _Batch(Struct, eq=False):
    """What was begun together, in the same order; who was told is forgotten."""

    events: list[Publishable]
    on_done: list[OnPublished]
    deadline_s: float


class Publishing:
    """Begins publishes, and tells each how it ended, once, within `timeout_s`. `explain` words errors."""

    def __init__(self, commits: GroupCommit, *, timeout_s: float, explain: Callable[[Exception], str]) -> None:
        self._commits = commits
        self._timeout_s = timeout_s
        self._explain = explain
        self._gathering: _Batch | None = None
        self._under_way: set[_Batch] = set()
        self._sweep: asyncio.TimerHandle | None = None

    def begin(self, message: Message, on_done: OnPublished) -> None:
        """Begin to publish; see `broker.Transport.begin_publish`.

        Raises `BrokerError`, ValueError or OverflowError if it cannot begin: then nothing was done.
        """
        event = publishable(message)
        batch = self._gathering
        if batch is None:
            self._commits.before_hand_over(self._hand_over)
            deadline_s = asyncio.get_running_loop().time() + self._timeout_s
            batch = self._gathering = _Batch([], [], deadline_s)
        batch.events.append(event)
        batch.on_done.append(on_done)

    def close(self) -> None:
        """Look for late ones no longer; to be called when the group commit has ended, and so has all of it."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None

    def _hand_over(self) -> None:
        batch, self._gathering = self._gathering, None
        if batch is not None:
            self._keep(batch)

    def _keep(self, batch: _Batch) -> None:
        self._under_way.add(batch)
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_at(batch.deadline_s, self._fail_late)
        self._commits.begin(publish(batch.events), Level.DURABLE, partial(self._end, batch))

    def _end(self, batch: _Batch, _: None, error: Exception | None) -> None:
        self._under_way.discard(batch)
        if error is None:
            _tell(batch, None)
        elif len(batch.on_done) > 1 and (is_full(error) or not is_trouble(error)):
            for event, on_done in zip(batch.events, batch.on_done, strict=True):
                self._keep_alone(_Batch([event], [on_done], batch.deadline_s))
        else:
            _tell(batch, NotPublishedError(self._explain(error)))

    def _keep_alone(self, batch: _Batch) -> None:
        try:
            self._keep(batch)
        except BrokerError as closed:
            self._end(batch, None, closed)

    def _fail_late(self) -> None:
        loop = asyncio.get_running_loop()
        for batch in [batch for batch in self._under_way if batch.deadline_s <= loop.time()]:
            self._under_way.discard(batch)
            _tell(batch, NotPublishedError(self._explain(TimeoutError())))
        self._sweep = None
        if self._under_way:
            self._sweep = loop.call_at(min(batch.deadline_s for batch in self._under_way), self._fail_late)


def _tell(batch: _Batch, error: BrokerError | None) -> None:
    on_done, batch.on_done = batch.on_done, []
    for tell in on_done:
        try:
            tell(error)
        except Exception:  # noqa: BLE001 - what one of them does is no other's matter
            _log.exception("publish_callback_failed")
