"""`tiw up`: the whole pipeline until Ctrl-C."""

import argparse
import asyncio
import os
from collections.abc import Coroutine
from typing import Any

from ingest import KeyRing
from store import Store, migrate
from telemetry import configure_logging
from tiw.awaiting import first_callback
from tiw.keys import open_keys
from tiw.opening import open_store
from tiw.pipeline import Pipeline, run_pipeline
from tiw.process import settle, stop_requests, stopped_or_failed
from tiw.settings import DEFAULT_ADMIN, Address, Settings


def up(settings: Settings, args: argparse.Namespace) -> Coroutine[Any, Any, int]:
    """Run until SIGINT or SIGTERM, then finish what is here."""
    del args
    configure_logging(settings.log_format)
    keys = open_keys(settings)
    # Where a broker is to be used, its address may be refused yet: then nothing is made.
    if settings.is_embedded:
        store = open_store(settings, may_be_new=True)
        if store.file is not None and not store.file.exists():
            _migrate_in_child(store)
    return _run(settings, keys)


def _migrate_in_child(store: Store) -> None:
    """Make the tables of a new file in a process of its own: the 8 MB of code that it takes go with that.

    Where it cannot, it says nothing: the pipeline migrates once more, and tells what is in the way.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            asyncio.run(migrate(store))
            code = 0
        finally:
            os._exit(code)
    os.waitpid(child, 0)


async def _run(settings: Settings, keys: KeyRing) -> int:
    stopped = await stop_requests()
    admin = settings.admin or DEFAULT_ADMIN
    async with run_pipeline(settings, keys=keys, admin=admin, environ=os.environ) as pipeline:
        _greet(settings, keys, admin, pipeline)
        settle()
        await stopped_or_failed(stopped, pipeline.failure)
    return 0


def _greet(settings: Settings, keys: KeyRing, admin: Address, pipeline: Pipeline) -> None:
    """Say where things are, and how to send a first callback."""
    first = first_callback(settings, keys.current, port=pipeline.http_port)
    health = f"http://{Address(host=admin.host, port=pipeline.admin_port or admin.port)}/readyz"
    print(f"callbacks  {first.place}")
    print(f"health     {health}")
    if pipeline.console is not None:
        from tiw.console_token import greeting  # noqa: PLC0415 - where it is off, it costs nothing

        print(greeting(pipeline.console.address, pipeline.console.token))
    print(f"data       {settings.data_dir}")
    print("\nSend a callback:\n")
    print(first.curl)
    print("\nLook at it: tiw recordings list    Stop: Ctrl-C\n", flush=True)
