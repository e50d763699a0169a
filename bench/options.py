"""How long and how often to measure."""

import msgspec
from msgspec import Struct


class Options(Struct, frozen=True, kw_only=True):
    """What the command line decides.

    Every contender runs `rounds` times. A load lasts `seconds` after a warm-up of `warm_up_s`; where messages are
    drained there are as many as should last `seconds`. `is_whole`: also the rows that no target asks for. `against`: a
    commit whose product runs beside the one that is here; empty if none does.
    """

    rounds: int = 4
    seconds: float = 2.0
    warm_up_s: float = 1.0
    is_whole: bool = False
    against: str = ""

    def at_most(self, rounds: int) -> "Options":
        """Return the same with no more than so many rounds: for what takes long and varies little."""
        return msgspec.structs.replace(self, rounds=min(self.rounds, rounds))
