"""What the console needs: an audit of changes, tracebacks of dead letters, and indexes by which people look for things.

Built anew are two indexes of recordings and events, about 15 s for a million events on a small PostgreSQL.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

#: Code of this level or later works with the result.
USABLE_SINCE = 1

KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make one table and one column, and build indexes; no row is rewritten."""
    op.add_column("dead_letters", sa.Column("traceback", sa.Text, nullable=False, server_default=sa.text("''")))
    op.create_table(
        "changes",
        sa.Column("at_us", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("change_id", KEY, primary_key=True),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("result", sa.Text, nullable=False),
    )
    _widen(
        "recordings", "ix_recordings_active", ["active_at_us", "sdk_app_id", "task_id", "room_id", "status", "failed"]
    )
    _widen("events", "ix_events_received", ["received_at_us", "event_id", "sdk_app_id", "routing_key"])
    _widen(
        "dead_letters",
        "ix_dead_letters_failed",
        ["last_failed_at_us", "consumer", "event_id", "resolved_at_us"],
    )
    _index(
        "events",
        "ix_events_unrecognized",
        ["received_at_us", "event_id", "sdk_app_id", "routing_key"],
        where="routing_key = 'unrecognized'",
    )
    _index(
        "events",
        "ix_events_marked",
        ["source", "received_at_us", "event_id", "sdk_app_id", "task_id"],
        where="source = 'reconcile' OR source = 'test'",
    )
    _index(
        "archived_recordings", "ix_archived_recordings_open", ["sdk_app_id", "task_id"], where="archived_at_us IS NULL"
    )


def _widen(table: str, name: str, columns: list[str]) -> None:
    # The same name and the same columns first: code of before finds its rows by those.
    op.drop_index(name, table)
    op.create_index(name, table, columns)


def _index(table: str, name: str, columns: list[str], *, where: str) -> None:
    op.create_index(name, table, columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))
