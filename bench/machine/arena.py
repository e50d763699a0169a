"""Where contenders meet: private servers, and a fresh virtual host, database and folder for each run."""

import itertools
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Self

from bench.errors import BenchError
from bench.machine.commits import Commit, check_out
from bench.machine.installing import ROOT, Installation
from tests.servers.postgres import PostgresServer, postgres_binaries
from tests.servers.rabbitmq import RabbitMQServer, find_scripts

#: What a production node has by default, where the nodes of the tests are tuned to be small and quick to tell.
_RABBITMQ_SETTINGS = {
    "vm_memory_high_watermark.absolute": "2GB",
    "raft.wal_max_size_bytes": "134217728",
    "collect_statistics_interval": "5000",
}

_NOT_INSTALLED = "{} is not installed: run ./dev bench as root on Debian or Ubuntu, or install it"


class Arena:
    """A context manager: leaving it ends the servers and removes all that was written."""

    def __init__(self, installation: Installation, *, against: str = "") -> None:
        self.installation = installation
        self._against = against
        self._stack = ExitStack()
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def say(self, sentence: str) -> None:
        """Tell what goes on."""
        print(f"bench: {sentence}", file=sys.stderr, flush=True)

    @cached_property
    def rabbitmq(self) -> RabbitMQServer:
        """A RabbitMQ of our own, started when it is first needed. Raises `BenchError`."""
        scripts = find_scripts()
        if scripts is None:
            raise BenchError(_NOT_INSTALLED.format("RabbitMQ"))
        self.say("starting RabbitMQ")
        return self._stack.enter_context(RabbitMQServer(scripts, settings=_RABBITMQ_SETTINGS))

    @cached_property
    def postgres(self) -> PostgresServer:
        """A PostgreSQL of our own, started when it is first needed. Raises `BenchError`."""
        binaries = postgres_binaries()
        if binaries is None:
            raise BenchError(_NOT_INSTALLED.format("PostgreSQL"))
        self.say("starting PostgreSQL")
        return self._stack.enter_context(PostgresServer(binaries))

    @cached_property
    def folder(self) -> Path:
        """A folder that lasts as long as the arena."""
        path = Path(tempfile.mkdtemp(prefix="tiw-bench-"))
        self._stack.callback(shutil.rmtree, path, ignore_errors=True)
        return path

    @cached_property
    def before(self) -> Commit:
        """The product as it was at the commit to compare with. Raises `BenchError` if there is none."""
        if not self._against:
            raise BenchError("there is nothing to compare with: --against COMMIT")
        return check_out(self._against, self.folder)

    def tree(self, *, is_before: bool) -> Path:
        """Return where our packages are: here, or in the files of the commit to compare with."""
        return self.before.tree if is_before else ROOT

    @contextmanager
    def vhost(self) -> Iterator[str]:
        """Make a virtual host and yield its address. Its queues and bindings are gone afterwards."""
        name = self.rabbitmq.create_vhost()
        try:
            yield self.rabbitmq.url(name)
        finally:
            self.rabbitmq.delete_vhost(name)

    @contextmanager
    def database(self) -> Iterator[str]:
        """Make a database and yield its address, as SQLAlchemy with asyncpg wants it."""
        url = self.postgres.create_database()
        try:
            yield url
        finally:
            self.postgres.drop_database(url)

    @contextmanager
    def run_folder(self) -> Iterator[Path]:
        """Make a folder for one run of one contender."""
        path = self.folder / f"run-{next(self._numbers)}"
        path.mkdir()
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


def free_port() -> int:
    """Return a port of the loopback interface that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
