"""The tables as they are now, and what is in their columns.

All times are microseconds since the Unix epoch in columns named `..._us`; the vendor's own are Unix seconds.
"""

import base64
from datetime import UTC, datetime, timedelta

from sqlalchemy import JSON, BigInteger, Boolean, Column, Index, Integer, LargeBinary, MetaData, Table, Text
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData()

# Compared and sorted byte by byte, as Python and SQLite do, whatever the database's language.
_Key = Text().with_variant(Text(collation="C"), "postgresql")
_Json = JSON().with_variant(JSONB(), "postgresql")

#: One row: `level` counts migrations; code of `usable_since` or later works with these tables.
schema_level = Table(
    "schema_level",
    metadata,
    Column("level", Integer, primary_key=True, autoincrement=False),
    Column("usable_since", Integer, nullable=False),
)

#: Every event once. `task_id` is null unless the event belongs to a recording; `outranks` is false for a Finished
#: event with an error, true for all others: the winner of its type is the greatest (outranks, timestamp, event_id).
events = Table(
    "events",
    metadata,
    Column("event_id", _Key, primary_key=True),
    Column("routing_key", _Key, nullable=False),
    Column("event_type", Text),
    Column("sdk_app_id", BigInteger, nullable=False),
    Column("task_id", _Key),
    Column("timestamp", BigInteger),
    Column("outranks", Boolean, nullable=False),
    Column("received_at_us", BigInteger, nullable=False),
    Column("reason", Text),
    Column("body", LargeBinary, nullable=False),
)
Index("ix_events_received", events.c.received_at_us, events.c.event_id)
_of_a_recording = events.c.task_id.is_not(None)
Index(
    "ix_events_winner",
    events.c.sdk_app_id,
    events.c.task_id,
    events.c.routing_key,
    events.c.outranks,
    events.c.timestamp,
    events.c.event_id,
    sqlite_where=_of_a_recording,
    postgresql_where=_of_a_recording,
)

#: What the events of one SdkAppId and TaskId add up to. `active_at_us` is when the latest of the events that
#: count was accepted; `failed` says whether there is an error, of which code and message may be null.
recordings = Table(
    "recordings",
    metadata,
    Column("sdk_app_id", BigInteger, primary_key=True, autoincrement=False),
    Column("task_id", _Key, primary_key=True),
    Column("room_id", BigInteger),
    Column("group_id", Text),
    Column("record_user_id", Text),
    Column("status", Text, nullable=False),
    Column("finish_reason", Text),
    Column("failed", Boolean, nullable=False),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("record_start_time", BigInteger),
    Column("record_stop_time", BigInteger),
    Column("total_time_ms", BigInteger),
    Column("exception_count", BigInteger),
    Column("pause_time", BigInteger),
    Column("estimate_stop_time", BigInteger),
    Column("force_stop_time", BigInteger),
    Column("omitted_durations", _Json, nullable=False),
    Column("videos", _Json, nullable=False),
    Column("active_at_us", BigInteger, nullable=False),
)
Index("ix_recordings_active", recordings.c.active_at_us)
Index("ix_recordings_task", recordings.c.task_id)

#: Which worker (`owner`) is handling an event for a consumer, and until when at the latest; or handled it, and when.
completions = Table(
    "completions",
    metadata,
    Column("consumer", _Key, primary_key=True),
    Column("event_id", _Key, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("leased_until_us", BigInteger),
    Column("completed_at_us", BigInteger),
)
_unfinished = completions.c.completed_at_us.is_(None)
Index("ix_completions_owner", completions.c.owner, sqlite_where=_unfinished, postgresql_where=_unfinished)
Index("ix_completions_completed", completions.c.completed_at_us)

#: Events that a consumer gave up on. `resolved_at_us` is set once it was replayed.
dead_letters = Table(
    "dead_letters",
    metadata,
    Column("consumer", _Key, primary_key=True),
    Column("event_id", _Key, primary_key=True),
    Column("event_type", Text),
    Column("sdk_app_id", BigInteger, nullable=False),
    Column("attempts", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("first_failed_at_us", BigInteger, nullable=False),
    Column("last_failed_at_us", BigInteger, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("routing_key", Text, nullable=False),
    Column("received_at_us", BigInteger, nullable=False),
    Column("trace", Text, nullable=False),
    Column("resolved_at_us", BigInteger),
)
Index("ix_dead_letters_failed", dead_letters.c.last_failed_at_us)

#: The consumers that ever ran, with the routing keys of their queues.
consumers = Table(
    "consumers",
    metadata,
    Column("name", _Key, primary_key=True),
    Column("routing_keys", _Json, nullable=False),
)

#: Deliveries that a worker should have settled long ago. It repeats itself while that is so: `seen_at_us` is when.
overdue_deliveries = Table(
    "overdue_deliveries",
    metadata,
    Column("lease_holder", _Key, primary_key=True),
    Column("consumer", _Key, primary_key=True),
    Column("event_id", _Key, primary_key=True),
    Column("since_us", BigInteger, nullable=False),
    Column("seen_at_us", BigInteger, nullable=False),
)


def shown_body(body: bytes) -> dict[str, str]:
    """Return `body` as text under that name, or as `body_base64` if it is not UTF-8."""
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"body_base64": base64.b64encode(body).decode()}


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def iso8601(at_us: int) -> str:
    """Return a point in time, in microseconds since the Unix epoch, as `2026-01-01T00:00:00.000000Z`.

    Always 27 characters for years with four digits, so that texts sort as the times do.
    """
    at = _EPOCH + timedelta(microseconds=at_us)
    return at.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def storable(text: str) -> str:
    """Return `text` with what SQL text cannot hold shown as U+FFFD: U+0000 and unpaired surrogates.

    PostgreSQL refuses U+0000 in text: https://www.postgresql.org/docs/current/datatype-character.html
    """
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
