"""The files of a finished recording, as its VideoInfos list them."""

from random import Random
from typing import Any

from msgspec import Struct

#: A reserved name: whoever downloads what a simulated class offers disturbs nobody.
_BUCKET = "http://online-recording-1400000001.file.example"

_BYTES_PER_MS = 38
_LAYOUTS = (1, 2, 3, 101, 102, 103)

_CAMERA, _SCREEN_SHARE, _WHITEBOARD, _MIXED_STREAM, _AUDIO = range(5)


class Take(Struct, frozen=True, kw_only=True):
    """What all files of one recording have in common."""

    room_id: int
    folder: str
    total_time_ms: int


def random_name(rng: Random) -> str:
    """Return 20 characters in the shape of the vendor's ids: 100 bits, so that no two are ever the same."""
    bits = rng.getrandbits(100)
    return "".join("0123456789abcdefghijklmnopqrstuv"[bits >> shift & 31] for shift in range(0, 100, 5))


def one_teacher(rng: Random, take: Take) -> list[dict[str, Any]]:
    """One camera, a mixed stream and the whiteboard: the usual class."""
    return [
        _video(rng, take, _CAMERA, user_id=_person(rng)),
        _video(rng, take, _MIXED_STREAM, user_id=f"tic_mixstream_{take.room_id}_{rng.choice(_LAYOUTS)}"),
        _video(rng, take, _WHITEBOARD, user_id=""),
    ]


def many_streams(rng: Random, take: Take) -> list[dict[str, Any]]:
    """Several cameras and microphones, a screen share, the whiteboard, and mixed streams in several layouts.

    Screen shares, mixed streams and the whiteboard have the newer Width and Height.
    """
    people = [_person(rng) for _ in range(rng.randint(2, 6))]
    layouts = rng.sample(_LAYOUTS, rng.randint(2, 4))
    return [
        *(_video(rng, take, _CAMERA, user_id=person) for person in people),
        _video(rng, take, _AUDIO, user_id=_person(rng)),
        _video(rng, take, _SCREEN_SHARE, user_id=f"tic_substream_{people[0]}", size=(1920, 1080)),
        *(
            _video(rng, take, _MIXED_STREAM, user_id=f"tic_mixstream_{take.room_id}_{layout}", size=(1280, 720))
            for layout in layouts
        ),
        _video(rng, take, _WHITEBOARD, user_id="", size=(1280, 720)),
    ]


def joined(rng: Random, take: Take) -> list[dict[str, Any]]:
    """One file per stream, from the beginning of the class to its end."""
    return [
        _video(rng, take, _MIXED_STREAM, user_id=f"tic_mixstream_{take.room_id}_{rng.choice(_LAYOUTS)}", whole=True),
        _video(rng, take, _WHITEBOARD, user_id="", whole=True),
    ]


def _person(rng: Random) -> str:
    return f"{rng.choice(('Mac_trtc', 'iPad_trtc', 'web_trtc', 'student', 'teacher'))}_{rng.randrange(10_000):04}"


def _video(
    rng: Random,
    take: Take,
    video_type: int,
    *,
    user_id: str,
    size: tuple[int, int] | None = None,
    whole: bool = False,
) -> dict[str, Any]:
    video_id = f"{rng.getrandbits(128):032x}"
    video_format = "mp3" if video_type == _AUDIO else "mp4"
    play_time_ms = 0 if whole else rng.randrange(max(1, min(2_000, take.total_time_ms)))
    rest_ms = take.total_time_ms - play_time_ms
    # People come and go, and share their screens for a while; what shows the class itself lasts as long as it.
    shortest_ms = max(0, rest_ms - 1_000) if video_type in (_WHITEBOARD, _MIXED_STREAM) else 0
    duration_ms = take.total_time_ms if whole else rng.randint(shortest_ms, rest_ms)
    width_and_height = {} if size is None else {"Width": size[0], "Height": size[1]}
    return {
        "UserId": user_id,
        "VideoDuration": duration_ms,
        "VideoFormat": video_format,
        "VideoId": video_id,
        "VideoPlayTime": play_time_ms,
        "VideoSize": duration_ms * rng.randint(_BYTES_PER_MS // 3, _BYTES_PER_MS),
        "VideoType": video_type,
        "VideoUrl": f"{_BUCKET}/{take.folder}/{video_id}.{video_format}",
        **width_and_height,
    }
