"""Records that the broker refuses again and again are put apart, where they hold up nobody and somebody finds them."""

import secrets
from pathlib import Path

import msgspec

from ingest.spool.contents import Record, Refused, render_record, render_refused
from ingest.spool.file import SpoolFile
from ingest.spool.folder import SET_ASIDE, files


def set_aside(folder: Path, record: Record, refused: Refused) -> None:
    """Put a record into a file of those set aside; durable on return. Blocks on the disk; raises OSError."""
    file = _open(folder)
    try:
        # Numbers of several files meet here.
        sequence = secrets.randbits(62)
        frames = render_record(file.marker, msgspec.structs.replace(record, sequence=sequence))
        frames += render_refused(file.marker, msgspec.structs.replace(refused, sequence=sequence))
        file.append(frames)
    finally:
        file.close()


def _open(folder: Path) -> SpoolFile:
    for path in files(folder, SET_ASIDE):
        file = SpoolFile.adopt(path)
        if file is not None:
            return file
    return SpoolFile.create(folder, SET_ASIDE)
