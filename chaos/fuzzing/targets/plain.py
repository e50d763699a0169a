"""Connections that begin with plain requests, against those that aiohttp serves alone."""

import asyncio
import zlib
from functools import cache

from chaos.fuzzing.both_ways import BothWays


@cache
def _runner() -> asyncio.Runner:
    return asyncio.Runner()


@cache
def _both_ways() -> BothWays:
    """Return those of this process: made in the loop, and never closed."""
    return BothWays(fails=lambda number: number % 5 == 0)


def plain(data: bytes) -> None:
    """Serve what comes on a connection in both ways: whole, and cut in two somewhere."""
    _runner().run(_compare(data))


async def _compare(data: bytes) -> None:
    chance = zlib.crc32(data)
    cut = chance % (len(data) + 1)
    for pieces in ([data], [data[:cut], data[cut:]]):
        await _both_ways().compare([piece for piece in pieces if piece], turns=(chance >> 16) % 8)
