"""A pooler between us and PostgreSQL, and the parameters that people write into the database's URL."""

import asyncio
import os
from collections.abc import Iterator

import pytest
from sqlalchemy import text

from store import (
    Claim,
    Store,
    StoreError,
    StoreUnavailableError,
    apply_events,
    check_writable,
    claim,
    complete,
    count_events,
    find_faults,
    migrate,
)
from tests.servers.pgbouncer import PgBouncer, pgbouncer_program
from tests.servers.postgres import PostgresServer
from tests.store.classes import callback, keep

NOT_INSTALLED = "PgBouncer is not installed: install pgbouncer, or run `./dev test` as root on Debian or Ubuntu"

#: As many people write it, so that connecting works; then prepared statements are what is left to stumble over.
_IGNORED = "ignore_startup_parameters=statement_timeout,idle_in_transaction_session_timeout\n"


@pytest.fixture(
    params=[("session", 20, ""), ("transaction", 3, ""), ("transaction", 3, _IGNORED)],
    ids=["session", "transaction", "transaction ignoring parameters"],
)
def pgbouncer(request: pytest.FixtureRequest, postgres: PostgresServer) -> Iterator[PgBouncer]:
    """Run PgBouncer as it is found."""
    program = pgbouncer_program()
    if program is None:
        if os.environ.get("CI") == "true":
            pytest.fail(NOT_INSTALLED)
        pytest.skip(NOT_INSTALLED)
    mode, pool_size, settings = request.param
    with PgBouncer(program, server_port=postgres.port, mode=mode, pool_size=pool_size, settings=settings) as pooler:
        yield pooler


@pytest.mark.parametrize("parameters", ["", "?statement_cache_size=0", "?statement_cache_size=0&sslmode=disable"])
async def test_the_store_works_through_a_pooler(pgbouncer: PgBouncer, postgres_url: str, parameters: str) -> None:
    async with Store(pgbouncer.url(postgres_url) + parameters) as store:
        await migrate(store)

        async def keep_one(number: int) -> None:
            event = keep(callback("OnlineRecordStarted", TaskId=f"t{number}"))
            await apply_events(store, [event])
            ids = [event.event_id]
            claimed = await claim(store, consumer="c", event_ids=ids, lease_holder=f"h{number}", lease_s=9)
            assert claimed == dict.fromkeys(ids, Claim.CLAIMED)
            await complete(store, consumer="c", event_ids=ids, lease_holder=f"h{number}")

        await asyncio.gather(*(keep_one(number) for number in range(60)))
        assert await count_events(store) == 60


@pytest.mark.parametrize(
    "parameters",
    [
        "sslmode=prefer",
        "sslmode=disable&application_name=school",
        "ssl=false",
        "options=-c%20search_path%3Dpublic",
        "target_session_attrs=read-write",
        "connect_timeout=3&command_timeout=7",
        "pool_size=2",
        "statement_cache_size=10&max_cached_statement_lifetime=60",
    ],
)
async def test_parameters_of_libpq_and_of_asyncpg_work(postgres_url: str, parameters: str) -> None:
    async with Store(f"{postgres_url}?{parameters}") as store:
        await migrate(store)
        assert await count_events(store) == 0
        async with store.reading() as connection:
            name = (await connection.execute(text("SHOW application_name"))).scalar_one()
    assert name == ("school" if "school" in parameters else "tiw")


async def test_a_host_among_the_parameters_is_used_and_one_of_several_that_answers(postgres: PostgresServer) -> None:
    for hosts in (f"host=127.0.0.1&port={postgres.port}", f"host=127.0.0.1,127.0.0.1&port=1,{postgres.port}"):
        async with Store(f"postgresql+asyncpg://tiw@/postgres?{hosts}") as store, store.reading() as connection:
            assert (await connection.execute(text("SELECT 1"))).scalar_one() == 1


async def test_tls_that_the_server_does_not_offer_is_a_clear_sentence(postgres_url: str) -> None:
    for parameters in ("sslmode=require", "ssl=true"):
        async with Store(f"{postgres_url}?{parameters}") as store:
            with pytest.raises(StoreUnavailableError, match="rejected SSL upgrade"):
                await count_events(store)
    async with Store(f"{postgres_url}?sslmode=of_course") as store:
        with pytest.raises(StoreUnavailableError, match="sslmode"):
            await count_events(store)


@pytest.mark.parametrize("parameters", ["statement_cache_size=all", "pool_size=many", "timeout=soon"])
def test_a_parameter_that_is_no_number_is_named(parameters: str) -> None:
    with pytest.raises(StoreError, match=f"{parameters.partition('=')[0]} that is no number"):
        Store(f"postgresql+asyncpg://u:hidden@h/d?{parameters}")


async def test_a_database_that_cannot_hold_every_text_is_refused_before_anything_is_kept(
    postgres: PostgresServer,
) -> None:
    postgres.query("DROP DATABASE IF EXISTS narrow")
    postgres.query("CREATE DATABASE narrow ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0 LOCALE_PROVIDER libc")
    url = postgres.url("narrow")
    async with Store(url) as store:
        with pytest.raises(StoreError, match=r"has the encoding LATIN1.*ENCODING 'UTF8'"):
            await migrate(store)
        (fault,) = await find_faults(store)
        assert (fault.found, "UTF8" in fault.remedy) == ("the encoding is LATIN1, which cannot hold every text", True)
    postgres.drop_database(url)


async def test_a_schema_of_its_own_is_used_and_a_missing_one_is_named(
    postgres: PostgresServer, postgres_url: str
) -> None:
    async with Store(f"{postgres_url}?options=-c%20search_path%3Dnowhere") as store:
        with pytest.raises(StoreError, match="no schema"):
            await migrate(store)
    async with Store(postgres_url) as store, store.writing() as connection:
        await connection.execute(text("CREATE SCHEMA school"))
    async with Store(f"{postgres_url}?options=-c%20search_path%3Dschool") as store:
        await migrate(store)
        await apply_events(store, [keep(callback("OnlineRecordStarted", TaskId="t"))])
        async with store.reading() as connection:
            assert (await connection.execute(text("SELECT count(*) FROM school.events"))).scalar_one() == 1


async def test_a_read_only_database_is_away(postgres_url: str) -> None:
    async with Store(postgres_url) as store:
        await migrate(store)
        assert await find_faults(store) == []
    async with Store(f"{postgres_url}?options=-c%20default_transaction_read_only%3Don") as store:
        with pytest.raises(StoreUnavailableError, match="read-only"):
            await apply_events(store, [keep(callback("OnlineRecordStarted", TaskId="t"))])
        with pytest.raises(StoreUnavailableError, match="read-only"):
            await check_writable(store)


async def test_tables_that_the_role_may_not_write_to_are_named(postgres: PostgresServer, postgres_url: str) -> None:
    async with Store(postgres_url) as store:
        await migrate(store)
        postgres.query("DROP ROLE IF EXISTS reader")
        postgres.query("CREATE ROLE reader LOGIN")
        async with store.writing() as connection:
            await connection.execute(text("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader"))
            await connection.execute(text("GRANT INSERT, UPDATE, DELETE ON events TO reader"))
    async with Store(postgres_url.replace("tiw@", "reader@")) as store:
        (fault,) = await find_faults(store)
    assert fault.found.startswith(
        "the role may not write to archived_files, archived_recordings, changes, completions, "
    )
    assert "events" not in fault.found


async def test_tables_of_another_program_are_left_alone_and_named(store_url: str) -> None:
    async with Store(store_url) as store:
        async with store.writing() as connection:
            await connection.execute(text("CREATE TABLE events (what text)"))
        with pytest.raises(StoreError, match="holds tables of another program"):
            await migrate(store)
        async with store.reading() as connection:
            assert (await connection.execute(text("SELECT count(*) FROM events"))).scalar_one() == 0
