"""What the store shows and no event tells: looked for again and again, and looked at once more before it is told."""

import math
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, date, datetime
from typing import TypeAlias

from msgspec import Struct

from notify.rules import (
    EXPIRY_STEPS_H,
    FILES_LAST_S,
    Alert,
    app_paused,
    archive_failing,
    broker_away,
    contradicted,
    dead_letters,
    file_expiring,
    overdue,
    spool,
    unaccounted,
)
from schemas import RecordingStatus
from store import (
    ClaimedNotice,
    Recording,
    Store,
    UnfinishedRecording,
    count_dead_letters,
    find_expiring_files,
    find_failing,
    find_reconciled_apps,
    find_recordings,
    find_unaccounted,
    list_contradicted,
    list_dead_letters,
    list_unfinished,
)

#: Looks at something at a time in Unix seconds, and returns what is worth telling.
Look: TypeAlias = Callable[[Store, float], Awaitable[Sequence[Alert]]]

#: How long after the last event of a recording that was stopped its result is missed. The vendor processes the files
#: meanwhile; `tiw reconcile` asks about it sooner.
OVERDUE_AFTER_S = 3600.0

#: How long after the time that the vendor gave a paused recording it should have been stopped.
_PAUSE_GRACE_S = 900.0

#: A recording ends by itself after 24 hours: https://cloud.tencent.com/document/product/1137/49831
_LONGEST_RECORDING_S = 25 * 3600.0

_DAY_S = 86_400.0
_SELDOM_S = 600.0

#: Dead letters that are older were looked at before, or nobody was told of notices then.
_RECENT_S = 3600.0

#: Of so many files at once that expire people are told; a channel takes no more in the time that is left.
_EXPIRING = 1_000

#: A spool drains within seconds once the broker is back.
SPOOL_AFTER_S = 60.0

#: A target that restarts is back within some minutes; files are staged meanwhile.
ARCHIVE_FAILING_AFTER_S = 600.0

#: A broker that restarts is back within a minute or two.
BROKER_AWAY_AFTER_S = 120.0


async def look_for_overdue(store: Store, now_s: float) -> list[Alert]:
    """Find recordings that should have ended by now, and did not."""
    unfinished = await list_unfinished(store, since_us=_us(now_s - FILES_LAST_S), until_us=_us(now_s - OVERDUE_AFTER_S))
    return [
        overdue(
            sdk_app_id=one.sdk_app_id,
            task_id=one.task_id,
            room_id=one.room_id,
            status=one.status.value,
            since_s=one.active_at_us / 1_000_000,
            now_s=now_s,
        )
        for one in unfinished
        if _is_overdue(one, now_s)
    ]


def _is_overdue(one: UnfinishedRecording, now_s: float) -> bool:
    if one.status is RecordingStatus.STOPPED:
        return True
    if one.status is RecordingStatus.PAUSED and one.estimate_stop_time is not None:
        return one.estimate_stop_time + _PAUSE_GRACE_S < now_s
    return one.active_at_us / 1_000_000 + _LONGEST_RECORDING_S < now_s


async def look_for_contradicted(store: Store, now_s: float) -> list[Alert]:
    """Find events that the vendor contradicts."""
    found = await list_contradicted(store, since_us=_us(now_s - FILES_LAST_S))
    alerts = []
    for event in found:
        recordings = await find_recordings(store, event.task_id or "", app=event.sdk_app_id)
        alerts.append(
            contradicted(
                sdk_app_id=event.sdk_app_id,
                task_id=event.task_id or "",
                room_id=next((recording.room_id for recording in recordings), None),
                event_type=event.event_type or "",
                event_id=event.event_id,
                received_at_s=datetime.fromisoformat(event.received_at).timestamp(),
            )
        )
    return alerts


async def look_for_unaccounted(store: Store, now_s: float) -> list[Alert]:
    """Find rooms that the vendor bills for, and of which nothing is known, while their files may still be there."""
    since = datetime.fromtimestamp(now_s - FILES_LAST_S - _DAY_S, UTC).date()
    return [
        unaccounted(sdk_app_id=room.sdk_app_id, room_id=room.room_id, day=room.day, minutes=room.minutes, now_s=now_s)
        for room in await find_unaccounted(store, since=since)
    ]


async def look_for_paused_apps(store: Store, now_s: float) -> list[Alert]:
    """Find applications that the vendor is not asked about for now."""
    return [
        app_paused(
            sdk_app_id=app.sdk_app_id, reason=app.pause_reason or "", until_s=now_s + app.paused_for_s, now_s=now_s
        )
        for app in (await find_reconciled_apps(store)).values()
        if app.paused_for_s > 0
    ]


async def look_for_dead_letters(store: Store, now_s: float) -> list[Alert]:
    """Find consumers that have given events up lately; whoever tries one with a test looks by himself."""
    recent = await list_dead_letters(store, since_us=_us(now_s - _RECENT_S), tests=False, limit=100)
    if not recent:
        return []
    counts = await count_dead_letters(store)
    latest = {letter.consumer: letter for letter in reversed(recent)}
    return [
        dead_letters(
            consumer=consumer,
            count=counts.get(consumer, 0),
            reason=letter.reason,
            last_failed_s=datetime.fromisoformat(letter.last_failed_at).timestamp(),
        )
        for consumer, letter in latest.items()
        if counts.get(consumer, 0)
    ]


async def look_for_failing_archive(store: Store, now_s: float) -> list[Alert]:
    """Find files that were fetched and cannot be placed where they are to be kept."""
    failing = [
        one
        for one in await find_failing(store, since_us=_us(now_s - ARCHIVE_FAILING_AFTER_S))
        if one.failing_at == "placing"
    ]
    if not failing:
        return []
    most = max(failing, key=lambda one: one.count)
    return [
        archive_failing(
            reason=most.reason,
            count=sum(one.count for one in failing),
            since_s=min(one.since_s for one in failing),
            now_s=now_s,
        )
    ]


async def look_for_expiring_files(store: Store, now_s: float) -> list[Alert]:
    """Find files that the vendor deletes soon, and that are not archived; of very many, those that are next."""
    found = await find_expiring_files(store, within_s=max(EXPIRY_STEPS_H) * 3600.0, limit=_EXPIRING)
    alerts = [
        file_expiring(
            sdk_app_id=one.sdk_app_id,
            task_id=one.task_id,
            room_id=one.room_id,
            file=one.name,
            expires_at_s=one.expires_at_s,
            now_s=now_s,
        )
        for one in found
    ]
    return [alert for alert in alerts if alert is not None]


def store_looks() -> tuple[Look, ...]:
    """Return the looks at what can be read of the store alone, for one process."""
    return (
        look_for_overdue,
        look_for_contradicted,
        look_for_paused_apps,
        look_for_dead_letters,
        look_for_failing_archive,
        look_for_expiring_files,
        # It reads the recordings of whole days, and changes once a day.
        _seldom(look_for_unaccounted, every_s=_SELDOM_S),
    )


def _seldom(look: Look, *, every_s: float) -> Look:
    """Return a look that is taken no more often than this."""
    looked_at_s = -math.inf

    async def look_seldom(store: Store, now_s: float) -> Sequence[Alert]:
        nonlocal looked_at_s
        if now_s - looked_at_s < every_s:
            return []
        found = await look(store, now_s)
        looked_at_s = now_s
        return found

    return look_seldom


class SpoolUse(Struct, frozen=True, kw_only=True):
    """How many callbacks wait in a spool, and since when the first of them does, in Unix seconds."""

    count: int
    since_s: float


def look_for_spool(spool_use: Callable[[], SpoolUse | None]) -> Look:
    """Return a look at the spool that `spool_use` reads; it gives None for an empty one."""

    async def look(store: Store, now_s: float) -> list[Alert]:
        del store
        use = spool_use()
        if use is None or now_s - use.since_s < SPOOL_AFTER_S:
            return []
        return [spool(count=use.count, since_s=use.since_s, now_s=now_s)]

    return look


def look_for_broker(is_ready: Callable[[], bool]) -> Look:
    """Return a look at the broker, as far as this process reaches it: while it does not, ingest spools."""
    away_since_s: float | None = None

    async def look(store: Store, now_s: float) -> list[Alert]:
        nonlocal away_since_s
        del store
        if is_ready():
            away_since_s = None
            return []
        if away_since_s is None:
            away_since_s = now_s
        if now_s - away_since_s < BROKER_AWAY_AFTER_S:
            return []
        return [broker_away(since_s=away_since_s, now_s=now_s)]

    return look


async def is_over(store: Store, notice: ClaimedNotice) -> bool:
    """Say whether what a notice tells has been overtaken: a person would look for something that is not there."""
    if notice.rule == "dead_letters":
        return notice.data.get("consumer") not in await count_dead_letters(store)
    if notice.rule == "unaccounted":
        day = notice.data["day"]
        still = {
            (room.sdk_app_id, room.room_id, room.day)
            for room in await find_unaccounted(store, since=date.fromisoformat(day))
        }
        return (notice.data["sdk_app_id"], notice.data["room_id"], day) not in still
    if notice.rule not in ("long_pause", "failed", "overdue") or notice.task_id is None:
        return False
    found = await find_recordings(store, notice.task_id, app=notice.sdk_app_id)
    # What tells of it may come before what keeps it.
    return bool(found) and _is_recording_over(notice, found[0])


def _is_recording_over(notice: ClaimedNotice, recording: Recording) -> bool:
    if notice.rule == "failed":
        return recording.status is RecordingStatus.FINISHED and recording.error is None
    if notice.rule == "overdue":
        return recording.status is not RecordingStatus(notice.data["status"])
    if recording.status not in (RecordingStatus.RECORDING, RecordingStatus.PAUSED):
        return True
    # It went on, and is paused once more: there is another notice of that.
    stops_at, later = notice.data.get("stops_at"), recording.estimate_stop_time
    return isinstance(stops_at, int) and later is not None and later > stops_at


def _us(at_s: float) -> int:
    return round(at_s * 1_000_000)
