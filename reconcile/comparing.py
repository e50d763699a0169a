"""Whether a Finished callback says what the vendor's answer says. Pure: no I/O.

A Sign does not cover the body (docs/security.md): whoever has seen one can invent a Finished callback, with files at
addresses of his own. What the vendor itself answers when it is asked settles it.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from schemas import OnlineRecordFinished, VideoInfo

#: Members of the event that must be the same. Not FinishReason: the API knows values that no callback has, see
#: `FORCE_STOP` in https://www.tencentcloud.com/document/product/1176/55181
_MEMBERS = {
    "RoomId": "room_id",
    "RecordUserId": "record_user_id",
    "RecordStartTime": "record_start_time",
    "RecordStopTime": "record_stop_time",
    "TotalTime": "total_time_ms",
}

#: The same of each file. Width, Height and the like do no harm, and older callbacks lack them.
_VIDEO_MEMBERS = {
    "VideoUrl": "video_url",
    "VideoId": "video_id",
    "VideoSize": "video_size",
    "VideoDuration": "video_duration_ms",
}


def contradictions(event: OnlineRecordFinished, answer: OnlineRecordFinished) -> tuple[str, ...]:
    """Return the wire names of the members in which a Finished callback contradicts the vendor's answer.

    None: it agrees. A member counts where both have it; whether there is an Error, and which files there are, always
    do. Of a recording that failed nothing else is compared: the answer has nothing but the error.
    """
    if (event.error is None) != (answer.error is None):
        return ("Error",)
    if event.error is not None:
        return ()
    odd = [name for name, attribute in _MEMBERS.items() if _differ(event, answer, attribute)]
    return (*odd, *_odd_videos(event.video_infos, answer.video_infos))


def _odd_videos(found: Sequence[VideoInfo], expected: Sequence[VideoInfo]) -> Iterable[str]:
    if len(found) != len(expected):
        return ("VideoInfos",)
    pairs = _paired(found, expected)
    if pairs is None:
        return ("VideoInfos",)
    return [
        f"VideoInfos[{number}].{name}"
        for number, (one, other) in enumerate(pairs)
        for name, attribute in _VIDEO_MEMBERS.items()
        if _differ(one, other, attribute)
    ]


def _paired(found: Sequence[VideoInfo], expected: Sequence[VideoInfo]) -> Sequence[tuple[VideoInfo, VideoInfo]] | None:
    """Return the files of the callback, each beside the one that it should be; None if there is none for one of them.

    By VideoId where every file has one, as nobody promises an order; else by place.
    """
    ids, expected_ids = ([video.video_id for video in videos] for videos in (found, expected))
    if None in ids or None in expected_ids or len(set(ids)) < len(ids):
        return [*zip(found, expected, strict=True)]
    if Counter(ids) != Counter(expected_ids):
        return None
    by_id = {video.video_id: video for video in expected}
    return [(video, by_id[video.video_id]) for video in found]


def _differ(one: object, other: object, attribute: str) -> bool:
    values = getattr(one, attribute), getattr(other, attribute)
    return None not in values and values[0] != values[1]
