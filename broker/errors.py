"""Errors of the broker package.

BrokerError
├── NotPublishedError       the transport did not say that the message is durable
├── MissingQueueError       a queue that must exist does not
└── TopologyConflictError   what is declared differs from what the broker has
"""


class BrokerError(Exception):
    """Raised when a transport cannot do what was asked; root of this package's errors."""


class NotPublishedError(BrokerError):
    """Raised when a message was not confirmed. It may still arrive: publishing it again repeats it at worst."""


class MissingQueueError(BrokerError):
    """Raised when an operation names a queue that the broker does not have."""


class TopologyConflictError(BrokerError):
    """Raised when a queue or exchange exists with other arguments; names both and the remedy."""
