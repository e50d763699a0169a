"""The folder that the embedded transport lives in: made, checked, and locked while a process opens its file."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from broker.errors import BrokerError

DATABASE_NAME = "transport.db"

#: Opening is a matter of milliseconds, or of seconds if a large file is checked first.
OPENING_TIMEOUT_S = 30.0
_LOCK_POLL_S = 0.005

_MOUNTS = Path("/proc/mounts")

#: WAL needs shared memory between all processes, which no network file system has:
#: https://www.sqlite.org/wal.html#overview
_NETWORK_FILE_SYSTEMS = frozenset(
    {"9p", "afs", "ceph", "cifs", "davfs", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs", "glusterfs"}
    | {"lustre", "ncpfs", "nfs", "nfs4", "smb3", "smbfs"}
)


def prepare_folder(folder: Path) -> None:
    """Make `folder` (mode 0700) if it is missing. Raises `BrokerError` if it cannot be made or is on a network."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise BrokerError(f"cannot make the folder {folder}: {error.strerror}; choose another TIW_DATA_DIR") from error
    kind = network_file_system(folder)
    if kind is not None:
        raise BrokerError(f"{folder} is on a network file system ({kind}); choose a TIW_DATA_DIR on a local disk")


def network_file_system(folder: Path) -> str | None:
    """Return the type of the network file system that `folder` is on; None if it is on none, or nobody can tell."""
    kind = file_system(folder, _mounts())
    return kind if kind in _NETWORK_FILE_SYSTEMS else None


def file_system(folder: Path, mounts: str) -> str:
    """Return the type of the file system that `folder` is on, read from `mounts` as in proc(5); empty if unknown."""
    place = folder.resolve()
    longest, kind = -1, ""
    for line in mounts.splitlines():
        _, mount_point, mounted_kind, *_ = line.split(" ")
        path = mount_point.encode().decode("unicode_escape")  # a space is \040
        # The last line of a mount point wins: it is mounted over the earlier ones.
        if place.is_relative_to(path) and len(path) >= longest:
            longest, kind = len(path), mounted_kind
    return kind


def free_bytes(folder: Path) -> int:
    """Return how much this user may still write to the disk of `folder`."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


@contextmanager
def opening(folder: Path) -> Iterator[None]:
    """Keep every other process from opening the file in `folder` meanwhile. Raises `BrokerError` after 30 s.

    The lock is on the folder itself: no file is left behind.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        deadline_s = time.monotonic() + OPENING_TIMEOUT_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline_s:
                    raise BrokerError(
                        f"another process has been opening {folder} for {OPENING_TIMEOUT_S:g} s; end it"
                    ) from error
            time.sleep(_LOCK_POLL_S)
        yield
    finally:
        os.close(descriptor)


def _mounts() -> str:
    try:
        return _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:  # not Linux
        return ""
