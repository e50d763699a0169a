"""The five recording events as values, and `Unrecognized` for everything else.

Names on the wire are the vendor's (`TaskId`); attributes are their snake_case with the unit in the name where
the value is a length of time. Points in time are Unix seconds. An event is flat: the envelope's SdkAppId and
Timestamp stand beside the members of EventData.

Source: https://www.tencentcloud.com/document/product/1176/55568 (events), .../1176/55181 (`DescribeOnlineRecord`,
which settles that TotalTime is in milliseconds).
"""

from enum import IntEnum, StrEnum
from typing import Annotated, Self, TypeAlias, final

from msgspec import Meta, Struct

#: What SQL's BIGINT holds. A larger number cannot be stored, so a member with one is passed over.
Integer: TypeAlias = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]

#: The identity of a recording is indexed, and an index row has an upper size (PostgreSQL: 2,704 bytes).
TaskId: TypeAlias = Annotated[str, Meta(max_length=255)]


class FinishReason(StrEnum):
    """Why a recording ended. Values unknown today are kept as they were sent."""

    AUTO = "AUTO"
    USER_CALL = "USER_CALL"
    EXCEPTION = "EXCEPTION"
    FORCE_STOP = "FORCE_STOP"

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, str):
            return None
        member = str.__new__(cls, value)
        member._name_ = value
        member._value_ = value
        return member


class VideoType(IntEnum):
    """What a video shows. Values unknown today are kept as they were sent."""

    CAMERA = 0
    SCREEN_SHARE = 1
    WHITEBOARD = 2
    MIXED_STREAM = 3
    AUDIO = 4

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        # A larger number cannot be stored, see `Integer`.
        if not isinstance(value, int) or not -(2**63) <= value < 2**63:
            return None
        member = int.__new__(cls, value)
        member._name_ = f"UNKNOWN_{value}"
        member._value_ = value
        return member


def wire_name(attribute: str) -> str:
    """Return the vendor's name of an attribute: `video_play_time_ms` is `VideoPlayTime` on the wire."""
    if attribute == "exception_count":
        return "ExceptionCnt"
    return "".join(part.capitalize() for part in attribute.removesuffix("_ms").split("_"))


class RecordingError(Struct, frozen=True, kw_only=True, rename=wire_name):
    """Why a recording failed."""

    code: str | None = None
    message: str | None = None


class VideoInfo(Struct, frozen=True, kw_only=True, rename=wire_name):
    """One file of a finished recording. `video_play_time_ms` is where it starts on the class's time line."""

    video_id: str | None = None
    video_url: str | None = None
    video_format: str | None = None
    video_type: VideoType | None = None
    video_size: Integer | None = None
    video_play_time_ms: Integer | None = None
    video_duration_ms: Integer | None = None
    user_id: str | None = None
    width: Integer | None = None
    height: Integer | None = None


class OmittedDuration(Struct, frozen=True, kw_only=True, rename=wire_name):
    """A stretch that joined videos leave out: the video's time, and when the pause began and ended."""

    video_time_ms: Integer | None = None
    pause_time_ms: Integer | None = None
    resume_time_ms: Integer | None = None


class RecordingEvent(Struct, frozen=True, kw_only=True, rename=wire_name):
    """What every recording event has. A member that the sender left out is None."""

    timestamp: Integer
    sdk_app_id: Integer = 0
    task_id: TaskId
    room_id: Integer | None = None
    record_user_id: str | None = None


class OnlineRecordStarted(RecordingEvent, frozen=True, kw_only=True, rename=wire_name):
    """The recording has begun."""


class OnlineRecordStopped(RecordingEvent, frozen=True, kw_only=True, rename=wire_name):
    """The recording was stopped; its files are being processed."""


class OnlineRecordLongPauseWarning(RecordingEvent, frozen=True, kw_only=True, rename=wire_name):
    """The recording has been paused for long; it will be stopped at `estimate_stop_time`."""

    pause_time: Integer | None = None
    estimate_stop_time: Integer | None = None


class OnlineRecordLongPauseForceStopped(RecordingEvent, frozen=True, kw_only=True, rename=wire_name):
    """The recording was stopped at `stop_time` because it had been paused for too long."""

    pause_time: Integer | None = None
    stop_time: Integer | None = None


class OnlineRecordFinished(RecordingEvent, frozen=True, kw_only=True, rename=wire_name):
    """The result: files, or an error. An older form has nothing but `error`: its `task_id` is empty."""

    task_id: TaskId = ""
    group_id: str | None = None
    finish_reason: FinishReason | None = None
    record_start_time: Integer | None = None
    record_stop_time: Integer | None = None
    total_time_ms: Integer | None = None
    exception_count: Integer | None = None
    omitted_durations: tuple[OmittedDuration, ...] = ()
    video_infos: tuple[VideoInfo, ...] = ()
    error: RecordingError | None = None


@final
class Unrecognized(Struct, frozen=True, kw_only=True):
    """An authentic callback of another family, or one whose content fits no event.

    `reason` says in one sentence why nothing else was made of it. `event_type` is None where there is no usable
    one; the content itself is the delivery's body.
    """

    reason: str
    event_type: str | None = None
    timestamp: Integer | None = None
    sdk_app_id: Integer = 0


RecognizedEvent: TypeAlias = (
    OnlineRecordStarted
    | OnlineRecordStopped
    | OnlineRecordLongPauseWarning
    | OnlineRecordLongPauseForceStopped
    | OnlineRecordFinished
)
#: What is made of a callback. `Event`, of which consumers choose, has also ours.
CallbackEvent: TypeAlias = RecognizedEvent | Unrecognized


class RecordingStatus(StrEnum):
    """How far a recording has come, as far as callbacks tell; in this order.

    No callback says "resumed": PAUSED means that a long pause was reported and nothing after it.
    """

    RECORDING = "RECORDING"
    PAUSED = "PAUSED"
    STOPPED = "STOPPED"
    FINISHED = "FINISHED"


class EventKind(Struct, frozen=True, kw_only=True):
    """One of the events: its class, the name of its built-in consumer, and the status that it says."""

    event: type[RecognizedEvent]
    consumer: str
    status: RecordingStatus

    @property
    def event_type(self) -> str:
        """The vendor's EventType, which is also the routing key."""
        return self.event.__name__


#: All events. Queues, consumers, statuses, documents and tests follow from this table.
EVENT_KINDS: tuple[EventKind, ...] = (
    EventKind(event=OnlineRecordStarted, consumer="started", status=RecordingStatus.RECORDING),
    EventKind(event=OnlineRecordStopped, consumer="stopped", status=RecordingStatus.STOPPED),
    EventKind(event=OnlineRecordLongPauseWarning, consumer="long_pause_warning", status=RecordingStatus.PAUSED),
    EventKind(
        event=OnlineRecordLongPauseForceStopped, consumer="long_pause_force_stopped", status=RecordingStatus.STOPPED
    ),
    EventKind(event=OnlineRecordFinished, consumer="finished", status=RecordingStatus.FINISHED),
)

#: The events by their EventType.
EVENT_TYPES: dict[str, type[RecognizedEvent]] = {kind.event_type: kind.event for kind in EVENT_KINDS}

#: The routing key of everything else.
UNRECOGNIZED = "unrecognized"
