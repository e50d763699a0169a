"""The product as it was at a commit, to run beside the one that is here: same interpreter, same dependencies."""

import io
import subprocess
import tarfile
from pathlib import Path

from msgspec import Struct

from bench.errors import BenchError
from bench.machine.installing import ROOT


class Commit(Struct, frozen=True, kw_only=True):
    """A commit: its short hash with its date, and the folder that holds its files."""

    name: str
    tree: Path


def check_out(commit: str, folder: Path) -> Commit:
    """Write the files of a commit into `folder`; the repository is only read. Raises `BenchError`."""
    # As text after `--end-of-options`: a name that begins with a hyphen is no option.
    name = _git("log", "-1", "--format=%h of %cs", "--end-of-options", commit).decode().strip()
    tree = folder / "before"
    with tarfile.open(fileobj=io.BytesIO(_git("archive", "--format=tar", name.split()[0]))) as archive:
        archive.extractall(tree, filter="data")
    return Commit(name=name, tree=tree)


def describe_here() -> str:
    """Return the commit that is checked out, and whether files differ from it; nothing outside of a repository."""
    try:
        return _git("describe", "--always", "--dirty").decode().strip()
    except BenchError:
        return ""


def _git(*arguments: str) -> bytes:
    # The checkout may belong to somebody else, as in a container.
    command = ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    except FileNotFoundError:
        raise BenchError("git is not installed: without it no commit can be compared") from None
    if done.returncode != 0:
        raise BenchError(f"git {arguments[0]} failed: {done.stderr.decode(errors='replace').strip()[-500:]}")
    return done.stdout
