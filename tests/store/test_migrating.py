import asyncio
from functools import partial
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, insert, inspect, text, update
from structlog.testing import capture_logs

from store import (
    Question,
    SchemaMismatchError,
    Store,
    StoreUnavailableError,
    apply_events,
    ask,
    check_schema,
    count_dead_letters,
    count_events,
    find_question,
    find_recordings,
    find_unplanned,
    fold,
    group_dead_letters,
    list_events,
    migrate,
    pages_of_dead_letters,
    wait_for_schema,
)
from store.connection import AsyncConnection
from store.migrating import LEVEL, SCRIPTS
from store.tables import metadata, schema_level
from tests.store.classes import callback, keep
from tests.store.processes import run_at_once, started


async def test_an_empty_database_is_brought_up_and_left_alone_after_that(store_url: str) -> None:
    async with Store(store_url) as store:
        with pytest.raises(SchemaMismatchError, match="run `tiw migrate`"):
            await check_schema(store)
        await migrate(store)
        await check_schema(store)
        await migrate(store)
        await check_schema(store)


async def test_four_processes_may_migrate_at_once(store_url: str) -> None:
    await run_at_once("migrate", store_url, 4)
    async with Store(store_url) as store:
        await check_schema(store)


async def test_the_migrations_build_what_the_code_declares(store: Store) -> None:
    def differences(connection: Connection) -> list[object]:
        options = {"compare_type": True, "compare_server_default": True}
        found = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
        names = set(inspect(connection).get_table_names()) ^ set(metadata.tables)
        return [*found, *(names - {"alembic_version"})]

    async with store.reading() as connection:
        assert await connection.run_sync(differences) == []


async def test_keys_sort_by_their_bytes_on_postgresql(postgres_url: str) -> None:
    async with Store(postgres_url) as store:
        await migrate(store)
        query = "SELECT table_name || '.' || column_name FROM information_schema.columns WHERE collation_name = 'C'"
        async with store.reading() as connection:
            built = set((await connection.execute(text(query))).scalars())
    declared = {
        f"{table.name}.{column.name}"
        for table in metadata.tables.values()
        for column in table.columns
        if getattr(column.type.dialect_impl(store._engine.sync_engine.dialect), "collation", None) == "C"
    }
    assert declared
    assert built >= declared
    assert {name for name in built if name.partition(".")[0] in metadata.tables} == declared


def test_the_level_is_that_of_the_newest_migration() -> None:
    scripts = ScriptDirectory(str(SCRIPTS))
    assert scripts.get_heads() == [f"{LEVEL:04}"]
    for revision in scripts.walk_revisions():
        assert 1 <= revision.module.USABLE_SINCE <= int(revision.revision)


async def set_level(store: Store, *, level: int, usable_since: int) -> None:
    async with store.writing() as connection:
        await connection.execute(update(schema_level).values(level=level, usable_since=usable_since))


async def test_old_code_goes_on_beside_a_newer_additive_migration(store: Store) -> None:
    await set_level(store, level=LEVEL + 1, usable_since=LEVEL)
    await check_schema(store)
    await migrate(store)
    async with store.reading() as connection:
        level = (await connection.execute(text("SELECT level FROM schema_level"))).scalar_one()
    assert level == LEVEL + 1


async def test_code_that_is_too_old_says_so_and_touches_nothing(store: Store) -> None:
    await set_level(store, level=LEVEL + 2, usable_since=LEVEL + 1)
    with pytest.raises(SchemaMismatchError, match="run the newer version"):
        await check_schema(store)
    with pytest.raises(SchemaMismatchError, match="run the newer version"):
        await migrate(store)


async def test_older_tables_ask_for_a_migration(store: Store) -> None:
    await set_level(store, level=LEVEL - 1, usable_since=LEVEL - 1)
    with pytest.raises(
        SchemaMismatchError, match=rf"have level {LEVEL - 1}, this version needs {LEVEL}: run `tiw migrate`"
    ):
        await check_schema(store)


async def test_waiting_for_the_schema_says_so_once_and_ends_with_the_migration(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = 0

    async def check_and_migrate_at_the_fifth(store: Store) -> None:
        nonlocal checks
        checks += 1
        if checks == 2:
            raise StoreUnavailableError("away")
        if checks == 5:
            await migrate(store)
        await check_schema(store)

    monkeypatch.setattr("store.migrating.check_schema", check_and_migrate_at_the_fifth)
    async with Store(store_url) as store:
        with capture_logs() as logs:
            await wait_for_schema(store, poll_s=0.01)
    assert checks == 5
    assert [entry["event"] for entry in logs] == ["schema_awaited"]
    assert "tiw migrate" in logs[0]["reason"]


async def test_waiting_reminds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("store.migrating.REMINDER_S", 0.0)
    failures = 3

    async def fail_three_times(_: Store) -> None:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise StoreUnavailableError("away")

    monkeypatch.setattr("store.migrating.check_schema", fail_three_times)
    async with Store(f"sqlite+aiosqlite:///{tmp_path}/a.db") as store:
        with capture_logs() as logs:
            await wait_for_schema(store, poll_s=0.0)
    assert len(logs) == 3


async def test_a_migration_that_fails_leaves_nothing(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    async with Store(store_url) as store:
        with monkeypatch.context() as broken:
            broken.setattr("store.migrating.insert", fail)
            with pytest.raises(ZeroDivisionError):
                await migrate(store)
        async with store.reading() as connection:
            assert await connection.run_sync(lambda sync: inspect(sync).get_table_names()) == []
        await migrate(store)
        await check_schema(store)


async def test_a_migration_that_is_killed_in_the_middle_leaves_nothing_and_holds_nobody_up(store_url: str) -> None:
    async with Store(store_url) as store, asyncio.timeout(60):
        async with started("migrate-and-hang", store_url) as process:
            assert process.stdout is not None
            while await process.stdout.readline() != b"in the middle\n":
                pass
            process.kill()
            await process.wait()
        async with store.reading() as connection:
            assert await connection.run_sync(lambda sync: inspect(sync).get_table_names()) == []
        await migrate(store)
        await check_schema(store)


async def _add_columns(connection: AsyncConnection) -> None:
    """Migrate as a later version would: it adds, and whoever does not know of it goes on."""
    await connection.execute(text("ALTER TABLE events ADD COLUMN remark text"))
    await connection.execute(text("ALTER TABLE recordings ADD COLUMN note text DEFAULT 'none' NOT NULL"))
    await connection.execute(update(schema_level).values(level=LEVEL + 1))


async def test_events_are_applied_while_an_additive_migration_runs(store: Store) -> None:
    applied = 0
    is_under_way, is_migrated = asyncio.Event(), asyncio.Event()

    async def apply() -> None:
        nonlocal applied
        while not is_migrated.is_set() or applied % 10:
            await apply_events(store, [keep(callback("OnlineRecordStarted", applied, TaskId=f"t{applied % 3}"))])
            applied += 1
            if applied == 10:
                is_under_way.set()

    async with asyncio.timeout(60):
        old = asyncio.create_task(apply())
        await is_under_way.wait()
        async with Store(store.url) as newer:
            # As `migrate` does it: repeated where it was the victim of a deadlock.
            await newer.write(_add_columns)
        is_migrated.set()
        await old
    await check_schema(store)
    assert await count_events(store) == applied


def _to_level(level: int, connection: Connection) -> None:
    """Make the tables as the version of this level had them."""
    scripts = ScriptDirectory(str(SCRIPTS))
    with EnvironmentContext(
        Config(),
        scripts,
        fn=lambda revision, _: scripts._upgrade_revs(f"{level:04}", revision),
    ) as environment:
        environment.configure(connection=connection, transactional_ddl=True)
        environment.run_migrations()
    connection.execute(insert(schema_level).values(level=level, usable_since=1))


_EVENT_AT_2 = """INSERT INTO events
    (event_id, routing_key, event_type, sdk_app_id, task_id, timestamp, outranks, received_at_us, reason, body)
    VALUES (:event_id, :kind, :kind, 1, 't', :timestamp, true, :at_us, NULL, :body)"""
_RECORDING_AT_2 = """INSERT INTO recordings
    (sdk_app_id, task_id, status, failed, omitted_durations, videos, active_at_us)
    VALUES (1, 't', 'FINISHED', false, '[]', '[]', 1700000000000000)"""
_LETTER_AT_2 = """INSERT INTO dead_letters (consumer, event_id, event_type, sdk_app_id, attempts, reason,
    first_failed_at_us, last_failed_at_us, body, routing_key, received_at_us, trace)
    VALUES ('c', 'e', NULL, 1, 8, 'r', 1, 2, :body, 'OnlineRecordStarted', 1, '')"""


_LETTER_AT_5 = """INSERT INTO dead_letters (consumer, event_id, event_type, sdk_app_id, attempts, reason,
    first_failed_at_us, last_failed_at_us, body, routing_key, received_at_us, trace, source, traceback)
    VALUES ('c', :event_id, NULL, 1, 8, :reason, 1, 2, :body, 'OnlineRecordStarted', 1, '', '', '')"""


async def test_what_was_kept_at_level_2_survives(store_url: str) -> None:
    kept = [
        keep(callback("OnlineRecordStarted", 100, TaskId="t")),
        keep(callback("OnlineRecordFinished", 101, TaskId="t", TotalTime=5)),
    ]
    async with Store(store_url) as store:
        async with store.writing() as connection:
            await connection.run_sync(partial(_to_level, 2))
            for one in kept:
                values = {"event_id": one.event_id, "kind": type(one.event).__name__, "timestamp": one.event.timestamp}
                row = values | {"at_us": one.received_at_us, "body": one.body}
                await connection.execute(text(_EVENT_AT_2), row)
            await connection.execute(text(_RECORDING_AT_2))
            await connection.execute(text(_LETTER_AT_2), {"body": b"{}"})
        with pytest.raises(SchemaMismatchError, match="have level 2"):
            await check_schema(store)
        await migrate(store)
        await check_schema(store)

        assert {(row.source, row.verified) for row in await list_events(store)} == {("", None)}
        (recording,) = await find_recordings(store, "t")
        assert (recording.status, recording.verified, recording.found) == ("FINISHED", None, ())
        letters = [letter async for page in pages_of_dead_letters(store) for letter in page]
        assert [(letter.event_id, letter.source) for letter in letters] == [("e", "")]

        # What comes now is merged with what was there, and the version of before goes on beside.
        again = keep(callback("OnlineRecordFinished", 101, TaskId="t", TotalTime=5), verified=True)
        await apply_events(store, [again])
        late = keep(callback("OnlineRecordStopped", 100, TaskId="t", RoomId=7))
        async with store.writing() as connection:
            values = {"event_id": late.event_id, "kind": "OnlineRecordStopped", "timestamp": late.event.timestamp}
            await connection.execute(text(_EVENT_AT_2), values | {"at_us": late.received_at_us, "body": late.body})
        await apply_events(store, kept[:1])
        assert await find_recordings(store, "t") == [fold([*kept, again, late])]


async def test_letters_of_level_5_get_patterns_and_its_workers_go_on(store_url: str) -> None:
    async def keep_at_5(store: Store, *event_ids: str) -> None:
        async with store.writing() as connection:
            for event_id in event_ids:
                values = {"event_id": event_id, "reason": f"KeyError: '{event_id}'", "body": b"{}"}
                await connection.execute(text(_LETTER_AT_5), values)

    async with Store(store_url) as store:
        async with store.writing() as connection:
            await connection.run_sync(partial(_to_level, 5))
        many = [f"{number}" for number in range(1001)]
        await keep_at_5(store, *many)
        await migrate(store)
        await keep_at_5(store, "later", "latest")
        groups = {one.reason: one.count for one in await group_dead_letters(store)}
        assert groups == {"KeyError: '…'": 1001, "KeyError: 'later'": 1, "KeyError: 'latest'": 1}
        for reason, count in groups.items():
            assert await count_dead_letters(store, reason=reason) == {"c": count}


async def test_what_was_kept_at_level_3_survives_and_its_version_goes_on(store_url: str) -> None:
    async with Store(store_url) as store:
        async with store.writing() as connection:
            await connection.run_sync(partial(_to_level, 3))
        # No statement for events and questions names a table that level 3 has not.
        first, late = (keep(callback("OnlineRecordFinished", at, TaskId="t", TotalTime=at)) for at in (100, 101))
        await apply_events(store, [first])
        await ask(store, [Question(sdk_app_id=1, task_id="t", why="w")])
        with pytest.raises(SchemaMismatchError, match="have level 3"):
            await check_schema(store)
        await migrate(store)
        await check_schema(store)
        await apply_events(store, [late])
        assert await find_recordings(store, "t") == [fold([first, late])]
        assert await find_question(store, 1, "t") is not None
        found = await find_unplanned(store, since_us=0, needs_answer=False, limit=9)
        assert [one.task_id for one in found] == ["t"]
