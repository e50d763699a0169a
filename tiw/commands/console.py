"""`tiw console`: what is known of classes, in a browser, and what puts it right."""

import argparse
import asyncio
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack

import structlog

from archive import Place, PlaceError
from console import ConsoleConfig, Peers, run_console
from telemetry import Readiness, configure_logging
from tiw.console_token import console_address, greeting, open_console_token
from tiw.opening import address_rules, listening, open_store, open_target, open_transport, serve_admin
from tiw.process import settle, stop_requests
from tiw.settings import Settings, UsageError

#: A child that nobody looks at ends; its parent starts another when somebody does.
IDLE_EXIT_S = 15 * 60.0

_log = structlog.get_logger()


async def console(settings: Settings, args: argparse.Namespace) -> int:
    """Serve the console until SIGTERM; a child also ends, with 0, when nobody looks at it for a while."""
    configure_logging(settings.log_format)
    stopped = await stop_requests(with_parent=args.child)
    async with AsyncExitStack() as stack:
        if settings.console is None:
            _log.info("console_idle", advice="TIW_CONSOLE is off: set it to an address, and start this again")
            await serve_admin(stack, settings, Readiness)
            await stopped.wait()
            return 0
        # What a parent has opened is there, or the pages say why not.
        store = await stack.enter_async_context(open_store(settings, may_be_new=args.child))
        transport = await stack.enter_async_context(open_transport(settings, may_be_new=args.child))
        token = open_console_token(settings)
        peers = await stack.enter_async_context(Peers(settings.console_peers, token.token))
        config = ConsoleConfig(
            host=settings.console.host,
            port=settings.console.port,
            listening=None if args.listen_fd is None else socket.socket(fileno=args.listen_fd),
            token=token.token,
            read_token=settings.console_read_token,
            url=settings.console_url,
            kept_s=settings.files_kept_hours * 3600.0,
            addresses=address_rules(settings),
            idle_exit_s=IDLE_EXIT_S if args.child else None,
        )
        opened = run_console(config, store=store, transport=transport, peers=peers, open_place=_archive(settings))
        running = await stack.enter_async_context(listening(opened, variable="TIW_CONSOLE", address=settings.console))
        _log.info("console_started", port=running.port, peers=list(settings.console_peers))
        if not args.child:
            await serve_admin(stack, settings, Readiness)
            print(greeting(console_address(settings, port=running.port), token), flush=True)
        settle()
        await _first(stopped, running.idle)
    return 0


def _archive(settings: Settings) -> Callable[[], AbstractAsyncContextManager[Place]] | None:
    def opened() -> AbstractAsyncContextManager[Place]:
        try:
            return open_target(settings)
        except UsageError as error:
            # Not a reason to show nothing at all: who wants to watch is told.
            raise PlaceError(str(error)) from None

    return None if settings.archive is None else opened


async def _first(*events: asyncio.Event) -> None:
    """Return once one of them is set."""
    waiting = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
