"""What the tests of the contract ask of a transport, and wait for."""

import asyncio

from broker import Message, QueueState, Transport
from tests.broker.consumers import FINISHED
from tests.broker.inbox import eventually


async def wait_ready(transport: Transport) -> None:
    async with asyncio.timeout(30):
        await transport.wait_ready()


def fresh(event_id: str = "e" * 32, *, body: bytes = b"{}", routing_key: str = FINISHED) -> Message:
    return Message(body=body, event_id=event_id, routing_key=routing_key, received_at_us=1_575_545_412_000_001)


async def state_of(transport: Transport, consumer: str) -> QueueState:
    (state,) = await transport.inspect([consumer])
    return state


async def wait_released(transport: Transport, consumer: str, *, ready: int, dead: int = 0) -> None:
    """Wait until nobody consumes, and just so many wait."""

    async def is_so() -> bool:
        state = await state_of(transport, consumer)
        return (state.connected, state.ready, state.dead) == (0, ready, dead)

    await eventually(is_so)
