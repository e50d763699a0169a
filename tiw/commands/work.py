"""`tiw work`: consumers over a broker.

Built-in consumers share one process; each consumer of a user gets one of its own as soon as it is not alone, so that
none that blocks or kills its process touches another.
"""

import argparse
import os
from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext

import msgspec

from broker import BUILT_IN_CONSUMERS
from telemetry import AdminListener, Readiness, ReadyCheck, configure_logging
from tiw.children import Processes, announce_readiness, children_readiness, tiw_command
from tiw.discovery import DESCRIPTION, CustomConsumers, discover_consumers
from tiw.opening import listening, open_store, open_transport, require_amqp
from tiw.process import settle, stop_requests, stopped_or_failed
from tiw.settings import Settings, UsageError
from workers import BUILT_IN, CONFIRM_TIMEOUT_S, Worker, load_consumers

_NOT_CONSUMING = "a consumer is not at its queue"


async def work(settings: Settings, args: argparse.Namespace) -> int:
    """Run consumers until SIGTERM."""
    sources = [] if args.source is None else [args.source]
    if args.describe:
        return describe(sources)
    if args.child:
        return await run_here(settings, args.consumers, sources=sources, with_parent=True)
    require_amqp(settings, "work")
    built_in_names = [consumer.consumer for consumer in BUILT_IN_CONSUMERS]
    here = [name for name in args.consumers or ([] if args.custom else built_in_names) if name in built_in_names]
    apart = [name for name in args.consumers if name not in built_in_names]
    if not apart and (args.consumers or not settings.consumers) and not args.custom:
        return await run_here(settings, here, sources=[], with_parent=False)
    if apart:
        sources_by_name = await _find(settings, apart, built_in_names)
        if len(args.consumers) == 1 and not args.reload and apart[0] in sources_by_name:
            return await run_here(settings, apart, sources=[sources_by_name[apart[0]]], with_parent=False)
    return await _run_apart(settings, here, only=apart, reload=args.reload)


async def _find(settings: Settings, names: Sequence[str], built_in_names: Sequence[str]) -> dict[str, str]:
    """Return the sources of users' consumers of these names, as far as they can be loaded now.

    Raises `UsageError` if there is no consumer of such a name, and every source could be loaded.
    """
    configure_logging(settings.log_format)
    broken: list[str] = []
    found = await discover_consumers(os.environ, on_error=lambda source, _: broken.append(source))
    known = {consumer.queues.consumer: consumer.source for consumer in found}
    unknown = sorted(set(names) - known.keys())
    if unknown and not broken:
        raise UsageError(
            f"there is no consumer {unknown[0]!r}: there are {', '.join([*built_in_names, *known])}"
            + ("" if known else "; TIW_CONSUMERS names those of your own")
        )
    return {name: known[name] for name in names if name in known}


def describe(sources: Sequence[str]) -> int:
    """Print the consumers of users' `sources` as one line of JSON: what `discover_consumers` reads."""
    # A file beside others may have none; whether it should is known to who asks.
    found = [{"name": c.name, "routing_keys": c.routing_keys} for c in load_consumers(sources, may_be_none=True)]
    print(f"\n{DESCRIPTION.decode()}{msgspec.json.encode(found).decode()}")
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
        store = await stack.enter_async_context(open_store(settings, may_be_new=True))
        transport = await stack.enter_async_context(
            open_transport(settings, [c.queues for c in custom], confirm_timeout_s=CONFIRM_TIMEOUT_S, may_be_new=True)
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


async def _run_apart(settings: Settings, here: Sequence[str], *, only: Collection[str], reload: bool) -> int:
    """Supervise a child for each consumer of users (of these names `only`, if any), and one for all of `here`."""
    configure_logging(settings.log_format)
    stopped = await stop_requests()
    processes = Processes({"built-in": tiw_command("work", "--child", *here)} if here else {}, environ=os.environ)
    custom = CustomConsumers(processes, os.environ, only=only, reload=reload)

    def ready() -> Readiness:
        children = children_readiness(processes, unready=_NOT_CONSUMING)
        return Readiness(not_ready=(*children.not_ready, *custom.not_ready))

    async with _admin(settings, ready), processes, custom:
        await stopped.wait()
    return 0


def _admin(settings: Settings, ready: ReadyCheck) -> AbstractAsyncContextManager[object]:
    """Return the admin listener, if one is asked for."""
    if settings.admin is None:
        return nullcontext()
    listener = AdminListener(settings.admin.host, settings.admin.port, ready=ready)
    return listening(listener, variable="TIW_ADMIN", address=settings.admin)
