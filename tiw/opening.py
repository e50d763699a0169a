"""Open what the settings name: the transport, the spool, the store, the listeners.

Each part imports what it needs when it is opened: an ingest node has no use for a database, a worker none for ingest.
"""

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import broker
from broker import DEFAULT_CONFIRM_TIMEOUT_S, BrokerError, ConsumerQueues, Transport
from tiw.settings import Address, FailedError, Settings, UnixAddress, UsageError

if TYPE_CHECKING:
    from archive import AddressRules, Archiver, Place
    from ingest import IngestConfig, Spool
    from notify import Channel, Look, Notifier, Wording
    from reconcile import Reconciler
    from store import Store
    from telemetry import AdminPage, ReadyCheck
    from vendor_api import Limiter, VendorClient


def open_transport(
    settings: Settings,
    consumers: Sequence[ConsumerQueues] = (),
    *,
    confirm_timeout_s: float = DEFAULT_CONFIRM_TIMEOUT_S,
    may_be_new: bool = False,
) -> Transport:
    """Return the transport, not entered yet; `consumers` are those of users.

    Raises `UsageError` for an address that cannot be right; `FailedError` if an embedded one would have to be made and
    may not be new.
    """
    if settings.is_embedded and not may_be_new:
        _require_file(settings.data_dir / broker.EMBEDDED_FILE)
    try:
        return broker.open_transport(
            urls=settings.amqp_urls,
            folder=settings.data_dir,
            consumers=consumers,
            retry_delays_s=settings.retry_delays_s,
            confirm_timeout_s=confirm_timeout_s,
        )
    except BrokerError as error:
        raise UsageError(f"TIW_AMQP_URL: {error}") from error


def open_spool(settings: Settings, transport: Transport) -> "Spool":
    """Return the spool of an ingest node in front of `transport`, not entered yet."""
    from ingest import Spool  # noqa: PLC0415 - workers have none

    return Spool(spool_folder(settings), transport, max_bytes=settings.spool_max_bytes)


def spool_folder(settings: Settings) -> Path:
    """Return where the ingest nodes that share this data folder have their spool."""
    return settings.data_dir / "spool"


def open_store(settings: Settings, *, may_be_new: bool = False) -> "Store":
    """Return the store, not entered yet.

    Raises `UsageError` for a URL that cannot be right; `FailedError` if its file would have to be made and may not be
    new: who only asks makes nothing.
    """
    from store import Store, StoreError  # noqa: PLC0415 - an ingest node has no store, and its libraries take 30 MB

    try:
        store = Store(settings.database_url)
    except StoreError as error:
        raise UsageError(f"TIW_DATABASE_URL: {error}") from error
    if store.file is not None and not may_be_new:
        _require_file(store.file)
    return store


def _require_file(path: Path) -> None:
    try:
        path.stat()
    except FileNotFoundError:
        raise FailedError(
            f"nothing is kept in {path.parent} yet: there is no {path.name}; start `tiw up`, or correct TIW_DATA_DIR"
        ) from None


def require_amqp(settings: Settings, command: str) -> None:
    """Raise `UsageError` if there is no broker for a process that runs on its own."""
    if settings.is_embedded:
        raise UsageError(
            f"`tiw {command}` needs TIW_AMQP_URL: without a broker everything runs in one process, `tiw up`"
        )


def notify_channels(settings: Settings) -> "tuple[Channel, ...]":
    """Return the channels that TIW_NOTIFY names, none if it is not set. Raises `UsageError` for what is wrong there."""
    if settings.notify is None:
        return ()
    from notify import ChannelsError, parse_channels  # noqa: PLC0415 - who tells nobody needs it not

    try:
        return parse_channels(settings.notify)
    except ChannelsError as error:
        raise UsageError(f"TIW_NOTIFY: {error}") from error


def notify_queues(channels: "Sequence[Channel]") -> list[ConsumerQueues]:
    """Return the queues that telling people over `channels` needs."""
    if not channels:
        return []
    from notify import CONSUMER_QUEUES  # noqa: PLC0415 - see notify_channels

    return [CONSUMER_QUEUES]


def notify_wording(settings: Settings) -> "tuple[Wording, tuple[str, ...]]":
    """Return how notices are worded, and a sentence for each template of the user's that cannot be used."""
    from notify import LANGUAGES, TEMPLATE_FIELDS, Wording, load_templates  # noqa: PLC0415 - see notify_channels

    loaded = load_templates(TEMPLATE_FIELDS, settings.notify_templates)
    wording = Wording(languages=LANGUAGES[settings.notify_language], templates=loaded.templates)
    return wording, loaded.problems


def make_notifier(
    settings: Settings, channels: "Sequence[Channel]", store: "Store", *, looks: "Sequence[Look]" = ()
) -> "Notifier":
    """Return what tells people over `channels`, not entered yet; says in the log which templates cannot be used."""
    import structlog  # noqa: PLC0415 - slow to import, and many commands say nothing

    from notify import Notifier  # noqa: PLC0415 - see notify_channels

    wording, problems = notify_wording(settings)
    for problem in problems:
        structlog.get_logger().error("notify_template_not_used", reason=problem)
    return Notifier(channels, store=store, wording=wording, looks=looks)


Listener = TypeVar("Listener")


@asynccontextmanager
async def listening(
    listener: AbstractAsyncContextManager[Listener], *, variable: str, address: Address | UnixAddress
) -> AsyncIterator[Listener]:
    """Enter `listener`. Raises `UsageError` that names `variable` if its address cannot be had."""
    async with AsyncExitStack() as stack:
        try:
            entered = await stack.enter_async_context(listener)
        except OSError as error:
            raise cannot_listen(error, variable=variable, address=address) from error
        yield entered


async def serve_admin(stack: AsyncExitStack, settings: Settings, ready: "ReadyCheck") -> None:
    """Serve health and metrics until `stack` is left, if TIW_ADMIN says where; raises as `listening`."""
    from telemetry import AdminListener  # noqa: PLC0415 - most commands listen nowhere

    if settings.admin is not None:
        health = AdminListener(settings.admin.host, settings.admin.port, ready=ready)
        await stack.enter_async_context(listening(health, variable="TIW_ADMIN", address=settings.admin))


def cannot_listen(error: OSError, *, variable: str, address: Address | UnixAddress) -> UsageError:
    """Return what to say of an address that cannot be had."""
    # uvloop's own words repeat the address; a host that cannot be resolved has no errno of the system's.
    number = error.errno or 0
    reason = os.strerror(number) if number > 0 else error.strerror
    return UsageError(f"{variable} is {address}, where nothing can listen ({reason}): choose another")


def rejected_folder(settings: Settings) -> Path:
    """Return where refused callbacks are kept that other keys might let in."""
    return settings.data_dir / "rejected"


def ingest_config(settings: Settings, *, reuse_port: bool = False, inherited: int | None = None) -> "IngestConfig":
    """Return the configuration of an ingest server; `inherited` is the descriptor of its unix socket, if it has one."""
    from ingest import IngestConfig  # noqa: PLC0415 - workers have none

    address = settings.http
    unix = address if isinstance(address, UnixAddress) else None
    tcp = address if isinstance(address, Address) else Address(host="", port=0)
    return IngestConfig(
        host=tcp.host,
        port=tcp.port,
        unix_socket=None if unix is None else Path(unix.path),
        inherited=inherited,
        stop_delay_s=settings.stop_delay_s,
        path_token=settings.path_token,
        max_body_bytes=settings.max_body_bytes,
        allow_unsigned=settings.allow_unsigned,
        reuse_port=reuse_port,
        rejected_folder=rejected_folder(settings),
    )


def ingest_pages(settings: Settings, transport: Transport | None = None) -> "Sequence[AdminPage]":
    """Return the pages with which the console sees what an ingest node has refused; none where the console is off.

    They publish over `transport`, or over one that they open.
    """
    if settings.console is None:
        return ()
    from tiw.console_token import known_console_token  # noqa: PLC0415 - workers have none of these
    from tiw.rejected import rejected_pages  # noqa: PLC0415

    def opened() -> AbstractAsyncContextManager[Transport]:
        return open_transport(settings, may_be_new=True) if transport is None else nullcontext(transport)

    return rejected_pages(settings, token=known_console_token(settings), opened=opened)


def open_vendor(settings: Settings, *, limiter: "Limiter | None" = None) -> "VendorClient":
    """Return a client of the vendor's API, not entered yet. The settings must have credentials."""
    from vendor_api import Credentials, VendorClient, VendorSite, parse_endpoint  # noqa: PLC0415 - few ask the vendor

    return VendorClient(
        Credentials(secret_id=settings.vendor_secret_id or "", secret_key=settings.vendor_secret_key or ""),
        site=VendorSite(settings.vendor_site),
        endpoint=None if settings.vendor_endpoint is None else parse_endpoint(settings.vendor_endpoint),
        limiter=limiter,
    )


def require_credentials(settings: Settings) -> None:
    """Raise `UsageError` unless the vendor can be asked."""
    if settings.vendor_secret_id is None:
        what = "TIW_REGISTER is set, and nobody would ask about what is registered" if settings.register else ""
        raise UsageError(
            f"{what or 'this asks the vendor'}: set TIW_VENDOR_SECRET_ID and TIW_VENDOR_SECRET_KEY, see "
            "docs/recordings.md"
        )


@asynccontextmanager
async def reconciling(
    settings: Settings, *, store: "Store", transport: Transport, apps: Callable[[], frozenset[int]]
) -> AsyncIterator["Reconciler"]:
    """Yield what asks the vendor, not entered yet, while its client is open. The settings must have credentials.

    It asks about TIW_RECONCILE_APPS; else about `apps`, those that there are keys of; if there are none, about the
    applications of which the store knows something.
    """
    from reconcile import ReconcileConfig, Reconciler, SharedLimiter  # noqa: PLC0415 - few ask the vendor

    config = ReconcileConfig(
        list_every_s=settings.reconcile_list_every_s,
        ask_after_s=settings.reconcile_ask_after_s,
    )
    async with open_vendor(settings, limiter=SharedLimiter(store)) as vendor:
        yield Reconciler(
            config,
            store=store,
            transport=transport,
            vendor=vendor,
            named_apps=lambda: settings.reconcile_apps or apps(),
        )


@asynccontextmanager
async def registering(settings: Settings, *, store: "Store") -> AsyncIterator[int | None]:
    """Take registrations at TIW_REGISTER while the block runs; yield the port, None if there is none."""
    address = settings.register
    if address is None:
        yield None
        return
    from reconcile import RegisterListener  # noqa: PLC0415 - few take registrations

    async with AsyncExitStack() as stack:
        try:
            if isinstance(address, UnixAddress):
                from ingest import UnixSocket  # noqa: PLC0415 - a node that reconciles takes no callbacks

                held = stack.enter_context(UnixSocket(Path(address.path)))
                place: dict[str, Any] = {"listening": held.socket}
            else:
                place = {"host": address.host, "port": address.port}
            listener = RegisterListener(
                store=store, token=settings.register_token, apps=settings.reconcile_apps, **place
            )
            await stack.enter_async_context(listener)
        except OSError as error:
            raise cannot_listen(error, variable="TIW_REGISTER", address=address) from error
        yield None if isinstance(address, UnixAddress) else listener.port


def require_archive(settings: Settings) -> str:
    """Return where files are to be kept. Raises `UsageError` if nobody said."""
    if settings.archive is None:
        raise UsageError(
            "TIW_ARCHIVE is not set: name a folder, such as /srv/classes, or s3://BUCKET/PREFIX; see docs/recordings.md"
        )
    return settings.archive


def open_target(settings: Settings) -> "AbstractAsyncContextManager[Place]":
    """Return where files are placed, not entered yet. Raises `UsageError` for settings that lead nowhere."""
    from archive import S3Settings, open_place, parse_target, usual_style  # noqa: PLC0415 - few archive

    s3 = S3Settings(
        endpoint=settings.archive_s3_endpoint,
        region=settings.archive_s3_region,
        style=settings.archive_s3_style or usual_style(settings.archive_s3_endpoint),
        access_key_id=settings.archive_s3_key_id or "",
        secret_access_key=settings.archive_s3_secret or "",
    )
    try:
        return open_place(parse_target(require_archive(settings)), s3, min_free_bytes=settings.archive_min_free_bytes)
    except ValueError as error:
        raise UsageError(f"TIW_ARCHIVE: {error}") from error


def address_rules(settings: Settings) -> "AddressRules":
    """Return which addresses of files may be fetched from, and led to."""
    from archive import DEFAULT_HOSTS, AddressRules, parse_hosts, parse_networks  # noqa: PLC0415 - few archive

    return AddressRules(
        hosts=DEFAULT_HOSTS if settings.archive_hosts is None else parse_hosts(settings.archive_hosts),
        networks=() if settings.archive_networks is None else parse_networks(settings.archive_networks),
    )


@asynccontextmanager
async def archiving(
    settings: Settings, *, store: "Store", transport: Transport, recording: tuple[int, str] | None = None
) -> AsyncIterator["Archiver"]:
    """Yield what archives, not entered yet, while its connections are open; of one `recording` alone, if given."""
    from archive import (  # noqa: PLC0415 - few archive
        ArchiveConfig,
        Archiver,
        Fetcher,
        FetchLimits,
        FileConfig,
        PlanConfig,
        Staging,
        StagingError,
    )

    kept_s = settings.files_kept_hours * 3600.0
    config = ArchiveConfig(
        plan=PlanConfig(kept_s=kept_s, vendor_is_asked=settings.vendor_secret_id is not None),
        file=FileConfig(kept_s=kept_s),
        at_once=settings.archive_at_once,
        recording=recording,
    )
    limits = FetchLimits(
        bytes_per_s=settings.archive_bytes_per_s,
        at_once=settings.archive_at_once,
        least_bytes_per_s=settings.archive_least_bytes_per_s,
        max_file_bytes=settings.archive_max_file_bytes,
        min_free_bytes=settings.archive_min_free_bytes,
    )
    try:
        staging = Staging(settings.archive_staging, min_free_bytes=settings.archive_min_free_bytes)
    except StagingError as error:
        raise UsageError(str(error)) from error
    async with open_target(settings) as place, Fetcher(address_rules(settings), limits) as fetcher:
        yield Archiver(config, store=store, transport=transport, fetcher=fetcher, place=place, staging=staging)
