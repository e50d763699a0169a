"""The plain callback: one of the five events, and nothing in it but what the vendor documents.

Nearly every callback is plain. Reading its EventData once, into types that have room for nothing else, tells what
`decode` finds out at greater length: that it nests no deeper than those types do, that every member fits, and, written
again, the text that the event_id is made of. What is not plain, for whatever reason, is for `decode`.
"""

import functools
import operator
from enum import IntEnum, StrEnum
from types import UnionType
from typing import Any, Union, get_args, get_origin

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, structs

from schemas.decoding import event_id_of, lies_ahead, may_hold_nul
from schemas.events import EVENT_TYPES, Integer
from schemas.strict_json import proves_unique_names

#: What an event takes of the envelope: beside EventData, not in it.
_OF_THE_ENVELOPE = frozenset({"SdkAppId", "Timestamp"})

#: A number with more can be too large to be stored.
_MAX_DIGITS = 18

_BACKSLASH = ord("\\")


class PlainEvent(Struct, frozen=True, kw_only=True):
    """What a plain callback is. All its members are as the vendor documents them."""

    event_type: str
    event_id: str


def _written(kind: Any) -> Any:
    """Return the type of what stands in EventData where an event has a `kind`; it has room for nothing else."""
    if get_origin(kind) in (Union, UnionType):
        return functools.reduce(operator.or_, map(_written, get_args(kind)))
    if get_origin(kind) is tuple:
        return list[_written(get_args(kind)[0])]  # type: ignore[misc]
    if not isinstance(kind, type):
        return kind
    # The vendor's enumerations have room for values that are unknown today: see their `_missing_`.
    if issubclass(kind, StrEnum):
        return str
    if issubclass(kind, IntEnum):
        return Integer
    return _written_object(kind) if issubclass(kind, Struct) else kind


def _written_object(kind: type[Struct]) -> type[Struct]:
    """Make a type that is written with its names sorted, and without the members that were absent."""
    members: list[Any] = []
    for field in sorted(structs.fields(kind), key=lambda field: field.encode_name):
        name, written = field.encode_name, _written(field.type)
        if name not in _OF_THE_ENVELOPE:
            members.append((name, written) if field.required else (name, written | UnsetType, UNSET))
    return msgspec.defstruct(f"Written{kind.__name__}", members, kw_only=True, forbid_unknown_fields=True)


#: By EventType, as it is written: its text, and what reads EventData.
_known: dict[bytes, tuple[str, msgspec.json.Decoder[Any]]] = {
    b'"%b"' % name.encode(): (name, msgspec.json.Decoder(_written(kind))) for name, kind in EVENT_TYPES.items()
}
_encode = msgspec.json.Encoder().encode


def may_be_plain(members: dict[str, Raw]) -> bool:
    """Say at a glance whether these members of an envelope may be those of a plain callback."""
    return "Timestamp" in members and "EventData" in members and bytes(members.get("EventType", b"")) in _known


def read_plain(members: dict[str, Raw], body: bytes, *, sdk_app_id: int, received_at_us: int) -> PlainEvent | None:
    """Return the event that `decode` makes of `body`, if it is plain.

    `members` is what a `msgspec.json.Decoder` makes of `body`; it has members of the envelope alone, and they may be
    plain. `sdk_app_id` is the value of SdkAppId, 0 if there is none.
    """
    event_type, decoder = _known[bytes(members["EventType"])]
    digits = bytes(members["Timestamp"])
    if may_hold_nul(body) or sdk_app_id >= 2**63 or not digits.isdigit() or len(digits) > _MAX_DIGITS:
        return None
    timestamp = int(digits)
    if lies_ahead(timestamp, received_at_us):
        return None
    try:
        event_data = _encode(decoder.decode(members["EventData"]))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if not _is_all(_encode({**members, "EventData": None}), event_data, body):
        return None
    return PlainEvent(event_type=event_type, event_id=event_id_of(sdk_app_id, event_type, timestamp, event_data))


def _is_all(envelope: bytes, event_data: bytes, body: bytes) -> bool:
    """Say whether it is proven that nothing in `body` was dropped: no name stands twice.

    `envelope`, with null for EventData, and `event_data` are compact JSON of what was read of `body`, whose numbers are
    all whole ones.

    Where nothing is escaped, names, strings and numbers are written as they came. So `body` can be longer only by white
    space, and by what was dropped for another member of the same name. The vendor writes one space behind each name and
    none elsewhere. The search for it finds spaces in strings, too, but finds them on both sides.
    """
    if _BACKSLASH not in body and _length(body) == _length(envelope) - len("null") + _length(event_data):
        return True
    return proves_unique_names(body, envelope + event_data)


def _length(text: bytes) -> int:
    return len(text) - text.count(b'": ')
