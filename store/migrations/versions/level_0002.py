"""Deliveries that a worker should have settled long ago: a table of its own, empty while all is well."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

#: Code of this level or later works with the result.
USABLE_SINCE = 1

KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "overdue_deliveries",
        sa.Column("lease_holder", KEY, primary_key=True),
        sa.Column("consumer", KEY, primary_key=True),
        sa.Column("event_id", KEY, primary_key=True),
        sa.Column("since_us", sa.BigInteger, nullable=False),
        sa.Column("seen_at_us", sa.BigInteger, nullable=False),
    )
