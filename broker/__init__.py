"""Transports: what carries events from ingest to workers and keeps them until they are handled."""

from broker.embedded import EmbeddedTransport
from broker.errors import BrokerError, MissingQueueError, NotPublishedError, TopologyConflictError
from broker.ladder import DEFAULT_RETRY_DELAYS_S, LEASE_WAIT_S, rung_for_retry, rung_not_shorter
from broker.message import Message
from broker.protocol import BrokerInfo, Delivery, OnDelivery, QueueState, Subscription, Transport
from broker.topology import BUILT_IN_CONSUMERS, RESERVED_NAMES, ConsumerQueues, queue_name

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
    "queue_name",
    "rung_for_retry",
    "rung_not_shorter",
]
