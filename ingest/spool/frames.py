"""Frames: how a spool's file is cut into pieces that stand and fall alone.

A frame is the file's marker, a head and a payload. The marker is random and stands in the file's name, so a reader
finds the next whole frame behind any damage; the digest is keyed with it, so nothing inside a callback's body is ever
taken for a frame.
"""

import hashlib
import struct
from collections.abc import Iterator
from enum import IntEnum

from msgspec import Struct

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
