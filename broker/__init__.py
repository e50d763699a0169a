"""Transports: what carries events from ingest to workers and keeps them until they are handled."""

from broker.api import (
    BrokerError,
    BrokerInfo,
    Delivery,
    Message,
    MissingQueueError,
    NotPublishedError,
    OnDelivery,
    QueueState,
    Subscription,
    TopologyConflictError,
    Transport,
)
from broker.embedded.transport import EmbeddedTransport
from broker.topology import (
    BUILT_IN_CONSUMERS,
    DEFAULT_RETRY_DELAYS_S,
    LEASE_WAIT_S,
    RESERVED_NAMES,
    ConsumerQueues,
    delay_for_retry,
    delay_not_shorter,
    queue_name,
)

__all__ = [
    "BUILT_IN_CONSUMERS",
    "DEFAULT_RETRY_DELAYS_S",
    "LEASE_WAIT_S",
    "RESERVED_NAMES",
    "BrokerError",
    "BrokerInfo",
    "ConsumerQueues",
    "Delivery",
    "EmbeddedTransport",
    "Message",
    "MissingQueueError",
    "NotPublishedError",
    "OnDelivery",
    "QueueState",
    "Subscription",
    "TopologyConflictError",
    "Transport",
    "delay_for_retry",
    "delay_not_shorter",
    "queue_name",
]
