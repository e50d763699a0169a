"""The three ways in which the sender looks at time, so that a test can own it."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from msgspec import Struct


class Clock(Struct, frozen=True, kw_only=True):
    """What the time is, and how to let some pass. All in seconds."""

    #: Since the Unix epoch; only ExpireTime is made of it.
    unix_s: Callable[[], float] = time.time
    #: Never goes back; latencies and the rate are measured with it.
    monotonic_s: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


SYSTEM_CLOCK = Clock()
