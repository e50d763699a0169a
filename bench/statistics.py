"""Medians, spreads and the order of contenders. Pure."""

import math
import statistics
from collections.abc import Sequence
from typing import TypeVar

from msgspec import Struct

T = TypeVar("T")


class Summary(Struct, frozen=True, kw_only=True):
    """Values of several rounds in short."""

    median: float
    low: float
    high: float
    rounds: int


def summarize(values: Sequence[float]) -> Summary | None:
    """Return the median and the extremes of `values`; None of none."""
    if not values:
        return None
    return Summary(median=statistics.median(values), low=min(values), high=max(values), rounds=len(values))


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest of `values` that at least `percent` percent of them do not exceed (nearest rank)."""
    if not values:
        raise ValueError("there is no percentile of nothing")
    rank = math.ceil(percent / 100 * len(values))
    return sorted(values)[max(rank, 1) - 1]


def rotated(contenders: Sequence[T], round_number: int) -> list[T]:
    """Return the contenders in the order of a round: each round begins with another one."""
    start = round_number % len(contenders) if contenders else 0
    return [*contenders[start:], *contenders[:start]]
