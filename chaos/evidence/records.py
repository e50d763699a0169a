"""The records of a scenario. All times `..._us` are of the machine's monotonic clock unless they are named wall."""

from msgspec import Struct


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

    `attempt` counts from 1 (0: a copy of a callback that was accepted already). `stalled_us` is how long the sender
    itself stood still meanwhile.
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
    wall clock of a process was wrong, so that a signature may have looked expired.
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


class Effect(Struct, frozen=True, kw_only=True):
    """A consumer's handler has done what it does outside the store.

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
