"""One transaction of the embedded transport: what a group of operations has in common."""

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from broker.embedded_routes import Routes
from broker.errors import BrokerError
from broker.topology import BUILT_IN_CONSUMERS, ORPHANED_QUEUE, ConsumerQueues, dead_queue_name, queue_name
from schemas import UNRECOGNIZED

#: On a disk that is full to its last byte no event can be settled either, so nothing would ever free it.
RESERVED_BYTES = 16 * 1024 * 1024

#: Rows of one INSERT, so that few statements are prepared.
_ROWS_AT_ONCE = (128, 64, 32, 16, 8, 4, 2, 1)
_INSERTS = {
    count: f"INSERT INTO messages (queue, visible_at_us, message) VALUES {', '.join(['(?, ?, ?)'] * count)}"  # noqa: S608 - nobody's values
    for count in _ROWS_AT_ONCE
}

_UNRECOGNIZED_CONSUMER = next(queues for queues in BUILT_IN_CONSUMERS if queues.consumer == UNRECOGNIZED)


class Transaction:
    """Runs SQL for operations; gathers the rows of all their messages and inserts them at once.

    `touched` names the queues in which something may have become ready.
    """

    def __init__(self, connection: sqlite3.Connection, routes: Routes, free_bytes: Callable[[], int]) -> None:
        self._connection = connection
        self._routes = routes
        self._free_bytes = free_bytes
        self._spare_bytes: int | None = None
        self._rows: list[tuple[str, int, bytes]] = []
        self._knows_routes = False
        self.touched: set[str] = set()

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Run a statement that sees everything inserted so far."""
        if self._rows:
            self.flush()
        return self._connection.execute(sql, parameters)

    def insert(self, queue: str, message: bytes, visible_at_us: int = 0) -> None:
        """Put an encoded message into a queue, at the latest on `flush`. Raises `BrokerError` if space is short."""
        if self._spare_bytes is None:
            self._spare_bytes = self._free_bytes() - RESERVED_BYTES
        # It is written twice, to the log and from there to the database.
        self._spare_bytes -= 2 * len(message)
        if self._spare_bytes < 0:
            raise BrokerError(
                f"no space left for events: the disk's last {RESERVED_BYTES >> 20} MiB are kept "
                "for handling those that wait; free some"
            )
        self._rows.append((queue, visible_at_us, message))
        self.touched.add(queue)

    @property
    def is_short_of_space(self) -> bool:
        """Whether the disk comes near to where no more events are taken."""
        return self._free_bytes() < 2 * RESERVED_BYTES

    def flush(self) -> None:
        """Insert the rows that are still in memory."""
        rows, self._rows = self._rows, []
        # Many at once: after each step of a statement the thread waits until the event loop lets it go on.
        at = 0
        while at < len(rows):
            count = next(count for count in _ROWS_AT_ONCE if at + count <= len(rows))
            self._connection.execute(_INSERTS[count], [value for row in rows[at : at + count] for value in row])
            at += count

    def queues_of(self, routing_key: str) -> Sequence[str]:
        """Return the queues bound to a routing key; the queue of unrecognized events if there is none."""
        self._learn_routes()
        queues = self._routes.bound_to(routing_key)
        if queues:
            return queues
        unrecognized = queue_name(UNRECOGNIZED)
        if unrecognized not in self._routes.queues:
            self.declare(_UNRECOGNIZED_CONSUMER)
        return (unrecognized,)

    def home_of(self, consumer: str) -> str:
        """Return the queue of a consumer; that of the orphaned if it has none."""
        self._learn_routes()
        queue = queue_name(consumer)
        return queue if queue in self._routes.queues else ORPHANED_QUEUE

    def has_queue(self, queue: str) -> bool:
        """Say whether a queue exists."""
        self._learn_routes()
        return queue in self._routes.queues

    def make_queue(self, name: str) -> None:
        """Make a queue if it is missing."""
        if not self.has_queue(name):
            self.execute("INSERT INTO queues (name) VALUES (?)", (name,))
            self._forget_routes()

    def declare(self, queues: ConsumerQueues) -> None:
        """Make a consumer's queues and bindings as far as they are missing."""
        queue = queue_name(queues.consumer)
        self.make_queue(queue)
        self.make_queue(dead_queue_name(queues.consumer))
        for routing_key in queues.routing_keys:
            self.execute("INSERT OR IGNORE INTO bindings (routing_key, queue) VALUES (?, ?)", (routing_key, queue))
        self._forget_routes()

    def drop(self, consumer: str) -> None:
        """Delete a consumer's queues, their bindings and what is in them; retries that wait are not in them."""
        for queue in (queue_name(consumer), dead_queue_name(consumer)):
            self.execute("DELETE FROM messages WHERE queue = ? AND claimed_by IS NULL AND visible_at_us = 0", (queue,))
            self.execute("DELETE FROM messages WHERE queue = ? AND claimed_by IS NOT NULL", (queue,))
            self.execute("DELETE FROM bindings WHERE queue = ?", (queue,))
            self.execute("DELETE FROM queues WHERE name = ?", (queue,))
            self.touched.add(queue)
        self._forget_routes()

    def forget(self) -> None:
        """Forget what was rolled back: rows in memory and routes. Look at the disk's space again."""
        self._rows.clear()
        self._spare_bytes = None
        self._forget_routes()

    def _learn_routes(self) -> None:
        if not self._knows_routes:
            self._routes.learn()
            self._knows_routes = True

    def _forget_routes(self) -> None:
        self._routes.forget()
        self._knows_routes = False
