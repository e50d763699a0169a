"""The spool: an ingest node's own disk, for as long as the broker does not confirm.

    put -> writer (one thread, group commit, fsync) -> file -> sealed -> drain -> broker

A file is a row of frames, each with a digest, so that a torn write or a bad block takes nothing with it but
itself; `format` says what they hold. SQLite would do as well until a page of it is damaged: then what hangs below
that page is gone.
"""

from ingest.spool.drain import Emptied, empty_spool
from ingest.spool.files import Disk, SpoolError
from ingest.spool.inspection import SpoolFileState, WaitingCallback, spool_files, waiting_callbacks
from ingest.spool.spool import DEFAULT_MAX_BYTES, Depth, NoSpool, Spool
from ingest.spool.writer import Threads

__all__ = [
    "DEFAULT_MAX_BYTES",
    "Depth",
    "Disk",
    "Emptied",
    "NoSpool",
    "Spool",
    "SpoolError",
    "SpoolFileState",
    "Threads",
    "WaitingCallback",
    "empty_spool",
    "spool_files",
    "waiting_callbacks",
]
