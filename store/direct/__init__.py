"""The direct way into the tables: the driver itself, for the plain case; everything else goes the careful way.

What is written directly is what `store.applying` would have written. Where that is not certain at once, because another
process is at the same recording, an event is there already, or the database is not well, it is left to the careful way.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from sqlalchemy import ClauseElement

from store.kept import KeptEvent


class Direct(Protocol):
    """What a store has for its kind of database."""

    async def apply(self, kept: Mapping[str, KeptEvent]) -> bool:
        """Keep events, by their ids, and bring their recordings up to date; True: done and durable.

        False: the careful way is to be taken, with all of them; what was done until then is done again by that, with
        the same result. Raises what the driver raises where the careful way would fare no better.
        """

    async def fetch(self, statement: ClauseElement, parameters: Mapping[str, object]) -> list[Any] | None:
        """Execute a statement that may be repeated, as a transaction of its own, and return its rows.

        None: it is to be executed the careful way, whether it was already or not. `statement` is the same object again
        and again.
        """

    async def close(self) -> None:
        """Give back what it holds; it may be used again."""


__all__ = ["Direct"]
