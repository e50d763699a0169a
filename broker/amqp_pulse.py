"""Notice a connection that is dead and does not say so: a network that swallows everything, a broker that hangs.

Heartbeats alone tell late: several may be missing before that means anything. So whoever hears nothing for a moment
asks for something that a broker answers at once: a channel of its own waits for no queue and no disk.
"""

import asyncio

import aiormq
import structlog
from msgspec import Struct

from broker.amqp_connection import CONNECTION_ERRORS, Connection, cancellation_as_loss, describe

#: A broker that is blocked reads no question, but sends its heartbeats: this is for more than three of them.
BLOCKED_SILENCE_S = 16.0

_log = structlog.get_logger()


class Patience(Struct, frozen=True, kw_only=True):
    """How long a connection may be silent before it is asked for an answer, and how long that may then take."""

    ask_after_s: float
    answer_within_s: float


#: Callbacks wait for what is published, and have another way: another broker, or the spool.
PUBLISHING = Patience(ask_after_s=1.5, answer_within_s=3.0)

#: A connection that is given up returns its deliveries, each counted as a crash: not for a moment's silence.
CONSUMING = Patience(ask_after_s=4.0, answer_within_s=8.0)


async def watch(connection: Connection, patience: Patience) -> None:
    """End `connection`, and return, once it gives no answer; anything that arrives is one.

    Time in which the event loop stands still does not count.
    """
    wire = connection.wire
    channel: aiormq.abc.AbstractChannel | None = None
    asking: asyncio.Task[aiormq.abc.AbstractChannel | None] | None = None
    try:
        while True:
            if await wire.hears(within_s=patience.ask_after_s):
                continue
            if wire.is_blocked:
                answered = await wire.hears(within_s=BLOCKED_SILENCE_S)
            else:
                if asking is None or asking.done():
                    channel = asking.result() if asking is not None else None
                    asking = asyncio.create_task(_ask(connection, channel), name="amqp question")
                answered = await wire.hears(within_s=patience.answer_within_s)
            if not answered:
                connection.abort("it is silent and answers no question")
                return
    finally:
        if asking is not None:
            asking.cancel()


async def _ask(connection: Connection, channel: aiormq.abc.AbstractChannel | None) -> aiormq.abc.AbstractChannel | None:
    """Ask for what changes nothing and must be answered; return the channel for the next question."""
    try:
        with cancellation_as_loss():
            if channel is None or channel.is_closed:
                return await connection.amqp.channel(publisher_confirms=False)
            await channel.basic_qos(prefetch_count=0)
    except CONNECTION_ERRORS as error:
        _log.debug("question_failed", error=describe(error))
    return channel
