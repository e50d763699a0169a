"""Whose turn it is, and what becomes of a round that fails."""

from pathlib import Path

import pytest

from bench.errors import BenchError, VoidRoundError
from bench.machine.arena import Arena
from bench.machine.installing import Installation
from bench.options import Options
from bench.rounds import Contender, Values, compare


@pytest.fixture
def arena(tmp_path: Path) -> Arena:
    return Arena(Installation(tmp_path, lambda _: None))


class Turns:
    """Notes who was measured."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def contender(self, name: str, *, fails: BaseException | None = None, is_before: bool = False) -> Contender:
        def measure(arena: Arena, options: Options) -> Values:
            self.names.append(name)
            if fails is not None:
                raise fails
            return {"per_s": 1.0}

        return Contender(name=name, measure=measure, is_before=is_before)


def test_every_contender_runs_in_each_round_and_each_time_another_one_first(arena: Arena) -> None:
    turns = Turns()
    compare("some", "", [turns.contender(name) for name in "abc"], arena, Options(rounds=3))
    assert "".join(turns.names) == "abcbcacab"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (VoidRoundError("3 messages are missing\nand more"), "3 messages are missing"),
        (TimeoutError("late"), "TimeoutError('late')"),
        (ConnectionResetError("gone"), "ConnectionResetError('gone')"),
    ],
)
def test_what_befalls_one_contender_is_told_and_costs_no_other_its_result(
    arena: Arena, error: Exception, reason: str
) -> None:
    turns = Turns()
    contenders = [turns.contender("bad", fails=error), turns.contender("good")]
    made = compare("some", "", contenders, arena, Options(rounds=2))
    bad, good = made.contestants
    assert (bad.rounds, bad.void) == ([], [reason, reason])
    assert (len(good.rounds), good.void) == (2, [])


def test_an_interruption_ends_it(arena: Arena) -> None:
    with pytest.raises(KeyboardInterrupt):
        compare("some", "", [Turns().contender("any", fails=KeyboardInterrupt())], arena, Options(rounds=2))


def test_ours_of_before_runs_only_beside_a_commit(arena: Arena) -> None:
    turns = Turns()
    contenders = [turns.contender("now"), turns.contender("before", is_before=True)]
    compare("some", "", contenders, arena, Options(rounds=1))
    assert turns.names == ["now"]
    compare("some", "", contenders, arena, Options(rounds=1, against="a-commit"))
    assert turns.names == ["now", "now", "before"]
    with pytest.raises(BenchError, match="--against COMMIT"):
        arena.tree(is_before=True)


def test_what_takes_long_has_fewer_rounds_and_never_more_than_asked_for() -> None:
    assert Options(rounds=5, seconds=7).at_most(2) == Options(rounds=2, seconds=7)
    assert Options(rounds=1).at_most(2) == Options(rounds=1)
