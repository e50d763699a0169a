"""Fixtures that give tests a private PostgreSQL."""

import os
from collections.abc import Iterator

import pytest

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


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """Give an empty database of the test's own. The test may stop the server: it runs again afterwards."""
    url = postgres.create_database()
    yield url
    if not postgres.is_running:
        postgres.start()
    postgres.drop_database(url)
