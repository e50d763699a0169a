"""An endless stream of distinct callbacks of classes, genuine ones and forgeries, from a seed."""

from collections.abc import Iterator
from random import Random

from msgspec import Struct

from simulator import DEFAULT_KINDS, Callback, ClassKind, schedule

#: More than any run sends: classes are made as they are needed.
_ENDLESS = 10**9

#: All five events, those of other families, and the oldest form of a failure, which makes no recording.
KINDS = (*DEFAULT_KINDS, ClassKind.OTHER_FAMILIES, ClassKind.ERROR_ONLY)


class Item(Struct, frozen=True, kw_only=True):
    """What is sent next. `is_repeated`: once it was accepted it is sent once more, as late answers cause it."""

    callback: Callback
    is_repeated: bool = False
    is_forged: bool = False


def stream(seed: int, *, sdk_app_id: int, duplicates: float, forged: float) -> Iterator[Item]:
    """Yield the same items for the same arguments. No callback occurs twice, nor does a forgery's."""
    rng = Random(f"{seed} stream")
    genuine = _callbacks(seed * 2, sdk_app_id)
    others = _callbacks(seed * 2 + 1, sdk_app_id)
    while True:
        if rng.random() < forged:
            yield Item(callback=next(others), is_forged=True)
        yield Item(callback=next(genuine), is_repeated=rng.random() < duplicates)


def _callbacks(seed: int, sdk_app_id: int) -> Iterator[Callback]:
    sends = schedule(classes=_ENDLESS, kinds=KINDS, sdk_app_id=sdk_app_id, seed=seed, duplicates=0.0, disorder=0.2)
    return (send.callback for send in sends)
