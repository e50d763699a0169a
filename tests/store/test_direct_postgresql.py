"""The direct way into PostgreSQL: it ends in the same rows as the careful one, whatever comes in between."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from random import Random
from typing import Any

import asyncpg
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, event, select, text

from schemas import Manifest, RecordingArchived, encode_archived
from store import (
    Claim,
    KeptEvent,
    Store,
    StoreUnavailableError,
    apply_events,
    claim,
    complete,
    count_events,
    find_recordings,
    fold,
    list_recordings,
    mark_verified,
    prune_events,
)
from store.direct import postgresql as direct
from store.statements import postgresql as careful_statements
from store.tables import events, recordings
from tests.servers.postgres import PostgresServer
from tests.store.classes import START_US, callback, keep, random_deliveries, random_event, random_groups
from tests.store.process import all_deliveries, groups_of

STARTED = keep(callback("OnlineRecordStarted", TaskId="t", RoomId=1))
STOPPED = keep(callback("OnlineRecordStopped", timestamp=101, TaskId="t"))
FINISHED = keep(callback("OnlineRecordFinished", timestamp=102, TaskId="t", VideoInfos=[{"VideoId": "v"}]))


@pytest.fixture
async def store(migrated_postgres_url: str) -> AsyncIterator[Store]:
    async with Store(migrated_postgres_url) as store:
        yield store


@pytest.fixture
async def careful(migrated_postgres_url: str) -> AsyncIterator[Store]:
    """Give another process's store of the same database, that goes the careful way."""
    async with Store(migrated_postgres_url, is_direct=False) as store:
        yield store


class Statements:
    """What a store sends: `direct` the statements of the direct way, `careful` those of the other."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.direct: list[str] = []
        self.careful: list[str] = []
        fetch = direct._Borrowed.fetch

        async def noted(borrowed: Any, statement: str, *parameters: object) -> list[Any]:
            self.direct.append("read" if "wanted" in statement else "write")
            return await fetch(borrowed, statement, *parameters)

        monkeypatch.setattr(direct._Borrowed, "fetch", noted)
        event.listen(store._engine.sync_engine, "before_cursor_execute", lambda *args: self.careful.append(args[2]))


@pytest.fixture
def statements(store: Store, monkeypatch: pytest.MonkeyPatch) -> Statements:
    return Statements(store, monkeypatch)


def before_write(monkeypatch: pytest.MonkeyPatch, act: Callable[[Any], Awaitable[object]]) -> None:
    """Let something happen once, between the two statements of the direct way."""
    write = direct._write
    is_done = False

    async def after_act(borrowed: Any, *arguments: Any) -> Any:
        nonlocal is_done
        if not is_done:
            is_done = True
            await act(borrowed)
        return await write(borrowed, *arguments)

    monkeypatch.setattr(direct, "_write", after_act)


def archived_event(*, task_id: str) -> KeptEvent:
    """Make the event of ours, which is of a recording and changes none."""
    manifest = Manifest(sdk_app_id=1, task_id=task_id, folder="f", location="l", archived_at="2026-01-01T00:00:00Z")
    archived = RecordingArchived(timestamp=100, sdk_app_id=1, task_id=task_id, manifest=manifest)
    body, event_id = encode_archived(archived)
    return KeptEvent(event=archived, event_id=event_id, received_at_us=START_US, body=body, source="archive")


async def rows_of(store: Store) -> list[Any]:
    async with store.reading() as connection:
        return [
            [tuple(row) for row in await connection.execute(select(table).order_by(*table.primary_key))]
            for table in (events, recordings)
        ]


async def clear(store: Store) -> None:
    async with store.writing() as connection:
        await connection.execute(delete(events))
        await connection.execute(delete(recordings))


def any_deliveries(random: Random) -> list[KeptEvent]:
    """Make deliveries of several recordings, and of what belongs to none or claims another one's id."""
    deliveries = [one for number in range(3) for one in random_deliveries(random, task_id=f"t{number}", most=5)]
    ahead = callback("OnlineRecordStarted", timestamp=START_US // 1_000_000 + 86_401, TaskId="t0")
    deliveries += [
        keep(ahead),
        keep(ahead, received_at_us=START_US + 2_000_000),
        keep(callback("TranscodeFinished", TaskId="t0", Number=random.randint(0, 1))),
        keep(callback("OnlineRecordFinished", Error={"Code": "c"})),
        archived_event(task_id="t0"),
        msgspec.structs.replace(random_event(random, task_id="t3"), event_id=deliveries[0].event_id),
    ]
    chosen = [one for one in deliveries if random.choice((True, True, False))]
    chosen += [random.choice(deliveries) for _ in range(random.randint(0, 3))]
    random.shuffle(chosen)
    return chosen


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(random=st.randoms(use_true_random=False))
async def test_both_ways_and_any_mixture_of_them_end_in_the_same_rows(
    store: Store, careful: Store, random: Random
) -> None:
    groups = random_groups(random, any_deliveries(random))
    ended: list[Any] = []
    for ways in ([careful], [store], [store, careful]):
        await clear(store)
        for group in groups:
            await apply_events(random.choice(ways), group)
        ended.append(await rows_of(store))
    assert ended[1] == ended[0]
    assert ended[2] == ended[0]


async def test_a_new_recording_takes_one_statement_and_a_known_one_two(store: Store, statements: Statements) -> None:
    for one, taken in ((STARTED, ["write"]), (STOPPED, ["read", "write"]), (FINISHED, ["read", "write"])):
        statements.direct.clear()
        await apply_events(store, [one])
        assert statements.direct == taken
    statements.direct.clear()
    await apply_events(store, [keep(callback("OnlineRecordStarted", TaskId=f"n{number}")) for number in range(100)])
    await apply_events(store, [keep(callback("TranscodeFinished", TaskId="t"))])
    assert statements.direct == ["write", "write"]
    assert statements.careful == []
    assert await find_recordings(store, "t") == [fold([STARTED, STOPPED, FINISHED])]


async def test_a_repetition_that_changes_nothing_is_seen_to_directly(store: Store, statements: Statements) -> None:
    await apply_events(store, [STARTED])
    again = msgspec.structs.replace(STARTED, received_at_us=START_US + 1, source="reconcile")
    await apply_events(store, [again])
    assert statements.careful == []
    assert await find_recordings(store, "t") == [fold([STARTED, again])]


async def test_a_repetition_that_says_more_is_kept(store: Store, statements: Statements) -> None:
    await apply_events(store, [STARTED, FINISHED])
    confirmed = msgspec.structs.replace(FINISHED, verified=True)
    earlier = msgspec.structs.replace(STARTED, received_at_us=START_US - 1)
    for more in (confirmed, earlier):
        statements.careful.clear()
        await apply_events(store, [more])
        assert statements.careful
    assert await find_recordings(store, "t") == [fold([STARTED, FINISHED, confirmed, earlier])]


async def test_a_queue_that_is_worked_off_before_the_others_takes_one_statement_for_a_group(
    store: Store, statements: Statements
) -> None:
    async def finish(first: int) -> list[str]:
        statements.direct.clear()
        numbers = range(first, first + 10)
        await apply_events(store, [keep(callback("OnlineRecordFinished", TaskId=f"t{number}")) for number in numbers])
        return [*statements.direct]

    assert await finish(0) == ["read", "write"]
    assert await finish(10) == ["write"]
    await apply_events(store, [keep(callback("OnlineRecordStarted", TaskId=f"t{number}")) for number in range(20, 40)])
    assert await finish(20) == ["write", "read", "write"]
    assert await finish(30) == ["read", "write"]
    assert statements.careful == []
    assert {recording.status for recording in await list_recordings(store)} == {"FINISHED"}


async def test_a_plan_for_tables_that_are_small_is_not_kept_for_a_backlog(store: Store) -> None:
    for number in range(8):
        stopped = callback("OnlineRecordStopped", timestamp=100 + number)
        await apply_events(store, [keep(stopped | {"EventData": {"TaskId": task_id}}) for task_id in ("a", "b")])
        await apply_events(store, [keep(callback("OnlineRecordStarted", TaskId=task_id)) for task_id in ("a", "b")])
    assert isinstance(store._direct, direct.PostgresDirect)
    (borrowed,) = store._direct._idle
    plans = await borrowed.driver.fetch(
        "SELECT generic_plans, custom_plans FROM pg_prepared_statements"
        " WHERE statement LIKE '%AS once%' AND name LIKE 'tiw%'"
    )
    assert [tuple(row) for row in plans] == [(0, plans[0]["custom_plans"])]
    assert plans[0]["custom_plans"] > 5  # after which PostgreSQL would keep one


async def test_a_recording_with_more_events_than_are_read_is_merged_all_the_same(store: Store) -> None:
    many = [
        keep(callback("OnlineRecordStopped", timestamp=200 + number, TaskId="t", RoomId=number)) for number in range(40)
    ]
    for one in [STARTED, *many, FINISHED]:
        await apply_events(store, [one])
    assert await find_recordings(store, "t") == [fold([STARTED, *many, FINISHED])]


@pytest.mark.parametrize("is_known", [True, False])
async def test_what_another_process_does_between_the_statements_is_not_lost(
    store: Store, careful: Store, statements: Statements, monkeypatch: pytest.MonkeyPatch, *, is_known: bool
) -> None:
    if is_known:
        await apply_events(store, [STARTED])
    before_write(monkeypatch, lambda _: apply_events(careful, [FINISHED]))
    await apply_events(store, [STOPPED])
    assert statements.careful
    assert await find_recordings(store, "t") == [fold([*([STARTED] if is_known else []), STOPPED, FINISHED])]


async def test_an_answer_of_the_vendor_between_the_statements_is_not_lost(
    store: Store, careful: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await apply_events(store, [STARTED, FINISHED])
    before_write(monkeypatch, lambda _: mark_verified(careful, FINISHED.event_id, False))
    await apply_events(store, [STOPPED])
    (recording,) = await find_recordings(store, "t")
    assert recording.status == "STOPPED"


async def test_a_recording_that_is_forgotten_between_the_statements_is_made_anew(
    store: Store, careful: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await apply_events(store, [STARTED])
    before_write(monkeypatch, lambda _: clear(careful))
    await apply_events(store, [STOPPED])
    assert await find_recordings(store, "t") == [fold([STOPPED])]


async def test_a_recording_that_is_forgotten_before_the_careful_way_locks_it_is_made_anew(
    store: Store, careful: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await apply_events(store, [STARTED])
    lock = careful_statements.lock_recordings
    forgetting = [clear]

    async def forget_and_lock(*arguments: Any) -> Any:
        if forgetting:
            await forgetting.pop()(store)
        return await lock(*arguments)

    monkeypatch.setattr(careful_statements, "lock_recordings", forget_and_lock)
    await apply_events(careful, [STOPPED])
    assert await find_recordings(store, "t") == [fold([STOPPED])]


async def test_what_is_pruned_between_the_statements_makes_no_difference(
    store: Store, careful: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = keep(callback("OnlineRecordStarted", timestamp=101, TaskId="t", RoomId=2))
    await apply_events(store, [STARTED, later])

    async def prune(_: Any) -> None:
        deleted = [pruned.deleted async for pruned in prune_events(careful, older_than_s=60)]
        assert deleted == [1]

    before_write(monkeypatch, prune)
    await apply_events(store, [STOPPED])
    assert await find_recordings(store, "t") == [fold([later, STOPPED])]


@pytest.mark.parametrize("is_known", [True, False])
async def test_a_connection_that_is_lost_between_the_statements_loses_nothing(
    store: Store, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch, *, is_known: bool
) -> None:
    if is_known:
        await apply_events(store, [STARTED])
    pid = -1

    async def end(borrowed: Any) -> None:
        nonlocal pid
        pid = borrowed.driver.get_server_pid()
        postgres.query(f"SELECT pg_terminate_backend({pid}, 5000)")

    before_write(monkeypatch, end)
    await apply_events(store, [FINISHED])
    assert pid != -1
    assert await find_recordings(store, "t") == [fold([*([STARTED] if is_known else []), FINISHED])]


async def test_who_dies_between_the_statements_leaves_nothing_and_a_repetition_mends_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await apply_events(store, [STARTED])
    reached = asyncio.Event()

    async def die(_: Any) -> None:
        reached.set()
        await asyncio.Event().wait()

    before_write(monkeypatch, die)
    applying = asyncio.ensure_future(apply_events(store, [FINISHED]))
    await reached.wait()
    applying.cancel()
    await asyncio.wait({applying})
    assert applying.cancelled()
    assert await find_recordings(store, "t") == [fold([STARTED])]
    assert await count_events(store) == 1
    await apply_events(store, [FINISHED])
    assert await find_recordings(store, "t") == [fold([STARTED, FINISHED])]


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.SerializationError("could not serialize access"),
        asyncpg.DeadlockDetectedError("deadlock detected"),
        asyncpg.FeatureNotSupportedError("cached plan must not change result type"),
        asyncpg.DuplicatePreparedStatementError("prepared statement already exists"),
        asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
        asyncpg.InterfaceError("the underlying connection is closed"),
        ConnectionResetError(),
        ValueError("what only the direct way stumbles over"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_what_fails_is_tried_again_the_careful_way_on_another_connection(
    store: Store, statements: Statements, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    used: list[Any] = []

    async def fail(borrowed: Any) -> None:
        used.append(borrowed.driver)
        raise error

    before_write(monkeypatch, fail)
    await apply_events(store, [STARTED])
    assert statements.careful
    assert used[0].is_closed()
    assert await find_recordings(store, "t") == [fold([STARTED])]


async def test_events_are_inserted_in_the_order_in_which_the_careful_way_locks_them(store: Store) -> None:
    ids = ["A-b", "B", "Aa", "a", "b", "a-c"]
    plain = [keep(callback("Else", Number=number)) for number in range(len(ids))]
    await apply_events(store, [msgspec.structs.replace(one, event_id=own) for one, own in zip(plain, ids, strict=True)])
    async with store.reading() as connection:
        kept = (await connection.execute(text("SELECT event_id FROM events ORDER BY ctid"))).scalars().all()
    assert kept == sorted(ids)


async def test_no_connection_is_kept_from_the_others_once_a_pooler_was_found(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await apply_events(store, [STARTED])
    assert isinstance(store._direct, direct.PostgresDirect)
    assert len(store._direct._idle) == 1
    monkeypatch.setattr(store._direct, "_is_pooled", lambda: True)
    await apply_events(store, [FINISHED])
    assert store._direct._idle == []
    assert await find_recordings(store, "t") == [fold([STARTED, FINISHED])]


async def test_a_connection_to_a_server_that_is_read_only_now_is_not_used_again(store: Store) -> None:
    await apply_events(store, [STARTED])
    assert isinstance(store._direct, direct.PostgresDirect)
    (borrowed,) = store._direct._idle
    await borrowed.driver.execute("SET default_transaction_read_only = on")
    await apply_events(store, [FINISHED])
    assert borrowed.driver.is_closed()
    assert await find_recordings(store, "t") == [fold([STARTED, FINISHED])]


async def test_a_server_that_was_started_anew_is_not_noticed(store: Store, postgres: PostgresServer) -> None:
    await apply_events(store, [STARTED])
    postgres.stop()
    with pytest.raises(StoreUnavailableError):
        await apply_events(store, [STOPPED])
    postgres.start()
    await apply_events(store, [STOPPED])
    await apply_events(store, [FINISHED])
    assert await find_recordings(store, "t") == [fold([STARTED, STOPPED, FINISHED])]


async def test_a_time_out_is_not_waited_for_twice(migrated_postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Store(migrated_postgres_url) as other, Store(migrated_postgres_url, statement_timeout_s=0.3) as store:
        await apply_events(store, [STARTED])
        statements = Statements(store, monkeypatch)
        async with other.writing() as connection:
            await connection.execute(text("SELECT FROM recordings FOR UPDATE"))
            with pytest.raises(StoreUnavailableError, match="statement timeout"):
                await apply_events(store, [FINISHED])
        assert statements.careful == []
        await apply_events(store, [FINISHED])
    async with Store(migrated_postgres_url) as store:
        assert await find_recordings(store, "t") == [fold([STARTED, FINISHED])]


@pytest.mark.parametrize("pool_size", [1, 4])
async def test_a_process_has_no_more_connections_than_its_pool(
    postgres: PostgresServer, migrated_postgres_url: str, pool_size: int
) -> None:
    name = migrated_postgres_url.rpartition("/")[2]
    log_before = len(postgres.log())
    async with Store(f"{migrated_postgres_url}?pool_size={pool_size}") as store:

        async def keep_one(number: int) -> None:
            await apply_events(store, [keep(callback("OnlineRecordStarted", TaskId=f"t{number}"))])
            await count_events(store)

        await asyncio.gather(*(keep_one(number) for number in range(30)))
        there = postgres.query("SELECT datname FROM pg_stat_activity").split().count(name)
        assert 0 < there <= pool_size
        assert await count_events(store) == 30
    # As one that is given back and borrowed again would have it, were everything prepared again.
    assert "already exists" not in postgres.log()[log_before:]


async def test_who_is_interrupted_gives_the_connection_back(migrated_postgres_url: str, store: Store) -> None:
    await apply_events(store, [STARTED])
    async with Store(f"{migrated_postgres_url}?pool_size=2") as interrupted:
        for _ in range(6):
            async with store.writing() as connection:
                await connection.execute(text("SELECT FROM recordings FOR UPDATE"))
                applying = asyncio.ensure_future(apply_events(interrupted, [FINISHED]))
                while not (await connection.execute(_WAITING)).scalar_one():
                    await connection.execute(text("SELECT pg_sleep(0.01)"))
                applying.cancel()
                await asyncio.wait({applying})
                assert applying.cancelled()
        await apply_events(interrupted, [FINISHED])
        await asyncio.gather(count_events(interrupted), count_events(interrupted))
    assert await find_recordings(store, "t") == [fold([STARTED, FINISHED])]


_WAITING = text("SELECT count(*) FROM pg_locks WHERE NOT granted")


async def test_claims_and_completions_are_one_statement_each_and_survive_a_lost_connection(
    store: Store, statements: Statements, postgres: PostgresServer
) -> None:
    async def claim_and_complete(event_id: str) -> None:
        claimed = await claim(store, consumer="c", event_ids=[event_id], lease_holder="h", lease_s=60)
        assert claimed == {event_id: Claim.CLAIMED}
        await complete(store, consumer="c", event_ids=[event_id], lease_holder="h")

    await claim_and_complete("a")
    assert (len(statements.direct), statements.careful) == (2, [])
    assert isinstance(store._direct, direct.PostgresDirect)
    (borrowed,) = store._direct._idle
    postgres.query(f"SELECT pg_terminate_backend({borrowed.driver.get_server_pid()}, 5000)")
    await claim_and_complete("b")
    for event_id in ("a", "b"):
        claimed = await claim(store, consumer="c", event_ids=[event_id], lease_holder="other", lease_s=60)
        assert claimed == {event_id: Claim.COMPLETED}


async def test_no_statement_is_prepared_where_the_address_says_so(migrated_postgres_url: str) -> None:
    async with Store(f"{migrated_postgres_url}?statement_cache_size=0") as store:
        assert store._direct is None


@pytest.mark.parametrize("isolation", ["read committed", "serializable"])
async def test_eight_writers_of_both_ways_at_once_lose_no_update(
    postgres: PostgresServer, migrated_postgres_url: str, isolation: str
) -> None:
    log_before = len(postgres.log())
    options = "?options=-c%20default_transaction_isolation%3Dserializable" if isolation == "serializable" else ""

    async def apply_part(seed: int, starting: asyncio.Barrier) -> None:
        async with Store(migrated_postgres_url + options, is_direct=seed % 4 != 0) as store:
            await starting.wait()
            for group in groups_of(seed, of=8):
                while True:
                    try:
                        await apply_events(store, group)
                    except StoreUnavailableError:  # too many were in its way: the event is delivered again
                        assert isolation == "serializable"
                        continue
                    break

    starting = asyncio.Barrier(8)
    async with asyncio.TaskGroup() as tasks:
        for seed in range(8):
            tasks.create_task(apply_part(seed, starting))
    everything = all_deliveries()
    async with Store(migrated_postgres_url) as store:
        for task_id, deliveries in everything.items():
            assert await find_recordings(store, task_id) == [fold(deliveries)]
        assert await count_events(store) == len({one.event_id for some in everything.values() for one in some})
    assert "deadlock" not in postgres.log()[log_before:]
