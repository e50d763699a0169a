"""What PostgreSQL and SQLite do differently: two modules with the same functions, one of which a store works with."""

from store.statements.dialect import Dialect, RecordingKey, delete_recordings, read_winners

__all__ = ["Dialect", "RecordingKey", "delete_recordings", "read_winners"]
