"""Events, recordings, completions and dead letters in SQL, on PostgreSQL or SQLite."""

from store.applying import KeptEvent, apply_events
from store.completions import Claim, claim, complete, forget, prune_completions, release, renew
from store.connecting import Store
from store.consumers import register_consumers, registered_consumers, unregister_consumer
from store.dead_letters import (
    DeadLetter,
    DeadLetterRow,
    count_dead_letters,
    keep_dead_letters,
    list_dead_letters,
    mark_replayed,
    pages_of_dead_letters,
    purge_dead_letters,
)
from store.errors import SchemaMismatchError, StoreError, StoreUnavailableError
from store.forgetting import Forgotten, Traces, find_traces, forget_recording
from store.leases import lease_owners, release_owner
from store.migrating import migrate
from store.reading_events import EventRow, KeptRow, count_events, list_events, pages_for_replay
from store.reading_recordings import find_recordings, list_recordings
from store.recording import (
    Recording,
    RecordingEventRef,
    RecordingFailure,
    RecordingOmission,
    RecordingStatus,
    RecordingSummary,
    RecordingVideo,
    fold,
)
from store.retention import BEFORE_ALL, Place, PrunedEvents, prune_dead_letters, prune_events
from store.schema import check_schema, wait_for_schema

__all__ = [
    "BEFORE_ALL",
    "Claim",
    "DeadLetter",
    "DeadLetterRow",
    "EventRow",
    "Forgotten",
    "KeptEvent",
    "KeptRow",
    "Place",
    "PrunedEvents",
    "Recording",
    "RecordingEventRef",
    "RecordingFailure",
    "RecordingOmission",
    "RecordingStatus",
    "RecordingSummary",
    "RecordingVideo",
    "SchemaMismatchError",
    "Store",
    "StoreError",
    "StoreUnavailableError",
    "Traces",
    "apply_events",
    "check_schema",
    "claim",
    "complete",
    "count_dead_letters",
    "count_events",
    "find_recordings",
    "find_traces",
    "fold",
    "forget",
    "forget_recording",
    "keep_dead_letters",
    "lease_owners",
    "list_dead_letters",
    "list_events",
    "list_recordings",
    "mark_replayed",
    "migrate",
    "pages_for_replay",
    "pages_of_dead_letters",
    "prune_completions",
    "prune_dead_letters",
    "prune_events",
    "purge_dead_letters",
    "register_consumers",
    "registered_consumers",
    "release",
    "release_owner",
    "renew",
    "unregister_consumer",
    "wait_for_schema",
]
