"""What a process imports: nothing it has no use for. It is paid for at each start, and in memory for ever."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STORE = {"sqlalchemy", "alembic", "asyncpg", "aiosqlite", "store", "workers", "simulator"}
SERVERS = {"asyncio", "aiohttp", "aio_pika", "aiormq", "msgspec", "prometheus_client", "structlog", "rich", "uvloop"}


@cache
def imported(code: str) -> frozenset[str]:
    """Return the packages and modules that a new process has imported after `code`."""
    code = f"{code}\nimport sys\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=True,
        text=True,
    )
    return frozenset(done.stderr.split())


INGEST = "import tiw.process, telemetry, tiw.commands.ingest, broker.amqp.transport"
WORK = "import tiw.process, telemetry, tiw.commands.work, broker.embedded.transport, broker.amqp.transport"
UP = "import tiw.process, telemetry, tiw.commands.up, tiw.pipeline, broker.embedded.transport"


def help_of(*arguments: str) -> str:
    return f"from tiw.parser import main\ntry:\n    main({[*arguments, '--help']})\nexcept SystemExit:\n    pass"


def test_help_imports_the_parser_alone() -> None:
    for arguments in ((), ("ingest",), ("events", "list")):
        modules = imported(help_of(*arguments))
        assert "argparse" in modules
        assert not modules & (STORE | SERVERS | {"broker", "ingest", "schemas", "telemetry"})


def test_an_ingest_node_imports_no_database() -> None:
    modules = imported(INGEST)
    assert {"aiohttp", "aio_pika", "ingest"} <= modules
    assert not modules & STORE


def test_a_worker_imports_no_ingest_and_no_migrations() -> None:
    modules = imported(WORK)
    assert {"sqlalchemy", "workers"} <= modules
    assert not modules & {"simulator", "alembic", "ingest"}


def test_a_worker_that_listens_nowhere_imports_no_web_server() -> None:
    modules = imported(WORK)
    assert {"sqlalchemy", "workers", "aio_pika"} <= modules
    assert "aiohttp" not in modules


@pytest.mark.parametrize(
    ("url", "driver", "other"),
    [
        ("sqlite+aiosqlite:////nowhere/store.db", "aiosqlite", {"asyncpg", "store.direct.postgresql"}),
        ("postgresql+asyncpg://u@h/d", "asyncpg", {"aiosqlite", "store.direct.sqlite"}),
    ],
)
def test_a_store_imports_its_own_driver_alone_and_that_before_it_is_used(
    url: str, driver: str, other: set[str]
) -> None:
    modules = imported(f"from store import Store\nStore({url!r})")
    assert driver in modules
    assert not modules & other


def test_a_store_imports_nothing_that_maps_objects() -> None:
    for code in (WORK, UP, "from store import Store\nStore('postgresql+asyncpg://u@h/d')"):
        assert "sqlalchemy" in imported(code)
        assert "sqlalchemy.orm" not in imported(code)


def test_a_pipeline_that_tells_nobody_imports_nothing_for_it() -> None:
    modules = imported(UP)
    assert {"store", "ingest", "workers"} <= modules
    assert not modules & {"notify", "aiosmtplib", "standardwebhooks"}


def test_a_pipeline_imports_nothing_of_the_console_which_runs_beside_it() -> None:
    modules = imported("import tiw.process, telemetry, tiw.commands.up, tiw.pipeline, tiw.commands.ingest")
    assert "ingest" in modules
    assert not modules & {"console", "jinja2", "markupsafe"}
    beside = imported("import tiw.process, telemetry, tiw.commands.up, tiw.console_child, tiw.rejected")
    assert not beside & {"console", "jinja2", "simulator"}
    assert not imported("import tiw.process, telemetry, tiw.commands.console") & {"ingest", "simulator", "tencentcloud"}


def test_who_tells_people_imports_what_sends_only_to_send() -> None:
    modules = imported("import tiw.process, telemetry, tiw.commands.notify")
    assert "notify" in modules
    assert not modules & {"aiosmtplib", "standardwebhooks", "ingest", "simulator"}


#: What asks the vendor.
ASKING = {"reconcile", "tencentcloud", "requests"}


def test_who_has_no_credentials_imports_nothing_that_asks_the_vendor() -> None:
    for code in (UP, INGEST, WORK):
        assert not imported(code) & ASKING


def test_who_reconciles_imports_the_vendors_sdk_only_once_it_asks_and_takes_no_callbacks() -> None:
    modules = imported("import tiw.process, telemetry, tiw.commands.reconcile")
    assert "reconcile" in modules
    assert not modules & {"tencentcloud", "requests", "simulator", "alembic", "workers"}


def test_a_command_can_still_choose_where_metrics_live() -> None:
    assert "prometheus_client" not in imported("import tiw.process")


def test_what_runs_for_months_imports_nothing_that_draws_tables() -> None:
    for command in ("up", "ingest", "work", "notify", "reconcile", "archive"):
        modules = imported(f"from tiw.parser import main\nmain(['config', '--json'])\nimport tiw.commands.{command}")
        assert "structlog" in modules
        assert not modules & {"rich", "pygments"}, command


def test_rich_draws_tables_although_structlog_was_imported_without_it() -> None:
    assert {"structlog", "rich"} <= imported("from tiw.parser import main\nmain(['config'])")
