"""The product as it was at a commit can be run beside the one that is here."""

import shutil
import subprocess
from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.machine import commits
from bench.machine.commits import check_out

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a repository whose file has changed since its first commit, each with a tag."""
    place = tmp_path / "repository"
    place.mkdir()
    monkeypatch.setattr(commits, "ROOT", place)
    git(place, "init", "--quiet")
    for content in ("old", "new"):
        (place / "file").write_text(content)
        git(place, "add", "file")
        git(place, "commit", "--quiet", "--message", content)
        git(place, "tag", content)
    return place


def git(place: Path, *arguments: str) -> None:
    names = ["-c", "user.name=somebody", "-c", "user.email=somebody@localhost", "-c", "commit.gpgsign=false"]
    program = shutil.which("git") or ""
    subprocess.run([program, *names, *arguments], cwd=place, check=True, capture_output=True)


def test_its_files_are_written_and_the_checkout_stays_as_it_is(repository: Path, tmp_path: Path) -> None:
    (repository / "file").write_text("changed since")
    commit = check_out("old", tmp_path)
    assert (commit.tree / "file").read_text() == "old"
    assert (repository / "file").read_text() == "changed since"
    assert not (repository / ".git" / "worktrees").exists()


def test_it_is_named_by_its_hash_and_day(repository: Path, tmp_path: Path) -> None:
    short, _, day = check_out("old", tmp_path).name.partition(" of ")
    assert len(short) >= 7
    assert len(day) == len("2026-01-01")


@pytest.mark.parametrize("name", ["nothing-of-this-name", "--output=elsewhere"])
def test_what_is_no_commit_is_refused(repository: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(BenchError, match="git log failed"):
        check_out(name, tmp_path)
    assert not (repository / "elsewhere").exists()
