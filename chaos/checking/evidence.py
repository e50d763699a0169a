"""The evidence of one round, put together from its files, and what the checker says of one invariant."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import cached_property
from pathlib import Path

import msgspec
from msgspec import Struct

from chaos.evidence import Effect, Fault, GaveUp, Measured, Outcome, Sent, StoredDeadLetter, Tried, read_lines
from chaos.scenario import Scenario


class Terms(Struct, frozen=True, kw_only=True):
    """What is known of a round beforehand; most are values of `Scenario` and `Layout`.

    `takes`: consumers and the types of event that each must get, () for all. `gives_up`: the consumers that may give
    an event up, and after how many attempts; `gives_up_at_once_with`: reasons that need fewer. None: any may, any time.
    `on_the_way_s` is how long an answer may take to whoever took the time. No `recovers_within_s`: there is no bound.
    """

    scenario: str
    consumers: tuple[str, ...]
    meant_to_fail: tuple[str, ...] = ()
    takes: dict[str, tuple[str, ...]] = {}
    gives_up: dict[str, int] | None = None
    gives_up_at_once_with: tuple[str, ...] = ()
    on_the_way_s: float = 0.5
    recovers_within_s: float | None = 30.0
    may_give_up: str | None = None


def terms_of(scenario: Scenario) -> Terms:
    """Return the terms of a scenario."""
    return Terms(
        scenario=scenario.name,
        consumers=scenario.layout.consumers,
        takes={"effects": ()} if "effects" in scenario.layout.consumers else {},
        meant_to_fail=scenario.meant_to_fail,
        recovers_within_s=scenario.recovers_within_s,
        may_give_up=scenario.may_give_up,
    )


ACCEPTED = 200


class Evidence:
    """What the checker decides from. `tries` are in the order of their ends; all ids are event_ids."""

    def __init__(
        self,
        *,
        terms: Terms,
        sent: list[Sent],
        tries: list[Tried],
        gave_up: list[GaveUp],
        faults: list[Fault],
        effects: list[Effect],
        outcome: Outcome,
        measures: Sequence[Measured] = (),
    ) -> None:
        self.terms = terms
        self.sent = {one.event_id: one for one in sent}
        self.tries = tries
        self.gave_up = gave_up
        self.faults = faults
        self.effects = effects
        self.outcome = outcome
        self.measures = measures

    @cached_property
    def genuine(self) -> dict[str, Sent]:
        """What was sent and must be accepted, by id."""
        return {event_id: one for event_id, one in self.sent.items() if not one.forged}

    @cached_property
    def accepted(self) -> dict[str, Tried]:
        """The first try of each genuine callback that was answered 200, by id."""
        first: dict[str, Tried] = {}
        for tried in self.tries:
            if tried.status == ACCEPTED and tried.event_id in self.genuine:
                first.setdefault(tried.event_id, tried)
        return first

    @cached_property
    def tries_by_id(self) -> dict[str, list[Tried]]:
        """All tries of each callback."""
        by_id: dict[str, list[Tried]] = defaultdict(list)
        for tried in self.tries:
            by_id[tried.event_id].append(tried)
        return by_id

    @cached_property
    def stored(self) -> set[str]:
        """The ids in the store's events."""
        return {event.event_id for event in self.outcome.events}

    @cached_property
    def dead(self) -> set[str]:
        """The ids of dead letters that took an event from the store: those of built-in consumers."""
        return {one.event_id for one in self.open_letters if one.consumer not in self.terms.consumers}

    @cached_property
    def open_letters(self) -> list[StoredDeadLetter]:
        """The dead letters that were not replayed."""
        return [one for one in self.outcome.dead_letters if not one.is_resolved]

    @cached_property
    def waiting(self) -> set[str]:
        """The ids that were found in a queue or a spool, as far as they were read."""
        return {event_id for place in self.outcome.waiting for event_id in place.event_ids}

    @cached_property
    def effects_by_id(self) -> dict[str, list[Effect]]:
        """All effects of each event, of any consumer, in the order in which handlers were called."""
        by_id: dict[str, list[Effect]] = defaultdict(list)
        for effect in sorted(self.effects, key=lambda effect: effect.began_us):
            by_id[effect.event_id].append(effect)
        return by_id


def load_evidence(folder: Path) -> Evidence:
    """Read the evidence of a round. Raises `OSError` and `msgspec.DecodeError`."""
    sent: list[Sent] = []
    tries: list[Tried] = []
    gave_up: list[GaveUp] = []
    for record in read_lines(folder / "ledger.jsonl", Sent | Tried | GaveUp):
        if isinstance(record, Sent):
            sent.append(record)
        elif isinstance(record, Tried):
            tries.append(record)
        else:
            gave_up.append(record)
    # Each fault is written when it begins and when it has ended.
    faults = {fault.number: fault for fault in read_lines(folder / "faults.jsonl", Fault)}
    return Evidence(
        terms=msgspec.json.decode((folder / "terms.json").read_bytes(), type=Terms),
        sent=sent,
        tries=tries,
        gave_up=gave_up,
        faults=list(faults.values()),
        effects=list(read_lines(folder / "effects.jsonl", Effect)),
        outcome=msgspec.json.decode((folder / "outcome.json").read_bytes(), type=Outcome),
        measures=list(read_lines(folder / "measures.jsonl", Measured)),
    )


#: As many cases are named; the count tells of all.
_NAMED = 5


class Judgement(StrEnum):
    """Satisfied only with evidence: what was not exercised is unchecked."""

    SATISFIED = "satisfied"
    VIOLATED = "violated"
    UNCHECKED = "unchecked"


class Finding(Struct, frozen=True, kw_only=True):
    """A judgement. `exercised` counts what could have violated the invariant, `violations` what did.

    `text` says why it is unchecked, or names the first violations.
    """

    judgement: Judgement
    exercised: int = 0
    violations: int = 0
    text: str = ""


class Invariant(Struct, frozen=True, kw_only=True):
    """A promise: `number` names it for ever, `judge` decides from the evidence alone."""

    number: str
    sentence: str
    judge: Callable[[Evidence], Finding]


def unchecked(reason: str) -> Finding:
    """Say that there is no evidence."""
    return Finding(judgement=Judgement.UNCHECKED, text=reason)


def found(violations: Sequence[str], *, exercised: int, otherwise: str) -> Finding:
    """Judge: violated if there are `violations`; unchecked, for the reason `otherwise`, if nothing was exercised."""
    if violations:
        named = "; ".join(violations[:_NAMED]) + ("; ..." if len(violations) > _NAMED else "")
        return Finding(judgement=Judgement.VIOLATED, exercised=exercised, violations=len(violations), text=named)
    if not exercised:
        return unchecked(otherwise)
    return Finding(judgement=Judgement.SATISFIED, exercised=exercised)
