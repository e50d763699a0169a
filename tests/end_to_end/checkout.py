"""A copy of the repository, and environments like the suite's in which nothing has to be installed."""

import hashlib
import os
import shutil
import site
import subprocess
import venv
import zipfile
from collections.abc import Mapping
from pathlib import Path

from tests.end_to_end.programs import ROOT

#: For pip: no index is asked.
NO_INDEX = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1"}


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
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],  # noqa: S607 - the user's
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


def make_wheel(folder: Path, requirement: str, modules: Mapping[str, str], *, needs: str | None = None) -> str:
    """Make a wheel of `modules`, as somebody's index would have it; return its hash."""
    name, _, version = requirement.partition("==")
    stem = f"{name.replace('-', '_')}-{version}"
    file = folder / f"{stem}-py3-none-any.whl"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    with zipfile.ZipFile(file, "w") as archive:
        for module, content in modules.items():
            archive.writestr(module, content)
        archive.writestr(f"{stem}.dist-info/METADATA", metadata + (f"Requires-Dist: {needs}\n" if needs else ""))
        archive.writestr(
            f"{stem}.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr(f"{stem}.dist-info/RECORD", "")
    return hashlib.sha256(file.read_bytes()).hexdigest()
