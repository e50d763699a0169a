"""The whole pipeline in one process: ingest and the built-in consumers, and a child for each consumer of a user."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import structlog
from msgspec import Struct

from broker import Transport
from ingest import IngestServer, KeyRing, Spool
from store import SchemaMismatchError, Store
from telemetry import AdminListener, Readiness
from tiw.children import Processes, children_readiness
from tiw.commands.migrate import migrate_when_there
from tiw.discovery import CustomConsumers
from tiw.keys import apps_of
from tiw.opening import (
    archiving,
    ingest_config,
    ingest_pages,
    listening,
    make_notifier,
    notify_channels,
    notify_queues,
    open_spool,
    open_store,
    open_transport,
    reconciling,
    registering,
    require_credentials,
)
from tiw.process import folder_lock, raise_descriptor_limit
from tiw.settings import Address, Settings, UsageError
from workers import BUILT_IN, CONFIRM_TIMEOUT_S, Worker

if TYPE_CHECKING:
    from notify import Look
    from tiw.console_child import ConsoleAt

#: How long the migration of a file is waited for before callbacks are taken.
_LOCAL_MIGRATION_S = 1.0

#: Between attempts to migrate tables that cannot be migrated: doubled each time, up to the last.
_FIRST_PAUSE_S = 1.0
_LAST_PAUSE_S = 30.0

_MEANWHILE = "callbacks are taken and kept"

_log = structlog.get_logger()


class Pipeline(Struct, frozen=True, kw_only=True):
    """A pipeline that runs. `failure` ends, raising, if it cannot go on."""

    http_port: int
    path: str
    admin_port: int | None
    console: "ConsoleAt | None"
    store: Store
    failure: "asyncio.Task[None]"


@asynccontextmanager
async def run_pipeline(
    settings: Settings,
    *,
    keys: KeyRing,
    admin: Address | None,
    environ: Mapping[str, str],
) -> AsyncIterator[Pipeline]:
    """Run the pipeline while the block runs; then stop taking callbacks, finish what is here, and let go.

    `environ` names users' consumers. Callbacks are taken at once, whatever those and the database are like; the
    built-in consumers start when the database is there and its schema is brought up to date.
    """
    raise_descriptor_limit()
    channels = notify_channels(settings)
    async with AsyncExitStack() as stack:
        stack.enter_context(folder_lock(settings.data_dir))
        await stack.enter_async_context(keys)
        store = await stack.enter_async_context(open_store(settings, may_be_new=True))
        transport = await stack.enter_async_context(
            open_transport(settings, notify_queues(channels), confirm_timeout_s=CONFIRM_TIMEOUT_S, may_be_new=True)
        )
        migrating = asyncio.create_task(_migrate(store), name="migration")
        stack.push_async_callback(_end, migrating)
        if store.is_local:
            # It is here and takes a moment: consumers need not say that they wait for it.
            await asyncio.wait({migrating}, timeout=_LOCAL_MIGRATION_S)
        spools: list[Spool] = []
        consumers = [*BUILT_IN]
        if channels:
            looks = _looks(settings, transport, spools)
            notifier = await stack.enter_async_context(make_notifier(settings, channels, store, looks=looks))
            consumers.append(notifier.consumer)
        worker = Worker(
            consumers,
            transport=transport,
            store=store,
            retry_delays_s=settings.retry_delays_s,
            retention_days=settings.retention_days,
        )
        await stack.enter_async_context(worker)
        processes = await stack.enter_async_context(Processes({}, environ=environ))
        custom = None
        if settings.consumers:
            custom = await stack.enter_async_context(CustomConsumers(processes, environ))
        config = ingest_config(settings)
        # The embedded transport is as near, and lies on the same disk.
        if not settings.is_embedded:
            spools.append(await stack.enter_async_context(open_spool(settings, transport)))
        ingest = IngestServer(config, transport, keys, spool=spools[0] if spools else None)
        server = await stack.enter_async_context(listening(ingest, variable="TIW_HTTP", address=settings.http))
        stack.push_async_callback(server.drain)
        if settings.vendor_secret_id is not None or settings.register is not None:
            await _reconcile(stack, settings, store=store, transport=transport, keys=keys)
        if settings.archive is not None:
            archiver = await stack.enter_async_context(archiving(settings, store=store, transport=transport))
            await stack.enter_async_context(archiver)
        failure = asyncio.create_task(worker.wait(), name="pipeline")
        stack.push_async_callback(_end, failure)

        def ready() -> Readiness:
            consumers = () if worker.is_ready else ("a consumer is not at its queue",)
            children: tuple[str, ...] = ()
            if custom is not None:
                running = children_readiness(processes, unready="a consumer of yours is not at its queue")
                children = (*running.not_ready, *custom.not_ready)
            return Readiness(not_ready=(*server.ready().not_ready, *consumers, *children))

        if admin is not None:
            pages = ingest_pages(settings, transport)
            health = AdminListener(admin.host, admin.port, ready=ready, pages=pages)
            listener = await stack.enter_async_context(listening(health, variable="TIW_ADMIN", address=admin))
            admin = Address(host=admin.host, port=listener.port)
        yield Pipeline(
            http_port=server.port,
            path=config.path,
            admin_port=None if admin is None else admin.port,
            console=await _open_console(stack, settings, admin=admin, environ=environ),
            store=store,
            failure=failure,
        )


async def _open_console(
    stack: AsyncExitStack, settings: Settings, *, admin: Address | None, environ: Mapping[str, str]
) -> "ConsoleAt | None":
    """Run the console for those who connect; where that cannot be, say so and go on: callbacks matter more."""
    if settings.console is None:
        return None
    from tiw.console_child import open_console  # noqa: PLC0415 - where it is off, it costs nothing

    try:
        return await open_console(stack, settings, settings.console, admin=admin, environ=environ)
    except UsageError as error:
        _log.error("console_not_opened", reason=str(error), meanwhile="everything else runs; `off` is no console")
        return None


def _looks(settings: Settings, transport: Transport, spools: Sequence[Spool]) -> "list[Look]":
    """Return what else is looked at by who tells people: the broker and the spool, where there are such."""
    from notify import SpoolUse, look_for_broker, look_for_spool  # noqa: PLC0415 - who tells nobody needs it not

    def use() -> SpoolUse | None:
        depths = [spool.depth for spool in spools]
        oldest_at_us = min((depth.oldest_at_us for depth in depths if depth.oldest_at_us is not None), default=None)
        if oldest_at_us is None:
            return None
        return SpoolUse(count=sum(depth.callbacks for depth in depths), since_s=oldest_at_us / 1_000_000)

    return [] if settings.is_embedded else [look_for_broker(lambda: transport.is_ready), look_for_spool(use)]


async def _reconcile(
    stack: AsyncExitStack, settings: Settings, *, store: Store, transport: Transport, keys: KeyRing
) -> None:
    """Ask the vendor about what callbacks do not tell, too, and take registrations."""
    require_credentials(settings)
    reconciler = await stack.enter_async_context(
        reconciling(settings, store=store, transport=transport, apps=lambda: apps_of(settings, keys.current))
    )
    await stack.enter_async_context(reconciler)
    await stack.enter_async_context(registering(settings, store=store))


async def _migrate(store: Store) -> None:
    """Bring the schema up to date, however often it takes until that can be done; say what is in the way."""
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            await migrate_when_there(store)
        except SchemaMismatchError as error:
            _log.error("migration_failed", error=str(error), again_in_s=pause_s, meanwhile=_MEANWHILE)
        except Exception:  # noqa: BLE001 - whatever a database may answer, callbacks are taken
            _log.exception("migration_failed", again_in_s=pause_s, meanwhile=_MEANWHILE)
        else:
            return
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, _LAST_PAUSE_S)


async def _end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait({task})
