"""What is in the spool's folder, for a person or a check: read beside running processes, without disturbing them."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct

from ingest.spool.files import DAMAGED, SET_ASIDE, WAITING, SpoolFolder, kind_of, marker_of
from ingest.spool.format import Contents, Record, read_contents


class SpoolFileState(Struct, frozen=True, kw_only=True):
    """One file. `kind` is `spool`, `set-aside` or `damaged`; `owned`: by a process that runs and drains it itself.

    `oldest_at`: when the first of those that wait came into the spool.
    `torn_bytes` at the end are a write that a crash cut off: whoever sent it was not told that it is kept.
    `error` says why it could not be read; all counts are 0 then.
    """

    file: str
    kind: str
    owned: bool
    bytes: int
    waiting: int
    oldest_at: datetime | None
    settled: int
    damaged_bytes: int
    torn_bytes: int
    unknown_frames: int
    error: str | None

    @property
    def is_sound(self) -> bool:
        """Whether everything in it can be read."""
        return self.error is None and not self.damaged_bytes and not self.unknown_frames


class WaitingCallback(Struct, frozen=True, kw_only=True):
    """A callback in the spool: where it is, and how often the broker refused it."""

    file: str
    record: Record
    is_set_aside: bool
    refusals: int
    reason: str | None


def spool_files(folder: Path) -> list[SpoolFileState]:
    """Return the state of every file in `folder`, those that wait first; none if there is no folder.

    Raises OSError if it cannot be looked at.
    """
    _look_at(folder)
    return [_state(path) for path in SpoolFolder(folder).files(WAITING, SET_ASIDE, DAMAGED)]


def waiting_callbacks(folder: Path) -> Iterator[WaitingCallback]:
    """Yield what waits in `folder`, file by file; files that cannot be read are left out: see `spool_files`.

    Raises OSError if the folder cannot be looked at.
    """
    _look_at(folder)
    for path in SpoolFolder(folder).files(WAITING, SET_ASIDE):
        try:
            contents = _read(path)
        except OSError:
            continue
        for record in contents.pending:
            refused = contents.refused.get(record.sequence)
            yield WaitingCallback(
                file=path.name,
                record=record,
                is_set_aside=kind_of(path) == SET_ASIDE,
                refusals=refused.refusals if refused else 0,
                reason=refused.reason if refused else None,
            )


def count_set_aside(folder: Path) -> int:
    """Count the callbacks that were set aside. Raises OSError."""
    return sum(len(_read(path).pending) for path in SpoolFolder(folder).files(SET_ASIDE))


def _look_at(folder: Path) -> None:
    """Tell a folder that holds nothing from one that cannot be looked at."""
    with contextlib.suppress(FileNotFoundError):
        next(folder.iterdir(), None)


def _state(path: Path) -> SpoolFileState:
    contents, size_bytes, error, owned = Contents(pending=[], refused={}), 0, None, False
    try:
        owned = _is_owned(path)
        size_bytes = path.stat().st_size
        contents = _read(path)
    except OSError as trouble:
        error = trouble.strerror
    return SpoolFileState(
        file=path.name,
        kind=kind_of(path),
        owned=owned,
        bytes=size_bytes,
        waiting=len(contents.pending),
        oldest_at=None
        if not contents.pending
        else datetime.fromtimestamp(min(record.spooled_at_us for record in contents.pending) / 1_000_000, UTC),
        settled=contents.settled,
        damaged_bytes=contents.damaged_bytes,
        torn_bytes=contents.torn_bytes,
        unknown_frames=contents.unknown_frames,
        error=error,
    )


def _read(path: Path) -> Contents:
    return read_contents(path.read_bytes(), marker_of(path))


def _is_owned(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # Shared, and for a moment: an owner to be tries again.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
