"""Bringing a database to the tables of this version.

Migrations are numbered; the highest number that this version knows is its level. A migration says from which
level on code can work with its result: an additive one leaves that as it was, so that old workers go on beside it
while new ones are rolled out.
"""

import asyncio
import time
from pathlib import Path
from typing import Final

import structlog
from msgspec import Struct
from sqlalchemy import Connection, delete, func, insert, inspect, select, text, update

from store.connection import AsyncConnection
from store.drivers import text_of
from store.errors import SchemaMismatchError, StoreError
from store.store import Store
from store.tables import consumers, metadata, schema_level

#: The number of the newest migration of this version.
LEVEL: Final = 6

REMINDER_S: Final = 30.0

_log = structlog.get_logger()


async def check_schema(store: Store) -> None:
    """Return if the tables are those of this version, or newer ones that it can still use.

    Raises `SchemaMismatchError` (missing, older, too new) and `StoreUnavailableError`.
    """
    async with store.reading() as connection:
        row = (await connection.execute(select(schema_level.c.level, schema_level.c.usable_since))).one_or_none()
    if row is None:
        raise SchemaMismatchError(f"{store.safe_url} has no complete tables: run `tiw migrate`")
    if not isinstance(row.level, int) or not isinstance(row.usable_since, int):
        raise SchemaMismatchError(f"{store.safe_url} holds tables of another program: name a database of its own")
    judge(store, level=row.level, usable_since=row.usable_since)
    if row.level < LEVEL:
        raise SchemaMismatchError(
            f"the tables in {store.safe_url} have level {row.level}, this version needs {LEVEL}: run `tiw migrate`"
        )


async def check_writable(store: Store) -> None:
    """Return if a transaction that writes can be committed; it changes nothing.

    A database that is full or read-only answers every question. Raises `SchemaMismatchError` and
    `StoreUnavailableError`.
    """
    one = select(func.min(consumers.c.name)).scalar_subquery()
    as_it_is = update(consumers).where(consumers.c.name == one).values(routing_keys=consumers.c.routing_keys)
    await store.write(lambda connection: connection.execute(as_it_is))


def judge(store: Store, *, level: int, usable_since: int) -> None:
    """Raise `SchemaMismatchError` if tables of `level` are too new for this version."""
    if usable_since > LEVEL:
        raise SchemaMismatchError(
            f"the tables in {store.safe_url} have level {level} and can be used by versions of level {usable_since} "
            f"or later, this one has {LEVEL}: run the newer version"
        )


class Fault(Struct, frozen=True, kw_only=True):
    """Something about a database that keeps us from working with it, or will, and what to do."""

    found: str
    remedy: str


async def find_faults(store: Store) -> list[Fault]:
    """Look for what `check_schema` and `check_writable` do not see: encoding, rights, a standby.

    Writes nothing. Raises `StoreUnavailableError`.
    """
    if store.is_local:
        return []
    encoding = await _encoding_of(store)
    async with store.reading() as connection:
        is_standby = (await connection.execute(text("SELECT pg_is_in_recovery()"))).scalar_one()
        lacking = (await connection.execute(_LACKING_RIGHTS, {"tables": sorted(metadata.tables)})).scalars().all()
    faults = []
    if encoding not in _ENCODINGS:
        faults.append(Fault(found=f"the encoding is {encoding}, which cannot hold every text", remedy=_NEW_DATABASE))
    if is_standby:
        faults.append(Fault(found="it is a standby", remedy="name the primary, or add target_session_attrs=read-write"))
    if lacking:
        grants = "grant SELECT, INSERT, UPDATE and DELETE on them to the role of TIW_DATABASE_URL"
        faults.append(Fault(found=f"the role may not write to {', '.join(lacking)}", remedy=grants))
    return faults


_LACKING_RIGHTS: Final = text(
    """SELECT name FROM unnest(cast(:tables AS text[])) AS name
    WHERE to_regclass(name) IS NOT NULL AND NOT (
        has_table_privilege(name, 'SELECT') AND has_table_privilege(name, 'INSERT')
        AND has_table_privilege(name, 'UPDATE') AND has_table_privilege(name, 'DELETE'))
    ORDER BY name"""
)
_NEW_DATABASE: Final = "create a database with ENCODING 'UTF8' TEMPLATE template0, and name that one"


async def wait_for_schema(store: Store, *, poll_s: float = 1.0) -> None:
    """Return once `check_schema` does, however long the database is away or not migrated.

    Says so in the log at first and every half minute.
    """
    spoken_at: float | None = None
    while True:
        try:
            await check_schema(store)
        except StoreError as error:
            if spoken_at is None or time.monotonic() - spoken_at >= REMINDER_S:
                spoken_at = time.monotonic()
                await _log.awarning("schema_awaited", reason=str(error))
            await asyncio.sleep(poll_s)
        else:
            return


SCRIPTS: Final = Path(__file__).with_name("migrations")

#: A migration may rewrite a large table, and another process may be doing so right now.
MIGRATION_TIMEOUT_S: Final = 3600.0

#: Any number that nobody else takes: "tiwstore" in ASCII.
ADVISORY_LOCK: Final = int.from_bytes(b"tiwstore", "big")


async def migrate(store: Store) -> None:
    """Bring the tables to this version's level; do nothing if they are there or newer.

    All or nothing, and under a lock: any number of processes may start at the same moment. Raises
    `SchemaMismatchError` if the tables are too new for this version or another program's, or the database's encoding
    cannot hold every text; `StoreUnavailableError` if the database does not answer.
    """
    async with Store(store.url, statement_timeout_s=MIGRATION_TIMEOUT_S) as patient:
        encoding = await _encoding_of(patient)
        if encoding not in _ENCODINGS:
            raise SchemaMismatchError(
                f"{store.safe_url} has the encoding {encoding}, which cannot hold every text: {_NEW_DATABASE}"
            )
        try:
            await patient.write(lambda connection: _migrate(patient, connection))
        except patient.driver.ERRORS as error:
            # What is no trouble of the database's own is one with the tables that are there.
            raise SchemaMismatchError(
                f"{store.safe_url} holds tables of another program ({text_of(patient.driver, error)}): "
                "name a database of its own"
            ) from error


#: What holds every text: UTF-8, as SQLite does, or whatever comes (SQL_ASCII).
_ENCODINGS: Final = frozenset({"UTF8", "SQL_ASCII"})


async def _encoding_of(store: Store) -> str:
    """Return the encoding of the database's texts, in PostgreSQL's words. Raises `StoreUnavailableError`."""
    if store.is_local:
        return "UTF8"
    async with store.reading() as connection:
        return str((await connection.execute(text("SHOW server_encoding"))).scalar_one())


async def _migrate(store: Store, connection: AsyncConnection) -> None:
    await store.dialect.lock(connection, ADVISORY_LOCK)
    found = await connection.run_sync(_found)
    if found is not None:
        judge(store, level=found[0], usable_since=found[1])
        if found[0] >= LEVEL:
            return
    await connection.run_sync(_upgrade)


def _found(connection: Connection) -> tuple[int, int] | None:
    if not inspect(connection).has_table(schema_level.name):
        return None
    row = connection.execute(select(schema_level.c.level, schema_level.c.usable_since)).one_or_none()
    return None if row is None else (row.level, row.usable_since)


def _upgrade(connection: Connection) -> None:
    # Imported only where there is something to do: in a worker they would take 10 MB for ever.
    from alembic.config import Config  # noqa: PLC0415
    from alembic.runtime.environment import EnvironmentContext  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    scripts = ScriptDirectory(str(SCRIPTS))
    # The way that Alembic documents for use without its command line:
    # https://alembic.sqlalchemy.org/en/latest/api/runtime.html#alembic.runtime.environment.EnvironmentContext
    with EnvironmentContext(
        Config(),
        scripts,
        fn=lambda revision, _: scripts._upgrade_revs("head", revision),  # noqa: SLF001 - as documented there
    ) as environment:
        environment.configure(connection=connection, transactional_ddl=True)
        environment.run_migrations()
    head = scripts.get_revision("head")
    connection.execute(delete(schema_level))
    connection.execute(insert(schema_level).values(level=int(head.revision), usable_since=head.module.USABLE_SINCE))
