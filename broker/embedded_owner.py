"""Who holds what: every open transport is an owner, alive for as long as it holds the lock on a file of its own.

The kernel releases a lock with the process, whatever ended it, so nobody needs heartbeats or time-outs.
https://man7.org/linux/man-pages/man2/flock.2.html
"""

import fcntl
import os
import secrets
from pathlib import Path

_PREFIX = "owner-"
_SUFFIX = ".lock"


class Owner:
    """A transport's own name and lock, and its view of the others."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor: int | None = None
        self.name = ""

    def take(self) -> bool:
        """Become an owner; sweep away the files of the dead. Say whether there is another living one."""
        others = [self.is_alive(_name(path)) for path in self._folder.glob(f"{_PREFIX}*{_SUFFIX}")]
        while self._descriptor is None:
            self._descriptor = self._try_new_name()
        return any(others)

    def leave(self) -> None:
        """Stop being an owner. What is still claimed under this name returns to its queues."""
        if self._descriptor is not None:
            self._path(self.name).unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None

    def is_alive(self, name: str) -> bool:
        """Say whether the owner of that name lives. The file of a dead one is removed."""
        if name == self.name and self._descriptor is not None:
            return True
        path = self._path(name)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        except OSError:  # out of descriptors, no access: while nobody can tell, it keeps what it has
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def _try_new_name(self) -> int | None:
        self.name = secrets.token_hex(8)
        path = self._path(self.name)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Another process may have seen the file before it was locked, and removed it as that of a dead owner.
            if path.stat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        except (BlockingIOError, FileNotFoundError):
            pass
        os.close(descriptor)
        return None

    def _path(self, name: str) -> Path:
        return self._folder / f"{_PREFIX}{name}{_SUFFIX}"


def _name(path: Path) -> str:
    return path.name.removeprefix(_PREFIX).removesuffix(_SUFFIX)
