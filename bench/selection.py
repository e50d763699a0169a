"""Which comparisons there are, and which of them a name means."""

from collections.abc import Callable
from typing import TypeAlias

from bench.comparisons import (
    accepting,
    archive,
    end_to_end,
    growth_backlog,
    growth_bodies,
    growth_connections,
    handling,
    handling_real,
    memory,
    spooling,
    start_up,
)
from bench.errors import UnknownNameError
from bench.machine.arena import Arena
from bench.options import Options
from bench.results import Comparison

Run: TypeAlias = Callable[[Arena, Options], Comparison]

#: Stands for all whose names begin with it.
GROWTH_NAME = "growth"

#: Those with a target, in the order in which they are run.
WITH_TARGETS: dict[str, Run] = {
    module.NAME: module.run
    for module in (start_up, memory, accepting, spooling, handling, handling_real, end_to_end, archive)
}
GROWTH: dict[str, Run] = {module.NAME: module.run for module in (growth_connections, growth_bodies, growth_backlog)}
ALL: dict[str, Run] = WITH_TARGETS | GROWTH


def select(names: list[str], *, is_whole: bool) -> dict[str, Run]:
    """Return the comparisons that are asked for: by name, `growth` for all of its three; without names all of them.

    Raises `UnknownNameError` for a name that there is not.
    """
    if not names:
        return ALL if is_whole else WITH_TARGETS
    chosen: dict[str, Run] = {}
    for name in names:
        meant = set(GROWTH) if name == GROWTH_NAME else {name}
        found = {one: run for one, run in ALL.items() if one in meant}
        if not found:
            raise UnknownNameError(f"there is no comparison {name!r}: there are {', '.join(ALL)}")
        chosen |= found
    return chosen
