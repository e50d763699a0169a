"""The tables as they are now, and what is in their columns.

All times are microseconds since the Unix epoch in columns named `..._us`; the vendor's own are Unix seconds.
"""

import base64
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    false,
    literal_column,
    or_,
    text,
)
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
#: `source` is empty for the vendor's callback, else who made the event of what the vendor answered; `verified` says
#: whether the vendor confirms it, null until it was asked. `contradicted` is `verified IS FALSE`, for the index:
#: such an event counts only where a recording has no other.
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
    Column("source", Text, nullable=False, server_default=text("''")),
    Column("verified", Boolean),
    Column("contradicted", Boolean, nullable=False, server_default=false()),
)
# Behind the order are columns by which people choose: they are compared without a look at the events.
Index("ix_events_received", events.c.received_at_us, events.c.event_id, events.c.sdk_app_id, events.c.routing_key)
_of_a_recording = events.c.task_id.is_not(None)
Index(
    "ix_events_winner",
    events.c.sdk_app_id,
    events.c.task_id,
    events.c.routing_key,
    events.c.contradicted,
    events.c.outranks,
    events.c.timestamp,
    events.c.event_id,
    sqlite_where=_of_a_recording,
    postgresql_where=_of_a_recording,
)

Index(
    "ix_events_contradicted",
    events.c.received_at_us,
    sqlite_where=literal_column("contradicted"),
    postgresql_where=literal_column("contradicted"),
)

#: What few events are, as their indexes say it; see `store.browsing`.
IS_UNRECOGNIZED: Final = events.c.routing_key == literal_column("'unrecognized'")
IS_MARKED: Final = or_(
    events.c.source == literal_column("'reconcile'"),
    events.c.source == literal_column("'test'"),
)
Index(
    "ix_events_unrecognized",
    *(events.c.received_at_us, events.c.event_id, events.c.sdk_app_id, events.c.routing_key),
    sqlite_where=IS_UNRECOGNIZED,
    postgresql_where=IS_UNRECOGNIZED,
)
Index(
    "ix_events_marked",
    *(events.c.source, events.c.received_at_us, events.c.event_id, events.c.sdk_app_id, events.c.task_id),
    sqlite_where=IS_MARKED,
    postgresql_where=IS_MARKED,
)

#: What the events of one SdkAppId and TaskId add up to. `active_at_us` is when the latest of the events that
#: count was accepted; `failed` says whether there is an error, of which code and message may be null; `verified` is
#: that of the Finished event that counts.
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
    Column("verified", Boolean),
)
Index(
    "ix_recordings_active",
    *(recordings.c.active_at_us, recordings.c.sdk_app_id, recordings.c.task_id),
    *(recordings.c.room_id, recordings.c.status, recordings.c.failed),
)
Index("ix_recordings_task", recordings.c.task_id)
_unfinished_recording = recordings.c.status != literal_column("'FINISHED'")
Index(
    "ix_recordings_unfinished",
    recordings.c.sdk_app_id,
    recordings.c.task_id,
    sqlite_where=_unfinished_recording,
    postgresql_where=_unfinished_recording,
)

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

#: Events that a consumer gave up on. `resolved_at_us` is set once it was replayed; `traceback` is that of the last
#: failure, empty where there was no exception. `reason_pattern` is what `store.dead_letters.pattern_of` makes of the
#: reason, empty where a worker of before kept the letter. `replay_at_us` names the replay that gave it back last, also
#: once it failed anew.
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
    Column("source", Text, nullable=False, server_default=text("''")),
    Column("traceback", Text, nullable=False, server_default=text("''")),
    Column("reason_pattern", Text, nullable=False, server_default=text("''")),
    Column("replay_at_us", BigInteger),
)
Index(
    "ix_dead_letters_failed",
    *(dead_letters.c.last_failed_at_us, dead_letters.c.consumer, dead_letters.c.event_id),
    dead_letters.c.resolved_at_us,
)
_was_replayed = dead_letters.c.replay_at_us.is_not(None)
Index(
    "ix_dead_letters_replay",
    *(dead_letters.c.replay_at_us, dead_letters.c.consumer, dead_letters.c.event_id, dead_letters.c.resolved_at_us),
    sqlite_where=_was_replayed,
    postgresql_where=_was_replayed,
)

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

#: What is left to do, and what was done.
DUE: Final = "due"
DONE: Final = "done"


def due_columns() -> tuple[Column[Any], ...]:
    """Return the columns of durable work, see `store.due`; a table has them beside its own key and columns."""
    return (
        Column("state", Text, nullable=False),
        Column("due_at_us", BigInteger, nullable=False),
        Column("deadline_at_us", BigInteger, nullable=False),
        Column("attempts", BigInteger, nullable=False),
        Column("lease_holder", Text),
        Column("leased_until_us", BigInteger),
    )


def due_index(table: Table) -> Index:
    """Give a table with `due_columns` the index by which what is due is found in the order of its deadline."""
    is_due = table.c.state == literal_column(f"'{DUE}'")
    name = f"ix_{table.name}_due"
    return Index(name, table.c.deadline_at_us, *table.primary_key, sqlite_where=is_due, postgresql_where=is_due)


#: What the vendor is to be asked of a recording, known or only heard of; see `store.questions`.
recording_questions = Table(
    "recording_questions",
    metadata,
    Column("sdk_app_id", BigInteger, primary_key=True, autoincrement=False),
    Column("task_id", _Key, primary_key=True),
    *due_columns(),
    Column("why", Text, nullable=False),
    Column("room_id", BigInteger),
    Column("found_by", Text, nullable=False),
    Column("found_at_us", BigInteger, nullable=False),
    Column("created_at", BigInteger),
    Column("listed_at_us", BigInteger),
    Column("gone_from_list", Boolean, nullable=False),
    Column("answer_status", Text),
    Column("answered_at_us", BigInteger),
    Column("not_found", BigInteger, nullable=False),
    Column("answer", LargeBinary),
    Column("considered_at_us", BigInteger),
    Column("considered_status", Text),
)
due_index(recording_questions)

#: What is known of an application as a whole: whether asking about it has a pause, and what was done for it last.
reconciled_apps = Table(
    "reconciled_apps",
    metadata,
    Column("sdk_app_id", BigInteger, primary_key=True, autoincrement=False),
    Column("paused_until_us", BigInteger),
    Column("pause_reason", Text),
    Column("listed_at_us", BigInteger),
    Column("audited_day", Text),
)

#: Rooms that the vendor recorded on a day (China's) and of which nothing was known when that day was audited.
unaccounted_rooms = Table(
    "unaccounted_rooms",
    metadata,
    Column("sdk_app_id", BigInteger, primary_key=True, autoincrement=False),
    Column("day", _Key, primary_key=True),
    Column("room_id", BigInteger, primary_key=True, autoincrement=False),
    Column("minutes", BigInteger, nullable=False),
    Column("found_at_us", BigInteger, nullable=False),
)

#: The files of finished recordings: fetched, proved whole and placed on the customer's storage before the vendor
#: deletes them, which is their deadline; see `store.archiving`. `staged_on` is the staging folder that has what was
#: fetched of it, and `is_staged` says that this is all of it. `failing_since_us`, `failing_at` and `reason` tell of
#: attempts that failed since one succeeded last.
archived_files = Table(
    "archived_files",
    metadata,
    Column("sdk_app_id", BigInteger, primary_key=True, autoincrement=False),
    Column("task_id", _Key, primary_key=True),
    Column("file_key", _Key, primary_key=True),
    *due_columns(),
    Column("planned_at_us", BigInteger, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("name", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("address_from", Text, nullable=False),
    Column("announced_size", BigInteger),
    Column("details", _Json, nullable=False),
    Column("outcome", Text),
    Column("reason", Text),
    Column("failing_since_us", BigInteger),
    Column("failing_at", Text),
    Column("not_found", BigInteger, nullable=False),
    Column("fetched_bytes", BigInteger, nullable=False),
    Column("size", BigInteger),
    Column("etag", Text),
    Column("last_modified_at", BigInteger),
    Column("sha256", Text),
    Column("crc64", Text),
    Column("checked", _Json, nullable=False),
    Column("staged_on", Text),
    Column("is_staged", Boolean, nullable=False),
    Column("upload_id", Text),
    Column("location", Text),
    Column("archived_at_us", BigInteger),
)
due_index(archived_files)
Index("ix_archived_files_planned", archived_files.c.planned_at_us)
_has_ended = archived_files.c.outcome.is_not(None)
Index(
    "ix_archived_files_outcome",
    archived_files.c.outcome,
    archived_files.c.planned_at_us,
    sqlite_where=_has_ended,
    postgresql_where=_has_ended,
)

#: The recordings whose files are archived; due is a manifest to be written and announced. `planned_active_at_us` and
#: `planned_answered_at_us` say of which state of the recording, and of which answer of the vendor's, the files were
#: planned. `archived_at_us` is null until all its files are archived.
archived_recordings = Table(
    "archived_recordings",
    metadata,
    Column("sdk_app_id", BigInteger, primary_key=True, autoincrement=False),
    Column("task_id", _Key, primary_key=True),
    *due_columns(),
    Column("folder", Text, nullable=False),
    Column("planned_active_at_us", BigInteger),
    Column("planned_answered_at_us", BigInteger),
    Column("files_changed_at_us", BigInteger),
    Column("manifest_at_us", BigInteger),
    Column("archived_at_us", BigInteger),
    Column("location", Text),
)
due_index(archived_recordings)
_is_not_archived = archived_recordings.c.archived_at_us.is_(None)
Index(
    "ix_archived_recordings_open",
    *archived_recordings.primary_key,
    sqlite_where=_is_not_archived,
    postgresql_where=_is_not_archived,
)

#: What somebody is to be told, once per thing; `sdk_app_id` and `task_id` name the recording that it is about, if any.
notices = Table(
    "notices",
    metadata,
    Column("notice_id", _Key, primary_key=True),
    *due_columns(),
    Column("channel", _Key, nullable=False),
    Column("rule", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("sdk_app_id", BigInteger),
    Column("task_id", _Key),
    Column("data", _Json, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    Column("begun_at_us", BigInteger),
    Column("ended_at_us", BigInteger),
    Column("result", Text),
    Column("detail", Text),
)
due_index(notices)

#: What people changed by the console, a line each; `detail` is JSON. See `store.changes`.
changes = Table(
    "changes",
    metadata,
    Column("at_us", BigInteger, primary_key=True, autoincrement=False),
    Column("change_id", _Key, primary_key=True),
    Column("who", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("result", Text, nullable=False),
)

#: For what is done at most so often by all processes together: the theoretical arrival time of the next.
rate_limits = Table(
    "rate_limits",
    metadata,
    Column("name", _Key, primary_key=True),
    Column("next_at_us", BigInteger, nullable=False),
)


def shown_body(body: bytes) -> dict[str, str]:
    """Return `body` as text under that name, or as `body_base64` if it is not UTF-8."""
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"body_base64": base64.b64encode(body).decode()}


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


#: The end of the year 9999: no calendar of four digits has a later moment.
END_OF_YEARS_S: Final = 253_402_300_800


def iso8601(at_us: int) -> str:
    """Return a point in time, in microseconds since the Unix epoch, as `2026-01-01T00:00:00.000000Z`.

    Always 27 characters for years with four digits, so that texts sort as the times do.
    """
    at = _EPOCH + timedelta(microseconds=at_us)
    return at.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def microseconds(text: str) -> int:
    """Return the point in time that ISO 8601 text names, in microseconds since the Unix epoch; without a zone, in UTC.

    Raises `ValueError` for other text.
    """
    at = datetime.fromisoformat(text)
    return (at.replace(tzinfo=at.tzinfo or UTC) - _EPOCH) // timedelta(microseconds=1)


def storable(text: str) -> str:
    """Return `text` with what SQL text cannot hold shown as U+FFFD: U+0000 and unpaired surrogates.

    PostgreSQL refuses U+0000 in text: https://www.postgresql.org/docs/current/datatype-character.html
    """
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
