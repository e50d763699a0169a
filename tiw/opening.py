"""Open what the settings name: the transport, the store, the keys, the listeners.

Open what the settings name: the transport, the store, the keys.

Which callback keys hold, and how a person gets to know a generated one.

Open the listeners that the settings name.

What the settings mean for an ingest server.
"""

import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from broker import BrokerError, ConsumerQueues, Transport
from ingest import CallbackKeys, IngestConfig, KeyRing, KeysError, generated_keys, parse_keys
from ingest.keys import FILE_NAME, SDK_APP_ID
from tiw.settings import Address, Settings, UsageError

if TYPE_CHECKING:
    from ingest import Spool
    from store import Store


def open_transport(settings: Settings, consumers: Sequence[ConsumerQueues] = ()) -> Transport:
    """Return the transport, not entered yet; `consumers` are those of users.

    Raises `UsageError` for an address that cannot be right.
    """
    if settings.is_embedded:
        from broker.embedded.transport import EmbeddedTransport  # noqa: PLC0415 - each transport is imported only where it is used

        return EmbeddedTransport(settings.data_dir, consumers=consumers, retry_delays_s=settings.retry_delays_s)
    from broker.amqp.transport import AmqpTransport  # noqa: PLC0415 - as above

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


def keys_file(settings: Settings) -> Path:
    """Return the file of callback keys that counts where TIW_CALLBACK_KEYS is unset; it need not be there yet."""
    return settings.callback_keys_file or settings.data_dir / FILE_NAME


def open_keys(settings: Settings) -> KeyRing:
    """Return the key ring, not entered yet. A key that is generated now is printed, this once.

    Raises `KeysError`; `UsageError` if an app that may send unsigned callbacks also has keys. Both name the variable.
    """
    file = settings.data_dir / FILE_NAME
    if settings.callback_keys is not None:
        source = "TIW_CALLBACK_KEYS"
        with _naming(source):
            ring = KeyRing(parse_keys(settings.callback_keys))
    elif settings.callback_keys_file is not None:
        source = "TIW_CALLBACK_KEYS_FILE"
        with _naming(source):
            ring = KeyRing.of_file(settings.callback_keys_file)
    elif SDK_APP_ID in settings.allow_unsigned and not file.exists():
        # The app that a key would be made for has none at the vendor either.
        return KeyRing({})
    else:
        source = f"TIW_DATA_DIR, in {file}"
        with _naming(source):
            ring = _open_generated(settings)
    both = sorted(settings.allow_unsigned & set(ring.current))
    if both:
        raise UsageError(
            f"TIW_ALLOW_UNSIGNED names {both[0]}, which also has callback keys ({source}): "
            "an app is signed or unsigned, not both"
        )
    return ring


def present_keys(settings: Settings) -> CallbackKeys:
    """Return the keys that hold now, for a command that looks at them once; none if none was given or generated yet.

    Raises `KeysError`, which names the variable.
    """
    if settings.callback_keys is not None:
        with _naming("TIW_CALLBACK_KEYS"):
            return parse_keys(settings.callback_keys)
    file = keys_file(settings)
    if settings.callback_keys_file is None and not file.exists():
        return {}
    with _naming("TIW_DATA_DIR" if settings.callback_keys_file is None else "TIW_CALLBACK_KEYS_FILE"):
        return KeyRing.of_file(file).current


def _open_generated(settings: Settings) -> KeyRing:
    generated = generated_keys(settings.data_dir)
    if generated.created:
        # To standard output and nowhere else: standard error is the log.
        print(f"callback key for {SDK_APP_ID}: {generated.keys[SDK_APP_ID][0]}", flush=True)
    return KeyRing.of_file(generated.path)


@contextmanager
def _naming(source: str) -> Iterator[None]:
    """Put the variable to look at before what is wrong with the keys."""
    try:
        yield
    except KeysError as error:
        raise KeysError(f"{source}: {error}") from None


Listener = TypeVar("Listener")


@asynccontextmanager
async def listening(
    listener: AbstractAsyncContextManager[Listener], *, variable: str, address: Address
) -> AsyncIterator[Listener]:
    """Enter `listener`. Raises `UsageError` that names `variable` if its address cannot be had."""
    async with AsyncExitStack() as stack:
        try:
            entered = await stack.enter_async_context(listener)
        except OSError as error:
            raise cannot_listen(error, variable=variable, address=address) from error
        yield entered


def cannot_listen(error: OSError, *, variable: str, address: Address) -> UsageError:
    """Return what to say of an address that cannot be had."""
    # uvloop's own words repeat the address; a host that cannot be resolved has no errno of the system's.
    number = error.errno or 0
    reason = os.strerror(number) if number > 0 else error.strerror
    return UsageError(f"{variable} is {address}, where nothing can listen ({reason}): choose another")


def rejected_folder(settings: Settings) -> Path:
    """Return where refused callbacks are kept that other keys might let in."""
    return settings.data_dir / "rejected"


def ingest_config(settings: Settings, *, reuse_port: bool = False) -> IngestConfig:
    """Return the configuration of an ingest server."""
    return IngestConfig(
        host=settings.http.host,
        port=settings.http.port,
        path_token=settings.path_token,
        max_body_bytes=settings.max_body_bytes,
        allow_unsigned=settings.allow_unsigned,
        reuse_port=reuse_port,
        rejected_folder=rejected_folder(settings),
    )
