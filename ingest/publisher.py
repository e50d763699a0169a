"""What ingest needs of a transport: that it publishes, and whether it could."""

from typing import Protocol

from broker import Message


class Publisher(Protocol):
    """The part of `broker.Transport` that ingest uses."""

    @property
    def is_ready(self) -> bool:
        """Whether a publish would go to a broker that is there."""

    async def publish(self, message: Message) -> None:
        """Return once `message` is durable. Raises `broker.BrokerError` if it is not known to be."""
