"""A disk of a few megabytes that can be filled: a file system in memory."""

import errno
import os
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Self

from chaos.errors import ChaosError

_CHUNK = bytes(64 * 1024)


@cache
def cannot_mount() -> str | None:
    """Return why this machine cannot have such a disk, or None."""
    if os.geteuid() != 0:
        return "mounting a disk needs root"
    # Root in a container may not: only trying tells.
    with tempfile.TemporaryDirectory(prefix="tiw-disk-") as folder:
        try:
            _mount(Path(folder), size_bytes=64 * 1024)
        except ChaosError as error:
            return f"this root may mount no disk: {error}"
        _unmount(Path(folder))
    return None


class SmallDisk:
    """A disk of `size_bytes`, mounted at `path`, which is made. A context manager: leaving unmounts it, with all on it.

    Raises `ChaosError` if it cannot be mounted.
    """

    def __init__(self, path: Path, *, size_bytes: int) -> None:
        self.path = path
        self._size_bytes = size_bytes
        self._filling = path / "filling"

    def __enter__(self) -> Self:
        self.path.mkdir(parents=True)
        _mount(self.path, size_bytes=self._size_bytes)
        return self

    def __exit__(self, *exc_info: object) -> None:
        _unmount(self.path)

    def fill(self) -> None:
        """Take all the room there is."""
        descriptor = os.open(self._filling, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            while True:
                os.write(descriptor, _CHUNK)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
        finally:
            os.close(descriptor)

    def free(self) -> None:
        """Give back what was taken."""
        self._filling.unlink(missing_ok=True)

    def let_be_read_only(self) -> None:
        """Refuse every write. Nothing may have a file open for writing here."""
        _run("mount", "-o", "remount,ro", str(self.path))

    def let_be_written(self) -> None:
        """Take writes again."""
        _run("mount", "-o", "remount,rw", str(self.path))


def _mount(path: Path, *, size_bytes: int) -> None:
    _run("mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=0700", "tmpfs", str(path))


def _unmount(path: Path) -> None:
    # Lazily: a process that is being killed may still have a file open there.
    _run("umount", "--lazy", str(path))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ChaosError(f"{' '.join(command)} failed: {done.stderr.strip()}")
