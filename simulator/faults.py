"""Which requests to the vendor's fakes fail: by rules, and a share by chance."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Generic, TypeVar

from msgspec import Struct, field

Request = TypeVar("Request")


class Faults(Struct, Generic[Request], kw_only=True):
    """What goes wrong; each field can be changed while a server runs.

    The first rule that says something decides; where none does, a `share` of all requests meets one of `failures`,
    drawn by `rng`. A failure is a word that the server knows.
    """

    share: float = 0.0
    failures: Sequence[str] = ()
    #: Each says what becomes of a request; None: nothing.
    rules: list[Callable[[Request], str | None]] = field(default_factory=list)
    rng: Random = field(default_factory=lambda: Random(0))  # noqa: S311 - to be reproducible is the point

    def fail_next(self, failure: str, count: int = 1, *, when: Callable[[Request], bool] | None = None) -> None:
        """Let the next `count` requests fail: all, or those of which `when` is true."""
        left = count

        def rule(request: Request) -> str | None:
            nonlocal left
            if left == 0 or (when is not None and not when(request)):
                return None
            left -= 1
            return failure

        self.rules.append(rule)

    def choose(self, request: Request) -> str | None:
        """Return what becomes of this request, None if it is answered as it should be."""
        for rule in self.rules:
            if (failure := rule(request)) is not None:
                return failure
        return self.rng.choice(self.failures) if self.failures and self.rng.random() < self.share else None
