"""Consumers: how to write one, and what runs them."""

from workers.builtin import BUILT_IN
from workers.consumer import Consumer, consumer
from workers.context import Context
from workers.errors import DefinitionError, LoadError, WorkersError
from workers.loading import list_sources, load_consumers, refuse_name_clashes
from workers.outcomes import Ack, DeadLetter, Drop, Outcome, Retry
from workers.testing import run_batch, run_consumer
from workers.worker import Worker

__all__ = [
    "BUILT_IN",
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
