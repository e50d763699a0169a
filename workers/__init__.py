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
from workers.inspecting import (
    ConsumerState,
    UnknownConsumerError,
    consumer_states,
    find_routing_keys,
    known_consumers,
)
from workers.loading import list_sources, load_consumers, refuse_name_clashes
from workers.replaying import (
    Affected,
    EventSelection,
    LetterSelection,
    PurgedDeadLetters,
    Replayed,
    ReplayedDeadLetters,
    ReplayedEvents,
    count_events,
    count_letters,
    preview_event,
    preview_letters,
    purge_letters,
    replay_events,
    replay_letters,
)
from workers.settling import CONFIRM_TIMEOUT_S
from workers.testing import run_batch, run_consumer
from workers.worker import Worker

__all__ = [
    "BUILT_IN",
    "CONFIRM_TIMEOUT_S",
    "Ack",
    "Affected",
    "Consumer",
    "ConsumerState",
    "Context",
    "DeadLetter",
    "DefinitionError",
    "Drop",
    "EventSelection",
    "LetterSelection",
    "LoadError",
    "Outcome",
    "PurgedDeadLetters",
    "Replayed",
    "ReplayedDeadLetters",
    "ReplayedEvents",
    "Retry",
    "UnknownConsumerError",
    "Worker",
    "WorkersError",
    "consumer",
    "consumer_states",
    "count_events",
    "count_letters",
    "find_routing_keys",
    "known_consumers",
    "list_sources",
    "load_consumers",
    "preview_event",
    "preview_letters",
    "purge_letters",
    "refuse_name_clashes",
    "replay_events",
    "replay_letters",
    "run_batch",
    "run_consumer",
]
