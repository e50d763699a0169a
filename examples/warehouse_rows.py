"""Write every event as a row into a database for reports: many rows in one transaction.

    WAREHOUSE_FILE=warehouse.db TIW_CONSUMERS=examples/warehouse_rows.py ./dev up

WAREHOUSE_FILE   an SQLite file; it and its table are made when the first event comes

A transaction for each event would spend its time waiting for the disk. Here the events that wait anyway share one: a
few where little comes, hundreds under load. Each is a row once, however often it comes: its event_id is the key.

For another database change `connect` and the two statements. What should stay: one transaction for the batch, and a
key that makes writing twice the same as writing once.
"""

import os
import sqlite3
from contextlib import closing

from schemas import Event, Unrecognized
from workers import Context, Outcome, Retry, consumer

TABLE = """
CREATE TABLE IF NOT EXISTS events (
    event_id TEXT PRIMARY KEY, received_at TEXT NOT NULL, sdk_app_id INTEGER NOT NULL, event_type TEXT,
    task_id TEXT, room_id INTEGER, timestamp INTEGER, body TEXT NOT NULL
)
"""
ROW = "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (event_id) DO NOTHING"

FILE = os.environ.get("WAREHOUSE_FILE", "")
if not FILE:
    raise ValueError("WAREHOUSE_FILE must name the database to write to, such as warehouse.db")


@consumer(batch=500, concurrency=1)
def warehouse_rows(batch: list[tuple[Event, Context]]) -> list[Outcome] | None:
    """Write the batch, and return when it is on the disk."""
    rows = [row(event, ctx) for event, ctx in batch]
    try:
        with closing(connect()) as database, database:
            database.executemany(ROW, rows)
    except sqlite3.OperationalError as error:
        # It concerns them all. Raised, it would be tried with each of them alone, as if one could be at fault.
        return [Retry(after_s=30, reason=f"the warehouse cannot be used: {error}")] * len(batch)
    return None


def connect() -> sqlite3.Connection:
    """Return a connection to a database that has the table."""
    database = sqlite3.connect(FILE, timeout=20)
    database.execute(TABLE)
    return database


def row(event: Event, ctx: Context) -> tuple[object, ...]:
    """Return an event's values in the order of the columns."""
    received_at = f"{ctx.received_at:%Y-%m-%dT%H:%M:%S.%fZ}"
    body = ctx.body.decode(errors="replace")
    if isinstance(event, Unrecognized):
        return ctx.event_id, received_at, event.sdk_app_id, event.event_type, None, None, event.timestamp, body
    return (
        *(ctx.event_id, received_at, event.sdk_app_id, type(event).__name__),
        *(event.task_id or None, event.room_id, event.timestamp, body),
    )
