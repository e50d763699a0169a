"""A RabbitMQ and a PostgreSQL of our own, for all scenarios; each round gets a virtual host and a database in them."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import Self

from chaos.errors import ChaosError
from chaos.faults.cluster import Cluster
from tests.servers.postgres import PostgresServer, postgres_binaries
from tests.servers.rabbitmq import RabbitMQServer, find_scripts

_NOT_INSTALLED = "{} is not installed: run ./dev chaos as root on Debian or Ubuntu, or install it"


def servers_missing() -> str | None:
    """Say which server is not installed."""
    if find_scripts() is None:
        return _NOT_INSTALLED.format("RabbitMQ")
    if postgres_binaries() is None:
        return _NOT_INSTALLED.format("PostgreSQL")
    return None


class Servers:
    """A context manager: each server is started when it is first needed; leaving ends them and removes their data."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    @cached_property
    def rabbitmq(self) -> RabbitMQServer:
        """The broker. Raises `ChaosError` if it is not installed."""
        scripts = find_scripts()
        if scripts is None:
            raise ChaosError(_NOT_INSTALLED.format("RabbitMQ"))
        _say("starting RabbitMQ")
        return self._stack.enter_context(RabbitMQServer(scripts))

    @cached_property
    def cluster(self) -> Cluster:
        """Three brokers that are one. Raises `ChaosError` if this machine cannot have them."""
        scripts = find_scripts()
        if scripts is None:
            raise ChaosError(_NOT_INSTALLED.format("RabbitMQ"))
        _say("starting three RabbitMQ nodes")
        return self._stack.enter_context(Cluster(scripts))

    @cached_property
    def postgres(self) -> PostgresServer:
        """The database server. Raises `ChaosError` if it is not installed."""
        binaries = postgres_binaries()
        if binaries is None:
            raise ChaosError(_NOT_INSTALLED.format("PostgreSQL"))
        _say("starting PostgreSQL")
        return self._stack.enter_context(PostgresServer(binaries))

    @contextmanager
    def vhost(self) -> Iterator[str]:
        """Make a virtual host and yield its address. The broker runs afterwards, whatever was done to it."""
        name = self.rabbitmq.create_vhost()
        try:
            yield self.rabbitmq.url(name)
        finally:
            self.rabbitmq.start()
            self.rabbitmq.delete_vhost(name)

    @contextmanager
    def database(self) -> Iterator[str]:
        """Make a database and yield its address for SQLAlchemy. PostgreSQL runs afterwards."""
        url = self.postgres.create_database()
        try:
            yield url
        finally:
            if not self.postgres.is_running:
                self.postgres.start()
            self.postgres.drop_database(url)


def _say(sentence: str) -> None:
    print(f"chaos: {sentence}", file=sys.stderr, flush=True)
