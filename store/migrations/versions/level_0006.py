"""Dead letters by what their reasons have in common, and by the replay that gave them back."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from store.dead_letters import pattern_of

revision = "0006"
down_revision = "0005"

#: Code of this level or later works with the result.
USABLE_SINCE = 1

_AT_ONCE = 1000


def upgrade() -> None:
    """Make two columns and an index, and give the letters that are there their patterns."""
    op.add_column("dead_letters", sa.Column("reason_pattern", sa.Text, nullable=False, server_default=sa.text("''")))
    op.add_column("dead_letters", sa.Column("replay_at_us", sa.BigInteger))
    was_replayed = sa.text("replay_at_us IS NOT NULL")
    op.create_index(
        "ix_dead_letters_replay",
        "dead_letters",
        ["replay_at_us", "consumer", "event_id", "resolved_at_us"],
        sqlite_where=was_replayed,
        postgresql_where=was_replayed,
    )
    _give_patterns()


def _give_patterns() -> None:
    names = ("consumer", "event_id", "reason", "reason_pattern")
    letters = sa.table("dead_letters", *(sa.column(name, sa.Text) for name in names))
    key = (letters.c.consumer, letters.c.event_id)
    some = sa.select(*key, letters.c.reason).order_by(*key).limit(_AT_ONCE)
    give = (
        sa.update(letters)
        .where(letters.c.consumer == sa.bindparam("of_consumer"), letters.c.event_id == sa.bindparam("of_event_id"))
        .values(reason_pattern=sa.bindparam("pattern"))
    )
    connection = op.get_bind()
    rows: list[Any] = [*connection.execute(some)]
    while rows:
        patterns = [
            {"of_consumer": row.consumer, "of_event_id": row.event_id, "pattern": pattern_of(row.reason)}
            for row in rows
        ]
        connection.execute(give, patterns)
        last = (rows[-1].consumer, rows[-1].event_id)
        rows = [*connection.execute(some.where(sa.tuple_(*key) > last))]
