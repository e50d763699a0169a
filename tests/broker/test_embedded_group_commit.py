"""Many operations in one commit, and one that fails alone."""

import asyncio
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from broker import BrokerError, ConsumerQueues, EmbeddedTransport, MissingQueueError, NotPublishedError
from broker.embedded import commit as embedded_transaction
from broker.embedded import commit as group_commit
from broker.embedded import transport as embedded_transport
from broker.embedded.commit import Level, Transaction
from tests.broker.consumers import ARCHIVE, CONSUMERS
from tests.broker.embedded_child import message
from tests.broker.inbox import AckingInbox, Inbox, eventually


def _execute(folder: Path, sql: str) -> None:
    with closing(sqlite3.connect(folder / "transport.db", isolation_level=None)) as connection:
        connection.execute(sql)


async def _ready(transport: EmbeddedTransport, consumer: str = "archive") -> int:
    (state,) = await transport.inspect([consumer])
    return state.ready


async def test_events_that_come_together_share_a_commit(tmp_path: Path) -> None:
    statements: list[str] = []

    def trace(transaction: Transaction) -> None:
        transaction._connection.set_trace_callback(statements.append)

    async with EmbeddedTransport(tmp_path, consumers=CONSUMERS) as transport:
        await transport._commits.submit(trace, Level.READ)
        await asyncio.gather(*(transport.publish(message(f"{number}")) for number in range(500)))
        assert await _ready(transport) == 500
    assert 1 <= statements.count("BEGIN IMMEDIATE") < 20


async def test_only_what_must_last_is_fsynced(tmp_path: Path) -> None:
    levels: list[int] = []

    def level(transaction: Transaction) -> None:
        levels.append(transaction.execute("PRAGMA synchronous").fetchone()[0])

    async with EmbeddedTransport(tmp_path) as transport:
        for wanted in (Level.DURABLE, Level.WRITE, Level.DURABLE):
            await transport._commits.submit(level, wanted)
        await asyncio.gather(*(transport._commits.submit(level, wanted) for wanted in (Level.WRITE, Level.DURABLE)))
    full, normal = 2, 1
    assert levels == [full, normal, full, full, full]


async def test_one_that_fails_takes_no_other_with_it(tmp_path: Path) -> None:
    async with EmbeddedTransport(tmp_path, consumers=CONSUMERS) as transport:
        _execute(
            tmp_path,
            "CREATE TRIGGER poison BEFORE INSERT ON messages WHEN instr(new.message, 'poison') "
            "BEGIN SELECT RAISE(ABORT, 'poisoned'); END",
        )
        results = await asyncio.gather(
            *(transport.publish(message(f"{number}")) for number in range(10)),
            transport.publish(message("poison")),
            transport.send("nobody", message("orphan")),
            transport.remove("nobody", force=True),
            *(transport.publish(message(f"{number}")) for number in range(10)),
            return_exceptions=True,
        )
        assert [number for number, result in enumerate(results) if result is not None] == [10, 12]
        assert isinstance(results[10], NotPublishedError)
        assert "poisoned" in str(results[10])
        assert isinstance(results[12], MissingQueueError)
        assert await _ready(transport) == 20
        assert (await transport.info()).orphaned == 1


async def test_a_commit_that_fails_fails_all_of_its_callers(tmp_path: Path) -> None:
    async with EmbeddedTransport(tmp_path, consumers=CONSUMERS) as transport:
        # A deferred constraint is looked at by COMMIT.
        _execute(tmp_path, "CREATE TABLE parents (id INTEGER PRIMARY KEY)")
        _execute(tmp_path, "CREATE TABLE children (id INTEGER REFERENCES parents (id) DEFERRABLE INITIALLY DEFERRED)")
        await transport._commits.submit(_enforce, Level.READ)
        _execute(
            tmp_path,
            "CREATE TRIGGER poison AFTER INSERT ON messages WHEN instr(new.message, 'poison') "
            "BEGIN INSERT INTO children VALUES (1); END",
        )
        results = await asyncio.gather(
            transport.publish(message("a")), transport.publish(message("poison")), return_exceptions=True
        )
        assert [type(result) for result in results] == [NotPublishedError, NotPublishedError]
        assert await _ready(transport) == 0
        await transport.publish(message("b"))
        assert await _ready(transport) == 1


async def test_begun_publishes_of_one_turn_end_each_for_itself(tmp_path: Path) -> None:
    ends: dict[str, list[BrokerError | None]] = {}
    async with EmbeddedTransport(tmp_path, consumers=CONSUMERS) as transport:
        _execute(
            tmp_path,
            "CREATE TRIGGER poison BEFORE INSERT ON messages WHEN instr(new.message, 'poison') "
            "BEGIN SELECT RAISE(ABORT, 'poisoned'); END",
        )
        for name in ("a", "poison", "b", "poison again", "c"):
            assert transport.begin_publish(message(name), ends.setdefault(name, []).append)
        await eventually(_all_told(ends))
        assert await _ready(transport) == 3
    assert {name: type(error) for name, (error,) in ends.items()} == {
        **dict.fromkeys(("a", "b", "c"), type(None)),
        **dict.fromkeys(("poison", "poison again"), NotPublishedError),
    }


def _all_told(ends: Mapping[str, Sequence[object]]) -> Callable[[], Awaitable[bool]]:
    async def are_told() -> bool:
        return all(ends.values())

    return are_told


async def test_what_was_begun_and_takes_too_long_ends_once_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: dict[str, list[BrokerError | None]] = {}
    held = threading.Event()
    with monkeypatch.context() as short:
        short.setattr(embedded_transport, "OPERATION_TIMEOUT_S", 0.05)
        transport = EmbeddedTransport(tmp_path, consumers=CONSUMERS)
    # To open it may take longer.
    async with transport:
        monkeypatch.setattr(embedded_transport, "OPERATION_TIMEOUT_S", 0.05)
        holding = transport._commits.submit(lambda _: held.wait(20), Level.READ)
        for name in ("a", "b"):
            assert transport.begin_publish(message(name), ends.setdefault(name, []).append)
        await eventually(_all_told(ends))
        with pytest.raises(NotPublishedError, match=r"did not answer within 0\.05 s"):
            await transport.publish(message("c"))
        held.set()
        await holding
        monkeypatch.undo()
        assert await _ready(transport) == 3
    assert [type(error) for told in ends.values() for error in told] == [NotPublishedError] * 2


async def test_one_that_finds_no_space_takes_no_other_with_it(tmp_path: Path) -> None:
    def leave_little_space(transaction: Transaction) -> None:
        pages = transaction.execute("PRAGMA page_count").fetchone()[0]
        transaction.execute(f"PRAGMA max_page_count = {pages + 20}")

    async with EmbeddedTransport(tmp_path, consumers=CONSUMERS) as transport:
        await transport._commits.submit(leave_little_space, Level.READ)
        results = await asyncio.gather(
            transport.publish(message("a")),
            transport.publish(message("large", body=bytes(1_000_000))),
            transport.publish(message("b")),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [type(None), NotPublishedError, type(None)]
        assert "no space left" in str(results[1])
        assert await _ready(transport) == 2


async def test_what_waits_is_handled_while_there_is_no_space_for_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = Inbox()
    async with EmbeddedTransport(tmp_path, consumers=CONSUMERS) as transport:
        await transport.publish(message("a"))
        monkeypatch.setattr(embedded_transaction, "RESERVED_BYTES", 2**60)
        async with transport.subscribe(ARCHIVE, inbox, prefetch=1):
            with pytest.raises(NotPublishedError, match="no space left"):
                await transport.publish(message("b"))
            (delivery,) = await inbox.wait(1)
            assert await delivery.ack()
        monkeypatch.undo()
        await transport.publish(message("c"))
        assert await _ready(transport) == 1


def _enforce(transaction: Transaction) -> None:
    # Not inside of a transaction: https://www.sqlite.org/pragma.html#pragma_foreign_keys
    transaction.execute("COMMIT")
    transaction.execute("PRAGMA foreign_keys = ON")
    transaction.execute("BEGIN")


async def test_a_file_that_is_locked_for_too_long_refuses_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "LOCK_TIMEOUT_S", 0.05)
    inbox = AckingInbox()
    async with (
        EmbeddedTransport(tmp_path, consumers=CONSUMERS) as transport,
        transport.subscribe(ARCHIVE, inbox, prefetch=1),
    ):
        with closing(sqlite3.connect(tmp_path / "transport.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(NotPublishedError, match="locked by another process"):
                await transport.publish(message("a"))
        await transport.publish(message("b"))
        await inbox.wait(1)
    assert inbox.event_ids == ["b"]


async def test_an_ack_that_fails_is_false_and_the_event_comes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = Inbox()
    async with EmbeddedTransport(tmp_path, consumers=CONSUMERS) as transport:
        async with transport.subscribe(ARCHIVE, inbox, prefetch=1) as subscription:
            await transport.publish(message("a"))
            (first,) = await inbox.wait(1)
            monkeypatch.setattr(group_commit, "LOCK_TIMEOUT_S", 0.05)
            with closing(sqlite3.connect(tmp_path / "transport.db", isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                assert not await first.ack()

                async def noticed() -> bool:
                    return not subscription.is_consuming

                await eventually(noticed)
            _, second = await inbox.wait(2)
            assert second.message == first.message
            assert second.crashes == 1
            assert subscription.is_consuming
            assert await second.ack()
        assert await _ready(transport) == 0


async def test_an_ack_that_nobody_waits_for_any_more_still_counts(tmp_path: Path) -> None:
    inbox = Inbox()
    async with EmbeddedTransport(tmp_path, consumers=CONSUMERS) as transport:
        async with transport.subscribe(ARCHIVE, inbox, prefetch=1):
            await transport.publish(message("a"))
            await transport.publish(message("b"))
            (first,) = await inbox.wait(1)
            ack = asyncio.ensure_future(first.ack())
            ack.cancel()
            with pytest.raises(asyncio.CancelledError):
                await ack
            await inbox.wait(2)
        (state,) = await transport.inspect(["archive"])
    assert inbox.event_ids == ["a", "b"]
    assert (state.ready, state.unacked) == (1, 0)


async def test_an_ack_after_closing_is_false(tmp_path: Path) -> None:
    inbox = Inbox()
    async with EmbeddedTransport(tmp_path, consumers=CONSUMERS) as transport:
        async with transport.subscribe(ARCHIVE, inbox, prefetch=2):
            await transport.publish(message("a"))
            await transport.publish(message("b"))
            first, second = await inbox.wait(2)
        assert not await first.ack()
    assert not await second.ack()
    with pytest.raises(NotPublishedError, match="not open"):
        await transport.publish(message("c"))


async def test_a_removed_queue_is_made_again_by_its_consumer(tmp_path: Path) -> None:
    inbox = AckingInbox()
    fresh = ConsumerQueues(consumer="fresh", routing_keys=("OnlineRecordFinished",))
    async with (
        EmbeddedTransport(tmp_path) as transport,
        EmbeddedTransport(tmp_path) as other,
        transport.subscribe(fresh, inbox, prefetch=1),
    ):
        await transport.publish(message("a"))
        await inbox.wait(1)
        await other.remove("fresh", force=True)

        async def is_back() -> bool:
            (state,) = await other.inspect(["fresh"])
            return state.exists

        await eventually(is_back)
        await other.publish(message("b"))
        await inbox.wait(2)
    assert inbox.event_ids == ["a", "b"]


async def test_what_was_claimed_before_a_neighbour_found_the_disk_full_counts_against_the_prefetch(
    tmp_path: Path,
) -> None:
    inbox = Inbox()

    def fills_the_disk(transaction: Transaction) -> None:
        (pages,) = transaction.execute("PRAGMA page_count").fetchone()
        transaction.execute(f"PRAGMA max_page_count = {pages}")
        transaction.execute("INSERT INTO messages (queue, visible_at_us, message) VALUES ('q', 0, zeroblob(1000000))")

    def makes_room(transaction: Transaction) -> None:
        transaction.execute("PRAGMA max_page_count = 1000000")

    async with EmbeddedTransport(tmp_path, consumers=CONSUMERS) as transport:
        await asyncio.gather(*(transport.publish(message(f"{number}")) for number in range(9)))
        async with transport.subscribe(ARCHIVE, inbox, prefetch=2):
            # In the same turn as the first claim, behind it.
            with pytest.raises(sqlite3.OperationalError, match="full"):
                await transport._commits.submit(fills_the_disk, Level.DURABLE)
            await inbox.wait(2)
            await transport._commits.submit(makes_room, Level.READ)
            await transport.publish(message("more"))
            for settled in range(4):
                assert await inbox.deliveries[settled].ack()
                await inbox.wait(settled + 3)
                await transport.publish(message(f"more {settled}"))
                assert len(inbox) == settled + 3
