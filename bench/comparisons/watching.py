"""Watching: what people who look at the console cost whoever takes the callbacks."""

from functools import partial

from bench.machine.arena import Arena
from bench.options import Options
from bench.results import Comparison
from bench.rounds import Contender, compare
from bench.runs.watching import watch

NAME = "watching"

_VIEWERS = {"console off": None, "nobody looks": 0, "one viewer": 1, "200 viewers": 200}


def run(arena: Arena, options: Options) -> Comparison:
    """Compare `tiw up` without a console, with one that nobody, one and 200 people look at."""
    contenders = [Contender(name=name, measure=partial(watch, viewers)) for name, viewers in _VIEWERS.items()]
    title = "watching: tiw up, embedded, 200 callbacks a second, while people have the page Now open"
    return compare(NAME, title, contenders, arena, options)
