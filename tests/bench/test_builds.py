"""Contenders of different builds of Python are not compared."""

import json
import sys
from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.machine.builds import own_build, refuse_other_builds


def interpreter(folder: Path, *, told: str) -> Path:
    """Return a program that says so of itself."""
    program = folder / "python"
    program.write_text(f"#!/bin/sh\ncat <<'EOF'\n{told}\nEOF\n")
    program.chmod(0o755)
    return program


def test_the_same_interpreter_is_the_same_build() -> None:
    assert refuse_other_builds({"itself": Path(sys.executable)}) == own_build()


def test_another_build_of_the_same_version_is_refused(tmp_path: Path) -> None:
    other = own_build()._replace(flags="PGO LTO -O2", made="another compiler, another day")
    with pytest.raises(BenchError, match="the peers would run on another build") as raised:
        refuse_other_builds({"the peers": interpreter(tmp_path, told=json.dumps(other))})
    assert "another compiler, another day" in str(raised.value)


def test_an_interpreter_that_does_not_say_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    with pytest.raises(BenchError, match="does not say how it was built"):
        refuse_other_builds({"broken": broken})
