"""What can be wrong with a TCP connection, as data: each kind with its numbers drawn from a seed."""

from enum import StrEnum
from random import Random

from msgspec import Struct


class Direction(StrEnum):
    """Which way bytes go through a proxy."""

    TO_SERVER = "to-server"
    TO_CLIENT = "to-client"


class Kind(StrEnum):
    """One way for a network to fail."""

    #: Everything arrives later, in order, by a delay that varies.
    LATENCY = "latency"
    #: Connections are accepted, and established ones stay; nothing arrives until the fault ends.
    BLACK_HOLE = "black-hole"
    #: Established connections are reset, and so is each new one.
    RESET = "reset"
    #: One direction is silent until the fault ends; the other works.
    HALF_OPEN = "half-open"
    #: The server's side is closed; the client learns of it, as of every close, only after a delay.
    SLOW_CLOSE = "slow-close"
    #: Every byte travels alone.
    ONE_BYTE = "one-byte"
    #: So many bytes in a second, and no more.
    BANDWIDTH = "bandwidth"
    #: A connection is reset after so many bytes of what the server says: in the middle of a confirm.
    CUT = "cut"
    #: Nobody listens; established connections are reset.
    REFUSE = "refuse"


class Toxic(Struct, frozen=True, kw_only=True):
    """A fault of a connection. Only the numbers that its kind needs are not zero.

    `cut_after_bytes` counts from the start of the fault; `cut_new_after_bytes` from the start of a connection that
    came later, so that a reader's hand-shake is cut as well.
    """

    kind: Kind
    delay_s: float = 0.0
    jitter_s: float = 0.0
    bytes_per_s: int = 0
    cut_after_bytes: int = 0
    cut_new_after_bytes: int = 0
    silent: Direction | None = None

    def holds(self, direction: Direction) -> bool:
        """Say whether nothing gets through this way while the fault lasts."""
        return self.kind is Kind.BLACK_HOLE or self.silent is direction


#: A confirm of AMQP is a frame of 21 bytes: https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf (section 4.2.3).
LARGEST_CUT_BYTES = 63


def draw(kind: Kind, rng: Random) -> Toxic:
    """Return a fault of this kind with numbers from `rng`."""
    match kind:
        case Kind.LATENCY:
            delay_s = rng.uniform(0.05, 0.5)
            return Toxic(kind=kind, delay_s=delay_s, jitter_s=rng.uniform(0.0, delay_s))
        case Kind.HALF_OPEN:
            return Toxic(kind=kind, silent=rng.choice(list(Direction)))
        case Kind.SLOW_CLOSE:
            return Toxic(kind=kind, delay_s=rng.uniform(1.0, 4.0))
        case Kind.BANDWIDTH:
            return Toxic(kind=kind, bytes_per_s=rng.randrange(2_000, 40_000))
        case Kind.CUT:
            first, later = rng.randrange(LARGEST_CUT_BYTES), rng.randrange(4_096)
            return Toxic(kind=kind, cut_after_bytes=first, cut_new_after_bytes=later)
        case _:
            return Toxic(kind=kind)
