"""Which queues there are and what leads to them, remembered between transactions."""

import sqlite3
from collections.abc import Sequence


class Routes:
    """The queues and bindings of the file, as one connection sees them.

    `learn` has to be called in each transaction before anything else is asked, and again after `forget`.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._version: int | None = None
        self.queues: set[str] = set()
        self._bound: dict[str, list[str]] = {}

    def learn(self) -> None:
        """Read the routes, unless no other connection has changed the file since they were last read.

        The file's version stays the same for changes of one's own: https://www.sqlite.org/pragma.html#pragma_data_version
        """
        (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        if version == self._version:
            return
        self.queues = {name for (name,) in self._connection.execute("SELECT name FROM queues")}
        self._bound = {}
        for routing_key, queue in self._connection.execute("SELECT routing_key, queue FROM bindings"):
            self._bound.setdefault(routing_key, []).append(queue)
        self._version = version

    def forget(self) -> None:
        """Read them anew at the next occasion: they are being changed, or a change was undone."""
        self._version = None

    def bound_to(self, routing_key: str) -> Sequence[str]:
        """Return the queues bound to a routing key."""
        return self._bound.get(routing_key, ())
