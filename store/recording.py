"""What the events of one recording add up to, whatever order they came in. Pure; no I/O."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Final, Protocol, TypeAlias, TypeVar

import msgspec
from msgspec import Struct, structs

from schemas import (
    EVENT_KINDS,
    EVENT_TYPES,
    Event,
    OnlineRecordFinished,
    OnlineRecordLongPauseForceStopped,
    OnlineRecordLongPauseWarning,
    OnlineRecordStarted,
    RecognizedEvent,
    RecordingArchived,
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


class VideoArchive(Struct, frozen=True, kw_only=True):
    """What became of a file that is to be archived.

    `state` is `waiting`, `fetching`, `staged`, `archived`, `lost` or `refused`; `location` is where it is, `sha256` in
    hex is that of its bytes, and `archived_at` is ISO 8601 text: all None until it is archived.
    """

    state: str
    location: str | None = None
    sha256: str | None = None
    archived_at: str | None = None


class ShownVideo(RecordingVideo, frozen=True, kw_only=True):
    """A file of a recording and what became of it; `archive` is None where it is not planned to be archived."""

    archive: VideoArchive | None = None


class RecordingEventRef(Struct, frozen=True, kw_only=True):
    """An event of a recording: `timestamp` in Unix seconds, `received_at` as ISO 8601 text.

    `source` is empty for a callback, `reconcile` for what the vendor answered when it was asked, `archive` for what we
    say of our archive. `verified` says whether the vendor confirms it; None until it was asked.
    """

    event_id: str
    event_type: str
    timestamp: int
    received_at: str
    source: str
    verified: bool | None


class RecordingFinding(Struct, frozen=True, kw_only=True):
    """Something of a recording that no callback had told when the vendor was asked.

    `by` names the call that found it, `found_at` is ISO 8601 text, `late_s` how many seconds after it happened.
    """

    event_type: str
    by: str
    found_at: str
    late_s: int


class RecordingSummary(Struct, frozen=True, kw_only=True):
    """Everything known of one SdkAppId and TaskId but its files and events. Absent is None, values are as sent.

    Points in time are Unix seconds. `verified` says whether the vendor confirms the end that is told here: None until
    it was asked, or while there is none.
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
    verified: bool | None


class RecordingContent(RecordingSummary, frozen=True, kw_only=True):
    """A summary and the files."""

    videos: tuple[RecordingVideo, ...]


class Recording(RecordingContent, frozen=True, kw_only=True):
    """Everything known of one SdkAppId and TaskId; `events` all, by (timestamp, event_type, event_id).

    `found` is what was found late, in the same order.
    """

    videos: tuple[ShownVideo, ...]
    events: tuple[RecordingEventRef, ...]
    found: tuple[RecordingFinding, ...]


class AcceptedEvent(Protocol):
    """An event as it was accepted: `received_at_us` in microseconds since the Unix epoch.

    `source` and `verified` are as in `RecordingEventRef`.
    """

    @property
    def event(self) -> Event: ...

    @property
    def event_id(self) -> str: ...

    @property
    def received_at_us(self) -> int: ...

    @property
    def source(self) -> str: ...

    @property
    def verified(self) -> bool | None: ...


_STATUS: dict[type[RecognizedEvent], RecordingStatus] = {kind.event: kind.status for kind in EVENT_KINDS}
_RANK = {status: rank for rank, status in enumerate(RecordingStatus)}

Kind = TypeVar("Kind", bound=RecognizedEvent)


def makes_recording(event: Event) -> bool:
    """Say whether an event makes or changes a recording: one of the five, with a TaskId."""
    # By type, here and below: asking a Struct's class for an instance that it is not takes a microsecond.
    return type(event) is not Unrecognized and type(event) is not RecordingArchived and event.task_id != ""


def outranks(event: Event) -> bool:
    """Say whether an event beats those of its type that do not: among Finished, those without Error do."""
    return not (type(event) is OnlineRecordFinished and event.error is not None)


def merge_verified(one: bool | None, other: bool | None) -> bool | None:
    """Return what two acceptances of one event say together: what the vendor confirmed once stays confirmed."""
    if one is None or other is None:
        return other if one is None else one
    return one or other


def fold(accepted: Iterable[AcceptedEvent], *, found_by: str = "") -> Recording:
    """Return the recording that `accepted` adds up to: the same for every order and any repetitions.

    All must make the same recording; raises `ValueError` if they do not, or if there are none.

    Events that the vendor contradicts are left out, unless it contradicts all. The status is the highest that was seen.
    Of each type the event with the greatest (Timestamp, event_id) counts, a Finished one without Error before any with.
    Of two values the one from the higher status is taken.

    An event that was accepted several times was accepted when it first was; it came by a callback if it once did; and
    the vendor confirms it if it once did, else contradicts it if it once did. `found_by` names the call that told of
    the recording, see `list_findings`.
    """
    known: dict[str, _Known] = {}
    for one in accepted:
        there = known.get(one.event_id)
        if there is None:
            there = known[one.event_id] = _Known(one.event, one.event_id, one.received_at_us, one.source, one.verified)
            continue
        if one.received_at_us < there.received_at_us:
            there.event, there.received_at_us = one.event, one.received_at_us
        there.source = min(there.source, one.source)
        there.verified = merge_verified(there.verified, one.verified)
    content = merge(known.values())
    references = _references(known.values())
    shown = {"videos": _converted(content.videos, tuple[ShownVideo, ...]), "events": references}
    return Recording(**structs.asdict(content) | shown, found=list_findings(references, found_by=found_by))


class _Known(Struct):
    """An event with what all its acceptances say together."""

    event: Event
    event_id: str
    received_at_us: int
    source: str
    verified: bool | None


#: The call that tells how a recording went on or ended, which is asked by TaskId.
ANSWERED_BY: Final = "DescribeOnlineRecord"


def list_findings(references: Iterable[RecordingEventRef], *, found_by: str) -> tuple[RecordingFinding, ...]:
    """Return what of a recording was found by asking, in the order of its events.

    `found_by` names the call that told of the recording, and so of its start; it is empty if a callback did.
    """
    return tuple(
        RecordingFinding(
            event_type=ref.event_type,
            by=(ref.event_type == OnlineRecordStarted.__name__ and found_by) or ANSWERED_BY,
            found_at=ref.received_at,
            late_s=max(0, int(datetime.fromisoformat(ref.received_at).timestamp()) - ref.timestamp),
        )
        for ref in references
        # What we say of our archive was not found by asking.
        if ref.source and ref.event_type in EVENT_TYPES
    )


def merge(accepted: Iterable[AcceptedEvent]) -> RecordingContent:
    """Return what `fold` does, without the lists of events and findings, of events that are all different."""
    events = [(_recognized(one.event), one.event_id, one.verified) for one in accepted]
    if len({(event.sdk_app_id, event.task_id) for event, _, _ in events}) != 1:
        raise ValueError("the events are not those of one recording")
    counting = [one for one in events if one[2] is not False]
    return _content([*_winners(counting or events).values()])


def _recognized(event: Event) -> RecognizedEvent:
    if type(event) is Unrecognized or type(event) is RecordingArchived or not makes_recording(event):
        raise ValueError("an event without TaskId makes no recording")
    return event


_Ranked: TypeAlias = tuple[RecognizedEvent, str, bool | None]


def _winners(events: Iterable[_Ranked]) -> dict[type[RecognizedEvent], _Ranked]:
    ranked = sorted(events, key=lambda one: (outranks(one[0]), one[0].timestamp, one[1]))
    by_type = {type(one[0]): one for one in ranked}
    # Highest status first; Stopped and ForceStopped share one, there the later event leads.
    ordered = sorted(
        by_type.items(), key=lambda item: (_RANK[_STATUS[item[0]]], item[1][0].timestamp, item[1][1]), reverse=True
    )
    return dict(ordered)


def _references(known: Iterable[_Known]) -> tuple[RecordingEventRef, ...]:
    references = (
        RecordingEventRef(
            event_id=one.event_id,
            event_type=type(one.event).__name__,
            timestamp=_recognized(one.event).timestamp,
            received_at=iso8601(one.received_at_us),
            source=one.source,
            verified=one.verified,
        )
        for one in known
    )
    return tuple(sorted(references, key=lambda ref: (ref.timestamp, ref.event_type, ref.event_id)))


def _content(ranked: Sequence[_Ranked]) -> RecordingContent:
    winners = [event for event, _, _ in ranked]
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
        verified=next((verified for event, _, verified in ranked if event is finished), None),
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
