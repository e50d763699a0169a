"""What the counters of several processes come to: how much in a minute, and how long answers take.

A counter only grows, until its process is started anew. So what counts is by how much each grew from one look to the
next, of each process alone; then all are summed, and kept for ten minutes.
"""

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final, TypeAlias

from msgspec import Struct

from console.peers import PeerMetrics

#: What is counted and looked at, and by which of its labels.
COUNTERS: Final[Mapping[str, tuple[str, ...]]] = {
    "tiw_callbacks_accepted_total": ("routing_key",),
    "tiw_callbacks_refused_total": ("reason",),
    "tiw_callbacks_not_kept_total": ("reason",),
    "tiw_callbacks_spooled_total": (),
    "tiw_answer_seconds_bucket": ("le",),
    "tiw_deliveries_total": ("consumer", "outcome"),
    "tiw_lag_seconds_bucket": ("consumer", "le"),
}

#: So long growth is remembered.
KEPT_S: Final = 600.0

#: Growth over a longer time says nothing of any minute: nobody looked meanwhile.
LONGEST_STEP_S: Final = 30.0

#: What grew in less time is no rate yet.
SHORTEST_S: Final = 8.0

#: Ours have some hundred series; what has more is none of ours.
_MOST_SERIES: Final = 2000

_GREATEST: Final = 2.0**53

#: The name of a counter, and the values of its labels in the order of `COUNTERS`.
Series: TypeAlias = tuple[str, ...]


class _Step(Struct, frozen=True, kw_only=True):
    """By how much everything grew between two looks."""

    began_s: float
    ended_s: float
    grown: Mapping[Series, float]


class _Seen(Struct, frozen=True, kw_only=True):
    """The counters of one process when it answered last."""

    at_s: float
    counters: Mapping[Series, float]


class Rates:
    """Remembers how counters grew. Times are those of one monotonic clock, in seconds."""

    def __init__(self) -> None:
        self._steps: deque[_Step] = deque()
        self._seen: dict[str, _Seen] = {}
        self._looked_at_s = -math.inf

    def look(self, at_s: float, peers: Sequence[PeerMetrics]) -> None:
        """Take what all processes tell at one moment; those that do not answer count from when they last did."""
        if at_s - self._looked_at_s > LONGEST_STEP_S:
            self._steps.clear()
        grown: dict[Series, float] = {}
        for peer in peers:
            if not peer.ok:
                continue
            seen = self._seen.get(peer.address)
            counters = counters_of(peer)
            self._seen[peer.address] = _Seen(at_s=at_s, counters=counters)
            if seen is not None and at_s - seen.at_s <= LONGEST_STEP_S:
                for series, by in growth(seen.counters, counters).items():
                    grown[series] = grown.get(series, 0.0) + by
        answered = any(peer.ok for peer in peers)
        if answered and at_s - self._looked_at_s <= LONGEST_STEP_S:
            self._steps.append(_Step(began_s=self._looked_at_s, ended_s=at_s, grown=grown))
        if answered:
            self._looked_at_s = at_s
        # A replica that went is asked no more.
        self._seen = {address: seen for address, seen in self._seen.items() if at_s - seen.at_s <= KEPT_S}
        while self._steps and self._steps[0].ended_s < at_s - KEPT_S:
            self._steps.popleft()

    def per_minute(self, name: str, *, within_s: float = 60.0, **labels: str) -> float | None:
        """Return how much a minute a counter grew lately, None while too little is known."""
        steps = self._within(within_s)
        length_s = sum(step.ended_s - step.began_s for step in steps)
        if length_s < SHORTEST_S:
            return None
        return sum(_sum(step, name, labels) for step in steps) / length_s * 60.0

    def grown(self, name: str, *, within_s: float = KEPT_S, **labels: str) -> int:
        """Return by how much a counter grew lately, as far as that is known."""
        return round(sum(_sum(step, name, labels) for step in self._within(within_s)))

    def grown_by(self, name: str, label: str, *, within_s: float = KEPT_S, **labels: str) -> dict[str, int]:
        """Return by how much a counter with these labels grew lately for each value of another, the greatest first."""
        place = COUNTERS[name].index(label) + 1
        found: dict[str, float] = {}
        for step in self._within(within_s):
            for series, by in step.grown.items():
                if series[0] == name and _has(series, name, labels):
                    found[series[place]] = found.get(series[place], 0.0) + by
        rounded = {value: round(by) for value, by in found.items()}
        return {value: by for value, by in sorted(rounded.items(), key=lambda one: (-one[1], one[0])) if by}

    def quantile_s(self, name: str, share: float, *, within_s: float = 300.0, **labels: str) -> float | None:
        """Return the length of time that this share of what a histogram observed lately did not exceed.

        Between two bounds of the histogram it is estimated, as PromQL's `histogram_quantile` does. None: nothing was
        observed.
        """
        place = COUNTERS[name].index("le") + 1
        # Also those in which nothing was observed: between them lies what is estimated.
        known = {series for seen in self._seen.values() for series in seen.counters}
        buckets = {_bound(series[place]): 0.0 for series in known if series[0] == name and _has(series, name, labels)}
        for step in self._within(within_s):
            for series, by in step.grown.items():
                if series[0] == name and _has(series, name, labels):
                    bound = _bound(series[place])
                    buckets[bound] = buckets.get(bound, 0.0) + by
        return quantile(sorted(buckets.items()), share)

    def minutes(self, name: str, *, count: int = 10, at_s: float) -> list[float | None]:
        """Return by how much a counter grew in each of the last `count` minutes, the oldest first; None: not known."""
        found: list[float | None] = []
        for number in range(count, 0, -1):
            until_s = at_s - (number - 1) * 60.0
            steps = [step for step in self._steps if until_s - 60.0 < step.ended_s <= until_s]
            length_s = sum(step.ended_s - step.began_s for step in steps)
            found.append(
                None if length_s < SHORTEST_S else sum(_sum(step, name, {}) for step in steps) / length_s * 60.0
            )
        return found

    @property
    def covered_s(self) -> float:
        """Return of how many seconds, at most ten minutes, the growth is known."""
        return sum(step.ended_s - step.began_s for step in self._steps)

    def _within(self, within_s: float) -> list[_Step]:
        return [step for step in self._steps if step.ended_s > self._looked_at_s - within_s]


def counters_of(peer: PeerMetrics) -> dict[Series, float]:
    """Return those of the counters of a process that are looked at; what can be none is left out."""
    found: dict[Series, float] = {}
    for name, labels in COUNTERS.items():
        for sample in peer.samples.get(name, ())[:_MOST_SERIES]:
            if 0 <= sample.value <= _GREATEST and all(label in sample.labels for label in labels):
                series = (name, *(sample.labels[label] for label in labels))
                found[series] = found.get(series, 0.0) + sample.value
    return found


def growth(before: Mapping[Series, float], now: Mapping[Series, float]) -> dict[Series, float]:
    """Return by how much the counters of one process grew.

    If one of them is less than it was, the process was started anew: all begin at nothing.
    """
    if any(now.get(series, 0.0) < count for series, count in before.items()):
        before = {}
    grown = {series: count - before.get(series, 0.0) for series, count in now.items()}
    return {series: by for series, by in grown.items() if by}


def quantile(buckets: Sequence[tuple[float, float]], share: float) -> float | None:
    """Return a quantile of cumulative `buckets`, (bound, count) in order; of what is above the last bound, that bound.

    None where nothing was observed.
    """
    if not buckets or buckets[-1][1] <= 0:
        return None
    wanted = share * buckets[-1][1]
    if buckets[0][1] >= wanted:
        bound, count = buckets[0]
        return bound * wanted / count if math.isfinite(bound) else None
    for (lower, below), (upper, upto) in pairwise(buckets):
        if upto >= wanted:
            # Counts of several processes that are read one after the other need not grow from bound to bound.
            inside = upto - below
            return (
                lower
                if not math.isfinite(upper) or inside <= 0
                else lower + (upper - lower) * (wanted - below) / inside
            )
    return buckets[-1][0] if math.isfinite(buckets[-1][0]) else buckets[-2][0]


def values_of(peers: Sequence[PeerMetrics], name: str, **labels: str) -> Iterator[float]:
    """Yield the values that gauges of this name have now in all processes that answered, but those that can be none."""
    for peer in peers:
        if peer.ok:
            for sample in peer.samples.get(name, ())[:_MOST_SERIES]:
                if abs(sample.value) <= _GREATEST and all(
                    sample.labels.get(key) == value for key, value in labels.items()
                ):
                    yield sample.value


def _sum(step: _Step, name: str, labels: Mapping[str, str]) -> float:
    return sum(by for series, by in step.grown.items() if series[0] == name and _has(series, name, labels))


def _has(series: Series, name: str, labels: Mapping[str, str]) -> bool:
    return all(series[COUNTERS[name].index(label) + 1] == value for label, value in labels.items())


def _bound(text: str) -> float:
    try:
        bound = float(text)
    except ValueError:
        return math.inf
    return math.inf if math.isnan(bound) else bound
