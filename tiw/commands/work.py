"""`tiw work`: consumers over a broker.

Built-in consumers share one process; each consumer of a user gets one of its own as soon as it is not alone, so that
none that blocks or kills its process touches another.
"""

import argparse
import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext, suppress

import msgspec
import structlog

from broker import BUILT_IN_CONSUMERS
from telemetry import AdminListener, Readiness, ReadyCheck, configure_logging
from tiw.children import Processes, announce_readiness, children_readiness, consumer_command, tiw_command
from tiw.discovery import CustomConsumer, discover_consumers
from tiw.opening import listening, open_store, open_transport, require_amqp
from tiw.process import settle, stop_requests, stopped_or_failed
from tiw.settings import Settings, UsageError
from workers import BUILT_IN, CONFIRM_TIMEOUT_S, Worker, load_consumers

#: How often the folder of plugins is looked at while it is empty.
_LOOK_EVERY_S = 3.0

_NOT_CONSUMING = "a consumer is not at its queue"

_log = structlog.get_logger()


async def work(settings: Settings, args: argparse.Namespace) -> int:
    """Run consumers until SIGTERM."""
    sources = [] if args.source is None else [args.source]
    if args.describe:
        return describe(sources)
    if args.child:
        return await run_here(settings, args.consumers, sources=sources, with_parent=True)
    require_amqp(settings, "work")
    custom = await _custom(settings, is_custom_only=args.custom and not args.consumers)
    if custom is None:
        return 0
    sources_by_name = {consumer.queues.consumer: consumer.source for consumer in custom}
    built_in_names = [consumer.consumer for consumer in BUILT_IN_CONSUMERS]
    chosen = args.consumers or [*([] if args.custom else built_in_names), *sources_by_name]
    unknown = sorted(set(chosen) - {*built_in_names, *sources_by_name})
    if unknown:
        raise UsageError(
            f"there is no consumer {unknown[0]!r}: there are {', '.join([*built_in_names, *sources_by_name])}"
            + ("" if sources_by_name else "; TIW_CONSUMERS names those of your own")
        )
    apart = {name: sources_by_name[name] for name in chosen if name in sources_by_name}
    if not apart or len(chosen) == 1:
        return await run_here(settings, chosen, sources=list(apart.values()), with_parent=False)
    return await _run_apart(settings, [name for name in chosen if name not in apart], apart)


def describe(sources: Sequence[str]) -> int:
    """Print the consumers of users' `sources` as one line of JSON: what `discover_consumers` reads."""
    found = [{"name": c.name, "routing_keys": c.routing_keys} for c in load_consumers(sources)]
    print(f"\n{msgspec.json.encode(found).decode()}")
    return 0


async def run_here(settings: Settings, names: Sequence[str], *, sources: Sequence[str], with_parent: bool) -> int:
    """Run the consumers of these names in this process; `sources` define those of users."""
    configure_logging(settings.log_format)
    stopped = await stop_requests(with_parent=with_parent)
    custom = load_consumers(sources)
    consumers = [consumer for consumer in (*BUILT_IN, *custom) if consumer.name in names]
    missing = set(names) - {consumer.name for consumer in consumers}
    if missing:
        # A file that was changed or taken away since its consumers were found.
        raise UsageError(f"there is no consumer {min(missing)!r} any more in {', '.join(sources) or 'TIW_CONSUMERS'}")
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(settings))
        transport = await stack.enter_async_context(
            open_transport(settings, [c.queues for c in custom], confirm_timeout_s=CONFIRM_TIMEOUT_S)
        )
        worker = Worker(
            consumers,
            transport=transport,
            store=store,
            retry_delays_s=settings.retry_delays_s,
            retention_days=settings.retention_days,
        )

        def ready() -> Readiness:
            return Readiness(not_ready=() if worker.is_ready else (_NOT_CONSUMING,))

        listener = announce_readiness(ready) if with_parent else _admin(settings, ready)
        await stack.enter_async_context(listener)
        await stack.enter_async_context(worker)
        settle()
        await stopped_or_failed(stopped, worker.wait())
    return 0


async def _run_apart(settings: Settings, here: Sequence[str], apart: Mapping[str, str]) -> int:
    """Supervise a child for each of `apart` (name to source), and one for all of `here`."""
    configure_logging(settings.log_format)
    stopped = await stop_requests()
    commands = {name: consumer_command(name, source) for name, source in apart.items()}
    if here:
        commands["built-in"] = tiw_command("work", "--child", *here)
    processes = Processes(commands, environ=os.environ)

    def ready() -> Readiness:
        return children_readiness(processes, unready=_NOT_CONSUMING)

    async with _admin(settings, ready), processes:
        await stopped.wait()
    return 0


def _admin(settings: Settings, ready: ReadyCheck) -> AbstractAsyncContextManager[object]:
    """Return the admin listener, if one is asked for."""
    if settings.admin is None:
        return nullcontext()
    listener = AdminListener(settings.admin.host, settings.admin.port, ready=ready)
    return listening(listener, variable="TIW_ADMIN", address=settings.admin)


async def _custom(settings: Settings, *, is_custom_only: bool) -> list[CustomConsumer] | None:
    """Return users' consumers.

    `is_custom_only`: those that can be loaded, once there is one; None if this process is asked to stop before. A file
    that is broken must not stop the others that lie in the same folder.
    """
    if not is_custom_only:
        return await discover_consumers(os.environ)
    configure_logging(settings.log_format)
    broken: dict[str, str] = {}

    def note(source: str, error: str) -> None:
        if broken.get(source) != error:
            _log.error("consumers_not_loaded", source=source, error=error)
        broken[source] = error

    custom = await discover_consumers(os.environ, on_error=note)
    if custom:
        return custom
    stopped = await stop_requests()
    _log.info("idle", reason="TIW_CONSUMERS names no consumer yet", sources=settings.consumers)
    async with _admin(settings, Readiness):
        while not stopped.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(stopped.wait(), _LOOK_EVERY_S)
            custom = await discover_consumers(os.environ, on_error=note)
            if custom and not stopped.is_set():
                return custom
    return None
