"""Bugs to plant: what a checker that finds nothing must be held against. No world has any unless it is asked for."""

from enum import StrEnum


class Bug(StrEnum):
    """A mistake that loses, repeats, delays or makes up callbacks."""

    #: 200 is answered when the callback is written to the wire, not when it is confirmed.
    ANSWERED_BEFORE_CONFIRM = "answered-before-confirm"
    #: 200 is answered when the callback is in the spool's memory, not when it is on disk.
    ANSWERED_BEFORE_SPOOLED = "answered-before-spooled"
    #: A delivery is acknowledged by being handed over.
    ACKED_BEFORE_EFFECT = "acked-before-effect"
    #: The next attempt is said to be kept before it is; the delivery is acknowledged meanwhile.
    ACKED_BEFORE_RETRY_KEPT = "acked-before-retry-kept"
    #: The drain deletes what it has published before it is confirmed.
    DELETED_BEFORE_CONFIRM = "deleted-before-confirm"
    #: Completions are written to a transaction that is rolled back.
    COMPLETIONS_FORGOTTEN = "completions-forgotten"
    #: Events are written to a transaction that is rolled back.
    EVENTS_FORGOTTEN = "events-forgotten"
    #: A key that nobody was given is accepted.
    FORGED_ACCEPTED = "forged-accepted"
    #: Ingest waits for the broker for as long as it takes.
    NO_DEADLINE = "no-deadline"
    #: Recordings are written without their videos.
    RECORDING_SPOILED = "recording-spoiled"
