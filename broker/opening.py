"""Open the transport that an address names. Each is imported only when it is opened: embedded needs no AMQP library."""

from collections.abc import Sequence
from pathlib import Path

from broker.api import Transport
from broker.topology import DEFAULT_CONFIRM_TIMEOUT_S, DEFAULT_RETRY_DELAYS_S, ConsumerQueues


def open_transport(
    *,
    urls: Sequence[str],
    folder: Path,
    consumers: Sequence[ConsumerQueues] = (),
    retry_delays_s: Sequence[float] = DEFAULT_RETRY_DELAYS_S,
    confirm_timeout_s: float = DEFAULT_CONFIRM_TIMEOUT_S,
) -> Transport:
    """Return the `amqp` transport at `urls`, or without any the `embedded` one in `folder`; neither is entered yet.

    `consumers` are those beside the built-in ones. What a broker does not confirm within `confirm_timeout_s` raises
    `NotPublishedError`; it may be kept nevertheless. Raises `BrokerError` for an address that cannot be right.
    """
    if urls:
        from broker.amqp.transport import AmqpTransport  # noqa: PLC0415 - its libraries take 20 MB

        return AmqpTransport(
            urls, consumers=consumers, retry_delays_s=retry_delays_s, confirm_timeout_s=confirm_timeout_s
        )
    from broker.embedded.transport import EmbeddedTransport  # noqa: PLC0415 - no other transport needs SQLite

    return EmbeddedTransport(folder, consumers=consumers, retry_delays_s=retry_delays_s)
