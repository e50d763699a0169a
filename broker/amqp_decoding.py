"""Reads what strangers put into the properties of a message and the library cannot decode.

pamqp raises for a time that no calendar has (microseconds taken for seconds) and for text that is not UTF-8. The
connection ends there, the broker hands the same message over on the next one, and so on: one message would stop
every consumer of the process. Its decoders are replaced by ones that leave out what they cannot read; the place of
each value in the frame is known all the same. Nothing of ours is affected: our own headers can be read.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

from pamqp import decode

_Decoder: TypeAlias = Callable[..., tuple[int, Any]]

_UNREADABLE = (ValueError, OverflowError, OSError, RecursionError)


def tolerate_strangers() -> None:
    """Make the library's decoders lenient, in the whole process. Doing it again changes nothing."""
    decode.METHODS.update(
        timestamp=_lenient(decode.timestamp, _timestamp_size, None),
        shortstr=_lenient(decode.short_str, _short_size, ""),
        table=_lenient(decode.field_table, _table_size, {}),
    )


def _lenient(decoder: _Decoder, size: Callable[[bytes], int], substitute: Any) -> _Decoder:
    def read(value: bytes) -> tuple[int, Any]:
        try:
            return decoder(value)
        except _UNREADABLE:
            end = size(value)
            if end > len(value):
                # Not strange but broken: the frame ends before its content does.
                raise
            return end, substitute

    return read


def _timestamp_size(value: bytes) -> int:
    del value
    return 8


def _short_size(value: bytes) -> int:
    return 1 + int.from_bytes(value[:1])


def _table_size(value: bytes) -> int:
    return 4 + int.from_bytes(value[:4])
