"""What is found once everything has come to rest: in the store, in queues, in spools."""

from msgspec import Struct


class StoredEvent(Struct, frozen=True, kw_only=True):
    """A row of the store's events. `digest` is of its content, `sha256` of its body."""

    event_id: str
    digest: str
    sha256: str


class StoredDeadLetter(Struct, frozen=True, kw_only=True):
    """A row of the store's dead letters."""

    consumer: str
    event_id: str
    attempts: int
    reason: str
    first_failed_at_us: int
    last_failed_at_us: int


class Completion(Struct, frozen=True, kw_only=True):
    """That a consumer completed an event was remembered then, on the wall's clock."""

    consumer: str
    event_id: str
    completed_at_wall_us: int


class Waiting(Struct, frozen=True, kw_only=True):
    """What still lies in a queue or a spool. `event_ids` are those that could be read: perhaps not all."""

    place: str
    count: int
    event_ids: tuple[str, ...] = ()


class Outcome(Struct, frozen=True, kw_only=True):
    """All that was found. `differing` names recordings that are not the fold of their events, and how they differ.

    `places` are the queues and spools that were looked into, `not_looked` those that could not be, and why.
    `searched` are the files, and the store, that were searched for Signs and keys; `secrets` says where one is.
    `settled_after_s`: how long after the end of the traffic all had its effects; None if it never had.
    """

    events: tuple[StoredEvent, ...]
    dead_letters: tuple[StoredDeadLetter, ...]
    completions: tuple[Completion, ...]
    recordings: int
    differing: tuple[str, ...]
    waiting: tuple[Waiting, ...]
    places: tuple[str, ...]
    not_looked: tuple[str, ...] = ()
    searched: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    settled_after_s: float | None = None
