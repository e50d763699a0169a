"""Which comparisons there are, and which of them a name means."""

from collections.abc import Callable
from typing import TypeAlias

from bench.comparisons import (
    accepting,
    archive,
    demo,
    end_to_end,
    growth_backlog,
    growth_bodies,
    growth_connections,
    handling,
    handling_real,
    latency,
    lonely,
    sitting,
    spooling,
    start_up,
    watching,
    whole,
)
from bench.errors import UnknownNameError
from bench.machine.arena import Arena
from bench.options import Options
from bench.results import Comparison

Run: TypeAlias = Callable[[Arena, Options], Comparison]

#: Those with a target but the archive, in the order in which they are run.
WITH_TARGETS: dict[str, Run] = {
    module.NAME: module.run
    for module in (
        *(start_up, demo, sitting, accepting, growth_bodies, latency, spooling),
        *(handling, handling_real, lonely, end_to_end, whole),
    )
}
GROWTH: dict[str, Run] = {module.NAME: module.run for module in (growth_connections, growth_bodies, growth_backlog)}
#: Moves twenty gigabytes, which takes minutes: its targets are judged when it is run.
ARCHIVE: dict[str, Run] = {archive.NAME: archive.run}
#: What looking costs those who do not look.
CONSOLE: dict[str, Run] = {watching.NAME: watching.run}
ALL: dict[str, Run] = WITH_TARGETS | GROWTH | ARCHIVE | CONSOLE
#: Names that stand for several.
GROUPS: dict[str, dict[str, Run]] = {"targets": WITH_TARGETS, "growth": GROWTH}


def select(names: list[str], *, is_whole: bool) -> dict[str, Run]:
    """Return the comparisons that are asked for: by name, or by that of a group; without names all of them.

    Raises `UnknownNameError` for a name that there is not.
    """
    if not names:
        return ALL if is_whole else WITH_TARGETS
    chosen: dict[str, Run] = {}
    for name in names:
        if name in GROUPS:
            chosen |= GROUPS[name]
        elif name in ALL:
            chosen[name] = ALL[name]
        else:
            raise UnknownNameError(f"there is no comparison {name!r}: there are {', '.join([*ALL, *GROUPS])}")
    return chosen
