"""A copy of the repository, and environments like the suite's in which nothing has to be installed."""

import hashlib
import shutil
import site
import subprocess
import venv
from pathlib import Path

from tests.end_to_end.programs import ROOT


def make_environment(folder: Path) -> Path:
    """Make a virtual environment that has what the suite's has, and is its own to write to; return its Python."""
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    packages.joinpath("suite.pth").write_text("\n".join(site.getsitepackages()), encoding="utf-8")
    digest = hashlib.sha256((ROOT / "requirements/runtime.txt").read_bytes()).hexdigest()
    folder.joinpath("requirements-runtime").write_text(digest, encoding="utf-8")
    return folder / "bin/python"


def copy_repository(folder: Path) -> None:
    """Copy what a clone would have, as it is now: changes that are not committed are tested, too."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],  # noqa: S607
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
