"""What was seen: written while a scenario runs, and all that the checker decides from."""

import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import msgspec
from msgspec import Struct


def now_us() -> int:
    """Return microseconds of the machine's monotonic clock: the same in all its processes, and never stepped."""
    return time.monotonic_ns() // 1000


class LineWriter:
    """Appends records to a file, each with one write: what was written stays when the writer is killed.

    A context manager.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1

    def __enter__(self) -> Self:
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        return self

    def __exit__(self, *exc_info: object) -> None:
        os.close(self._file)

    def write(self, record: Struct) -> None:
        """Append one record."""
        os.write(self._file, msgspec.json.encode(record) + b"\n")


def read_lines(path: Path, kind: Any) -> Iterator[Any]:
    """Yield the records of a file, of one kind or of a union; none if there is no file.

    A last line that was cut off is passed over.
    """
    if not path.exists():
        return
    decoder = msgspec.json.Decoder(kind)
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield decoder.decode(line)


_members = msgspec.json.Decoder(dict[str, msgspec.Raw])

_NOT_KEPT = ("Sign", "ExpireTime")


def content_digest(body: bytes) -> str:
    """Return SHA-256, as hex, over the members of a JSON body in their order, the bytes of each value as they came.

    Sign and ExpireTime do not count: they are never kept. White space between members does not count either.
    Raises `ValueError` for what is no JSON object.
    """
    digest = hashlib.sha256()
    for name, value in _members.decode(body).items():
        if name not in _NOT_KEPT:
            digest.update(b"%b\0%b\n" % (name.encode(), bytes(value)))
    return digest.hexdigest()


#: The one place where a Sign is kept on purpose, for a while, for its owner's eyes alone: refused callbacks.
_ALLOWED = "rejected"

#: As JSON has it, and as a log line in JSON has JSON.
_SIGN = (b'"Sign"', b'\\"Sign\\"')


def secrets_in(content: bytes, key: str) -> list[str]:
    """Return what of both is in `content`: `a Sign`, `the key`."""
    found = ["a Sign"] if any(sign in content for sign in _SIGN) else []
    return [*found, "the key"] if key.encode() in content else found


def search_files(folders: Iterable[Path], key: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the name of every file in `folders`, and what of both was found in it."""
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and _ALLOWED not in path.relative_to(folder).parts:
                yield f"{folder.name}/{path.relative_to(folder)}", secrets_in(path.read_bytes(), key)


class Sent(Struct, frozen=True, kw_only=True, tag="sent"):
    """A callback is about to be tried for the first time.

    `digest` is that of the content that must be kept, see `digests`. `forged` says in which way it is none that
    anybody may accept; empty for a real one.
    """

    event_id: str
    event_type: str
    digest: str
    at_us: int
    forged: str = ""


class Tried(Struct, frozen=True, kw_only=True, tag="tried"):
    """One try has ended. `status` is 0 if there was no answer, `failure` says why then.

    `attempt` counts from 1 (0: a copy of a callback that was accepted already). `stalled_us` is how long the process
    that took the time stood still meanwhile.
    """

    event_id: str
    attempt: int
    began_us: int
    ended_us: int
    status: int
    failure: str = ""
    stalled_us: int = 0


class GaveUp(Struct, frozen=True, kw_only=True, tag="gave-up"):
    """The sender's last try of a callback has failed."""

    event_id: str
    at_us: int


class Fault(Struct, frozen=True, kw_only=True):
    """A fault, from the moment before it was injected until it was undone; None while it lasts.

    `nothing_durable`: neither broker nor spool could keep anything in between. `excuses_deadline`: the answering
    process itself stood still, so that no deadline of its own could hold. `ends_everything`: all processes ended at
    the same moment. `of_consumer` names the consumer whose fault it is, alone. `recovers_within_s`: its own bound;
    `drains_within_s`: how long after its end what was accepted meanwhile may wait for its effects. `steps_clock`: the
    wall clock of a process was wrong, so that a signature may have looked expired. `repeats`: how often it can have let
    an effect outside the store happen again; None: nobody knows.
    """

    number: int
    kind: str
    victim: str
    began_us: int
    ended_us: int | None = None
    nothing_durable: bool = False
    excuses_deadline: bool = False
    ends_everything: bool = False
    of_consumer: str = ""
    recovers_within_s: float | None = None
    drains_within_s: float | None = None
    steps_clock: bool = False
    repeats: int | None = None


class Effect(Struct, frozen=True, kw_only=True):
    """A consumer's handler has done what it does outside the store, or has dropped the event.

    `sha256` is of the body that it was given, `began_us` and `began_wall_us` when it was called.
    """

    consumer: str
    event_id: str
    sha256: str
    attempt: int
    pid: int
    began_us: int
    began_wall_us: int


class Measured(Struct, frozen=True, kw_only=True):
    """A quantity that a scenario looked at beside the ledger, and what it may be at most, in `unit`."""

    what: str
    value: float
    at_most: float
    unit: str


class StoredEvent(Struct, frozen=True, kw_only=True):
    """A row of the store's events. `digest` is of its content, `sha256` of its body."""

    event_id: str
    digest: str
    sha256: str


class StoredDeadLetter(Struct, frozen=True, kw_only=True):
    """A row of the store's dead letters; `is_resolved`: it was replayed, and stands for nothing any more."""

    consumer: str
    event_id: str
    attempts: int
    reason: str
    first_failed_at_us: int
    last_failed_at_us: int
    is_resolved: bool = False


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
