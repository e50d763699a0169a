"""What the embedded transport does to its queues, as operations for a group commit."""

import time
from collections.abc import Collection, Sequence
from typing import NamedTuple

import msgspec
from msgspec import Struct

from broker.api import BrokerError, Message, MissingQueueError, QueueState, source_word
from broker.embedded.commit import Claimed, Operation, Taker, Transaction
from broker.embedded.database import Owner
from broker.topology import ORPHANED_QUEUE, ConsumerQueues, dead_queue_name, queue_name
from schemas import UNRECOGNIZED, decode

_decoder = msgspec.msgpack.Decoder(Message)

#: More than these are free, and half of the file is or the disk is short: give some back, a few at a time.
_FREE_PAGES_KEPT = 2048
_FREE_PAGES_AT_ONCE = 512

_READY = "claimed_by IS NULL AND visible_at_us = 0"
_CLAIMED = "claimed_by IS NOT NULL"
_CLAIM = (
    "UPDATE messages SET claimed_by = ? WHERE id IN ("
    "SELECT id FROM messages WHERE queue = ? AND claimed_by IS NULL AND visible_at_us = 0 ORDER BY id LIMIT ?"
    ") RETURNING id, deliveries, message"
)
# The plus: by their ids, not by looking through all that it holds.
_SETTLE = "DELETE FROM messages WHERE id IN (SELECT value FROM json_each(?)) AND +claimed_by = ?"
_STILL_THERE = "SELECT id FROM messages WHERE id IN (SELECT value FROM json_each(?))"
_LET_GO = "UPDATE messages SET claimed_by = NULL, deliveries = deliveries + 1"


class Registration(Struct, frozen=True, kw_only=True):
    """A subscription as the file knows it."""

    owner: str
    queues: ConsumerQueues
    taker: Taker


class Claims(Struct, frozen=True, kw_only=True):
    """What a claim got; `may_leave_more` if it got all that it had room for."""

    claimed: list[Claimed]
    may_leave_more: bool


class Sight(Struct, frozen=True, kw_only=True):
    """What a look at the file shows.

    `version` differs after a commit of another process. `due_at_us` is when the next retry is due. `abandoned` are
    subscriptions that nobody holds any more; `others` have the rest of those that are not of this owner.
    """

    version: int
    due_at_us: int | None
    abandoned: tuple[int, ...]
    others: frozenset[str]
    wastes_space: bool


class Publishable(NamedTuple):
    """An event to insert; `read` is itself if that is what `encoded` is read as."""

    routing_key: str
    encoded: bytes
    read: Message | None


def publishable(message: Message) -> Publishable:
    """Encode an event. Raises ValueError or OverflowError for what cannot be."""
    return Publishable(message.routing_key, *_written(message))


def publish(events: Sequence[Publishable]) -> Operation[None]:
    """Insert events into every queue bound to their routing keys."""

    def operation(transaction: Transaction) -> None:
        for routing_key, encoded, read in events:
            for queue in transaction.queues_of(routing_key):
                transaction.insert(queue, encoded, message=read)

    return operation


def send(consumer: str, message: Message) -> Operation[None]:
    """Insert a message into one consumer's queue."""
    encoded, read = _written(message)
    return lambda transaction: transaction.insert(transaction.home_of(consumer), encoded, message=read)


def retry(consumer: str, message: Message, *, visible_at_us: int) -> Operation[None]:
    """Insert a message that goes to its consumer's queue when its time has come."""
    encoded = _encode(message)
    return lambda transaction: transaction.insert(queue_name(consumer), encoded, visible_at_us)


def dead_letter(consumer: str, message: Message) -> Operation[None]:
    """Insert a message into a consumer's queue of dead letters, which is made if it was removed."""
    encoded = _encode(message)

    def operation(transaction: Transaction) -> None:
        dead = dead_queue_name(consumer)
        transaction.make_queue(dead)
        transaction.insert(dead, encoded)

    return operation


def declare(consumers: Sequence[ConsumerQueues]) -> Operation[None]:
    """Make the queues and bindings of `consumers`, and the queue of the orphaned."""

    def operation(transaction: Transaction) -> None:
        transaction.make_queue(ORPHANED_QUEUE)
        for queues in consumers:
            transaction.declare(queues)

    return operation


def claim(registration: Registration, *, unsettled: Sequence[int]) -> Operation[Claims]:
    """Hand over the oldest ready messages of a queue, as many as there is room for when the operation runs.

    Registers the subscription and makes its queues if they are missing. Lets go of the messages in `unsettled`.
    """
    taker = registration.taker

    def operation(transaction: Transaction) -> Claims:
        if not transaction.has_queue(taker.queue):
            transaction.declare(registration.queues)
        if transaction.execute("SELECT 1 FROM subscriptions WHERE id = ?", (taker.id,)).fetchone() is None:
            transaction.declare(registration.queues)
            transaction.register(taker.id, owner=registration.owner, queue=taker.queue)
        for message_id in unsettled:
            transaction.execute(f"{_LET_GO} WHERE id = ? AND claimed_by = ?", (message_id, taker.id))
        limit = max(0, taker.room)
        rows = transaction.execute(_CLAIM, (taker.id, taker.queue, limit)).fetchall()
        claimed = [Claimed(id=row[0], deliveries=row[1], message=_read(row[2])) for row in sorted(rows)]
        transaction.took(taker, len(claimed))
        taker.has_all = len(claimed) < limit
        return Claims(claimed=claimed, may_leave_more=len(claimed) == limit)

    return operation


def settle(subscription_id: int, message_ids: Sequence[int]) -> Operation[frozenset[int]]:
    """Delete messages that a subscription holds. Return those that have gone back to their queue, or to another one."""

    def operation(transaction: Transaction) -> frozenset[int]:
        ids = msgspec.json.encode(message_ids).decode()
        if transaction.execute(_SETTLE, (ids, subscription_id)).rowcount == len(message_ids):
            return frozenset()
        return frozenset(message_id for (message_id,) in transaction.execute(_STILL_THERE, (ids,)).fetchall())

    return operation


def let_go(subscription_ids: Sequence[int]) -> Operation[None]:
    """End subscriptions: what they hold goes back to its queue, counted as a return."""

    def operation(transaction: Transaction) -> None:
        for subscription_id in subscription_ids:
            row = transaction.execute("SELECT queue FROM subscriptions WHERE id = ?", (subscription_id,)).fetchone()
            if row is not None:
                transaction.touched.add(row[0])
                transaction.execute(f"{_LET_GO} WHERE claimed_by = ?", (subscription_id,))
                transaction.deregister(subscription_id)

    return operation


def bring_home(now_us: int) -> Operation[None]:
    """Put the retries that are due into their consumers' queues, or among the orphaned."""

    def operation(transaction: Transaction) -> None:
        rows = transaction.execute(
            "UPDATE messages SET visible_at_us = 0,"
            " queue = CASE WHEN queue IN (SELECT name FROM queues) THEN queue ELSE ? END"
            " WHERE visible_at_us BETWEEN 1 AND ? RETURNING queue",
            (ORPHANED_QUEUE, now_us),
        )
        transaction.touched.update(queue for (queue,) in rows.fetchall())

    return operation


def tidy(owner: Owner, held: Collection[int]) -> Operation[None]:
    """Put back what nobody holds any more and what is due, as of the moment the operation runs."""

    def operation(transaction: Transaction) -> None:
        let_go(_abandoned(transaction, owner, held))(transaction)
        bring_home(now_us())(transaction)

    return operation


def look(owner: Owner, held: Collection[int]) -> Operation[Sight]:
    """See what other processes did; `held` are the subscriptions of this one."""

    def operation(transaction: Transaction) -> Sight:
        (version,) = transaction.execute("PRAGMA data_version").fetchone()
        (due_at_us,) = transaction.execute("SELECT min(visible_at_us) FROM messages WHERE visible_at_us > 0").fetchone()
        (free,) = transaction.execute("PRAGMA freelist_count").fetchone()
        (pages,) = transaction.execute("PRAGMA page_count").fetchone()
        abandoned = _abandoned(transaction, owner, held)
        rows = transaction.execute("SELECT id, owner FROM subscriptions").fetchall()
        return Sight(
            version=version,
            due_at_us=due_at_us,
            abandoned=abandoned,
            others=frozenset(name for number, name in rows if number not in abandoned and name != owner.name),
            wastes_space=free > _FREE_PAGES_KEPT and (2 * free > pages or transaction.is_short_of_space),
        )

    return operation


def give_space_back(transaction: Transaction) -> None:
    """Cut some of the free pages off the file."""
    # A call frees one page, whatever its argument says: Python steps a statement without columns only once.
    # https://www.sqlite.org/pragma.html#pragma_incremental_vacuum
    for _ in range(_FREE_PAGES_AT_ONCE):
        transaction.execute("PRAGMA incremental_vacuum(1)")


def inspect(consumers: Sequence[str]) -> Operation[list[QueueState]]:
    """Count what is in the queues of `consumers`."""
    return lambda transaction: [_state(transaction, consumer) for consumer in consumers]


def count_retrying(transaction: Transaction) -> int:
    """Count the messages that wait for their next attempt."""
    return int(transaction.execute("SELECT count(*) FROM messages WHERE visible_at_us > 0").fetchone()[0])


def count_orphaned(transaction: Transaction) -> int:
    """Count the messages whose consumer's queue was removed."""
    return _count(transaction, ORPHANED_QUEUE, _READY) + _count(transaction, ORPHANED_QUEUE, _CLAIMED)


def remove(consumer: str, *, force: bool) -> Operation[None]:
    """Delete a consumer's queues unless something is in them, or with it."""

    def operation(transaction: Transaction) -> None:
        queue = queue_name(consumer)
        if not transaction.has_queue(queue) and not transaction.has_queue(dead_queue_name(consumer)):
            raise MissingQueueError(f"there is no queue {queue}")
        state = _state(transaction, consumer)
        events = state.ready + (state.unacked or 0)
        if (events or state.dead) and not force:
            raise BrokerError(
                f"{queue} holds {events} events and {state.dead} dead letters; "
                "let its consumer handle them first, or force the removal to lose them"
            )
        transaction.drop(consumer)

    return operation


def now_us() -> int:
    """Return the wall clock's time in microseconds since the Unix epoch."""
    return time.time_ns() // 1000


def _abandoned(transaction: Transaction, owner: Owner, held: Collection[int]) -> tuple[int, ...]:
    rows = transaction.execute("SELECT id, owner FROM subscriptions").fetchall()
    is_alive = {name: owner.is_alive(name) for name in {name for _, name in rows}}
    return tuple(
        subscription_id
        for subscription_id, name in rows
        if not is_alive[name] or (name == owner.name and subscription_id not in held)
    )


def _state(transaction: Transaction, consumer: str) -> QueueState:
    queue, dead = queue_name(consumer), dead_queue_name(consumer)
    (connected,) = transaction.execute("SELECT count(*) FROM subscriptions WHERE queue = ?", (queue,)).fetchone()
    waiting = "SELECT count(*), min(visible_at_us) FROM messages WHERE queue = ? AND visible_at_us > 0"
    retrying, next_retry_at_us = transaction.execute(waiting, (queue,)).fetchone()
    return QueueState(
        consumer=consumer,
        exists=transaction.has_queue(queue),
        ready=_count(transaction, queue, _READY),
        unacked=_count(transaction, queue, _CLAIMED),
        connected=connected,
        dead=_count(transaction, dead, _READY) + _count(transaction, dead, _CLAIMED),
        retrying=retrying,
        next_retry_at_us=next_retry_at_us,
        oldest_received_at_us=_oldest_received_at_us(transaction, queue),
    )


def _oldest_received_at_us(transaction: Transaction, queue: str) -> int | None:
    # `_READY` is one of the constants above.
    sql = f"SELECT message FROM messages WHERE queue = ? AND {_READY} ORDER BY id LIMIT 1"  # noqa: S608 - no value of anybody's
    row = transaction.execute(sql, (queue,)).fetchone()
    return None if row is None else _read(row[0]).received_at_us


def _count(transaction: Transaction, queue: str, condition: str) -> int:
    # `condition` is one of the constants above.
    sql = f"SELECT count(*) FROM messages WHERE queue = ? AND {condition}"  # noqa: S608 - no value of anybody's
    return int(transaction.execute(sql, (queue,)).fetchone()[0])


def _encode(message: Message) -> bytes:
    return _written(message)[0]


def _written(message: Message) -> tuple[bytes, Message | None]:
    """Return a message as bytes, and itself if that is what they are read as."""
    try:
        encoded = msgspec.msgpack.encode(message)
    except UnicodeEncodeError:  # an exception's text can hold what UTF-8 cannot
        texts = {name: text for name, text in msgspec.structs.asdict(message).items() if isinstance(text, str)}
        mended = {name: text.encode(errors="replace").decode() for name, text in texts.items()}
        return msgspec.msgpack.encode(msgspec.structs.replace(message, **mended)), None
    is_as_read = type(message.body) is bytes and (not message.source or source_word(message.source))
    return encoded, message if is_as_read else None


def _read(encoded: bytes) -> Message:
    try:
        message = _decoder.decode(encoded)
    except msgspec.DecodeError:
        # Not written by us, or damaged: kept whole, as an event that nobody understands.
        received_at_us = now_us()
        event_id = decode(encoded, received_at_us=received_at_us).event_id
        return Message(body=encoded, event_id=event_id, routing_key=UNRECOGNIZED, received_at_us=received_at_us)
    if message.source and not source_word(message.source):
        return msgspec.structs.replace(message, source="")
    return message
