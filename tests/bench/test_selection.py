"""Which comparisons a command line means."""

import pytest

from bench.__main__ import main
from bench.errors import UnknownNameError
from bench.selection import ALL, WITH_TARGETS, select


def test_without_a_name_all_that_has_a_target_is_run() -> None:
    assert select([], is_whole=False) == WITH_TARGETS


def test_all_of_it_is_run_if_asked_for() -> None:
    assert select([], is_whole=True) == ALL
    assert set(WITH_TARGETS) < set(ALL)


def test_a_group_stands_for_its_members() -> None:
    assert list(select(["growth"], is_whole=False)) == ["growth-connections", "growth-bodies", "growth-backlog"]
    assert set(select(["targets", "growth", "archive", "watching"], is_whole=False)) == set(ALL)


def test_a_name_means_itself_alone() -> None:
    assert list(select(["handling", "start-up"], is_whole=False)) == ["handling", "start-up"]


def test_an_unknown_name_is_refused_with_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnknownNameError, match="handling-real"):
        select(["handlin"], is_whole=False)
    assert main(["handlin"]) == 2
    assert "there is no comparison 'handlin'" in capsys.readouterr().err
