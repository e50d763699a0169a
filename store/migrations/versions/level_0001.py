"""The first tables: events, recordings, completions, dead letters, consumers."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None

#: Code of this level or later works with the result.
USABLE_SINCE = 1

KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "schema_level",
        sa.Column("level", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("usable_since", sa.Integer, nullable=False),
    )
    _events()
    _recordings()
    _completions()
    _dead_letters()
    op.create_table(
        "consumers",
        sa.Column("name", KEY, primary_key=True),
        sa.Column("routing_keys", JSON, nullable=False),
    )


def _events() -> None:
    op.create_table(
        "events",
        sa.Column("event_id", KEY, primary_key=True),
        sa.Column("routing_key", KEY, nullable=False),
        sa.Column("event_type", sa.Text),
        sa.Column("sdk_app_id", sa.BigInteger, nullable=False),
        sa.Column("task_id", KEY),
        sa.Column("timestamp", sa.BigInteger),
        sa.Column("outranks", sa.Boolean, nullable=False),
        sa.Column("received_at_us", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.create_index("ix_events_received", "events", ["received_at_us", "event_id"])
    of_a_recording = sa.text("task_id IS NOT NULL")
    op.create_index(
        "ix_events_winner",
        "events",
        ["sdk_app_id", "task_id", "routing_key", "outranks", "timestamp", "event_id"],
        sqlite_where=of_a_recording,
        postgresql_where=of_a_recording,
    )


def _recordings() -> None:
    op.create_table(
        "recordings",
        sa.Column("sdk_app_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("task_id", KEY, primary_key=True),
        sa.Column("room_id", sa.BigInteger),
        sa.Column("group_id", sa.Text),
        sa.Column("record_user_id", sa.Text),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("finish_reason", sa.Text),
        sa.Column("failed", sa.Boolean, nullable=False),
        sa.Column("error_code", sa.Text),
        sa.Column("error_message", sa.Text),
        sa.Column("record_start_time", sa.BigInteger),
        sa.Column("record_stop_time", sa.BigInteger),
        sa.Column("total_time_ms", sa.BigInteger),
        sa.Column("exception_count", sa.BigInteger),
        sa.Column("pause_time", sa.BigInteger),
        sa.Column("estimate_stop_time", sa.BigInteger),
        sa.Column("force_stop_time", sa.BigInteger),
        sa.Column("omitted_durations", JSON, nullable=False),
        sa.Column("videos", JSON, nullable=False),
        sa.Column("active_at_us", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_recordings_active", "recordings", ["active_at_us"])
    op.create_index("ix_recordings_task", "recordings", ["task_id"])


def _completions() -> None:
    op.create_table(
        "completions",
        sa.Column("consumer", KEY, primary_key=True),
        sa.Column("event_id", KEY, primary_key=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("leased_until_us", sa.BigInteger),
        sa.Column("completed_at_us", sa.BigInteger),
    )
    unfinished = sa.text("completed_at_us IS NULL")
    op.create_index(
        "ix_completions_owner", "completions", ["owner"], sqlite_where=unfinished, postgresql_where=unfinished
    )
    op.create_index("ix_completions_completed", "completions", ["completed_at_us"])


def _dead_letters() -> None:
    op.create_table(
        "dead_letters",
        sa.Column("consumer", KEY, primary_key=True),
        sa.Column("event_id", KEY, primary_key=True),
        sa.Column("event_type", sa.Text),
        sa.Column("sdk_app_id", sa.BigInteger, nullable=False),
        sa.Column("attempts", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("first_failed_at_us", sa.BigInteger, nullable=False),
        sa.Column("last_failed_at_us", sa.BigInteger, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("routing_key", sa.Text, nullable=False),
        sa.Column("received_at_us", sa.BigInteger, nullable=False),
        sa.Column("trace", sa.Text, nullable=False),
        sa.Column("resolved_at_us", sa.BigInteger),
    )
    op.create_index("ix_dead_letters_failed", "dead_letters", ["last_failed_at_us"])
