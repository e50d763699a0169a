"""Notice a consumer that the broker has forgotten while both believe that it consumes.

It happens to quorum queues around an election of their leader: events wait and none is delivered, or some count as
delivered that no channel knows of (https://github.com/rabbitmq/rabbitmq-server/issues/15473). The end of the channel
sets both right. Deliveries that are here are never disturbed: whoever has some is busy, slow or waiting.
"""

import asyncio
from enum import Enum, auto

from msgspec import Struct

from broker.amqp_connection import CONNECTION_ERRORS, Connection, cancellation_as_loss
from broker.amqp_inspection import count
from broker.amqp_intake import Intake


class Finding(Enum):
    """Why a consumer should have another channel."""

    #: Events wait, there is room for them here, and they do not come.
    SILENT = auto()
    #: It has nothing to do; if the broker believes otherwise, it learns better.
    DUE = auto()


class Watchdog(Struct, frozen=True, kw_only=True):
    """How closely a consumer is watched.

    One that is idle for `look_after_s` is looked at, and again after `sure_after_s`. A channel is renewed if it had
    deliveries and then none for `renew_idle_after_s`, or at an idle moment after `renew_after_s`.
    """

    look_after_s: float = 30.0
    sure_after_s: float = 5.0
    renew_idle_after_s: float = 60.0
    renew_after_s: float = 600.0

    async def find(self, connection: Connection, intake: Intake, queue: str) -> Finding:
        """Return once something has to be done."""
        loop = asyncio.get_running_loop()
        looked_at_s = 0.0
        while True:
            await asyncio.sleep(self.sure_after_s)
            if not intake.is_idle:
                continue
            if self._is_due(intake):
                return Finding.DUE
            if loop.time() - max(looked_at_s, intake.last_arrival_s) > self.look_after_s:
                looked_at_s = loop.time()
                if await self._is_silent(connection, intake, queue):
                    return Finding.SILENT

    def _is_due(self, intake: Intake) -> bool:
        if intake.first_arrival_s is None:
            return False
        now_s = asyncio.get_running_loop().time()
        age_s, quiet_s = now_s - intake.first_arrival_s, now_s - intake.last_arrival_s
        return age_s > self.renew_after_s or quiet_s > self.renew_idle_after_s

    async def _is_silent(self, connection: Connection, intake: Intake, queue: str) -> bool:
        before_s = intake.last_arrival_s
        if not await _has_ready(connection, queue):
            return False
        await asyncio.sleep(self.sure_after_s)
        still_waits = await _has_ready(connection, queue)
        return still_waits and intake.is_idle and intake.last_arrival_s == before_s


async def _has_ready(connection: Connection, queue: str) -> bool:
    try:
        with cancellation_as_loss():
            counted = await count(connection, queue)
    except CONNECTION_ERRORS:
        # Whoever keeps the connection finds out why.
        return False
    return counted is not None and counted.ready > 0
