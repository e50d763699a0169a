"""What becomes of a delivery once its consumer has seen it.

A handler returns (`Ack`), raises one of the others, or returns one of them; any other exception counts as `Retry()`.
They are exceptions so that they can be raised from deep inside a handler, and values so that tests can compare them.
"""

from typing import TypeAlias


class Ack:
    """The event is handled."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ack)

    def __hash__(self) -> int:
        return hash(Ack)

    def __repr__(self) -> str:
        return "Ack()"


class Retry(Exception):  # noqa: N818 - an outcome that a handler raises, not an error
    """Try again later: on the shortest rung of the ladder not under `after_s`, by default on the attempt's own.

    It counts as an attempt. `reason` is what the dead letter says should this have been the last one.
    """

    def __init__(self, *, after_s: float | None = None, reason: str = "") -> None:
        if after_s is not None and after_s < 0:
            raise ValueError("after_s must not be negative")
        super().__init__(reason)
        self.after_s = after_s
        self.reason = reason

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Retry) and (self.after_s, self.reason) == (other.after_s, other.reason)

    def __hash__(self) -> int:
        return hash((Retry, self.after_s, self.reason))

    def __repr__(self) -> str:
        return f"Retry(after_s={self.after_s!r}, reason={self.reason!r})"


class _Final(Exception):  # noqa: N818 - see Retry
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.reason == other.reason

    def __hash__(self) -> int:
        return hash((type(self), self.reason))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.reason!r})"


class Drop(_Final):
    """Forget the event, on purpose; `reason` is logged and the drop is counted."""


class DeadLetter(_Final):
    """Give up at once: the event becomes a dead letter with `reason`, visible and replayable."""


Outcome: TypeAlias = Ack | Retry | Drop | DeadLetter
