"""What the events of one recording add up to, whatever order they came in. Pure; no I/O."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final, Protocol, TypeVar

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
    say of our archive, `test` for what somebody sent to try the consumers. `verified` says whether the vendor confirms
    it; None until it was asked.
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


#: The `source` of what somebody sent to try the consumers. It tells of no class: the vendor is not asked about it,
#: nothing of it is fetched, and nobody is told.
TEST_SOURCE: Final = "test"

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
        # What we say of our archive was not found by asking, and a test was not either.
        if ref.source not in ("", TEST_SOURCE) and ref.event_type in EVENT_TYPES
    )


def merge(accepted: Iterable[AcceptedEvent]) -> RecordingContent:
    """Return what `fold` does, without the lists of events and findings, of events that are all different."""
    return merge_counting(list_counting(accepted))


Accepted = TypeVar("Accepted", bound=AcceptedEvent)


def list_counting(accepted: Iterable[Accepted]) -> list[Accepted]:
    """Return those that count of the different events of one recording: at most one per type, highest status first.

    Stopped and ForceStopped share a status: there the later event leads. Raises `ValueError` as `fold` does.
    """
    given = [*accepted]
    if len({_key(one.event) for one in given}) != 1:
        raise ValueError("the events are not those of one recording")
    if len(given) == 1:
        return given
    counting = [one for one in given if one.verified is not False]
    by_type = {type(one.event): one for one in sorted(counting or given, key=_rank_in_type)}
    return sorted(by_type.values(), key=_rank_among_types, reverse=True)


def _key(event: Event) -> tuple[int, str]:
    if type(event) is Unrecognized or not makes_recording(event):
        raise ValueError("an event without TaskId makes no recording")
    return event.sdk_app_id, event.task_id


def _rank_in_type(one: AcceptedEvent) -> tuple[bool, int, str]:
    return outranks(one.event), _recognized(one.event).timestamp, one.event_id


def _rank_among_types(one: AcceptedEvent) -> tuple[int, int, str]:
    event = _recognized(one.event)
    return _RANK[_STATUS[type(event)]], event.timestamp, one.event_id


def _recognized(event: Event) -> RecognizedEvent:
    if type(event) is Unrecognized or type(event) is RecordingArchived:
        raise ValueError("an event without TaskId makes no recording")
    return event


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


def merge_counting(counting: Sequence[AcceptedEvent]) -> RecordingContent:
    """Return what the events add up to that `list_counting` returns."""
    highest = _recognized(counting[0].event)
    room_id: int | None = None
    record_user_id: str | None = None
    warning: OnlineRecordLongPauseWarning | None = None
    forced: OnlineRecordLongPauseForceStopped | None = None
    finished = _NOT_FINISHED
    verified: bool | None = None
    for one in counting:
        event = _recognized(one.event)
        if room_id is None:
            room_id = event.room_id
        if record_user_id is None:
            record_user_id = event.record_user_id
        if type(event) is OnlineRecordFinished:
            finished, verified = event, one.verified
        elif type(event) is OnlineRecordLongPauseWarning:
            warning = event
        elif type(event) is OnlineRecordLongPauseForceStopped:
            forced = event
    pause_time = forced.pause_time if forced is not None else None
    if pause_time is None and warning is not None:
        pause_time = warning.pause_time
    return RecordingContent(
        sdk_app_id=highest.sdk_app_id,
        task_id=highest.task_id,
        room_id=room_id,
        group_id=finished.group_id,
        record_user_id=record_user_id,
        status=_STATUS[type(highest)],
        finish_reason=finished.finish_reason and finished.finish_reason.value,
        error=_converted(finished.error, RecordingFailure | None),
        record_start_time=finished.record_start_time,
        record_stop_time=finished.record_stop_time,
        total_time_ms=finished.total_time_ms,
        exception_count=finished.exception_count,
        pause_time=pause_time,
        estimate_stop_time=None if warning is None else warning.estimate_stop_time,
        force_stop_time=None if forced is None else forced.stop_time,
        omitted_durations=_converted(finished.omitted_durations, tuple[RecordingOmission, ...]),
        verified=verified,
        videos=_converted(finished.video_infos, tuple[RecordingVideo, ...]),
    )


#: What is known of the end while there is none.
_NOT_FINISHED: Final = OnlineRecordFinished(timestamp=0)


def _converted(value: object, kind: Any) -> Any:
    return msgspec.convert(value, kind, from_attributes=True) if value else value
