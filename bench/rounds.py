"""Rounds: every contender once in each, alone, and each time another one first."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from msgspec import Struct

from bench.errors import VoidRoundError
from bench.machine.arena import Arena
from bench.options import Options
from bench.results import Comparison, Contestant
from bench.statistics import rotated

#: Values by metric.
Values: TypeAlias = dict[str, float]


class Contender(Struct, frozen=True, kw_only=True):
    """Somebody who does the work: `measure` does it once and returns values, or raises `VoidRoundError`.

    One that `is_before` runs only where there is a commit to compare with.
    """

    name: str
    measure: Callable[[Arena, Options], Values]
    is_before: bool = False


def compare(name: str, title: str, contenders: Sequence[Contender], arena: Arena, options: Options) -> Comparison:
    """Let every contender do the work `options.rounds` times, in turn."""
    contenders = [one for one in contenders if options.against or not one.is_before]
    found = {contender.name: Contestant(name=contender.name) for contender in contenders}
    for number in range(options.rounds):
        for contender in rotated(contenders, number):
            arena.say(f"{name}: round {number + 1} of {options.rounds}: {contender.name}")
            try:
                found[contender.name].rounds.append(contender.measure(arena, options))
            except Exception as error:  # noqa: BLE001 - whatever befalls one run is told, and costs no other its result
                reason = str(error) if isinstance(error, VoidRoundError) else repr(error)
                arena.say(f"{name}: void: {contender.name}: {reason}")
                found[contender.name].void.append(reason.partition("\n")[0])
    return Comparison(name=name, title=title, contestants=list(found.values()))
