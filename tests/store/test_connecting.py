import asyncio
import signal
import sqlite3
import stat
from pathlib import Path

import pytest
from sqlalchemy import Connection, event, insert, select, text

from store import SchemaMismatchError, Store, StoreError, StoreUnavailableError, apply_events, count_events, migrate
from store.connection import AsyncConnection
from store.tables import consumers
from tests.servers.postgres import PostgresServer
from tests.store.classes import callback, keep

STARTED = keep(callback("OnlineRecordStarted", TaskId="t"))


@pytest.mark.parametrize(
    "url",
    [
        "sqlite+aiosqlite://",
        "sqlite+aiosqlite:///:memory:",
        "sqlite:///a.db",
        "postgresql://h/d",
        "mysql://u:hidden@h/d",
        "u:hidden@h",
        "postgresql+asyncpg://u:hidden@h/d?keepalives=1",
        "postgresql+asyncpg://u:hidden@h:port/d",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_with_what_to_set(url: str) -> None:
    with pytest.raises(StoreError, match=r"://|known are") as raised:
        Store(url)
    assert "hidden" not in str(raised.value)


def test_the_safe_url_has_no_password() -> None:
    store = Store("postgresql+asyncpg://tiw:hidden@db.example/tiw?password=hidden")
    assert store.safe_url == "postgresql+asyncpg://tiw:***@db.example/tiw"
    assert store.url == "postgresql+asyncpg://tiw:hidden@db.example/tiw?password=hidden"
    assert "hidden" not in repr(store)


async def test_the_sqlite_file_and_its_folder_are_private(sqlite_url: str) -> None:
    async with Store(sqlite_url) as store:
        await migrate(store)
        await apply_events(store, [STARTED])
        folder = Path(sqlite_url.removeprefix("sqlite+aiosqlite:///")).parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {"tiw.db": 0o600, "tiw.db-wal": 0o600, "tiw.db-shm": 0o600}


async def test_sqlite_commits_durably(sqlite_url: str) -> None:
    async with Store(sqlite_url) as store, store.reading() as connection:
        assert (await connection.execute(text("PRAGMA journal_mode"))).scalar() == "wal"
        assert (await connection.execute(text("PRAGMA synchronous"))).scalar() == 2  # FULL


async def test_entering_needs_no_database() -> None:
    async with Store("postgresql+asyncpg://tiw@127.0.0.1:1/tiw") as store:
        async with asyncio.timeout(5):
            with pytest.raises(StoreUnavailableError, match=r"postgresql\+asyncpg://tiw@127.0.0.1:1/tiw"):
                await count_events(store)


async def test_a_missing_database_is_a_store_that_is_away(postgres: PostgresServer) -> None:
    async with Store(postgres.url("absent")) as store:
        with pytest.raises(StoreUnavailableError, match='database "absent" does not exist'):
            await count_events(store)


async def test_a_role_without_privileges_is_a_store_that_is_away(postgres: PostgresServer, postgres_url: str) -> None:
    postgres.query("DROP ROLE IF EXISTS outsider")
    postgres.query("CREATE ROLE outsider LOGIN")
    async with Store(postgres_url.replace("tiw@", "outsider@")) as store:
        with pytest.raises(StoreUnavailableError, match="permission denied"):
            await migrate(store)


async def test_missing_tables_ask_for_a_migration(store_url: str) -> None:
    async with Store(store_url) as store:
        with pytest.raises(SchemaMismatchError, match="run `tiw migrate`"):
            await count_events(store)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT, signal.SIGKILL], ids=["fast", "immediate", "killed"])
async def test_a_stopped_server_is_away_and_comes_back_by_itself(
    postgres: PostgresServer, postgres_url: str, how: signal.Signals
) -> None:
    async with Store(postgres_url) as store:
        await migrate(store)
        await asyncio.gather(*(count_events(store) for _ in range(10)))
        await asyncio.to_thread(postgres.stop, how)
        async with asyncio.timeout(5):
            for _ in range(3):
                with pytest.raises(StoreUnavailableError):
                    await apply_events(store, [STARTED])
                with pytest.raises(StoreUnavailableError):
                    await count_events(store)
        await asyncio.to_thread(postgres.start)
        await apply_events(store, [STARTED])
        assert await asyncio.gather(*(count_events(store) for _ in range(10))) == [1] * 10


async def test_a_server_that_stops_under_a_statement_is_away(postgres: PostgresServer, postgres_url: str) -> None:
    async with Store(postgres_url) as store:
        executing = asyncio.Event()

        async def sleep(connection: AsyncConnection) -> None:
            await connection.execute(text("SELECT 1"))
            executing.set()
            await connection.execute(text("SELECT pg_sleep(60)"))

        sleeping = asyncio.ensure_future(store.write(sleep))
        await executing.wait()
        await asyncio.to_thread(postgres.stop, signal.SIGINT)
        with pytest.raises(StoreUnavailableError):
            await sleeping


async def test_a_server_that_hangs_is_away_within_bounds_and_comes_back(
    postgres: PostgresServer, postgres_url: str
) -> None:
    async with Store(postgres_url, statement_timeout_s=0.5) as store:
        await migrate(store)
        await count_events(store)
        postgres.freeze()
        try:
            async with asyncio.timeout(20):
                with pytest.raises(StoreUnavailableError):
                    await apply_events(store, [STARTED])
                with pytest.raises(StoreUnavailableError):
                    await count_events(store)
        finally:
            postgres.thaw()
        await apply_events(store, [STARTED])
        assert await count_events(store) == 1


async def test_a_statement_that_takes_too_long_is_ended_and_the_connection_lives(postgres_url: str) -> None:
    async with Store(postgres_url, statement_timeout_s=0.2) as store:
        async with store.reading() as connection:
            backend = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
        with pytest.raises(StoreUnavailableError, match="statement timeout"):
            async with store.reading() as connection:
                await connection.execute(text("SELECT pg_sleep(60)"))
        async with store.reading() as connection:
            assert (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one() == backend


async def test_a_deadlock_is_run_again(postgres_url: str) -> None:
    async with Store(postgres_url) as store:
        runs = 0
        both_hold_one = asyncio.Barrier(2)

        async def lock(first: int, second: int) -> None:
            async def operation(connection: AsyncConnection) -> None:
                nonlocal runs
                runs += 1
                query = text("SELECT pg_advisory_xact_lock(:key)")
                await connection.execute(query, {"key": first})
                if runs <= 2:
                    await both_hold_one.wait()
                await connection.execute(query, {"key": second})

            await store.write(operation)

        await asyncio.gather(lock(1, 2), lock(2, 1))
        assert runs == 3


async def test_a_locked_sqlite_file_is_waited_for_and_away_in_the_end(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.drivers.sqlite.BUSY_TIMEOUT_S", 0.05)
    async with Store(sqlite_url) as store:
        await migrate(store)
        other = sqlite3.connect(sqlite_url.removeprefix("sqlite+aiosqlite:///"), isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreUnavailableError, match="database is locked"):
                await apply_events(store, [STARTED])
            assert await count_events(store) == 0
            waiting = asyncio.ensure_future(apply_events(store, [STARTED]))
            await asyncio.sleep(0)
            other.execute("ROLLBACK")
            await waiting
        finally:
            other.close()
        assert await count_events(store) == 1


async def test_a_file_that_is_no_database_is_away(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_bytes(b"not a database" * 1000)
    async with Store(f"sqlite+aiosqlite:///{tmp_path}/a.db") as store:
        with pytest.raises(StoreUnavailableError, match="not a database"):
            await count_events(store)
    async with Store(f"sqlite+aiosqlite:///{tmp_path}/a.db/impossible.db") as store:
        with pytest.raises(StoreUnavailableError):
            await count_events(store)


async def test_an_error_of_ours_is_not_hidden_and_rolls_back(store: Store) -> None:
    async def fail_in_the_middle() -> None:
        async with store.writing() as connection:
            await connection.execute(insert(consumers).values(name="a", routing_keys=[]))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail_in_the_middle()
    async with store.reading() as connection:
        assert (await connection.execute(select(consumers))).all() == []


async def test_a_cancelled_transaction_is_rolled_back_and_holds_nobody_up(store: Store) -> None:
    entered = asyncio.Event()

    async def hang() -> None:
        async with store.writing() as connection:
            await connection.execute(insert(consumers).values(name="a", routing_keys=[]))
            entered.set()
            await asyncio.Event().wait()

    for _ in range(12):
        entered.clear()
        hanging = asyncio.ensure_future(hang())
        await entered.wait()
        hanging.cancel()
        await asyncio.wait({hanging})
    await apply_events(store, [STARTED])
    async with store.reading() as connection:
        assert (await connection.execute(select(consumers))).all() == []


async def test_a_writer_that_is_cancelled_while_it_waits_for_sqlite_takes_no_lock_along(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.drivers.sqlite.BUSY_TIMEOUT_S", 0.2)
    async with Store(sqlite_url, is_direct=False) as store:
        await migrate(store)
        begun = asyncio.Event()
        event.listen(store._engine.sync_engine, "before_cursor_execute", lambda *_: begun.set())
        other = sqlite3.connect(sqlite_url.removeprefix("sqlite+aiosqlite:///"), isolation_level=None)
        try:
            for _ in range(3):
                other.execute("BEGIN IMMEDIATE")
                begun.clear()
                waiting = asyncio.ensure_future(apply_events(store, [STARTED]))
                async with asyncio.timeout(5):
                    await begun.wait()
                waiting.cancel()
                await asyncio.wait({waiting})
                assert waiting.cancelled()
                other.execute("ROLLBACK")
                await apply_events(store, [STARTED])
                other.execute("BEGIN IMMEDIATE")
                other.execute("ROLLBACK")
        finally:
            other.close()


async def test_a_sqlite_file_that_was_replaced_is_the_one_that_is_written_from_then_on(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/store.db"
    async with Store(url) as store:
        await migrate(store)
        backup = tmp_path / "backup.db"
        with sqlite3.connect(tmp_path / "store.db") as source, sqlite3.connect(backup) as target:
            source.backup(target)
        source.close()
        target.close()
        backup.rename(tmp_path / "store.db")
        for name in ("store.db-wal", "store.db-shm"):
            (tmp_path / name).unlink(missing_ok=True)
        await apply_events(store, [STARTED])
    async with Store(url) as store:
        assert await count_events(store) == 1


async def test_who_is_cancelled_while_a_connection_is_given_back_goes_on_once_it_is_back() -> None:
    is_closing, may_end, closed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    class Slow(AsyncConnection):
        async def close(self) -> None:
            is_closing.set()
            await may_end.wait()
            closed.set()

    async def use() -> None:
        async with Slow(Connection.__new__(Connection)):
            pass

    using = asyncio.create_task(use())
    await is_closing.wait()
    for _ in range(2):
        using.cancel()
        await asyncio.wait({using}, timeout=0)
    assert not using.done()
    may_end.set()
    await asyncio.wait({using})
    assert using.cancelled()
    assert closed.is_set()
