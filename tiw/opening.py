"""Open what the settings name: the transport, the store, the keys."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from broker import BrokerError, ConsumerQueues, Transport
from tiw.errors import UsageError
from tiw.settings import Settings

if TYPE_CHECKING:
    from ingest import Spool
    from store import Store


def open_transport(settings: Settings, consumers: Sequence[ConsumerQueues] = ()) -> Transport:
    """Return the transport, not entered yet; `consumers` are those of users.

    Raises `UsageError` for an address that cannot be right.
    """
    if settings.is_embedded:
        from broker.embedded import EmbeddedTransport  # noqa: PLC0415 - each transport is imported only where it is used

        return EmbeddedTransport(settings.data_dir, consumers=consumers, retry_delays_s=settings.retry_delays_s)
    from broker.amqp import AmqpTransport  # noqa: PLC0415 - as above

    try:
        return AmqpTransport(settings.amqp_urls, consumers=consumers, retry_delays_s=settings.retry_delays_s)
    except BrokerError as error:
        raise UsageError(f"TIW_AMQP_URL: {error}") from error


def open_spool(settings: Settings, transport: Transport) -> "Spool":
    """Return the spool of an ingest node in front of `transport`, not entered yet."""
    from ingest import Spool  # noqa: PLC0415 - workers have none

    return Spool(spool_folder(settings), transport, max_bytes=settings.spool_max_bytes)


def spool_folder(settings: Settings) -> Path:
    """Return where the ingest nodes that share this data folder have their spool."""
    return settings.data_dir / "spool"


def open_store(settings: Settings) -> "Store":
    """Return the store, not entered yet. Raises `UsageError` for a URL that cannot be right."""
    from store import Store, StoreError  # noqa: PLC0415 - an ingest node has no store, and its libraries take 30 MB

    try:
        return Store(settings.database_url)
    except StoreError as error:
        raise UsageError(f"TIW_DATABASE_URL: {error}") from error


def require_amqp(settings: Settings, command: str) -> None:
    """Raise `UsageError` if there is no broker for a process that runs on its own."""
    if settings.is_embedded:
        raise UsageError(
            f"`tiw {command}` needs TIW_AMQP_URL: without a broker everything runs in one process, `tiw up`"
        )
