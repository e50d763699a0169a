"""Consumers: how to write one, and what runs them."""

from workers.api import (
    Ack,
    Consumer,
    Context,
    DeadLetter,
    DefinitionError,
    Drop,
    LoadError,
    Outcome,
    Retry,
    WorkersError,
    consumer,
)
from workers.builtin import BUILT_IN
from workers.loading import list_sources, load_consumers, refuse_name_clashes
from workers.settling import CONFIRM_TIMEOUT_S
from workers.testing import run_batch, run_consumer
from workers.worker import Worker

__all__ = [
    "BUILT_IN",
    "CONFIRM_TIMEOUT_S",
    "Ack",
    "Consumer",
    "Context",
    "DeadLetter",
    "DefinitionError",
    "Drop",
    "LoadError",
    "Outcome",
    "Retry",
    "Worker",
    "WorkersError",
    "consumer",
    "list_sources",
    "load_consumers",
    "refuse_name_clashes",
    "run_batch",
    "run_consumer",
]
