"""How interpreters were built: one without PGO and LTO is a seventh slower, so contenders share one build.

Standard library only: `python -m bench.machine.builds` tells of whichever interpreter runs it.
"""

import json
import platform
import subprocess
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from bench.errors import BenchError

_ROOT = Path(__file__).resolve().parents[2]

#: By the option of CPython's `configure`.
_OPTIMIZATIONS = {"--enable-optimizations": "PGO", "--with-lto": "LTO", "--with-pydebug": "debug"}


class Build(NamedTuple):
    """An interpreter: which one, what it was compiled with, by what and when. Two builds of one version differ."""

    version: str
    flags: str
    made: str

    def __str__(self) -> str:
        return f"{self.version} ({self.flags}; {self.made})"


def own_build() -> Build:
    """Return the build of this interpreter: ours run on it."""
    arguments = str(sysconfig.get_config_var("CONFIG_ARGS") or "").replace("'", "").split()
    given = [name for option, name in _OPTIMIZATIONS.items() if any(one.startswith(option) for one in arguments)]
    if not given and sysconfig.get_config_var("PGO_PROF_USE_FLAG") == "":
        # Debian's rules call make with flags of their own, and blank them in what is installed.
        given = ["by a distribution, which hides its PGO and LTO"]
    levels = [flag for flag in str(sysconfig.get_config_var("PY_CFLAGS") or "").split() if flag.startswith("-O")]
    return Build(
        version=f"{platform.python_implementation()} {platform.python_version()}",
        flags=" ".join([*(given or ["neither PGO nor LTO"]), *levels[-1:]]),
        made=f"{platform.python_compiler()}, {platform.python_build()[1]}",
    )


def refuse_other_builds(pythons: Mapping[str, Path]) -> Build:
    """Return the build that this interpreter shares with all `pythons`. Raises `BenchError` if one has another."""
    own = own_build()
    for name, python in pythons.items():
        if (other := _build_of(python)) != own:
            raise BenchError(f"{name} would run on another build than ours, and nothing is compared:\n{other}\n{own}")
    return own


def _build_of(python: Path) -> Build:
    command = [str(python), "-P", "-m", "bench.machine.builds"]
    done = subprocess.run(
        command, env={"PYTHONPATH": str(_ROOT)}, capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode != 0:
        raise BenchError(f"{python} does not say how it was built:\n{done.stderr[-500:]}")
    return Build(*json.loads(done.stdout))


if __name__ == "__main__":
    print(json.dumps(own_build()))
