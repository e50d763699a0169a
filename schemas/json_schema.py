"""The JSON Schema of a callback, generated from the event types.

Events are flat here and nested on the wire: what belongs to EventData is moved there.
"""

from typing import Any

import msgspec
from msgspec import Struct

from schemas.archiving import RECORDING_ARCHIVED, RecordingArchived
from schemas.events import EVENT_TYPES, FinishReason, RecognizedEvent, VideoType

JSON_SCHEMA_DIALECT = "https://json-schema.org/draft/2020-12/schema"

_ENVELOPE = ("Timestamp", "SdkAppId")
_PLACE = "#/$defs/{name}"


def callback_schema() -> dict[str, Any]:
    """Return the schema of every callback that is recognized whole; anything else that is authentic is kept as it is.

    Unknown members are allowed, and so are values of enumerations that are not known today.
    """
    return {
        "$schema": JSON_SCHEMA_DIALECT,
        "title": "Recording callbacks of Tencent Interactive Whiteboard",
        "description": "As sent: https://www.tencentcloud.com/document/product/1176/55568. Sign and ExpireTime are "
        "absent where no callback key is set, and are taken out before an event travels on.",
        "oneOf": [{"$ref": _PLACE.format(name=name)} for name in EVENT_TYPES],
        "$defs": event_definitions(_PLACE),
    }


def event_definitions(place: str) -> dict[str, Any]:
    """Return the schemas of the five callbacks and their parts by name; `place` makes a reference of a name."""
    _, parts = msgspec.json.schema_components(list(EVENT_TYPES.values()), ref_template=place)
    for kind in (FinishReason, VideoType):
        parts[kind.__name__] = _open_enumeration(kind, parts[kind.__name__])
    return {**parts, **{name: _callback(name, kind, parts[name]) for name, kind in EVENT_TYPES.items()}}


def archived_definitions(place: str) -> dict[str, Any]:
    """Return the schemas of `RecordingArchived`, which is ours and no callback, and of its parts by name."""
    _, parts = msgspec.json.schema_components([RecordingArchived], ref_template=place)
    return {**parts, RECORDING_ARCHIVED: _event(RECORDING_ARCHIVED, RecordingArchived, parts[RECORDING_ARCHIVED])}


def _callback(event_type: str, kind: type[RecognizedEvent], flat: dict[str, Any]) -> dict[str, Any]:
    schema = _event(event_type, kind, flat)
    schema["properties"] |= {
        "ExpireTime": {"type": "integer", "description": "When the Sign expires, Unix seconds."},
        "Sign": {"type": "string", "description": "md5(CallbackKey + ExpireTime), lower-case hex."},
    }
    return schema


def _event(event_type: str, kind: type[Struct], flat: dict[str, Any]) -> dict[str, Any]:
    properties = flat["properties"]
    event_data = {name: schema for name, schema in properties.items() if name not in _ENVELOPE}
    return {
        "title": event_type,
        "description": " ".join((kind.__doc__ or "").split()),
        "type": "object",
        "properties": {
            "EventType": {"const": event_type},
            "Timestamp": {**properties["Timestamp"], "description": "When the event was generated, Unix seconds."},
            "SdkAppId": properties["SdkAppId"],
            "EventData": {
                "type": "object",
                "properties": event_data,
                "required": [name for name in flat.get("required", []) if name not in _ENVELOPE],
            },
        },
        "required": ["EventType", "Timestamp", "EventData"],
    }


def _open_enumeration(kind: type[FinishReason] | type[VideoType], schema: dict[str, Any]) -> dict[str, Any]:
    known = ", ".join(f"{member.value} ({member.name})" if kind is VideoType else str(member.value) for member in kind)
    return {
        "title": kind.__name__,
        **({"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1} if kind is VideoType else {"type": "string"}),
        "description": f"{' '.join(schema.get('description', kind.__doc__ or '').split())} Known: {known}.",
        "examples": [member.value for member in kind],
    }
