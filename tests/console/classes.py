"""Classes in the store of a console, as they come to be there: events, archived files, dead letters."""

import time
from typing import Any

from schemas import file_key
from store import (
    ArchivePlan,
    DeadLetter,
    KeptEvent,
    PlannedFile,
    RecordingVideo,
    Store,
    apply_events,
    claim,
    claim_files,
    claim_manifests,
    complete,
    finish_file,
    finish_manifest,
    keep_dead_letters,
    plan_archive,
)
from tests.store.classes import callback, keep

APP = 1_400_000_001

#: What somebody may send in any field: markup, what turns the direction of writing, NUL, an attribute's end.
HOSTILE = "<img src=x onerror=alert(1)>\"' \u202eevil\u2066 \0 {{ 7 * 7 }} {t} %s"


def now_s() -> int:
    return int(time.time())


def of(
    kind: str, task_id: str, *, at_s: int, received_s: float | None = None, app: int = APP, **more: Any
) -> KeptEvent:
    """Make an event of a recording; `source` and `verified` are ours, all else is of the callback."""
    ours = {name: more.pop(name) for name in ("source", "verified") if name in more}
    content = callback(f"OnlineRecord{kind}", at_s, app, **{"TaskId": task_id, **more})
    received_us = round((at_s + 1 if received_s is None else received_s) * 1_000_000)
    return keep(content, received_at_us=received_us, **ours)


def video(number: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "VideoId": f"v{number}",
        "VideoUrl": f"https://files.example/{number}.mp4",
        "VideoFormat": "mp4",
        "VideoType": 0,
        "VideoSize": 1_000_000,
        "VideoPlayTime": 0,
        "VideoDuration": 3_720_000,
        "UserId": "teacher_1",
        **changes,
    }


def lesson(
    task_id: str,
    *,
    start_s: int | None = None,
    length_s: int = 3720,
    room: int = 880528,
    app: int = APP,
    **finished: Any,
) -> list[KeptEvent]:
    """Make the events of a class that ended well, received as they were sent."""
    start_s = now_s() - length_s - 120 if start_s is None else start_s
    end_s = start_s + length_s
    common: dict[str, Any] = {"RoomId": room, "RecordUserId": f"tic_record_user_{room}_1"}
    result: dict[str, Any] = {
        "GroupId": str(room),
        "FinishReason": "USER_CALL",
        "RecordStartTime": start_s,
        "RecordStopTime": end_s,
        "TotalTime": length_s * 1000,
        "ExceptionCnt": 0,
        "OmittedDurations": [],
        "VideoInfos": [video(1), video(2, VideoType=2, UserId="")],
    }
    return [
        of("Started", task_id, at_s=start_s, app=app, **common),
        of("Stopped", task_id, at_s=end_s, app=app, **common),
        of("Finished", task_id, at_s=end_s + 60, app=app, **{**common, **result, **finished}),
    ]


async def archive(store: Store, task_id: str, *outcomes: str | None, app: int = APP) -> None:
    """Let the files of a recording be planned, and end as given; None: it waits."""
    urls = [f"https://files.example/{number}.mp4" for number in range(1, len(outcomes) + 1)]
    files = tuple(
        PlannedFile(
            file_key=file_key(RecordingVideo(video_id=f"v{number}", video_size=1_000_000)),
            number=number,
            name=f"{number}_camera.mp4",
            url=url,
            address_from="callback",
            announced_size=1_000_000,
            details={},
            deleted_at_us=time.time_ns() // 1000 + 3_600_000_000,
        )
        for number, url in enumerate(urls, 1)
    )
    folder = f"{app}/2026-11-30_880528_{task_id}"
    plan = ArchivePlan(sdk_app_id=app, task_id=task_id, folder=folder, active_at_us=2**62, files=files)
    await plan_archive(store, [plan])
    claimed = await claim_files(
        store,
        lease_holder="h",
        lease_s=60.0,
        limit=100,
        staged_on="here",
        can_fetch=True,
        can_place=True,
        recording=(app, task_id),
    )
    for file in sorted(claimed, key=lambda one: one.number):
        outcome: Any = outcomes[file.number - 1]
        if outcome is not None:
            reason = None if outcome == "archived" else f"it is gone: {HOSTILE}"
            values: dict[str, Any] = {
                "location": f"/srv/classes/{folder}/{file.name}",
                "sha256": "ab" * 32,
                "size": 1_000_000,
            }
            if outcome != "archived":
                values = {}
            await finish_file(store, file.key, lease_holder="h", outcome=outcome, reason=reason, **values)
    if set(outcomes) == {"archived"}:
        for work in await claim_manifests(store, lease_holder="m", lease_s=60.0, limit=10, recording=(app, task_id)):
            at_us = time.time_ns() // 1000
            await finish_manifest(store, work.key, lease_holder="m", location="m", archived_at_us=at_us)


async def handled(store: Store, consumer: str, event: KeptEvent) -> None:
    await claim(store, consumer=consumer, event_ids=[event.event_id], lease_holder="w", lease_s=60.0)
    await complete(store, consumer=consumer, event_ids=[event.event_id], lease_holder="w")


async def given_up(store: Store, consumer: str, event: KeptEvent, *, reason: str = "no space left") -> None:
    letter = DeadLetter(
        consumer=consumer,
        event_id=event.event_id,
        event_type=type(event.event).__name__,
        sdk_app_id=APP,
        attempts=8,
        reason=reason,
        first_failed_at_us=event.received_at_us + 1_000_000,
        last_failed_at_us=event.received_at_us + 9_000_000,
        body=event.body,
        routing_key=type(event.event).__name__,
        received_at_us=event.received_at_us,
    )
    await keep_dead_letters(store, [letter])


__all__ = ["APP", "HOSTILE", "apply_events", "archive", "given_up", "handled", "lesson", "now_s", "of", "video"]
