"""The files of recordings that are archived, and the recordings that they are of."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0004"
down_revision = "0003"

#: Code of this level or later works with the result.
USABLE_SINCE = 1

KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    """Make two tables; those that are there stay as they are."""
    _archived_files()
    op.create_table(
        "archived_recordings",
        sa.Column("sdk_app_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("task_id", KEY, primary_key=True),
        *_due_columns(),
        sa.Column("folder", sa.Text, nullable=False),
        sa.Column("planned_active_at_us", sa.BigInteger),
        sa.Column("planned_answered_at_us", sa.BigInteger),
        sa.Column("files_changed_at_us", sa.BigInteger),
        sa.Column("manifest_at_us", sa.BigInteger),
        sa.Column("archived_at_us", sa.BigInteger),
        sa.Column("location", sa.Text),
    )
    _due_index("archived_recordings", "sdk_app_id", "task_id")


def _archived_files() -> None:
    op.create_table(
        "archived_files",
        sa.Column("sdk_app_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("task_id", KEY, primary_key=True),
        sa.Column("file_key", KEY, primary_key=True),
        *_due_columns(),
        sa.Column("planned_at_us", sa.BigInteger, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("address_from", sa.Text, nullable=False),
        sa.Column("announced_size", sa.BigInteger),
        sa.Column("details", JSON, nullable=False),
        sa.Column("outcome", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("failing_since_us", sa.BigInteger),
        sa.Column("failing_at", sa.Text),
        sa.Column("not_found", sa.BigInteger, nullable=False),
        sa.Column("fetched_bytes", sa.BigInteger, nullable=False),
        sa.Column("size", sa.BigInteger),
        sa.Column("etag", sa.Text),
        sa.Column("last_modified_at", sa.BigInteger),
        sa.Column("sha256", sa.Text),
        sa.Column("crc64", sa.Text),
        sa.Column("checked", JSON, nullable=False),
        sa.Column("staged_on", sa.Text),
        sa.Column("is_staged", sa.Boolean, nullable=False),
        sa.Column("upload_id", sa.Text),
        sa.Column("location", sa.Text),
        sa.Column("archived_at_us", sa.BigInteger),
    )
    _due_index("archived_files", "sdk_app_id", "task_id", "file_key")
    op.create_index("ix_archived_files_planned", "archived_files", ["planned_at_us"])
    has_ended = sa.text("outcome IS NOT NULL")
    op.create_index(
        "ix_archived_files_outcome",
        "archived_files",
        ["outcome", "planned_at_us"],
        sqlite_where=has_ended,
        postgresql_where=has_ended,
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
