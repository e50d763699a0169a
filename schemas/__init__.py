"""The vendor's callbacks as values. No I/O, nothing of ours imported."""

from schemas.decoding import MAX_AHEAD_S, Decoded, decode, event_id
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
from schemas.strict_json import MAX_DEPTH, NotStrictError, nests_beyond, read_members

__all__ = [
    "EVENT_TYPES",
    "MAX_AHEAD_S",
    "MAX_DEPTH",
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
    "Unrecognized",
    "VideoInfo",
    "VideoType",
    "decode",
    "event_id",
    "nests_beyond",
    "read_members",
]
