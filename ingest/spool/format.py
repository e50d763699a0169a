"""How a spool's file is written: frames that stand and fall alone, and the records and marks in them.

A frame is the file's marker, a head and a payload. The marker is random and stands in the file's name, so a reader
finds the next whole frame behind any damage; the digest is keyed with it, so nothing inside a callback's body is ever
taken for a frame.
"""

import contextlib
import hashlib
import struct
from collections.abc import Iterator
from enum import IntEnum

import msgspec
from msgspec import Struct

from broker import Message

MARKER_BYTES = 8

_DIGEST_BYTES = 8
_HEAD = struct.Struct(f">BI{_DIGEST_BYTES}s")
_HEAD_BYTES = MARKER_BYTES + _HEAD.size


class Kind(IntEnum):
    """What a payload is. Others are of a newer version."""

    RECORD = 1
    SETTLED = 2
    REFUSED = 3


class Frame(Struct, frozen=True, kw_only=True):
    """A whole frame: `kind` as it stands in the file, and its payload."""

    kind: int
    payload: bytes


class Gap(Struct, frozen=True, kw_only=True):
    """Bytes from `start` to `end` that are no frame; `is_tail`: at the end of the file, as a torn write leaves them."""

    start: int
    end: int
    is_tail: bool


def render(marker: bytes, kind: Kind, payload: bytes) -> bytes:
    """Return a frame as it is written."""
    return marker + _HEAD.pack(kind, len(payload), _digest(marker, kind, payload)) + payload


def scan(data: bytes, marker: bytes) -> Iterator[Frame | Gap]:
    """Yield all that `data`, a whole file, holds, in its order. Never raises, whatever the bytes are."""
    position = gap_start = 0
    while (found := data.find(marker, position)) != -1:
        frame = _read(data, found, marker)
        if frame is None:
            position = found + 1
            continue
        if found > gap_start:
            yield Gap(start=gap_start, end=found, is_tail=False)
        yield frame
        position = gap_start = found + _HEAD_BYTES + len(frame.payload)
    if gap_start < len(data):
        yield Gap(start=gap_start, end=len(data), is_tail=True)


def _read(data: bytes, start: int, marker: bytes) -> Frame | None:
    if start + _HEAD_BYTES > len(data):
        return None
    kind, length, digest = _HEAD.unpack_from(data, start + MARKER_BYTES)
    end = start + _HEAD_BYTES + length
    if end > len(data):
        return None
    payload = data[start + _HEAD_BYTES : end]
    return Frame(kind=kind, payload=payload) if _digest(marker, kind, payload) == digest else None


def _digest(marker: bytes, kind: int, payload: bytes) -> bytes:
    return hashlib.blake2b(payload, digest_size=_DIGEST_BYTES, key=marker, person=bytes([kind])).digest()


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
