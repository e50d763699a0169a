"""What is printed, kept and reported of results."""

import io
from pathlib import Path
from typing import Any

import pytest

from chaos.__main__ import MISUSED, main
from chaos.checking.evidence import Finding, Judgement
from chaos.evidence import Measured
from chaos.matrix import Numbers, Result, lines, markdown, print_matrix
from chaos.run import State, code_digest
from chaos.scenarios import ALL


def numbers(**changes: Any) -> Numbers:
    values: dict[str, Any] = {
        **dict.fromkeys(("gave_up", "lost", "applied_twice", "unaccounted", "repeated_effects", "dead_letters"), 0),
        "faults": 2,
        "sent": 10,
        "accepted": 10,
        "worst_answer_s": 2.5,
        "recovered_after_s": 1.0,
        "drained_after_s": 0.0,
        "settled_after_s": 1.0,
    }
    return Numbers(**{**values, **changes})


def result(**changes: Any) -> Result:
    good = Finding(judgement=Judgement.SATISFIED, exercised=1)
    values: dict[str, Any] = {
        "scenario": "kill-each",
        "seed": 1,
        "is_full": False,
        "code": "c",
        "finished_at": "t",
        "took_s": 1.0,
        "numbers": numbers(),
        "findings": {"I1": good},
    }
    return Result(**{**values, **changes})


LOST = Finding(judgement=Judgement.VIOLATED, exercised=10, violations=1, text="a is nowhere")
UNSEEN = Finding(judgement=Judgement.UNCHECKED, text="there was no dead letter")


def test_a_line_takes_the_rounds_of_a_scenario_together() -> None:
    (line,) = lines([result(), result(seed=1001, numbers=numbers(worst_answer_s=7.5))])
    assert line.cells[:5] == ("kill-each", "2", "4", "20", "20")
    assert "7.5" in line.cells
    assert line.is_good


def test_an_invariant_that_one_round_violates_is_violated() -> None:
    (line,) = lines([result(), result(seed=1001, findings={"I1": LOST})])
    assert line.cells[-2] == "I1"
    assert not line.is_good
    assert line.reasons == ("violated I1 (seed 1001, 1 times): a is nowhere",)


def test_an_invariant_without_evidence_is_shown_as_unchecked() -> None:
    (line,) = lines([result(findings={"I6": UNSEEN})])
    assert line.cells[-3:] == ("", "", "I6")
    assert line.reasons == ("unchecked I6: there was no dead letter",)


@pytest.mark.parametrize(
    ("what", "shown"),
    [({"problem": "no broker"}, "not played to its end"), ({"cannot_run": "root"}, "cannot run here")],
)
def test_what_did_not_run_is_never_shown_as_passed(what: dict[str, str], shown: str) -> None:
    did_not_run = result(numbers=None, findings={}, **what)
    assert not did_not_run.is_good
    out = io.StringIO()
    print_matrix([did_not_run], out, verbose=False)
    assert shown in out.getvalue()
    assert shown in markdown([did_not_run])


def test_a_result_that_was_kept_is_found_again_and_that_of_another_seed_is_not(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.keep(result(findings={"I1": LOST, "I6": UNSEEN}))
    assert state.find("kill-each", 1, is_full=False) == result(findings={"I1": LOST, "I6": UNSEEN})
    assert state.find("kill-each", 2, is_full=False) is None
    assert state.find("kill-each", 1, is_full=True) is None


def test_a_file_that_was_cut_off_is_no_result(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.keep(result())
    (file,) = tmp_path.rglob("*.json")
    file.write_bytes(file.read_bytes()[:40])
    assert state.find("kill-each", 1, is_full=False) is None


def test_the_code_has_the_same_digest_while_it_is_the_same() -> None:
    assert code_digest() == code_digest()


def test_every_scenario_has_a_name_of_its_own_and_a_sentence() -> None:
    assert len({scenario.name for scenario in ALL}) == len(ALL)
    assert all(scenario.sentence for scenario in ALL)


def test_the_list_names_every_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [scenario.name for scenario in ALL]


def test_a_scenario_that_does_not_exist_is_a_mistake_of_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--scenario", "earthquake"]) == MISUSED
    assert "earthquake" in capsys.readouterr().err


def test_of_what_was_measured_the_largest_value_is_told_and_only_to_who_wants_to_know() -> None:
    rounds = [
        result(seed=seed, measures=(Measured(what="p99", value=value, at_most=250, unit="ms"),))
        for seed, value in ((1, 20.0), (2, 30.0))
    ]
    short, verbose = io.StringIO(), io.StringIO()
    print_matrix(rounds, short, verbose=False)
    print_matrix(rounds, verbose, verbose=True)
    assert "p99" not in short.getvalue()
    assert "kill-each: measured p99: 30 ms, 250 are allowed" in verbose.getvalue()
