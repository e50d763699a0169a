"""A unix socket that callbacks come in by: had by one process, or by several that share it, and gone when they end."""

import errno
import fcntl
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path
from typing import Self

#: Connections that the system holds until they are accepted; it may hold fewer.
BACKLOG = 4096

#: Whoever may enter the folder may connect, as every program of this machine may to a port of it: the proxy in front
#: runs as another user. Sign says who a callback is from.
_MODE = 0o666


class UnixSocket:
    """Listens at `path` while it is entered; `socket` is what to accept connections from.

    Entering raises OSError if the path cannot be had. What a dead process has left there is replaced; a socket where
    somebody listens, and a file that is none, are left alone. Leaving removes the file, unless it is another's by then.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._identity: tuple[int, int] | None = None
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def __enter__(self) -> Self:
        try:
            self._listen()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def remove(self) -> None:
        """Remove the file: nobody connects any more, and those who have are still accepted. May be called again."""
        if self._identity is None:
            return
        with suppress(OSError):
            if _identity(self._path) == self._identity:
                self._path.unlink()
        self._identity = None

    def close(self) -> None:
        """Remove the file, and let go of the socket."""
        self.remove()
        self.socket.close()

    def _listen(self) -> None:
        try:
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise OSError(0, f"there is no folder {self._path.parent}: create it") from None
        try:
            # Of two that start together, both would find a dead process's, and the second replace the first's.
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._make_way()
            self.socket.bind(str(self._path))
            self._identity = _identity(self._path)
            self._path.chmod(_MODE)
            self.socket.listen(BACKLOG)
        except BlockingIOError:
            raise OSError(0, "another process is about to listen in this folder") from None
        finally:
            os.close(folder)

    def _make_way(self) -> None:
        """Remove what a dead process has left. Raises OSError for anything else that is there."""
        try:
            mode = self._path.lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise OSError(0, "what is there is not a socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
            trial.setblocking(False)
            found = trial.connect_ex(str(self._path))
        if found == errno.ECONNREFUSED:
            self._path.unlink()
        elif found in (0, errno.EAGAIN):
            raise OSError(0, "another process listens there")
        else:
            raise OSError(0, f"a socket is there that may be another's: {os.strerror(found)}")


def _identity(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino
