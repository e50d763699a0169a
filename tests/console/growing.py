"""A store as it is after half a year at a large school: 100,000 recordings and a million events, made within a minute.

    python -m tests.console.growing DATABASE_URL [RECORDINGS [EVENTS]]

Rows are written past the store, as the store would have written them: what a recording's events add up to is its row.
"""

import asyncio
import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

import asyncpg
from msgspec import Struct
from sqlalchemy import Table, make_url
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.dialects.sqlite.base import SQLiteDialect
from sqlalchemy.schema import CreateIndex

from store import Store, migrate, pattern_of
from store.tables import (
    archived_files,
    archived_recordings,
    completions,
    consumers,
    dead_letters,
    events,
    recording_questions,
    recordings,
)

APP: Final = 1400000001
#: Another application with few recordings and few events.
RARE_APP: Final = 1400000002
#: Rooms are numbered from here, a dozen recordings each.
FIRST_ROOM: Final = 880_000
TEACHERS: Final = 400

_DAY_US: Final = 86_400_000_000
_DAYS: Final = 180


class Class(Struct, frozen=True, kw_only=True):
    """A class that was recorded: what the rows of all tables are made of."""

    number: int
    sdk_app_id: int
    task_id: str
    room_id: int
    teacher: str
    begun_us: int
    status: str
    failed: bool
    found_late: bool
    contradicted: bool
    is_test: bool
    warnings: int
    is_archived: bool
    lost: bool


def classes(count: int, total_events: int, now_us: int) -> Iterator[Class]:
    """Yield classes, the first first; all numbers follow from its own, so that every run makes the same."""
    # Started, Stopped, Finished and RecordingArchived of each, and what no recording is made of.
    warnings = max(0, total_events - _unrecognized(total_events) - 4 * count) // max(1, count)
    for number in range(count):
        is_new = number >= count - 50
        yield Class(
            number=number,
            sdk_app_id=RARE_APP if number % 5000 == 77 else APP,
            task_id=event_id(number, 0)[:20],
            room_id=FIRST_ROOM + number % max(1, count // 12),
            teacher=f"teacher_{number % TEACHERS:04}",
            begun_us=now_us - (count - number) * _DAYS * _DAY_US // count - 3_600_000_000 * (not is_new),
            status=("RECORDING", "PAUSED", "STOPPED")[number % 3] if is_new or number % 2000 == 9 else "FINISHED",
            failed=number % 700 == 3 and not is_new,
            found_late=number % 600 == 5,
            contradicted=number % 9000 == 13,
            is_test=number % 4000 == 21,
            warnings=warnings,
            is_archived=number % 50 != 7,
            lost=number % 2500 == 7,
        )


def _unrecognized(total_events: int) -> int:
    return total_events // 50


def event_id(number: int, of_class: int) -> str:
    """Return an id as spread as a digest is: one number that is multiplied, which no two share."""
    return f"{(number * 1000 + of_class) * 0x9E3779B97F4A7C15 % 2**64:016x}" * 2


#: A file as the vendor sends it, and as it is kept.
_SENT: Final = (
    '{"VideoId":"%s","VideoUrl":"https://online-recording.file.example/%s.mp4","VideoFormat":"mp4","VideoType":%d,'
    '"VideoSize":%d,"VideoPlayTime":%d,"VideoDuration":2700000,"UserId":"%s"}'
)
_KEPT: Final = (
    '{"video_id":"%s","video_url":"https://online-recording.file.example/%s.mp4","video_format":"mp4","video_type":%d,'
    '"video_size":%d,"video_play_time_ms":%d,"video_duration_ms":2700000,"user_id":"%s","width":null,"height":null}'
)


def _videos(one: Class, form: str) -> str:
    names = (one.teacher, f"tic_mixstream_{one.room_id}_1", "")
    videos = ",".join(
        form % (_video_id(one, kind), _video_id(one, kind), (0, 3, 2)[kind], 593_418_000 + one.number, 120 * kind, name)
        for kind, name in enumerate(names)
    )
    return f"[{videos}]"


def _video_id(one: Class, kind: int) -> str:
    return f"{one.task_id}{kind}"


_BODY: Final = (
    '{"EventType":"%s","Timestamp":%d,"SdkAppId":%d,'
    '"EventData":{"TaskId":"%s","RoomId":%d,"RecordUserId":"tic_record_user_%d"%s}}'
)


def event_rows(one: Class) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of `events` of a class."""
    kinds = ["OnlineRecordStarted", *["OnlineRecordLongPauseWarning"] * one.warnings]
    if one.number % 3000 == 1:
        kinds.append("OnlineRecordLongPauseForceStopped")
    if one.status in {"STOPPED", "FINISHED"}:
        kinds.append("OnlineRecordStopped")
    if one.status == "FINISHED":
        kinds += ["OnlineRecordFinished", "RecordingArchived"]
    of_it = (one.sdk_app_id, one.task_id, one.room_id, one.room_id)
    for number, kind in enumerate(kinds):
        at_us = one.begun_us + number * 60_000_000
        at_s = at_us // 1_000_000
        is_finished = kind == "OnlineRecordFinished"
        source = "archive" if kind == "RecordingArchived" else ""
        if one.is_test and not source:
            source = "test"
        elif one.found_late and is_finished:
            source = "reconcile"
        contradicted = one.contradicted and kind == "OnlineRecordStopped"
        body = _BODY % (kind, at_s, *of_it, f',"VideoInfos":{_videos(one, _SENT)}' if is_finished else "")
        yield (
            *(event_id(one.number, number), kind, kind, one.sdk_app_id, one.task_id, at_s),
            *(not (one.failed and is_finished), at_us, None, body.encode(), source),
            *(False if contradicted else None, contradicted),
        )


def unrecognized_rows(total_events: int, now_us: int) -> Iterator[tuple[Any, ...]]:
    """Yield rows of `events` that no recording is made of."""
    count = _unrecognized(total_events)
    for number in range(count):
        at_us = now_us - (count - number) * _DAYS * _DAY_US // count
        body = b'{"EventType":"TranscodeFinished","Timestamp":%d,"SdkAppId":%d,"EventData":{}}' % (
            at_us // 1_000_000,
            APP,
        )
        yield (
            *(event_id(number, 999), "unrecognized", "TranscodeFinished", APP, None, at_us // 1_000_000),
            *(True, at_us, "its EventType is none of ours", body, "", None, False),
        )


def recording_row(one: Class) -> tuple[Any, ...]:
    """Return the row of `recordings` of a class."""
    is_finished = one.status == "FINISHED"
    begun_s = one.begun_us // 1_000_000
    return (
        *(one.sdk_app_id, one.task_id, one.room_id, str(one.room_id) if is_finished else None),
        *(f"tic_record_user_{one.room_id}", one.status, "AUTO" if is_finished else None, one.failed),
        *("FailedOperation.Record" if one.failed else None, "no stream came" if one.failed else None),
        *(begun_s if is_finished else None, begun_s + 2700 if is_finished else None),
        *(2_700_000 if is_finished else None, 0 if is_finished else None),
        *(600 if one.warnings else None, begun_s + 3600 if one.warnings else None, None),
        *("[]", _videos(one, _KEPT) if is_finished and not one.failed else "[]"),
        *(one.begun_us + 60_000_000 * (one.warnings + 3), None),
    )


def _archive_rows(one: Class) -> tuple[tuple[Any, ...], list[tuple[Any, ...]]]:
    """Return the row of `archived_recordings`, and those of `archived_files`, of a class that was finished."""
    at_us = one.begun_us + 4_000_000_000
    folder = f"{one.room_id}/{one.task_id}"
    recording = (
        *(one.sdk_app_id, one.task_id, "done" if one.is_archived or one.lost else "due", at_us, at_us, 1, None, None),
        *(folder, at_us, None, at_us, at_us, at_us if one.is_archived else None, f"/archive/{folder}"),
    )
    outcome = "archived" if one.is_archived else ("lost" if one.lost else None)
    state = "due" if outcome is None else "done"
    files = [
        (
            *(one.sdk_app_id, one.task_id, _video_id(one, kind), state, at_us, at_us, 1, None, None, at_us, kind),
            *(f"{kind}.mp4", f"https://online-recording.file.example/{kind}.mp4", "callback", 593_418_000, "{}"),
            *(outcome, None, None, None, 0, 0, 593_418_000, None, None, one.task_id * 3, None, "{}", None, False, None),
            *(f"/archive/{folder}/{kind}.mp4", at_us),
        )
        for kind in range(3)
    ]
    return recording, files


def _question_row(one: Class) -> tuple[Any, ...]:
    at_us = one.begun_us
    return (
        *(one.sdk_app_id, one.task_id, "done", at_us, at_us, 1, None, None, "its end is not verified", one.room_id),
        *("ListRecordings" if one.found_late else "", at_us, None, None, False, "FINISHED", at_us, 0, b"{}", at_us),
        "STOPPED",
    )


def _letter_rows(count: int, now_us: int) -> Iterator[tuple[Any, ...]]:
    for number in range(count):
        at_us = now_us - (count - number) * 60_000_000
        reason = f"the endpoint answered {500 + number % 4}\nattempt {number}"
        yield (
            *(f"consumer_{number % 6}", event_id(number * 7, 0), "OnlineRecordStarted", APP, 8, reason),
            *(at_us, at_us + 1000, b"{}" * 300, "OnlineRecordStarted", at_us, ""),
            *(at_us if number % 10 == 0 else None, "", "Traceback (most recent call last):\n" * 5),
            *(pattern_of(reason), at_us if number % 10 == 0 else None),
        )


def _completion_rows(made: Sequence[Class]) -> Iterator[tuple[Any, ...]]:
    for name in ("forward", "publish"):
        for one in made:
            for number in range(3):
                yield name, event_id(one.number, number), "worker", None, one.begun_us + 1


async def grow(store: Store, *, count: int = 100_000, total_events: int = 1_000_000, letters: int = 12_000) -> None:
    """Fill an empty, migrated store, and let the database know how much there is, as it does by itself in time."""
    now_us = time.time_ns() // 1000
    made = [*classes(count, total_events, now_us)]
    finished = [one for one in made if one.status == "FINISHED"]
    archived = [_archive_rows(one) for one in finished]
    rows: list[tuple[Table, Iterator[tuple[Any, ...]]]] = [
        (recordings, (recording_row(one) for one in made)),
        (events, (row for one in made for row in event_rows(one))),
        (events, unrecognized_rows(total_events, now_us)),
        (archived_recordings, (recording for recording, _ in archived)),
        (archived_files, (file for _, files in archived for file in files)),
        (recording_questions, (_question_row(one) for one in finished if one.number % 3 == 0)),
        (dead_letters, _letter_rows(letters, now_us)),
        (completions, _completion_rows(made)),
        (consumers, iter([(f"consumer_{number}", '["OnlineRecordStarted"]') for number in range(6)])),
    ]
    if store.file is None:
        await _grow_postgresql(store, rows)
    else:
        await asyncio.to_thread(_grow_sqlite, str(store.file), rows)


_POSTGRESQL: Final = PGDialect()  # type: ignore[no-untyped-call]  # the library gives it no types


async def _grow_postgresql(store: Store, rows: Sequence[tuple[Table, Iterator[tuple[Any, ...]]]]) -> None:
    url = make_url(store.url).set(drivername="postgresql")
    connection = await asyncpg.connect(url.render_as_string(hide_password=False))
    try:
        await connection.execute("SET maintenance_work_mem = '256MB'")
        # Indexes are built at once, sorted: many times faster than row by row.
        for table in _tables(rows):
            for index in table.indexes:
                await connection.execute(f"DROP INDEX {index.name}")
        for table, some in rows:
            await connection.copy_records_to_table(table.name, records=some, columns=[one.name for one in table.c])
        for table in _tables(rows):
            for index in table.indexes:
                await connection.execute(str(CreateIndex(index).compile(dialect=_POSTGRESQL)))
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()


def _grow_sqlite(path: str, rows: Sequence[tuple[Table, Iterator[tuple[Any, ...]]]]) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA cache_size = -500000")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN")
        for table in _tables(rows):
            for index in table.indexes:
                connection.execute(f"DROP INDEX {index.name}")
        for table, some in rows:
            marks = ", ".join("?" * len(table.c))
            names = ", ".join(column.name for column in table.c)
            connection.executemany(f"INSERT INTO {table.name} ({names}) VALUES ({marks})", some)  # noqa: S608 - ours
        for table in _tables(rows):
            for index in table.indexes:
                connection.execute(str(CreateIndex(index).compile(dialect=SQLiteDialect())))
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()


def _tables(rows: Sequence[tuple[Table, Iterator[tuple[Any, ...]]]]) -> list[Table]:
    return [*{table.name: table for table, _ in rows}.values()]


async def _main(url: str, count: int, total_events: int) -> None:
    async with Store(url) as store:
        await migrate(store)
        began = time.monotonic()
        await grow(store, count=count, total_events=total_events)
        took_s = time.monotonic() - began
        sys.stdout.write(f"{count} recordings and {total_events} events in {took_s:.1f} s\n")


if __name__ == "__main__":
    _url, *_counts = sys.argv[1:]
    asyncio.run(
        _main(_url, int(_counts[0]) if _counts else 100_000, int(_counts[1]) if len(_counts) > 1 else 1_000_000)
    )
