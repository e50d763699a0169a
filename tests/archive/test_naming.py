"""What an archived recording is called: found by a person, and by no other recording's name."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from archive.naming import check_key, file_name, recording_folder
from tests.archive.recordings import STARTED_AT, event, recording, video

INTEGERS = st.integers(-(2**63), 2**63 - 1)


def test_a_folder_says_application_date_in_china_room_and_task() -> None:
    assert recording_folder(recording()) == "1400000001/2026-11-30_880528_ghucnligqtgtvk2624mb"


@pytest.mark.parametrize(
    ("changes", "folder"),
    [
        ({"record_start_time": None, "events": (event(STARTED_AT),)}, "2026-11-30_880528_t"),
        ({"record_start_time": None}, "undated_880528_t"),
        ({"record_start_time": 2**62}, "undated_880528_t"),
        ({"room_id": None}, "2026-11-30_no-room_t"),
        ({"room_id": -1}, "2026-11-30_-1_t"),
        ({"record_start_time": 0}, "1970-01-01_880528_t"),
    ],
)
def test_what_is_not_known_is_left_out(changes: dict[str, object], folder: str) -> None:
    assert recording_folder(recording(task_id="t", **changes)) == f"1400000001/{folder}"


@pytest.mark.parametrize(
    "task_id",
    ["../../etc", "..", ".", "a/b", "a\0b", "课堂", "a b", "con.", "A", "x" * 255, "t_0123456789ab", "-" * 65],
)
def test_a_task_id_that_cannot_stand_as_it_is_gets_a_digest(task_id: str) -> None:
    assert re.fullmatch(
        r"1400000001/2026-11-30_880528_[A-Za-z0-9._-]{0,64}_[0-9a-f]{12}", recording_folder(recording(task_id=task_id))
    )


@example("Task", "task")
@example("a/b", "a b")
@example("a/b", "a-b")
@example("x" * 65, "x" * 64)
@given(one=st.text(min_size=1, max_size=255), other=st.text(min_size=1, max_size=255))
def test_two_task_ids_never_share_a_folder(one: str, other: str) -> None:
    folders = {recording_folder(recording(task_id=task_id)).lower() for task_id in (one, other)}
    assert len(folders) == len({one, other})
    # Nor does one that looks like what another became.
    name = recording_folder(recording(task_id=one)).split("_", 2)[2]
    again = recording_folder(recording(task_id=name)).split("_", 2)[2]
    assert (again == name) == (name == one)


@given(
    app=INTEGERS,
    room=INTEGERS | st.none(),
    start=INTEGERS | st.none(),
    task_id=st.text(min_size=1, max_size=255),
    number=st.integers(1, 10_000),
    kind=INTEGERS | st.none(),
    form=st.text(max_size=20) | st.none(),
    url=st.text(max_size=40) | st.none(),
)
def test_every_name_is_a_path_below_the_target(
    *,
    app: int,
    room: int | None,
    start: int | None,
    task_id: str,
    number: int,
    kind: int | None,
    form: str | None,
    url: str | None,
) -> None:
    folder = recording_folder(recording(sdk_app_id=app, room_id=room, record_start_time=start, task_id=task_id))
    name = file_name(number, video(video_type=kind, video_format=form, video_url=url))
    assert len(check_key(f"{folder}/{name}")) == 3
    assert re.fullmatch(r"[0-9]+_[a-z]+\.[a-z0-9]+", name)


@pytest.mark.parametrize(
    ("kind", "name"),
    [(0, "camera"), (1, "screen"), (2, "whiteboard"), (3, "mixed"), (4, "audio"), (9, "video"), (None, "video")],
)
def test_a_file_says_what_it_shows(kind: int | None, name: str) -> None:
    assert file_name(3, video(video_type=kind)) == f"3_{name}.mp4"


@pytest.mark.parametrize(
    ("form", "url", "ending"),
    [
        ("MP4", None, "mp4"),
        (".webm", None, "webm"),
        (None, "http://h/a/b.MP3?sign=x.html", "mp3"),
        (None, "http://[h/b.mp4", "bin"),
        (None, None, "bin"),
        ("html", "http://h/b.mp4", "bin"),
        ("svg", None, "bin"),
        ("mp4/../../x", None, "bin"),
    ],
)
def test_a_file_ends_as_a_video_or_a_sound_does(form: str | None, url: str | None, ending: str) -> None:
    assert file_name(1, video(video_format=form, video_url=url)) == f"1_whiteboard.{ending}"


@pytest.mark.parametrize(
    "key", ["", "/", "a/", "/a", "a//b", "../a", "a/..", "a/.b", "a\0", "a\\b", "a\n", "x" * 201, "\ud800"]
)
def test_what_leads_elsewhere_is_no_key(key: str) -> None:
    with pytest.raises(ValueError, match="cannot be a path below the target"):
        check_key(key)
