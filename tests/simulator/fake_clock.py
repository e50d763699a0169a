"""A clock that a test owns: it stands still but for sleeps, which pass at once."""

import asyncio

from simulator import Clock


class FakeClock:
    """Notes every sleep; all three of its times move by it."""

    def __init__(self, now_s: float = 1_590_046_391.0) -> None:
        self.now_s = now_s
        self.slept_s: list[float] = []

    async def sleep(self, seconds: float) -> None:
        """Let the time pass, and anybody else run."""
        self.slept_s.append(seconds)
        self.now_s += seconds
        await asyncio.sleep(0)

    @property
    def clock(self) -> Clock:
        """What the code under test looks at."""
        return Clock(unix_s=lambda: self.now_s, monotonic_s=lambda: self.now_s, sleep=self.sleep)
