"""What the events of one recording add up to, whatever order they came in. Pure; no I/O."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

import msgspec
from msgspec import Struct, structs

from schemas import (
    EVENT_KINDS,
    Event,
    OnlineRecordFinished,
    OnlineRecordLongPauseForceStopped,
    OnlineRecordLongPauseWarning,
    RecognizedEvent,
    RecordingStatus,
    Unrecognized,
)
from store.tables import iso8601


class RecordingFailure(Struct, frozen=True, kw_only=True):
    """Why a recording failed, as the vendor says."""

    code: str | None = None
    message: str | None = None


class RecordingOmission(Struct, frozen=True, kw_only=True):
    """A stretch that joined videos leave out."""

    video_time_ms: int | None = None
    pause_time_ms: int | None = None
    resume_time_ms: int | None = None


class RecordingVideo(Struct, frozen=True, kw_only=True):
    """One file of a recording. `video_type` is a `schemas.VideoType`, or a number that is unknown today."""

    video_id: str | None = None
    video_url: str | None = None
    video_format: str | None = None
    video_type: int | None = None
    video_size: int | None = None
    video_play_time_ms: int | None = None
    video_duration_ms: int | None = None
    user_id: str | None = None
    width: int | None = None
    height: int | None = None


class RecordingEventRef(Struct, frozen=True, kw_only=True):
    """An event of a recording: `timestamp` in Unix seconds, `received_at` as ISO 8601 text."""

    event_id: str
    event_type: str
    timestamp: int
    received_at: str


class RecordingSummary(Struct, frozen=True, kw_only=True):
    """Everything known of one SdkAppId and TaskId but its files and events. Absent is None, values are as sent.

    Points in time are Unix seconds.
    """

    sdk_app_id: int
    task_id: str
    room_id: int | None
    group_id: str | None
    record_user_id: str | None
    status: RecordingStatus
    finish_reason: str | None
    error: RecordingFailure | None
    record_start_time: int | None
    record_stop_time: int | None
    total_time_ms: int | None
    exception_count: int | None
    pause_time: int | None
    estimate_stop_time: int | None
    force_stop_time: int | None
    omitted_durations: tuple[RecordingOmission, ...]


class RecordingContent(RecordingSummary, frozen=True, kw_only=True):
    """A summary and the files."""

    videos: tuple[RecordingVideo, ...]


class Recording(RecordingContent, frozen=True, kw_only=True):
    """Everything known of one SdkAppId and TaskId; `events` all, by (timestamp, event_type, event_id)."""

    events: tuple[RecordingEventRef, ...]


class AcceptedEvent(Protocol):
    """An event as it was accepted: `received_at_us` in microseconds since the Unix epoch."""

    @property
    def event(self) -> Event: ...

    @property
    def event_id(self) -> str: ...

    @property
    def received_at_us(self) -> int: ...


_STATUS: dict[type[RecognizedEvent], RecordingStatus] = {kind.event: kind.status for kind in EVENT_KINDS}
_RANK = {status: rank for rank, status in enumerate(RecordingStatus)}

Kind = TypeVar("Kind", bound=RecognizedEvent)


def makes_recording(event: Event) -> bool:
    """Say whether an event makes or changes a recording: one of the five, with a TaskId."""
    # By type, here and below: asking a Struct's class for an instance that it is not takes a microsecond.
    return type(event) is not Unrecognized and event.task_id != ""


def outranks(event: Event) -> bool:
    """Say whether an event beats those of its type that do not: among Finished, those without Error do."""
    return not (type(event) is OnlineRecordFinished and event.error is not None)


def fold(accepted: Iterable[AcceptedEvent]) -> Recording:
    """Return the recording that `accepted` adds up to: the same for every order and any repetitions.

    All must make the same recording; raises `ValueError` if they do not, or if there are none.

    The status is the highest that was seen. Of each type the event with the greatest (Timestamp, event_id)
    counts, a Finished one without Error before any with. Of two values the one from the higher status is taken.
    An event that was accepted several times was accepted when it first was.
    """
    first_accepted: dict[str, AcceptedEvent] = {}
    for one in accepted:
        known = first_accepted.get(one.event_id)
        if known is None or one.received_at_us < known.received_at_us:
            first_accepted[one.event_id] = one
    content = merge(first_accepted.values())
    return Recording(**structs.asdict(content), events=_references(first_accepted.values()))


def merge(accepted: Iterable[AcceptedEvent]) -> RecordingContent:
    """Return what `fold` does, without the list of events."""
    events = [(_recognized(one.event), one.event_id) for one in accepted]
    if len({(event.sdk_app_id, event.task_id) for event, _ in events}) != 1:
        raise ValueError("the events are not those of one recording")
    return _content([*_winners(events).values()])


def _recognized(event: Event) -> RecognizedEvent:
    if type(event) is Unrecognized or not makes_recording(event):
        raise ValueError("an event without TaskId makes no recording")
    return event


def _winners(events: Iterable[tuple[RecognizedEvent, str]]) -> dict[type[RecognizedEvent], RecognizedEvent]:
    ranked = sorted(events, key=lambda pair: (outranks(pair[0]), pair[0].timestamp, pair[1]))
    by_type = {type(event): (event, event_id) for event, event_id in ranked}
    # Highest status first; Stopped and ForceStopped share one, there the later event leads.
    ordered = sorted(
        by_type.items(), key=lambda item: (_RANK[_STATUS[item[0]]], item[1][0].timestamp, item[1][1]), reverse=True
    )
    return {kind: event for kind, (event, _) in ordered}


def _references(accepted: Iterable[AcceptedEvent]) -> tuple[RecordingEventRef, ...]:
    references = (
        RecordingEventRef(
            event_id=one.event_id,
            event_type=type(one.event).__name__,
            timestamp=_recognized(one.event).timestamp,
            received_at=iso8601(one.received_at_us),
        )
        for one in accepted
    )
    return tuple(sorted(references, key=lambda ref: (ref.timestamp, ref.event_type, ref.event_id)))


def _content(winners: Sequence[RecognizedEvent]) -> RecordingContent:
    highest = winners[0]
    warning = _of_type(winners, OnlineRecordLongPauseWarning)
    forced = _of_type(winners, OnlineRecordLongPauseForceStopped)
    finished = _of_type(winners, OnlineRecordFinished)
    return RecordingContent(
        sdk_app_id=highest.sdk_app_id,
        task_id=highest.task_id,
        room_id=_first(event.room_id for event in winners),
        group_id=_get(finished, lambda event: event.group_id),
        record_user_id=_first(event.record_user_id for event in winners),
        status=_STATUS[type(highest)],
        finish_reason=_get(finished, lambda event: event.finish_reason and event.finish_reason.value),
        error=_converted(_get(finished, lambda event: event.error), RecordingFailure | None),
        record_start_time=_get(finished, lambda event: event.record_start_time),
        record_stop_time=_get(finished, lambda event: event.record_stop_time),
        total_time_ms=_get(finished, lambda event: event.total_time_ms),
        exception_count=_get(finished, lambda event: event.exception_count),
        pause_time=_first(event.pause_time for event in (forced, warning) if event is not None),
        estimate_stop_time=_get(warning, lambda event: event.estimate_stop_time),
        force_stop_time=_get(forced, lambda event: event.stop_time),
        omitted_durations=_converted(finished.omitted_durations if finished else (), tuple[RecordingOmission, ...]),
        videos=_converted(finished.video_infos if finished else (), tuple[RecordingVideo, ...]),
    )


def _of_type(events: Iterable[RecognizedEvent], kind: type[Kind]) -> Kind | None:
    return next((event for event in events if type(event) is kind), None)


Value = TypeVar("Value")


def _first(values: Iterable[Value | None]) -> Value | None:
    return next((value for value in values if value is not None), None)


def _get(event: Kind | None, member: Callable[[Kind], Value | None]) -> Value | None:
    return None if event is None else member(event)


def _converted(value: object, kind: Any) -> Any:
    return msgspec.convert(value, kind, from_attributes=True) if value else value
