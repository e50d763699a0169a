"""What a spool's file holds: records, and the marks that settle them."""

import contextlib

import msgspec
from msgspec import Struct

from broker import Message
from ingest.spool.frames import Frame, Gap, Kind, render, scan


class Record(Struct, frozen=True, kw_only=True):
    """A callback in the spool; `sequence` is its number in its file. Times are microseconds since the Unix epoch."""

    sequence: int
    spooled_at_us: int
    message: Message


class Settled(Struct, frozen=True, kw_only=True):
    """A mark: these records are elsewhere now, confirmed."""

    sequences: list[int]


class Refused(Struct, frozen=True, kw_only=True):
    """A mark: the broker refused this record, so often by now."""

    sequence: int
    refusals: int
    reason: str


class Contents(Struct, frozen=True, kw_only=True):
    """A file as it was read: what is not settled, in the order it came.

    `damaged_bytes` lie between whole frames; `torn_bytes` at the end, as a crash leaves them: nobody was told that they
    are kept. `unknown_frames` were written by a newer version.
    """

    pending: list[Record]
    refused: dict[int, Refused]
    settled: int = 0
    damaged_bytes: int = 0
    torn_bytes: int = 0
    unknown_frames: int = 0


_KINDS: dict[int, type[Record | Settled | Refused]] = {
    Kind.RECORD: Record,
    Kind.SETTLED: Settled,
    Kind.REFUSED: Refused,
}
_decoders = {kind: msgspec.msgpack.Decoder(struct) for kind, struct in _KINDS.items()}


def render_record(marker: bytes, record: Record) -> bytes:
    """Return the frame of a record."""
    return render(marker, Kind.RECORD, msgspec.msgpack.encode(record))


def render_settled(marker: bytes, sequences: list[int]) -> bytes:
    """Return the frame that settles records."""
    return render(marker, Kind.SETTLED, msgspec.msgpack.encode(Settled(sequences=sequences)))


def render_refused(marker: bytes, refused: Refused) -> bytes:
    """Return the frame that counts a refusal."""
    return render(marker, Kind.REFUSED, msgspec.msgpack.encode(refused))


def read_contents(data: bytes, marker: bytes) -> Contents:
    """Return what a file holds. Every whole frame counts, whatever stands around it; never raises."""
    records: dict[int, Record] = {}
    settled: set[int] = set()
    refused: dict[int, Refused] = {}
    damaged_bytes = torn_bytes = unknown_frames = 0
    for piece in scan(data, marker):
        if isinstance(piece, Gap):
            if piece.is_tail:
                torn_bytes = piece.end - piece.start
            else:
                damaged_bytes += piece.end - piece.start
            continue
        match _decode(piece):
            case Record() as record:
                records[record.sequence] = record
            case Settled(sequences=sequences):
                settled.update(sequences)
            case Refused() as mark:
                refused[mark.sequence] = mark
            case None:
                unknown_frames += 1
    return Contents(
        pending=[record for sequence, record in records.items() if sequence not in settled],
        refused={sequence: mark for sequence, mark in refused.items() if sequence not in settled},
        settled=len(settled),
        damaged_bytes=damaged_bytes,
        torn_bytes=torn_bytes,
        unknown_frames=unknown_frames,
    )


def _decode(frame: Frame) -> Record | Settled | Refused | None:
    decoder = _decoders.get(frame.kind)
    if decoder is not None:
        # Its digest is right, so what cannot be read was written by a version with other names.
        with contextlib.suppress(msgspec.DecodeError):
            return decoder.decode(frame.payload)
    return None
