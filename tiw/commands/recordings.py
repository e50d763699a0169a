"""`tiw recordings list|show`."""

import argparse
from collections.abc import Sequence

from store import (
    Recording,
    RecordingFilter,
    RecordingStatus,
    RecordingSummary,
    VideoArchive,
    check_schema,
    find_recordings,
    list_recordings,
)
from tiw.opening import open_store
from tiw.output import (
    nothing,
    parse_moment_us,
    parse_since_us,
    print_fields,
    print_json,
    print_lines,
    print_table,
    show_bytes,
    show_duration_ms,
    show_iso,
    show_unix_s,
)
from tiw.settings import FailedError, Settings, UsageError


async def list_all(settings: Settings, args: argparse.Namespace) -> int:
    """Print recordings, newest first."""
    is_failed = args.status == "FAILED"
    chosen = RecordingFilter(
        app=args.app,
        task=args.task,
        room=args.room,
        teacher=args.teacher,
        status=None if args.status is None or is_failed else RecordingStatus(args.status),
        from_us=parse_since_us(args.since),
        until_us=parse_moment_us(args.until, "--until"),
        failed=is_failed or args.failed,
        found_late=args.found_late,
        contradicted=args.contradicted,
        not_archived=args.not_archived,
    )
    async with open_store(settings) as store:
        await check_schema(store)
        recordings = await list_recordings(store, chosen, limit=args.limit)
    if args.json:
        print_json(recordings)
    else:
        is_asked_for = (getattr(chosen, name) for name in RecordingFilter.__struct_fields__)
        print_recordings(recordings, empty=nothing("recordings", *is_asked_for), wide=args.wide)
    return 0


def print_recordings(recordings: Sequence[RecordingSummary], *, empty: str, wide: bool = False) -> None:
    """Print a table of recordings, in their order."""
    print_table(
        ["recording", "status", "started UTC", "length", "result", "room", "stopped UTC", "application", "verified"],
        [_row(recording) for recording in recordings],
        empty=empty,
        spare=["verified", "application", "stopped UTC", "room"],
        wide=wide,
    )


async def show(settings: Settings, args: argparse.Namespace) -> int:
    """Print one recording with its videos and events."""
    async with open_store(settings) as store:
        await check_schema(store)
        found = await find_recordings(store, args.task_id, app=args.app)
    if not found:
        raise FailedError(f"there is no recording {args.task_id}")
    if len(found) > 1:
        apps = ", ".join(str(recording.sdk_app_id) for recording in found)
        raise UsageError(f"several applications have a recording {args.task_id}: choose with --app from {apps}")
    if args.json:
        print_json(found[0])
    else:
        _print(found[0])
    return 0


def _row(recording: RecordingSummary) -> tuple[object, ...]:
    return (
        recording.task_id,
        recording.status.value,
        show_unix_s(recording.record_start_time),
        show_duration_ms(recording.total_time_ms),
        _result(recording),
        recording.room_id,
        show_unix_s(recording.record_stop_time or recording.force_stop_time),
        str(recording.sdk_app_id),
        show_verified(verified=recording.verified),
    )


def show_verified(*, verified: bool | None) -> str:
    """Return whether the vendor confirms something: nothing if it was not asked."""
    return "" if verified is None else "yes" if verified else "no"


def _result(recording: RecordingSummary) -> str:
    if recording.verified is False:
        return "contradicted by the vendor"
    if recording.error is not None:
        return f"failed: {recording.error.code or 'no code'}"
    if recording.status is RecordingStatus.PAUSED and recording.estimate_stop_time:
        return f"will be stopped at {show_unix_s(recording.estimate_stop_time)} UTC"
    if recording.force_stop_time:
        return "stopped after a long pause"
    return recording.finish_reason or ""


def _print(recording: Recording) -> None:
    folder = _folder(recording)
    print_fields(
        {
            "status": recording.status.value,
            "application": recording.sdk_app_id,
            "room": recording.room_id,
            "group": recording.group_id,
            "recorded by": recording.record_user_id,
            "finish reason": recording.finish_reason,
            "failed": None if recording.error is None else f"failed: {recording.error.code}: {recording.error.message}",
            "started (UTC)": show_unix_s(recording.record_start_time),
            "stopped (UTC)": show_unix_s(recording.record_stop_time),
            "length": show_duration_ms(recording.total_time_ms),
            "anomalies": recording.exception_count,
            "paused since (UTC)": show_unix_s(recording.pause_time),
            "to be stopped at (UTC)": show_unix_s(recording.estimate_stop_time),
            "force-stopped at (UTC)": show_unix_s(recording.force_stop_time),
            "verified": _verified(recording),
            "archived in": folder,
        },
        title=f"Recording {recording.task_id}",
    )
    if recording.omitted_durations:
        print_table(
            ["video time", "paused at", "resumed at"],
            [
                (
                    show_duration_ms(o.video_time_ms),
                    show_duration_ms(o.pause_time_ms),
                    show_duration_ms(o.resume_time_ms),
                )
                for o in recording.omitted_durations
            ],
            title="Omitted from the joined videos",
            empty="",
        )
    print_table(
        ["video", "of", "starts at", "length", "size", "archive"],
        [
            (
                video.video_id,
                video.user_id or ("whiteboard" if video.user_id == "" else None),
                show_duration_ms(video.video_play_time_ms),
                show_duration_ms(video.video_duration_ms),
                show_bytes(video.video_size),
                None if video.archive is None else _place(video.archive, folder),
            )
            for video in recording.videos
        ],
        title="Videos",
        empty="No videos.",
    )
    print_lines([video.video_url for video in recording.videos if video.video_url])
    if recording.found:
        print_table(
            ["found late", "by", "at", "how late"],
            [
                (finding.event_type, finding.by, show_iso(finding.found_at), show_duration_ms(finding.late_s * 1000))
                for finding in recording.found
            ],
            title="Found by asking the vendor",
            empty="",
        )
    print_table(
        ["event", "sent", "received", "event_id", "source", "verified"],
        [
            (
                event.event_type,
                show_unix_s(event.timestamp),
                show_iso(event.received_at),
                event.event_id,
                event.source or "callback",
                show_verified(verified=event.verified),
            )
            for event in recording.events
        ],
        title="Events",
        empty="No events.",
        spare=["source", "verified"],
    )


def _folder(recording: Recording) -> str | None:
    """Return where all archived files of a recording lie, None if there are none or they lie in several places."""
    places = {
        video.archive.location.rpartition("/")[0]
        for video in recording.videos
        if video.archive is not None and video.archive.location is not None
    }
    return places.pop() if len(places) == 1 else None


def _place(archive: VideoArchive, folder: str | None) -> str:
    """Return the name of an archived file, with its folder if that is not `folder`; else how far it is."""
    return archive.state if archive.location is None else archive.location.removeprefix(f"{folder}/")


def _verified(recording: Recording) -> str:
    if recording.verified is None:
        return "not asked" if recording.status is RecordingStatus.FINISHED else ""
    return "the vendor confirms it" if recording.verified else "no: the vendor contradicts it"
