"""The evidence of one round, put together from its files."""

from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import msgspec

from chaos.evidence.lines import read_lines
from chaos.evidence.outcome import Outcome
from chaos.evidence.records import Effect, Fault, GaveUp, Measured, Sent, Tried
from chaos.evidence.terms import Terms

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
        return {one.event_id for one in self.outcome.dead_letters if one.consumer not in self.terms.consumers}

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
