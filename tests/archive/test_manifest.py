"""`manifest.json`: the same bytes each time, read again as it was, and nothing in it that leads elsewhere."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from archive.manifest import make_manifest, read_manifest, render_manifest
from archive.naming import recording_folder
from schemas import Manifest
from store import RecordingFailure, RecordingOmission
from tests.archive.recordings import file, manifest, recording

FOLDER = "1400000001/2026-11-30_880528_ghucnligqtgtvk2624mb"


def make(**changes: Any) -> Manifest:
    files = changes.pop("files", ())
    place = {"folder": FOLDER, "location": f"/srv/classes/{FOLDER}", "archived_at": "2026-11-30T01:00:00Z"}
    return make_manifest(recording(**changes), files, **place)


def test_a_manifest_has_all_that_is_known() -> None:
    made = make(
        files=(file(), file("2_camera.mp4", outcome="lost", reason="deleted")),
        error=RecordingFailure(code="FailedOperation.Record", message="code: 40004"),
        omitted_durations=(RecordingOmission(video_time_ms=1, pause_time_ms=2, resume_time_ms=3),),
    )
    written = json.loads(render_manifest(made))
    assert written["version"] == 1
    assert written["room_id"] == 880_528
    assert written["folder"] == FOLDER
    assert written["error"] == {"code": "FailedOperation.Record", "message": "code: 40004"}
    assert written["omitted_durations"] == [{"video_time_ms": 1, "pause_time_ms": 2, "resume_time_ms": 3}]
    assert [(each["name"], each["outcome"]) for each in written["files"]] == [
        ("1_whiteboard.mp4", "archived"),
        ("2_camera.mp4", "lost"),
    ]


# No event and no row has that character.
_TEXTS = st.characters(exclude_characters="\0", exclude_categories=["Cs"])


@given(
    task_id=st.text(_TEXTS, min_size=1, max_size=60),
    reason=st.text(_TEXTS, max_size=60),
    size=st.integers(0, 2**63 - 1),
)
def test_a_manifest_is_read_as_it_was_and_always_the_same(task_id: str, reason: str, size: int) -> None:
    folder = recording_folder(recording(task_id=task_id))
    made = structs.replace(make(task_id=task_id, files=(file(reason=reason, size=size),)), folder=folder)
    written = render_manifest(made)
    assert read_manifest(written) == made
    assert render_manifest(read_manifest(written)) == written


def test_a_person_can_read_it() -> None:
    written = render_manifest(make(group_id="三年级")).decode()
    assert '  "group_id": "三年级",\n' in written
    members = [line.split('"')[1] for line in written.splitlines() if line.startswith('  "')]
    assert members == sorted(members)


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("http://h.example/a/b.mp4?sign=secret#part", "http://h.example/a/b.mp4"),
        ("http://user:secret@h.example:80/b.mp4", "http://h.example:80/b.mp4"),
        ("http://[secret", None),
        (None, None),
    ],
)
def test_nothing_secret_of_an_address_is_kept(url: str | None, kept: str | None) -> None:
    assert make(files=(file(url=url),)).files[0].url == kept


def test_a_member_of_a_later_version_is_passed_over() -> None:
    written = json.loads(render_manifest(manifest())) | {"later": 1}
    assert read_manifest(json.dumps(written).encode()) == manifest()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no manifest"),
        (b"{}", "no manifest"),
        (b"\xff", "no manifest"),
        (b"[" * 100_000, "no manifest"),
        (render_manifest(manifest(version=2)), "use a newer one"),
        (render_manifest(manifest(folder="../other")), "cannot be a path"),
        (render_manifest(manifest(file("../1.mp4"))), "cannot be a path"),
        (render_manifest(manifest(file("a/1.mp4"))), "leads out of the folder"),
        (render_manifest(manifest(file(), file())), "are the same"),
        (render_manifest(manifest(task_id="other")), "another recording"),
        (render_manifest(manifest(sdk_app_id=2)), "another recording"),
        (render_manifest(manifest(folder="1400000001/a/b_ghucnligqtgtvk2624mb")), "another recording"),
        (render_manifest(manifest(folder="a" * 255)), "cannot be a path"),
        (render_manifest(manifest(sdk_app_id=2**63, folder=f"{2**63}/d_1_ghucnligqtgtvk2624mb")), "no sdk_app_id|none"),
        (render_manifest(manifest(archived_at="yesterday")), "Invalid isoformat"),
        (render_manifest(manifest(archived_at="9999-12-31T23:59:59-23:00")), "no time"),
        (render_manifest(manifest(file(archived_at="0001-01-01T00:00:00+23:00"))), "no time"),
        (render_manifest(manifest(file(last_modified="x"))), "Invalid isoformat"),
        (render_manifest(manifest(file(file_key="k" * 5000))), "no value"),
        (render_manifest(manifest(file(address_from="me"))), "no value"),
        (render_manifest(manifest(file(sha256="0"))), "no value"),
        (render_manifest(manifest(file(sha256=None))), "without a size or a digest"),
        (render_manifest(manifest(file(user_id="a\0"))), "U.0000"),
        (b" " * (32 * 1024 * 1024 + 1), "at most"),
    ],
)
def test_what_is_no_manifest_is_told(content: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_manifest(content)


@given(content=st.binary(max_size=200))
def test_any_bytes_are_a_manifest_or_told(content: bytes) -> None:
    with pytest.raises(ValueError, match="it is no manifest"):
        read_manifest(content)
