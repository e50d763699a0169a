"""What is written directly into SQLite is what the careful way writes, whatever comes, however it is mixed."""

import asyncio
import itertools
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import ClauseElement

from schemas import decode
from store import (
    KeptEvent,
    SchemaMismatchError,
    Store,
    StoreUnavailableError,
    apply_events,
    count_events,
    find_recordings,
    fold,
    mark_verified,
    migrate,
)
from store.direct.sqlite import _WINNERS, SqliteDirect
from store.tables import events, recordings
from tests.servers.migrated import copy_migrated_sqlite
from tests.store.classes import START_US, callback, keep, random_deliveries, random_event, random_groups
from tests.store.process import all_deliveries, groups_of
from tests.store.processes import run_at_once

_example = itertools.count()


class Counted:
    """A direct way, and what became of what it was given."""

    def __init__(self, direct: SqliteDirect) -> None:
        self._direct = direct
        self.answers: list[bool] = []

    async def apply(self, kept: Any) -> bool:
        is_done = await self._direct.apply(kept)
        self.answers.append(is_done)
        return is_done

    async def fetch(self, statement: ClauseElement, parameters: Mapping[str, object]) -> None:
        await self._direct.fetch(statement, parameters)

    async def close(self) -> None:
        await self._direct.close()


def counted(store: Store) -> Counted:
    """Count what a store does directly from now on."""
    assert isinstance(store._direct, SqliteDirect)
    count = Counted(store._direct)
    store._direct = count
    return count


def of(store: Store) -> sqlite3.Connection:
    """Return another connection to a store's file."""
    assert store.file is not None
    return sqlite3.connect(store.file, isolation_level=None)


def rows(store: Store) -> list[list[tuple[Any, ...]]]:
    """Return all that there is of events and recordings."""
    with closing(of(store)) as connection:
        found = []
        for table in (events, recordings):
            names = [column.name for column in table.c]
            columns = ", ".join(f"typeof({name}), {name}" for name in names)
            keys = ", ".join(column.name for column in table.primary_key)
            statement = f"SELECT {columns} FROM {table.name} ORDER BY {keys}"  # noqa: S608 - names of ours
            found.append(connection.execute(statement).fetchall())
        return found


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """Give an empty store."""
    async with Store(copy_migrated_sqlite(tmp_path / "direct.db")) as store:
        yield store


@pytest.fixture
async def careful(tmp_path: Path) -> AsyncIterator[Store]:
    """Give another one that is only written carefully."""
    async with Store(copy_migrated_sqlite(tmp_path / "careful.db"), is_direct=False) as store:
        yield store


def _anything(random: Random, task_id: str) -> list[KeptEvent]:
    """Return deliveries of two classes with one TaskId, and such as make no recording."""
    content = callback("OnlineRecordStarted", random.randint(100, 103), TaskId=random.choice(("", task_id)))
    manifest = {"Archive": {"Files": []}, "TaskId": task_id}
    others = [
        keep(content, received_at_us=START_US + random.randint(0, 3)),
        keep({**content, "EventType": "RecordingArchived", "EventData": manifest}),
        keep({**content, "EventType": random.choice(("Else", "\0"))}),
        # Unrecognized at first: its Timestamp lies ahead of that arrival.
        keep({**content, "Timestamp": START_US // 1_000_000}, received_at_us=START_US - 10**12),
        keep({**content, "Timestamp": START_US // 1_000_000}),
        _unreadable(task_id),
    ]
    deliveries = [
        *random_deliveries(random, task_id=task_id),
        *random_deliveries(random, task_id=task_id, sdk_app_id=2, most=2),
        *(one for one in others if random.choice((True, False))),
    ]
    random.shuffle(deliveries)
    return deliveries


def _unreadable(task_id: str) -> KeptEvent:
    body = b"\xff" + task_id.encode()
    decoded = decode(body, received_at_us=START_US)
    return KeptEvent(event=decoded.event, event_id=decoded.event_id, received_at_us=START_US, body=body)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(random=st.randoms(use_true_random=False))
async def test_every_order_repetition_and_grouping_gives_the_same_rows_both_ways_and_mixed(
    store: Store, careful: Store, random: Random
) -> None:
    direct = store._direct
    for one in (careful, store):
        with closing(of(one)) as connection:
            connection.executescript("DELETE FROM events; DELETE FROM recordings")
    deliveries = _anything(random, f"task-{next(_example)}")
    for group in random_groups(random, deliveries):
        await apply_events(careful, group)
        store._direct = direct if random.random() < 0.7 else None
        await asyncio.gather(*(apply_events(store, part) for part in random_groups(random, group)))
        store._direct = direct
        if random.choice((True, False)):
            event_id, verified = random.choice(group).event_id, random.choice((True, False))
            for one in (careful, store):
                await mark_verified(one, event_id, verified)
    assert rows(store) == rows(careful)


async def test_the_plain_case_is_done_directly(store: Store) -> None:
    direct = counted(store)
    group = [keep(callback("OnlineRecordStarted", TaskId=f"t{number}")) for number in range(300)]
    later = [keep(callback("OnlineRecordFinished", 200, TaskId=f"t{number}")) for number in range(300)]
    await apply_events(store, group)
    await apply_events(store, later)
    await apply_events(store, [*group, *later])
    await apply_events(store, [keep(callback("Else")), keep(callback("OnlineRecordStarted", TaskId=""))])
    assert direct.answers == [True] * 4
    for before, after in zip(group, later, strict=True):
        assert await find_recordings(store, before.event.task_id) == [fold([before, after])]  # type: ignore[union-attr]


async def test_what_waits_together_is_one_transaction(store: Store) -> None:
    group = [keep(callback("OnlineRecordStarted", TaskId=f"t{number}")) for number in range(20)]
    await apply_events(store, group[:1])
    with closing(of(store)) as connection:
        # Every transaction of another connection makes it another version.
        versions = set()
        applying = [asyncio.ensure_future(apply_events(store, [one])) for one in group]
        while not all(one.done() for one in applying):
            versions.add(connection.execute("PRAGMA data_version").fetchone())
            await asyncio.sleep(0)
        versions.add(connection.execute("PRAGMA data_version").fetchone())
    assert len(versions) <= 3
    assert await count_events(store) == 20


async def test_a_thousand_losing_events_are_not_read(store: Store) -> None:
    winner = keep(callback("OnlineRecordFinished", timestamp=200, TaskId="t"))
    losers = [keep(callback("OnlineRecordFinished", TaskId="t", RoomId=number)) for number in range(1000)]
    await apply_events(store, [winner, *losers])
    with closing(of(store)) as connection:
        steps = 0

        def count() -> None:
            nonlocal steps
            steps += 1

        connection.set_progress_handler(count, 1)
        connection.execute(_WINNERS, ('[[1,"t"]]', "[]", False)).fetchall()
    assert steps < 1000


@pytest.mark.parametrize("is_grouped", [True, False])
async def test_a_recording_that_has_only_what_the_vendor_contradicts_is_as_the_careful_way_makes_it(
    store: Store, careful: Store, is_grouped: bool
) -> None:
    group = [keep(callback("OnlineRecordStarted", at, TaskId="t"), verified=False) for at in (100, 101)]
    good = keep(callback("OnlineRecordStopped", 102, TaskId="t"))
    for one in (store, careful):
        for part in [group] if is_grouped else [group[:1], group[1:]]:
            await apply_events(one, part)
    assert rows(store) == rows(careful)
    for one in (store, careful):
        await apply_events(one, [good])
    assert rows(store) == rows(careful)


async def test_an_event_id_that_is_another_recordings_makes_none(store: Store, careful: Store) -> None:
    honest = keep(callback("OnlineRecordStarted", TaskId="a"))
    forged = msgspec.structs.replace(keep(callback("OnlineRecordStopped", TaskId="b")), event_id=honest.event_id)
    beside = keep(callback("OnlineRecordStopped", TaskId="c"))
    for one in (store, careful):
        await apply_events(one, [honest])
        await apply_events(one, [forged, beside])
    assert rows(store) == rows(careful)
    assert await find_recordings(store, "b") == []


async def test_an_event_id_that_is_another_recordings_makes_none_whatever_was_numbered_before(
    store: Store, careful: Store
) -> None:
    honest = keep(callback("OnlineRecordStarted", TaskId="a"))
    forged = msgspec.structs.replace(keep(callback("OnlineRecordStopped", TaskId="b")), event_id=honest.event_id)
    for one in (store, careful):
        await apply_events(one, [honest])
        await apply_events(one, [keep(callback("Else"))])
        with closing(of(one)) as connection:
            connection.execute("DELETE FROM events WHERE routing_key = 'unrecognized'")
        await apply_events(one, [forged])
    assert rows(store) == rows(careful)


async def test_a_rollback_that_fails_stops_no_thread(store: Store) -> None:
    honest = keep(callback("OnlineRecordStarted", TaskId="a"))
    forged = msgspec.structs.replace(keep(callback("OnlineRecordStopped", TaskId="b")), event_id=honest.event_id)
    await apply_events(store, [honest])
    await in_its_thread(
        store,
        lambda connection: connection.set_authorizer(
            lambda _, what, *__: sqlite3.SQLITE_DENY if what == "ROLLBACK" else sqlite3.SQLITE_OK
        ),
    )
    async with asyncio.timeout(10):
        await apply_events(store, [forged])
        await apply_events(store, [STOPPED])
    assert await find_recordings(store, "t") == [fold([STOPPED])]


async def test_eight_writers_at_once_both_ways_lose_no_update(store: Store) -> None:
    other = Store(store.url, is_direct=False)
    async with other, asyncio.TaskGroup() as tasks:

        async def apply_part(seed: int) -> None:
            for group in groups_of(seed, of=8):
                await apply_events(store if seed % 2 else other, group)

        for seed in range(8):
            tasks.create_task(apply_part(seed))
    for task_id, deliveries in all_deliveries().items():
        assert await find_recordings(store, task_id) == [fold(deliveries)]


async def test_processes_and_tasks_at_once_lose_no_update(store: Store) -> None:
    random = Random(2)
    applied = {
        f"mine-{number}": [random_event(random, task_id=f"mine-{number}") for _ in range(9)] for number in range(9)
    }

    async def apply_here() -> None:
        for number in range(9):
            await asyncio.gather(*(apply_events(store, [some[number]]) for some in applied.values()))

    await asyncio.gather(run_at_once("apply", store.url, 4), apply_here())
    for task_id, deliveries in [*all_deliveries().items(), *applied.items()]:
        assert await find_recordings(store, task_id) == [fold(deliveries)]


STARTED = keep(callback("OnlineRecordStarted", TaskId="t"))
STOPPED = keep(callback("OnlineRecordStopped", 200, TaskId="t"))


async def in_its_thread(store: Store, act: Callable[[sqlite3.Connection], object]) -> None:
    """Do something to the direct way's own connection."""
    direct = store._direct
    assert isinstance(direct, SqliteDirect)
    assert direct._thread is not None

    def run() -> bool:
        assert direct._file._connection is not None
        act(direct._file._connection)
        return True

    assert await direct._thread.call(run)


@pytest.mark.parametrize(
    "hinder",
    [
        lambda connection: connection.execute(
            f"PRAGMA max_page_count = {connection.execute('PRAGMA page_count').fetchone()[0]}"
        ),
        lambda connection: connection.execute("PRAGMA query_only = ON"),
        lambda connection: connection.execute("BEGIN"),
        lambda connection: connection.set_authorizer(
            lambda action, *_: sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_TRANSACTION else sqlite3.SQLITE_OK
        ),
        lambda connection: connection.close(),
    ],
    ids=["full", "read-only", "in a transaction", "no commit", "closed"],
)
async def test_whatever_hinders_the_direct_way_the_careful_one_does_it_and_the_next_is_direct_again(
    store: Store, hinder: Callable[[sqlite3.Connection], object]
) -> None:
    await apply_events(store, [STARTED])
    await in_its_thread(store, hinder)
    direct = counted(store)
    large = [keep(callback("OnlineRecordStarted", TaskId=f"t{number}", RecordUserId="u" * 900)) for number in range(99)]
    await apply_events(store, [*large, STOPPED])
    assert direct.answers == [False]
    assert await find_recordings(store, "t") == [fold([STARTED, STOPPED])]
    assert await count_events(store) == 101
    await apply_events(store, [keep(callback("OnlineRecordStarted", TaskId="u"))])
    assert direct.answers == [False, True]


async def test_a_file_that_others_lock_is_waited_for_and_away_in_the_end(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.drivers.sqlite.BUSY_TIMEOUT_S", 0.05)
    async with Store(sqlite_url) as store:
        await migrate(store)
        await apply_events(store, [STARTED])
        direct = counted(store)
        with closing(of(store)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreUnavailableError, match="database is locked"):
                await apply_events(store, [STOPPED])
            other.execute("ROLLBACK")
        await apply_events(store, [STOPPED])
        assert direct.answers == [False, True]


async def test_a_file_that_was_replaced_is_the_one_that_is_written_from_then_on(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    url = copy_migrated_sqlite(path)
    async with Store(url) as store:
        await apply_events(store, [STARTED])
        copy_migrated_sqlite(tmp_path / "backup.db")
        (tmp_path / "backup.db").rename(path)
        for name in ("store.db-wal", "store.db-shm"):
            (tmp_path / name).unlink(missing_ok=True)
        direct = counted(store)
        await apply_events(store, [STOPPED])
        assert direct.answers == [True]
    async with Store(url) as store:
        assert await find_recordings(store, "t") == [fold([STOPPED])]


def _take_away(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


async def test_a_file_that_was_taken_away_asks_for_a_migration(store: Store) -> None:
    await apply_events(store, [STARTED])
    assert store.file is not None
    _take_away(store.file)
    with pytest.raises(SchemaMismatchError):
        await apply_events(store, [STOPPED])
    assert store.file.stat().st_mode & 0o777 == 0o600


async def test_one_who_does_not_wait_any_more_takes_nothing_from_the_others(store: Store) -> None:
    await apply_events(store, [STARTED])
    async with store.writing():
        gone, staying = (asyncio.ensure_future(apply_events(store, [one])) for one in (STOPPED, STARTED))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait({gone})
    await staying
    assert gone.cancelled()
    await apply_events(store, [STOPPED])
    assert await find_recordings(store, "t") == [fold([STARTED, STOPPED])]


async def test_a_store_that_is_left_finishes_what_it_was_given_and_can_be_entered_again(store: Store) -> None:
    applying = asyncio.ensure_future(apply_events(store, [STARTED]))
    await asyncio.sleep(0)
    await store.__aexit__()
    await applying
    await apply_events(store, [STOPPED])
    assert await count_events(store) == 2
