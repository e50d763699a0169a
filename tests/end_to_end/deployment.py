"""A pipeline that runs: all in one process, or over RabbitMQ and PostgreSQL in several."""

import asyncio
import json
import shutil
import signal
import socket
import sqlite3
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Self

import asyncpg

from tests.commands import Finished
from tests.end_to_end.programs import DEADLINE_S, Program, eventually, run
from tests.end_to_end.sending import APP, KEY
from tests.servers.postgres import PostgresServer
from tests.servers.rabbitmq import RabbitMQServer

CONSUMERS = Path(__file__).parent / "consumers"

BUILT_IN = (
    "started",
    "stopped",
    "long_pause_warning",
    "long_pause_force_stopped",
    "finished",
    "archived",
    "unrecognized",
)

#: Tests prepare several deployments at once; the servers name databases by counting.
_PREPARING = threading.Lock()

#: Rungs short enough for a test, and far enough apart to be told from each other.
LADDER_S = (0.5, 1.0, 2.0)

#: A drain may take as long as the longest handler; those here are short.
WORK_STOP_S = 35.0


class Deployment:
    """Settings, and the programs that run with them; a context manager that leaves no process behind."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.logs = folder / "logs"
        self.plugins = folder / "plugins"
        self.plugins.mkdir(parents=True)
        self.programs: list[Program] = []
        self.killed: list[Program] = []
        self.address = ""
        #: Whether programs are started as users start them, not where everything is imported.
        self.anew = False
        self.settings = {
            "TIW_DATA_DIR": str(self.data),
            "TIW_CALLBACK_KEYS": json.dumps({str(APP): [KEY]}),
            "TIW_HTTP": "127.0.0.1:0",
            "TIW_ADMIN": "127.0.0.1:0",
            "TIW_RETRY_DELAYS_S": ",".join(str(delay_s) for delay_s in LADDER_S),
            **settings,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        try:
            if kind is None:
                for program in self.programs:
                    if program.code is None:
                        program.stop(within_s=WORK_STOP_S)
        finally:
            for program in (*self.programs, *self.killed):
                program.kill()

    @property
    def is_embedded(self) -> bool:
        """Whether everything runs in `up`."""
        return "TIW_AMQP_URL" not in self.settings

    @property
    def database_url(self) -> str:
        """Where the recordings are."""
        return self.settings.get("TIW_DATABASE_URL", f"sqlite:///{self.data}/store.db")

    def install(self, *names: str) -> None:
        """Put users' consumers into the folder that TIW_CONSUMERS names."""
        for name in names:
            shutil.copy(CONSUMERS / f"{name}.py", self.plugins)
        self.settings["TIW_CONSUMERS"] = str(self.plugins)

    def mend(self, *names: str) -> None:
        """Correct the mistake of users' consumers; it holds from their next start."""
        for name in names:
            file = self.plugins / f"{name}.py"
            file.write_text(file.read_text().replace("MENDED = False", "MENDED = True"))

    def program(self, *arguments: str, **settings: str) -> Program:
        """Start a command that runs until it is stopped."""
        program = Program(self.logs, {**self.settings, **settings}, *arguments, anew=self.anew)
        self.programs.append(program)
        return program

    def run(self, *arguments: str, **settings: str) -> Finished:
        """Run a command to its end."""
        return run({**self.settings, **settings}, *arguments)

    def up(self) -> Program:
        """Start `tiw up` and return once it is ready."""
        program = self.program("up")
        self.address = eventually(lambda: _line(program, "callbacks  "))
        # It is printed after the other: not always at the same moment.
        wait_ready(eventually(lambda: _line(program, "health     ")), program)
        return program

    def ingest(self, *arguments: str, **settings: str) -> Program:
        """Start `tiw ingest` and return once it listens."""
        program = self.program("ingest", *arguments, **settings)
        port = program.wait_logged("ingest_started")["port"]
        self.address = f"http://127.0.0.1:{port}/callbacks/tiw"
        return program

    def work(self, *consumers: str, **settings: str) -> Program:
        """Start `tiw work` and return once all its consumers are at their queues."""
        program = self.program("work", *consumers, **settings)
        expected = consumers or (*BUILT_IN, *self.custom)
        for consumer in expected:
            program.wait_logged("consumer_started", queue=f"tiw.{consumer}")
        return program

    def note_killed(self, program: Program) -> None:
        """Take note that a program was killed: it need not end in order, and its log still counts."""
        assert program.wait() == -signal.SIGKILL, program.err
        self.programs.remove(program)
        self.killed.append(program)

    def start(self) -> None:
        """Start all of it and return once events would reach every consumer."""
        if self.is_embedded:
            self.up()
            return
        assert self.run("migrate").code == 0
        self.work()
        self.ingest()

    @property
    def custom(self) -> list[str]:
        """The names of the users' consumers: each stands in a file of its name."""
        if "TIW_CONSUMERS" not in self.settings:
            return []
        return [file.stem for file in sorted(self.plugins.glob("[a-z]*.py"))]

    @property
    def log(self) -> str:
        """What all programs have logged."""
        return "".join(program.err for program in (*self.killed, *self.programs))

    def logged(self, event: str, **values: object) -> list[dict[str, Any]]:
        """Return the log lines of `event` that have these values."""
        return [line for program in (*self.killed, *self.programs) for line in program.logged(event, **values)]

    def told(self, event: str, **values: object) -> list[str]:
        """Return the TaskIds of the log lines of `event` that have these values."""
        return [task for program in (*self.killed, *self.programs) for task in program.told(event, **values)]

    def count(self, table: str) -> int:
        """Count the rows of a table, quicker than a command does."""
        return int(self.select(f"SELECT count(*) FROM {table}")[0][0])  # noqa: S608 - names of ours

    def select(self, sql: str) -> list[tuple[str, ...]]:
        """Return the rows of a query, their values as text."""
        if self.database_url.startswith("sqlite"):
            with closing(sqlite3.connect(self.data / "store.db", timeout=10)) as connection:
                return [tuple(str(value) for value in row) for row in connection.execute(sql)]
        return asyncio.run(_select(self.database_url.replace("+asyncpg", ""), sql))

    def wait_dead_letters(self, *consumers: str, within_s: float = DEADLINE_S) -> None:
        """Return once each of these consumers has one dead letter in the store, not replayed."""
        waiting = "SELECT consumer FROM dead_letters WHERE resolved_at_us IS NULL"
        expected = sorted((consumer,) for consumer in consumers)
        eventually(lambda: sorted(self.select(waiting)) == expected, within_s=within_s, every_s=0.2)


def get(address: str) -> tuple[int, str]:
    """Return status and text of a page; status 0 if nobody answers."""
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:  # noqa: S310 - our own
            return int(answer.status), answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


def wait_ready(address: str, program: Program) -> None:
    """Return once the page at `address` says 200."""

    def look() -> bool:
        assert program.code is None, program.err
        return get(address)[0] == 200

    eventually(look)


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def embedded(folder: Path, **settings: str) -> Deployment:
    """Prepare a deployment in one process."""
    return Deployment(folder, settings)


@contextmanager
def distributed(
    folder: Path, rabbitmq: RabbitMQServer, postgres: PostgresServer, **settings: str
) -> Iterator[Deployment]:
    """Prepare a deployment over RabbitMQ and PostgreSQL; both run afterwards, whatever was done to them."""
    with _PREPARING:
        vhost = rabbitmq.create_vhost()
        database_url = postgres.create_database()
    pid = rabbitmq.pid
    urls = {"TIW_AMQP_URL": rabbitmq.url(vhost), "TIW_DATABASE_URL": database_url}
    try:
        with Deployment(folder, {**urls, **settings}) as deployment:
            yield deployment
    finally:
        rabbitmq.start()
        if not postgres.is_running:
            postgres.start()
        # One that has seen a restart stays as long as the node. Seen on 3.10.8: where such a one is deleted, no queue
        # of the node dead-letters at least once any more, until it is started again, for eight seconds of a processor.
        if rabbitmq.pid == pid:
            rabbitmq.delete_vhost(vhost)
        postgres.drop_database(database_url)


async def _select(url: str, sql: str) -> list[tuple[str, ...]]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(str(value) for value in row) for row in await connection.fetch(sql)]
    finally:
        await connection.close()


def _line(program: Program, start: str) -> str:
    assert program.code is None, program.err
    return next((line.removeprefix(start) for line in program.out.splitlines() if line.startswith(start)), "")
