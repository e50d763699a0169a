"""Events become rows of a database, many at a time, each once."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from schemas import Event, OnlineRecordFinished, OnlineRecordStarted, Unrecognized
from tests.examples.loading import load_example
from workers import Ack, Consumer, LoadError, Retry, run_batch, run_consumer

RECEIVED_AT = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
EVENTS: list[Event] = [
    OnlineRecordStarted(task_id="task", sdk_app_id=1400000001, room_id=7, timestamp=1),
    OnlineRecordFinished(timestamp=2),
    Unrecognized(reason="of another family", event_type="TranscodeFinished", sdk_app_id=1400000001),
]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "warehouse.db"
    monkeypatch.setenv("WAREHOUSE_FILE", str(path))
    return path


@pytest.fixture
def warehouse_rows(file: Path) -> Consumer:
    return load_example("warehouse_rows")


def block(file: Path) -> None:
    """Make a folder where the database would be."""
    file.mkdir()


def rows(file: Path) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(file)) as database:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute("SELECT * FROM events ORDER BY event_id")]


async def test_an_event_is_a_row(warehouse_rows: Consumer, file: Path) -> None:
    body = b'{"EventType": "OnlineRecordStarted"}'
    outcome = await run_consumer(warehouse_rows, EVENTS[0], event_id="a" * 32, received_at=RECEIVED_AT, body=body)

    assert outcome == Ack()
    assert rows(file) == [
        {
            "event_id": "a" * 32,
            "received_at": "2026-01-02T03:04:05.000678Z",
            "sdk_app_id": 1400000001,
            "event_type": "OnlineRecordStarted",
            "task_id": "task",
            "room_id": 7,
            "timestamp": 1,
            "body": body.decode(),
        }
    ]


async def test_a_batch_is_as_many_rows_of_any_kind(warehouse_rows: Consumer, file: Path) -> None:
    assert await run_batch(warehouse_rows, EVENTS) == [Ack(), Ack(), Ack()]
    assert [(row["event_type"], row["task_id"]) for row in rows(file)] == [
        ("OnlineRecordStarted", "task"),
        ("OnlineRecordFinished", None),
        ("TranscodeFinished", None),
    ]


async def test_a_batch_that_comes_again_adds_nothing(warehouse_rows: Consumer, file: Path) -> None:
    await run_batch(warehouse_rows, EVENTS[:2])
    before = rows(file)
    assert await run_batch(warehouse_rows, EVENTS) == [Ack(), Ack(), Ack()]
    assert rows(file)[:2] == before
    assert len(rows(file)) == 3


async def test_a_warehouse_that_cannot_be_used_is_tried_again_later_for_all(
    warehouse_rows: Consumer, file: Path
) -> None:
    block(file)
    outcomes = await run_batch(warehouse_rows, EVENTS)
    reason = "the warehouse cannot be used: unable to open database file"
    assert outcomes == [Retry(after_s=30, reason=reason)] * 3


def test_a_missing_file_name_is_said_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WAREHOUSE_FILE", raising=False)
    with pytest.raises(LoadError, match="WAREHOUSE_FILE must name the database"):
        load_example("warehouse_rows")
