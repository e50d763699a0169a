"""Wait for a broker, but not for ever: a person sits before it."""

import asyncio

from broker import BrokerError, Transport
from tiw.errors import FailedError

#: What a command gives the broker to answer.
PATIENCE_S = 10.0


async def require_broker(transport: Transport) -> None:
    """Return once the broker can be used. Raises `FailedError` after `PATIENCE_S`."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            await transport.wait_ready()
    except TimeoutError:
        raise FailedError(
            f"the broker does not answer within {PATIENCE_S:g} s: see that it runs and that TIW_AMQP_URL is right"
        ) from None


async def require_queue(transport: Transport, consumer: str) -> None:
    """Return if the consumer has a queue. Raises `FailedError`: what is sent to it would be an orphan."""
    if not await queue_exists(transport, consumer):
        raise FailedError(f"consumer {consumer!r} has no queue: start it once with `tiw work {consumer}`")


async def queue_exists(transport: Transport, consumer: str) -> bool:
    """Say whether the consumer has a queue. Raises `FailedError` if the broker does not tell."""
    await require_broker(transport)
    try:
        (state,) = await transport.inspect([consumer])
    except BrokerError as error:
        raise FailedError(str(error)) from error
    return state.exists
