"""One pair of ExpireTime and Sign under several callbacks: a sign of somebody who has seen one, and signs his own.

Sign is made of the key and ExpireTime alone. So the sender itself uses one pair for everything that it signs in the
same second, and repeats it for as long as it tries, 85 s at most: that is counted apart from what comes later. Nothing
is refused for it. A pair is told by its SdkAppId and ExpireTime; no Sign is kept.
"""

#: The sender's last try of a callback begins 75 s after the first, and takes up to 10 s:
#: https://www.tencentcloud.com/document/product/1176/55569
LATE_S = 120

#: So many pairs are known, at least; the oldest are forgotten.
REMEMBERED = 8192

_LATE_US = LATE_S * 1_000_000


class Pairs:
    """Counts what was signed with a pair that had signed something else before.

    `soon` within `LATE_S` of its first use, `late` after that. Whoever reads them resets them.
    """

    __slots__ = ("_before", "_now", "late", "soon")

    def __init__(self) -> None:
        # First use and event_id of each pair, in two generations: forgetting costs nothing per pair.
        self._now: dict[tuple[int, bytes], tuple[int, str]] = {}
        self._before: dict[tuple[int, bytes], tuple[int, str]] = {}
        self.soon = 0
        self.late = 0

    def note(self, pair: tuple[int, bytes], event_id: str, received_at_us: int) -> None:
        """Take note of an authentic callback: `pair` is its SdkAppId and ExpireTime as sent."""
        first = self._now.get(pair) or self._before.get(pair)
        if first is None:
            if len(self._now) >= REMEMBERED:
                self._before, self._now = self._now, {}
            self._now[pair] = received_at_us, event_id
        elif first[1] != event_id:
            if received_at_us - first[0] > _LATE_US:
                self.late += 1
            else:
                self.soon += 1
