"""`tiw ingest`: an ingest node, in one process or in several that share the port."""

import argparse
import asyncio
import os
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack
from pathlib import Path

from broker import Transport
from ingest import IngestServer, UnixSocket
from telemetry import AdminListener, Readiness, ReadyCheck, configure_logging
from tiw.children import Processes, announce_readiness, children_readiness, shared_port, tiw_command
from tiw.keys import open_keys
from tiw.opening import cannot_listen, ingest_config, ingest_pages, listening, open_spool, open_transport, require_amqp
from tiw.process import raise_descriptor_limit, settle, stop_requests
from tiw.settings import DEFAULT_ADMIN, Address, Settings, UnixAddress

#: What a child gets to finish what is in flight, an answer leaves within 8 s, and to let go of its files.
_GRACE_S = 14.0


async def ingest(settings: Settings, args: argparse.Namespace) -> int:
    """Take callbacks until SIGTERM."""
    require_amqp(settings, "ingest")
    configure_logging(settings.log_format)
    if args.processes > 1 and not args.child:
        return await _serve_in_children(settings, args.processes)
    return await _serve(settings, is_child=args.child, inherited=args.socket)


async def _serve(settings: Settings, *, is_child: bool, inherited: int | None) -> int:
    stopped = await stop_requests(with_parent=is_child)
    raise_descriptor_limit()
    async with AsyncExitStack() as stack:
        keys = await stack.enter_async_context(open_keys(settings))
        transport = await stack.enter_async_context(open_transport(settings, may_be_new=True))
        spool = await stack.enter_async_context(open_spool(settings, transport))
        config = ingest_config(settings, reuse_port=is_child, inherited=inherited)
        server = IngestServer(config, transport, keys, spool=spool)
        if is_child:
            await stack.enter_async_context(announce_readiness(server.ready))
        else:
            await stack.enter_async_context(_admin(settings, server.ready, transport))
        await stack.enter_async_context(listening(server, variable="TIW_HTTP", address=settings.http))
        settle()
        await stopped.wait()
        await server.drain()
    return 0


async def _serve_in_children(settings: Settings, count: int) -> int:
    stopped = await stop_requests()
    open_keys(settings)  # a key is generated, and printed, once: here
    with ExitStack() as stack:
        address: Address | UnixAddress
        if isinstance(settings.http, Address):
            address, shared = stack.enter_context(shared_port(settings.http, variable="TIW_HTTP")), None
        else:
            # Nothing like SO_REUSEPORT here: all accept from one socket.
            address, shared = settings.http, UnixSocket(Path(settings.http.path))
            try:
                stack.enter_context(shared)
            except OSError as error:
                raise cannot_listen(error, variable="TIW_HTTP", address=address) from error
        descriptors = () if shared is None else (shared.socket.fileno(),)
        child = tiw_command("ingest", "--child", *(f"--socket={descriptor}" for descriptor in descriptors))
        processes = Processes(
            {f"ingest-{number}": child for number in range(1, count + 1)},
            environ={**os.environ, "TIW_HTTP": str(address)},
            grace_s=settings.stop_delay_s + _GRACE_S,
            descriptors=descriptors,
        )

        def ready() -> Readiness:
            return children_readiness(processes, unready="a process cannot keep callbacks now")

        async with _admin(settings, ready), processes:
            await stopped.wait()
            if shared is not None:
                # When the children stop to accept, which are told now.
                asyncio.get_running_loop().call_later(settings.stop_delay_s, shared.remove)
    return 0


def _admin(
    settings: Settings, ready: ReadyCheck, transport: Transport | None = None
) -> AbstractAsyncContextManager[AdminListener]:
    address = settings.admin or DEFAULT_ADMIN
    listener = AdminListener(address.host, address.port, ready=ready, pages=ingest_pages(settings, transport))
    return listening(listener, variable="TIW_ADMIN", address=address)
