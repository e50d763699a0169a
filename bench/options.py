"""How long and how often to measure."""

from msgspec import Struct


class Options(Struct, frozen=True, kw_only=True):
    """What the command line decides.

    Every contender runs `rounds` times. A load lasts `seconds` after a warm-up of `warm_up_s`; where messages are
    drained there are as many as should last `seconds`. `is_whole`: also the rows that no target asks for.
    """

    rounds: int = 5
    seconds: float = 3.0
    warm_up_s: float = 1.0
    is_whole: bool = False
