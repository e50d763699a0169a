"""Other families of callbacks: they share the address and the key, and sometimes a TaskId with a recording."""

from random import Random

from simulator.callback import ENVELOPE_FIRST, SPACED, Callback, make_callback


def transcoding(rng: Random, *, sdk_app_id: int | None, task_id: str, at: int) -> tuple[Callback, ...]:
    """Return the callbacks of slides being transcoded, the first at `at` (Unix seconds).

    Source: https://cloud.tencent.com/document/product/1137/40257
    """
    pages = rng.randint(2, 120)
    title = f"第{rng.randint(1, 40)}课.pptx"
    result_url = f"https://transcode-result.example/{task_id}/index.html"
    steps = [
        ("TranscodeProgressChanged", 0, ""),
        ("TranscodeProgressChanged", rng.randint(1, 99), ""),
        ("TranscodeFinished", 100, result_url),
    ]
    return tuple(
        make_callback(
            event_type,
            timestamp=at + seconds,
            sdk_app_id=sdk_app_id,
            event_data={
                "TaskId": task_id,
                "Progress": progress,
                "Resolution": "1024x768",
                "Title": title,
                "Pages": pages,
                "ResultUrl": url,
            },
            form=ENVELOPE_FIRST,
        )
        for seconds, (event_type, progress, url) in enumerate(steps)
    )


def whiteboard_push(
    *, sdk_app_id: int | None, task_id: str, room_id: int, started_at: int, stopped_at: int
) -> tuple[Callback, ...]:
    """Return the callbacks of a whiteboard being pushed as a stream, from `started_at` to `stopped_at`.

    Source: https://www.tencentcloud.com/document/product/1176/55567
    """
    push_user_id = f"tic_push_user_{room_id}_01"
    started = {"PushStartTime": started_at, "PushUserId": push_user_id, "RoomId": room_id, "TaskId": task_id}
    stopped = {
        "TaskId": task_id,
        "RoomId": room_id,
        "GroupId": str(room_id),
        "PushUserId": push_user_id,
        "FinishReason": "USER_CALL",
        "PushStartTime": started_at,
        "PushStopTime": stopped_at,
        "IMSyncTime": started_at,
        "ExceptionCnt": 0,
    }
    events = (("WhiteboardPushStarted", started_at, started), ("WhiteboardPushStopped", stopped_at, stopped))
    return tuple(
        make_callback(event_type, timestamp=at, sdk_app_id=sdk_app_id, event_data=event_data, form=SPACED)
        for event_type, at, event_data in events
    )
