"""Finished recordings become rows, each once."""

import asyncio
import csv
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from schemas import FinishReason, OnlineRecordFinished, RecordingError, VideoInfo
from tests.examples.loading import EXAMPLES, load_example
from workers import Ack, Consumer, LoadError, Retry, run_consumer

EVENT = OnlineRecordFinished(
    task_id="task",
    sdk_app_id=1400000001,
    room_id=7,
    timestamp=1,
    finish_reason=FinishReason.AUTO,
    video_infos=(
        VideoInfo(video_id="v1", video_url="https://example.com/1.mp4", video_format="mp4", video_size=5),
        VideoInfo(video_id="v2", video_duration_ms=1000, user_id=""),
    ),
)
RECEIVED_AT = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "recordings.csv"
    monkeypatch.setenv("CSV_FILE", str(path))
    return path


@pytest.fixture
def append_csv(file: Path) -> Consumer:
    return load_example("append_csv")


def write(file: Path, content: bytes) -> None:
    file.write_bytes(content)


def read(file: Path) -> bytes:
    return file.read_bytes()


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8-sig", newline="") as opened:
        return list(csv.DictReader(opened))


async def test_each_video_is_a_row_under_one_header(append_csv: Consumer, file: Path) -> None:
    assert await run_consumer(append_csv, EVENT, event_id="a" * 32, received_at=RECEIVED_AT) == Ack()
    assert await run_consumer(append_csv, EVENT, event_id="b" * 32, received_at=RECEIVED_AT) == Ack()
    first, second, *others = rows(file)
    assert first == {
        "event_id": "a" * 32,
        "received_at": "2026-01-02T03:04:05Z",
        "sdk_app_id": "1400000001",
        "task_id": "task",
        "room_id": "7",
        "finish_reason": "AUTO",
        "error": "",
        "video": "1",
        "video_id": "v1",
        "video_url": "https://example.com/1.mp4",
        "video_format": "mp4",
        "video_size": "5",
        "video_duration_ms": "",
        "user_id": "",
    }
    assert (second["video"], second["video_id"], second["video_duration_ms"]) == ("2", "v2", "1000")
    assert [row["event_id"] for row in others] == ["b" * 32] * 2
    assert read(file).count(b"event_id") == 1


async def test_a_failed_recording_is_a_row_with_its_error(append_csv: Consumer, file: Path) -> None:
    event = OnlineRecordFinished(timestamp=1, error=RecordingError(code="InternalError", message="no disk"))
    assert await run_consumer(append_csv, event) == Ack()
    (row,) = rows(file)
    assert (row["error"], row["video"], row["video_id"]) == ("InternalError: no disk", "", "")


async def test_an_event_that_comes_again_adds_nothing(append_csv: Consumer, file: Path) -> None:
    await run_consumer(append_csv, EVENT, event_id="a" * 32)
    content = read(file)
    assert await run_consumer(append_csv, EVENT, event_id="a" * 32, attempt=2) == Ack()
    assert read(file) == content


async def test_a_write_that_was_cut_off_anywhere_is_completed(append_csv: Consumer, file: Path) -> None:
    await run_consumer(append_csv, EVENT, event_id="a" * 32, received_at=RECEIVED_AT)
    whole = read(file)
    for length in range(0, len(whole), 3):
        write(file, whole[:length])
        assert await run_consumer(append_csv, EVENT, event_id="a" * 32, received_at=RECEIVED_AT) == Ack()
        assert read(file) == whole


@pytest.mark.parametrize("value", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "\r\n=1", "\uff1d1"])
async def test_no_value_is_run_as_a_formula(append_csv: Consumer, file: Path, value: str) -> None:
    event = OnlineRecordFinished(
        task_id=value,
        timestamp=1,
        error=RecordingError(code=value),
        finish_reason=FinishReason(value),
        video_infos=(VideoInfo(video_id=value, video_url=value, video_format=value, user_id=value),),
    )
    assert await run_consumer(append_csv, event) == Ack()
    (row,) = rows(file)
    for cell in row.values():
        assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", " ", "\uff1d"))


async def test_separators_quotes_line_breaks_and_any_language_stay_in_their_cell(
    append_csv: Consumer, file: Path
) -> None:
    event = OnlineRecordFinished(task_id='a,"b"\r\nc;\u8bfe\u5802\N{SNOWMAN}\x00\u2028d', timestamp=1)
    await run_consumer(append_csv, event)
    await run_consumer(append_csv, EVENT, event_id="a" * 32)
    first, *others = rows(file)
    assert first["task_id"] == 'a,"b"  c;\u8bfe\u5802\N{SNOWMAN}  d'
    assert len(others) == 2
    assert read(file).startswith(b"\xef\xbb\xbfevent_id,")


async def test_a_file_with_other_content_is_left_alone(append_csv: Consumer, file: Path) -> None:
    write(file, b"my,own\r\ntable")
    outcome = await run_consumer(append_csv, EVENT)
    assert isinstance(outcome, Retry)
    assert "has other columns: name another CSV_FILE" in outcome.reason
    assert read(file) == b"my,own\r\ntable"


async def test_threads_share_a_file(append_csv: Consumer, file: Path) -> None:
    ids = [f"{number:032x}" for number in range(20)]
    outcomes = await asyncio.gather(*(run_consumer(append_csv, EVENT, event_id=id_) for id_ in ids * 2))
    assert outcomes == [Ack()] * 40
    assert sorted(row["event_id"] for row in rows(file)) == sorted(ids * 2)


def test_processes_share_a_file(file: Path) -> None:
    root = EXAMPLES.parent
    environ = {**os.environ, "PYTHONPATH": str(root)}
    # They overlap: events 10 to 29 are appended by two processes at the same moment.
    commands = [[sys.executable, "-m", "tests.examples.append_child", str(first), "20"] for first in (0, 10, 20)]
    children = [subprocess.Popen(command, env=environ, cwd=root) for command in commands]
    try:
        assert [child.wait(timeout=60) for child in children] == [0, 0, 0]
    finally:
        for child in children:
            child.kill()
            child.wait()
    expected = [f"{number:032x}" for number in range(40) for _ in range(3)]
    assert sorted(row["event_id"] for row in rows(file)) == expected
    assert read(file).count(b"event_id") == 1


def test_a_missing_file_name_is_said_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CSV_FILE", raising=False)
    with pytest.raises(LoadError, match="CSV_FILE must name the file"):
        load_example("append_csv")
