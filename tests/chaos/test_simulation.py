"""The deterministic simulation: it tells the same story twice, its checker finds what is wrong, and nothing is."""

import subprocess
import sys
from pathlib import Path

import pytest

from chaos.simulation.__main__ import main
from chaos.simulation.database import make_template
from chaos.simulation.plan import Bug, Plan, draw_plan, small_plan
from chaos.simulation.running import run_world

#: Within so many small worlds every planted bug shows itself, and most in these two, which come first.
FOUND_WITHIN = 40
MOST_SHOW = (4, 5)

#: The CI's slice of `./dev simulation`.
SLICE = range(1000, 1006)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("worlds") / "template.db"
    make_template(path)
    return path


@pytest.mark.parametrize("plan", [draw_plan(8), small_plan(4)], ids=["drawn", "small"])
def test_the_same_plan_tells_the_same_story(template: Path, plan: Plan) -> None:
    first = run_world(plan, template=template, tells=True)
    again = run_world(plan, template=template, tells=True)
    assert first == again
    assert len(first.story) > 40


def test_another_seed_tells_another_story(template: Path) -> None:
    assert run_world(small_plan(1), template=template).digest != run_world(small_plan(2), template=template).digest


@pytest.mark.parametrize("bug", Bug)
def test_a_planted_bug_is_found(template: Path, bug: Bug) -> None:
    for seed in (*MOST_SHOW, *range(FOUND_WITHIN)):
        if run_world(small_plan(seed), template=template, bugs=frozenset({bug})).violations:
            return
    pytest.fail(f"{bug} was not found in {FOUND_WITHIN} worlds")


def test_no_promise_is_broken_in_a_slice_of_worlds(template: Path) -> None:
    outcomes = [run_world(small_plan(seed), template=template) for seed in SLICE]
    assert {outcome.seed: outcome.violations for outcome in outcomes if outcome.violations} == {}
    assert sum(outcome.crashes for outcome in outcomes) > len(outcomes)
    assert sum(outcome.accepted for outcome in outcomes) > 5 * len(outcomes)


def test_the_command_reports_and_tells_a_story(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "4", "--worlds", "1", "--trace"]) == 0
    printed = capsys.readouterr().out
    assert "ingest0.1      started" in printed
    assert "worlds with a broken promise" in printed


def test_the_command_ends_with_1_and_the_seed_if_a_promise_is_broken(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "4", "--worlds", "1", "--bug", "forged-accepted", "--bug", "events-forgotten"]) == 1
    assert "again: ./dev simulation --seed 4 --worlds 1 --trace" in capsys.readouterr().out


def test_a_wrong_option_ends_with_2() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "chaos.simulation", "--worlds", "0"], capture_output=True, check=False, timeout=120
    )
    assert ended.returncode == 2
