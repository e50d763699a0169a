"""Transports: what carries events from ingest to workers and keeps them until they are handled."""

from broker.api import (
    MAX_TRACEBACK_BYTES,
    BrokerError,
    BrokerInfo,
    Delivery,
    Headers,
    Message,
    MissingQueueError,
    NotPublishedError,
    OnDelivery,
    OnPublished,
    QueueState,
    Subscription,
    TopologyConflictError,
    Transport,
)
from broker.embedded.database import DATABASE_NAME as EMBEDDED_FILE
from broker.embedded.database import network_file_system
from broker.embedded.transport import EmbeddedTransport
from broker.opening import open_transport
from broker.topology import (
    BUILT_IN_CONSUMERS,
    DEFAULT_CONFIRM_TIMEOUT_S,
    DEFAULT_RETRY_DELAYS_S,
    EVENTS_EXCHANGE,
    LEASE_WAIT_S,
    RESERVED_NAMES,
    ROUTING_KEYS,
    ConsumerQueues,
    delay_for_retry,
    delay_not_longer,
    delay_not_shorter,
    queue_name,
)

__all__ = [
    "BUILT_IN_CONSUMERS",
    "DEFAULT_CONFIRM_TIMEOUT_S",
    "DEFAULT_RETRY_DELAYS_S",
    "EMBEDDED_FILE",
    "EVENTS_EXCHANGE",
    "LEASE_WAIT_S",
    "MAX_TRACEBACK_BYTES",
    "RESERVED_NAMES",
    "ROUTING_KEYS",
    "BrokerError",
    "BrokerInfo",
    "ConsumerQueues",
    "Delivery",
    "EmbeddedTransport",
    "Headers",
    "Message",
    "MissingQueueError",
    "NotPublishedError",
    "OnDelivery",
    "OnPublished",
    "QueueState",
    "Subscription",
    "TopologyConflictError",
    "Transport",
    "delay_for_retry",
    "delay_not_longer",
    "delay_not_shorter",
    "network_file_system",
    "open_transport",
    "queue_name",
]
