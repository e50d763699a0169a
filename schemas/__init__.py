"""The vendor's callbacks as values. No I/O, nothing of ours imported."""

from schemas.decoding import Decoded, decode, decode_object, event_id, redecode
from schemas.events import (
    EVENT_TYPES,
    UNRECOGNIZED,
    Event,
    FinishReason,
    OmittedDuration,
    OnlineRecordFinished,
    OnlineRecordLongPauseForceStopped,
    OnlineRecordLongPauseWarning,
    OnlineRecordStarted,
    OnlineRecordStopped,
    RecognizedEvent,
    RecordingError,
    RecordingEvent,
    Unrecognized,
    VideoInfo,
    VideoType,
)
from schemas.json_schema import JSON_SCHEMA_DIALECT, callback_schema, event_definitions
from schemas.strict_json import NotStrictError, StrictObject, read_members, read_object

__all__ = [
    "EVENT_TYPES",
    "JSON_SCHEMA_DIALECT",
    "UNRECOGNIZED",
    "Decoded",
    "Event",
    "FinishReason",
    "NotStrictError",
    "OmittedDuration",
    "OnlineRecordFinished",
    "OnlineRecordLongPauseForceStopped",
    "OnlineRecordLongPauseWarning",
    "OnlineRecordStarted",
    "OnlineRecordStopped",
    "RecognizedEvent",
    "RecordingError",
    "RecordingEvent",
    "StrictObject",
    "Unrecognized",
    "VideoInfo",
    "VideoType",
    "callback_schema",
    "decode",
    "decode_object",
    "event_definitions",
    "event_id",
    "read_members",
    "read_object",
    "redecode",
]
