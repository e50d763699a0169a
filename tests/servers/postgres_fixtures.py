"""Fixtures that give tests a private PostgreSQL."""

import os
from collections.abc import Iterator

import pytest

from tests.servers.migrated import migrate_now
from tests.servers.postgres import PostgresServer, postgres_binaries

NOT_INSTALLED = "PostgreSQL is not installed: install postgresql, or run `./dev test` as root on Debian or Ubuntu"


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Run a server for the whole session."""
    binaries = postgres_binaries()
    if binaries is None:
        if os.environ.get("CI") == "true":
            pytest.fail(NOT_INSTALLED)
        pytest.skip(NOT_INSTALLED)
    with PostgresServer(binaries) as server:
        yield server


@pytest.fixture(scope="session")
def migrated_postgres(postgres: PostgresServer) -> str:
    """Give the name of a database with the tables, to copy."""
    url = postgres.create_database()
    migrate_now(url)
    return url.rpartition("/")[2]


@pytest.fixture
def migrated_postgres_url(postgres: PostgresServer, migrated_postgres: str) -> Iterator[str]:
    """Give a database of the test's own that has the tables; else as `postgres_url`."""
    yield from _database(postgres, template=migrated_postgres)


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """Give an empty database of the test's own. The test may stop the server: it runs again afterwards."""
    yield from _database(postgres)


def _database(postgres: PostgresServer, *, template: str = "template1") -> Iterator[str]:
    url = postgres.create_database(template=template)
    yield url
    if not postgres.is_running:
        postgres.start()
    postgres.drop_database(url)
