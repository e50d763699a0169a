"""Which rejected callbacks have to go when there are too many, so that a flood pushes out itself and not the others.

Whoever knows the address can send rubbish. What came in the same ten minutes for the same application is one crowd, and
the largest crowd loses first: what was kept in other minutes, and for other applications, stays. All applications that
are not configured are one, as anybody can invent any number of them. The real sender repeats what was refused, so what
came once goes before what came again.
"""

import heapq
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

SLOT_US = 600 * 1_000_000


class Place(NamedTuple):
    """What decides about a kept callback. `app` is None if no such application is configured."""

    id: int
    received_at_us: int
    app: int | None
    tries: int
    size_bytes: int


_Crowd: TypeAlias = tuple[int | None, int]


def crowded_out(places: Iterable[Place], *, limit: int, limit_bytes: int) -> list[int]:
    """Return the ids that must go for at most `limit` of them, of at most `limit_bytes` together, to stay."""
    crowds: defaultdict[_Crowd, list[Place]] = defaultdict(list)
    for place in places:
        crowds[place.app, place.received_at_us // SLOT_US].append(place)
    gone = _thin_bytes(crowds, limit_bytes)
    return gone + _thin(crowds, limit)


def _thin_bytes(crowds: dict[_Crowd, list[Place]], limit_bytes: int) -> list[int]:
    """Take the largest bodies of the crowd with most bytes."""
    sizes = {crowd: sum(place.size_bytes for place in places) for crowd, places in crowds.items()}
    total, gone = sum(sizes.values()), []
    while total > limit_bytes:
        crowd = max(sizes, key=sizes.__getitem__)
        largest = max(crowds[crowd], key=lambda place: (place.size_bytes, -place.received_at_us))
        crowds[crowd].remove(largest)
        sizes[crowd] -= largest.size_bytes
        total -= largest.size_bytes
        gone.append(largest.id)
    return gone


def _thin(crowds: dict[_Crowd, list[Place]], limit: int) -> list[int]:
    """Take the oldest of those that came once, then of the others, from the largest crowd; of equal ones, the older."""
    # Sorted the other way round: they are taken from the end.
    for places in crowds.values():
        places.sort(key=lambda place: (place.tries == 1, -place.received_at_us))
    largest = [(-len(places), slot, app is not None, app or 0) for (app, slot), places in crowds.items()]
    heapq.heapify(largest)
    excess, gone = sum(map(len, crowds.values())) - limit, []
    for _ in range(excess):
        count, slot, is_known, app = largest[0]
        gone.append(crowds[app if is_known else None, slot].pop().id)
        heapq.heapreplace(largest, (count + 1, slot, is_known, app))
    return gone
