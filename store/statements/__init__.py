"""What PostgreSQL and SQLite do differently: two modules with the same functions, one of which a store works with."""

from store.statements import postgresql, sqlite
from store.statements.dialect import Dialect, RecordingKey, delete_recordings, read_winners

#: By SQLAlchemy's name of the database.
DIALECTS: dict[str, Dialect] = {"postgresql": postgresql, "sqlite": sqlite}

__all__ = ["DIALECTS", "Dialect", "RecordingKey", "delete_recordings", "read_winners"]
