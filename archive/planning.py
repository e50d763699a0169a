"""Which files of a recording are to be archived, under which names, and until when: pure, but for `plan_new`.

Where the vendor was asked, the addresses of its answer count; a callback's are taken where nobody asks it, or where no
answer comes until little of the time is left.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import structlog
from msgspec import Struct, structs

from archive.naming import file_name, recording_folder
from schemas import OnlineRecordFinished, decode, file_key
from store import (
    AddressSource,
    ArchivePlan,
    PlannedFile,
    RecordingVideo,
    Store,
    UnplannedRecording,
    find_reconciled_apps,
    find_unplanned,
    known_apps,
    known_archive_numbers,
    plan_archive,
)

#: An answer of the vendor is waited for until so long before the files are deleted; then the callback's addresses are
#: taken, if the allowed hosts permit: credentials that were revoked must cost no class.
ANSWER_AWAITED_UNTIL_S: Final = 86_400.0

#: Recordings that ended longer ago than this after their files were deleted are not planned: nothing is there.
_LATE_S: Final = 86_400.0

#: A callback tells of a recording's end so soon, however long the vendor processes its files.
_TOLD_WITHIN_S: Final = 6 * 3_600.0

#: Of what callbacks name no recording has more files; the vendor may answer any number. A body of 1 MiB could name
#: 60,000, and one after the other without end.
MAX_FORGEABLE_FILES: Final = 1_000

#: Each may have tens of thousands of files, if its event was forged: all of them are in memory together.
_AT_ONCE: Final = 20

_log = structlog.get_logger()


#: The SdkAppId of callbacks that have none; nothing can be asked about them.
_NO_APP: Final = 0

#: A process that asks the vendor lists its recordings each minute. One that has not for so long asks no more.
_ASKED_WITHIN_S: Final = 86_400.0


class PlanConfig(Struct, frozen=True, kw_only=True):
    """For how long the vendor keeps files, in seconds, and whether this process asks it about recordings."""

    kept_s: float = 3 * 86_400.0
    vendor_is_asked: bool = False


async def plan_new(store: Store, config: PlanConfig, *, now_s: float) -> int:
    """Plan the files of the recordings that finished, or changed, since they were looked at; return how many.

    Raises `StoreError`.
    """
    known = await known_apps(store)
    asked = await _asked_apps(store, known) if not config.vendor_is_asked else known
    return sum(
        [
            await _plan_apps(store, config, asked, needs_answer=True, now_s=now_s),
            await _plan_apps(store, config, (known | {_NO_APP}) - asked, needs_answer=False, now_s=now_s),
        ]
    )


async def _asked_apps(store: Store, known: frozenset[int]) -> frozenset[int]:
    """Return the applications about which the vendor is asked, be it by another process."""
    apps = await find_reconciled_apps(store)
    return known & {
        app for app, one in apps.items() if one.listed_ago_s is not None and one.listed_ago_s < _ASKED_WITHIN_S
    }


async def _plan_apps(
    store: Store, config: PlanConfig, apps: frozenset[int], *, needs_answer: bool, now_s: float
) -> int:
    planned = 0
    awaited_s = max(0.0, config.kept_s - ANSWER_AWAITED_UNTIL_S)
    while apps:
        found = await find_unplanned(
            store,
            apps=apps,
            since_us=_us(now_s - config.kept_s - _LATE_S),
            needs_answer=needs_answer,
            unanswered_until_us=_us(now_s - awaited_s),
            limit=_AT_ONCE,
        )
        if found:
            known = await known_archive_numbers(store, [(one.sdk_app_id, one.task_id) for one in found])
            plans = [
                make_plan(one, numbers=known.get((one.sdk_app_id, one.task_id), {}), kept_s=config.kept_s)
                for one in found
            ]
            planned += len(await plan_archive(store, plans))
            _log.info("files_planned", recordings=len(found), task_ids=[one.task_id for one in found][:10])
        if len(found) < _AT_ONCE:
            break
    return planned


def make_plan(found: UnplannedRecording, *, numbers: Mapping[str, tuple[int, str]], kept_s: float) -> ArchivePlan:
    """Return what is to be archived of a recording.

    `numbers` are those that its files have, with their names, by file_key: each keeps its own, and no other gets it.
    """
    recording = found.recording
    answer = _finished(found.answer)
    videos = recording.videos if answer is None else _videos(answer)
    stop_time = (recording if answer is None else answer).record_stop_time
    accepted_s = found.active_at_us / 1_000_000
    # What an event says of its end orders the work and may be forged, or no time at all.
    earliest_s = accepted_s - (min(_TOLD_WITHIN_S, kept_s) if answer is None else kept_s)
    ended_s = min(max(stop_time or accepted_s, earliest_s), accepted_s)
    return ArchivePlan(
        sdk_app_id=found.sdk_app_id,
        task_id=found.task_id,
        folder=recording_folder(recording),
        active_at_us=found.active_at_us,
        answered_at_us=found.answered_at_us,
        files=tuple(
            _planned_files(
                videos,
                numbers=numbers,
                task_id=found.task_id,
                address_from="callback" if answer is None else "vendor",
                deleted_at_us=_us(ended_s + kept_s),
            )
        ),
    )


def _finished(answer: bytes | None) -> OnlineRecordFinished | None:
    if answer is None:
        return None
    event = decode(answer, received_at_us=_FAR_US).event
    return event if isinstance(event, OnlineRecordFinished) else None


def _videos(event: OnlineRecordFinished) -> tuple[RecordingVideo, ...]:
    return tuple(RecordingVideo(**structs.asdict(video)) for video in event.video_infos)


#: Of an answer only the files count: nothing in it lies ahead.
_FAR_US: Final = 2**62


def _planned_files(
    videos: Iterable[RecordingVideo],
    *,
    numbers: Mapping[str, tuple[int, str]],
    task_id: str,
    address_from: AddressSource,
    deleted_at_us: int,
) -> Iterable[PlannedFile]:
    known = {key: number for key, (number, _) in numbers.items()}
    last = max(known.values(), default=0)
    seen: set[str] = set()
    left_out = 0
    for video in videos:
        key = file_key(video)
        if video.video_url is None or key in seen:
            continue
        if address_from == "callback" and key not in known and len(known) >= MAX_FORGEABLE_FILES:
            left_out += 1
            continue
        seen.add(key)
        number = known.setdefault(key, last + 1)
        last = max(last, number)
        yield PlannedFile(
            file_key=key,
            number=number,
            name=file_name(number, video),
            url=video.video_url,
            address_from=address_from,
            announced_size=video.video_size,
            details=_details(video),
            deleted_at_us=deleted_at_us,
        )
    if left_out:
        _log.error("files_left_out", task_id=task_id, files=left_out, most=MAX_FORGEABLE_FILES)


def _details(video: RecordingVideo) -> dict[str, Any]:
    return {
        "video_id": video.video_id,
        "video_type": None if video.video_type is None else int(video.video_type),
        "video_format": video.video_format,
        "user_id": video.user_id,
        "width": video.width,
        "height": video.height,
        "starts_at_ms": video.video_play_time_ms,
        "duration_ms": video.video_duration_ms,
    }


def _us(seconds: float) -> int:
    return round(seconds * 1_000_000)
