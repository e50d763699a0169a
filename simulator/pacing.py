"""A fixed rate that does not wait for anybody."""

from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

from simulator.clock import Clock

T = TypeVar("T")


async def paced(items: Iterable[T], *, rate: float, clock: Clock) -> AsyncIterator[T]:
    """Yield `rate` items per second, each when it is due since the first one.

    What is late follows at once, so that a stall of the consumer does not lower the rate.
    """
    began_s = clock.monotonic_s()
    for index, item in enumerate(items):
        # Even a sleep of no length lets the others run.
        await clock.sleep(max(0.0, began_s + index / rate - clock.monotonic_s()))
        yield item
