"""Where events come from and what the vendor says of them, and the tables of durable work: questions and notices."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0003"
down_revision = "0002"

#: Code of this level or later works with the result.
USABLE_SINCE = 1

KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    """Add columns and make tables; no row is rewritten."""
    op.add_column("events", sa.Column("source", sa.Text, nullable=False, server_default=sa.text("''")))
    op.add_column("events", sa.Column("verified", sa.Boolean))
    op.add_column("events", sa.Column("contradicted", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("recordings", sa.Column("verified", sa.Boolean))
    op.add_column("dead_letters", sa.Column("source", sa.Text, nullable=False, server_default=sa.text("''")))
    _indexes()
    _recording_questions()
    op.create_table(
        "reconciled_apps",
        sa.Column("sdk_app_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("paused_until_us", sa.BigInteger),
        sa.Column("pause_reason", sa.Text),
        sa.Column("listed_at_us", sa.BigInteger),
        sa.Column("audited_day", sa.Text),
    )
    op.create_table(
        "unaccounted_rooms",
        sa.Column("sdk_app_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("day", KEY, primary_key=True),
        sa.Column("room_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("minutes", sa.BigInteger, nullable=False),
        sa.Column("found_at_us", sa.BigInteger, nullable=False),
    )
    _notices()
    op.create_table(
        "rate_limits",
        sa.Column("name", KEY, primary_key=True),
        sa.Column("next_at_us", sa.BigInteger, nullable=False),
    )


def _indexes() -> None:
    # The same name and, but for one column, the same index: code of before finds its rows by the columns that it knows.
    op.drop_index("ix_events_winner", "events")
    of_a_recording = sa.text("task_id IS NOT NULL")
    op.create_index(
        "ix_events_winner",
        "events",
        ["sdk_app_id", "task_id", "routing_key", "contradicted", "outranks", "timestamp", "event_id"],
        sqlite_where=of_a_recording,
        postgresql_where=of_a_recording,
    )
    contradicted = sa.text("contradicted")
    op.create_index(
        "ix_events_contradicted",
        "events",
        ["received_at_us"],
        sqlite_where=contradicted,
        postgresql_where=contradicted,
    )
    unfinished = sa.text("status <> 'FINISHED'")
    op.create_index(
        "ix_recordings_unfinished",
        "recordings",
        ["sdk_app_id", "task_id"],
        sqlite_where=unfinished,
        postgresql_where=unfinished,
    )


def _due_columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("due_at_us", sa.BigInteger, nullable=False),
        sa.Column("deadline_at_us", sa.BigInteger, nullable=False),
        sa.Column("attempts", sa.BigInteger, nullable=False),
        sa.Column("lease_holder", sa.Text),
        sa.Column("leased_until_us", sa.BigInteger),
    ]


def _due_index(table: str, *key: str) -> None:
    is_due = sa.text("state = 'due'")
    op.create_index(f"ix_{table}_due", table, ["deadline_at_us", *key], sqlite_where=is_due, postgresql_where=is_due)


def _recording_questions() -> None:
    op.create_table(
        "recording_questions",
        sa.Column("sdk_app_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("task_id", KEY, primary_key=True),
        *_due_columns(),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("room_id", sa.BigInteger),
        sa.Column("found_by", sa.Text, nullable=False),
        sa.Column("found_at_us", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger),
        sa.Column("listed_at_us", sa.BigInteger),
        sa.Column("gone_from_list", sa.Boolean, nullable=False),
        sa.Column("answer_status", sa.Text),
        sa.Column("answered_at_us", sa.BigInteger),
        sa.Column("not_found", sa.BigInteger, nullable=False),
        sa.Column("answer", sa.LargeBinary),
        sa.Column("considered_at_us", sa.BigInteger),
        sa.Column("considered_status", sa.Text),
    )
    _due_index("recording_questions", "sdk_app_id", "task_id")


def _notices() -> None:
    op.create_table(
        "notices",
        sa.Column("notice_id", KEY, primary_key=True),
        *_due_columns(),
        sa.Column("channel", KEY, nullable=False),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("severity", sa.Text, nullable=False),
        sa.Column("sdk_app_id", sa.BigInteger),
        sa.Column("task_id", KEY),
        sa.Column("data", JSON, nullable=False),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
        sa.Column("begun_at_us", sa.BigInteger),
        sa.Column("ended_at_us", sa.BigInteger),
        sa.Column("result", sa.Text),
        sa.Column("detail", sa.Text),
    )
    _due_index("notices", "notice_id")
