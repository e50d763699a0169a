"""Many classes at the same time, as one sequence of sends with repetitions and events that overtake each other."""

from collections.abc import Iterator, Sequence
from operator import itemgetter
from random import Random

from msgspec import Struct

from simulator.callback import Callback
from simulator.classes import ClassKind, play_class

#: Classes that are held at the same time, each at its own point.
_OVERLAPPING_CLASSES = 16

#: The vendor's range of RoomId is that of 32 bits, from 1; short ones are left to real rooms.
_ROOM_IDS = range(10_000, 2**32)


class Send(Struct, frozen=True, kw_only=True):
    """A callback to be sent: the first time (`copy` 0) or once more (`copy` 1). One send of each class ends it."""

    callback: Callback
    copy: int
    ends_class: bool


def schedule(
    *, classes: int, kinds: Sequence[ClassKind], sdk_app_id: int, seed: int, duplicates: float, disorder: float
) -> Iterator[Send]:
    """Yield every callback of `classes` classes, at least once each; the same arguments give the same sequence.

    Class number n is of kind n modulo the number of `kinds`, has a RoomId and a TaskId of its own, and its content
    depends on `seed` and n alone. `duplicates` is the share of callbacks that are sent once more, `disorder` the
    share that is held back until others of the class have gone. Classes are made as they are needed, so a long
    sequence takes little memory.
    """
    rng = _random(seed, "interleaving")
    coming = _classes(classes, kinds, sdk_app_id=sdk_app_id, seed=seed, duplicates=duplicates, disorder=disorder)
    running: list[Iterator[Send]] = []
    while True:
        while len(running) < _OVERLAPPING_CLASSES and (next_class := next(coming, None)) is not None:
            running.append(next_class)
        if not running:
            return
        index = rng.randrange(len(running))
        send = next(running[index])
        yield send
        if send.ends_class:
            del running[index]


def _classes(
    count: int, kinds: Sequence[ClassKind], *, sdk_app_id: int, seed: int, duplicates: float, disorder: float
) -> Iterator[Iterator[Send]]:
    rooms: set[int] = set()
    for number in range(count):
        rng = _random(seed, f"class {number}")
        room_id = rng.choice(_ROOM_IDS)
        while room_id in rooms:
            room_id = rng.choice(_ROOM_IDS)
        rooms.add(room_id)
        callbacks = play_class(kinds[number % len(kinds)], rng, sdk_app_id=sdk_app_id, room_id=room_id)
        # Its own stream of numbers: the content of a class does not depend on how it is sent.
        yield iter(_arrange(callbacks, _random(seed, f"order {number}"), duplicates=duplicates, disorder=disorder))


def _arrange(callbacks: Sequence[Callback], rng: Random, *, duplicates: float, disorder: float) -> list[Send]:
    """Put the sends of one class in order."""
    count = len(callbacks)
    places: list[tuple[float, Callback, int]] = []
    for index, callback in enumerate(callbacks):
        # Fractions decide between neighbours: one that is held back goes after the next one, a copy after its first.
        place = index + rng.randint(1, count) + 0.5 if rng.random() < disorder else index
        places.append((place, callback, 0))
        if rng.random() < duplicates:
            places.append((place + rng.randrange(count) + 0.25, callback, 1))
    places.sort(key=itemgetter(0))
    last = len(places) - 1
    return [
        Send(callback=callback, copy=copy, ends_class=index == last) for index, (_, callback, copy) in enumerate(places)
    ]


def _random(seed: int, purpose: str) -> Random:
    return Random(f"{seed} {purpose}")  # noqa: S311 - to be reproducible is the point; no secret is made of it
