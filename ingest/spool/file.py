"""One file of the spool, locked by this process."""

import os
from pathlib import Path
from typing import Self

from ingest.spool.contents import Contents, read_contents
from ingest.spool.folder import DAMAGED, adopt, create, marker_of, sync


class SpoolFile:
    """A locked file that records are appended to. Every method blocks on the disk and raises OSError.

    `records` and `bytes` tell what waits in it and how large it is; `oldest_at_us` when the oldest of those callbacks
    was received, None if nothing waits.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.marker = marker_of(path)
        self._descriptor = descriptor
        self.bytes = os.fstat(descriptor).st_size
        self.records = 0
        self.oldest_at_us: int | None = None

    @classmethod
    def create(cls, folder: Path, kind: str) -> Self:
        """Make a new one in `folder`."""
        return cls(*create(folder, kind))

    @classmethod
    def adopt(cls, path: Path) -> Self | None:
        """Take over a file that has no owner; None if it has one, or is gone."""
        descriptor = adopt(path)
        return None if descriptor is None else cls(path, descriptor)

    @property
    def is_in_place(self) -> bool:
        """Whether the file is still where its path says: what is written to a deleted one is lost with this process."""
        try:
            return self.path.stat().st_ino == os.fstat(self._descriptor).st_ino
        except (FileNotFoundError, NotADirectoryError):
            return False

    def append(self, frames: bytes) -> None:
        """Write frames and wait until the disk has them. If that fails, the file is as it was, or it is to be left.

        After a failed fsync nobody knows which pages the disk has: https://lwn.net/Articles/752063/. So a file that
        raised is not appended to again; what was in it before is not touched.
        """
        self._write(frames)
        os.fdatasync(self._descriptor)

    def mark(self, frames: bytes) -> None:
        """Write frames that may be lost in a crash: then something is done once more."""
        self._write(frames)

    def read(self) -> Contents:
        """Read all of it, and bring the counts up to date."""
        size_bytes = os.fstat(self._descriptor).st_size
        pieces = []
        offset = 0
        while offset < size_bytes and (piece := os.pread(self._descriptor, size_bytes - offset, offset)):
            pieces.append(piece)
            offset += len(piece)
        contents = read_contents(b"".join(pieces), self.marker)
        self.records = len(contents.pending)
        self.oldest_at_us = min((record.message.received_at_us for record in contents.pending), default=None)
        return contents

    def remove(self) -> None:
        """Delete the file and let go of it."""
        self.path.unlink(missing_ok=True)
        self.close()

    def keep_as_damaged(self) -> Path:
        """Rename the file, so that nobody drains it again and somebody can look at it; let go of it."""
        path = self.path.with_suffix(f".{DAMAGED}")
        self.path.rename(path)
        sync(path.parent)
        self.close()
        return path

    def close(self) -> None:
        """Let go of the file, as it is: it has no owner then."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor != -1:
            os.close(descriptor)

    def _write(self, frames: bytes) -> None:
        view = memoryview(frames)
        while view:
            written = os.write(self._descriptor, view)
            self.bytes += written
            view = view[written:]
