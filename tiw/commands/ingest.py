"""`tiw ingest`: an ingest node, in one process or in several that share the port."""

import argparse
import os
from contextlib import AbstractAsyncContextManager, AsyncExitStack

from ingest import IngestServer
from telemetry import AdminListener, Readiness, ReadyCheck, configure_logging
from tiw.children import Processes, announce_readiness, children_readiness, shared_port, tiw_command
from tiw.keys import open_keys
from tiw.opening import ingest_config, listening, open_spool, open_transport, require_amqp
from tiw.process import raise_descriptor_limit, settle, stop_requests
from tiw.settings import DEFAULT_ADMIN, Settings

#: What a child gets to finish what is in flight, an answer leaves within 8 s, and to let go of its files.
_GRACE_S = 14.0


async def ingest(settings: Settings, args: argparse.Namespace) -> int:
    """Take callbacks until SIGTERM."""
    require_amqp(settings, "ingest")
    configure_logging(settings.log_format)
    if args.processes > 1 and not args.child:
        return await _serve_in_children(settings, args.processes)
    return await _serve(settings, is_child=args.child)


async def _serve(settings: Settings, *, is_child: bool) -> int:
    stopped = await stop_requests(with_parent=is_child)
    raise_descriptor_limit()
    async with AsyncExitStack() as stack:
        keys = await stack.enter_async_context(open_keys(settings))
        transport = await stack.enter_async_context(open_transport(settings))
        spool = await stack.enter_async_context(open_spool(settings, transport))
        server = IngestServer(ingest_config(settings, reuse_port=is_child), transport, keys, spool=spool)
        if is_child:
            await stack.enter_async_context(announce_readiness(server.ready))
        else:
            await stack.enter_async_context(_admin(settings, server.ready))
        await stack.enter_async_context(listening(server, variable="TIW_HTTP", address=settings.http))
        settle()
        await stopped.wait()
        await server.drain()
    return 0


async def _serve_in_children(settings: Settings, count: int) -> int:
    stopped = await stop_requests()
    open_keys(settings)  # a key is generated, and printed, once: here
    commands = {f"ingest-{number}": tiw_command("ingest", "--child") for number in range(1, count + 1)}
    with shared_port(settings.http, variable="TIW_HTTP") as address:
        environ = {**os.environ, "TIW_HTTP": str(address)}
        processes = Processes(commands, environ=environ, grace_s=_GRACE_S)

        def ready() -> Readiness:
            return children_readiness(processes, unready="a process cannot keep callbacks now")

        async with _admin(settings, ready), processes:
            await stopped.wait()
    return 0


def _admin(settings: Settings, ready: ReadyCheck) -> AbstractAsyncContextManager[AdminListener]:
    address = settings.admin or DEFAULT_ADMIN
    return listening(AdminListener(address.host, address.port, ready=ready), variable="TIW_ADMIN", address=address)
