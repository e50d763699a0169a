"""Evidence made by hand, of a round in which everything went well; tests change what they are about."""

from typing import Any

from chaos.checking.evidence import Evidence, Terms
from chaos.evidence import (
    Completion,
    Effect,
    Fault,
    GaveUp,
    Measured,
    Outcome,
    Sent,
    StoredDeadLetter,
    StoredEvent,
    Tried,
    Waiting,
)

S = 1_000_000


def terms(**changes: Any) -> Terms:
    return Terms(**{"scenario": "forged", "consumers": ("effects",), "takes": {"effects": ()}, **changes})


TERMS = terms()


def sent(event_id: str, *, at_s: float = 0.0, forged: str = "") -> Sent:
    return Sent(
        event_id=event_id,
        event_type="OnlineRecordStarted",
        digest=f"d-{event_id}",
        at_us=round(at_s * S),
        forged=forged,
    )


def tried(event_id: str, status: int = 200, *, at_s: float = 0.0, took_s: float = 0.01, **changes: Any) -> Tried:
    began_us = round(at_s * S)
    values = {"attempt": 1, "began_us": began_us, "ended_us": began_us + round(took_s * S), **changes}
    return Tried(event_id=event_id, status=status, **values)


def effect(event_id: str, *, at_s: float = 0.1, **changes: Any) -> Effect:
    values = {"consumer": "effects", "sha256": f"s-{event_id}", "attempt": 1, "pid": 1, **changes}
    return Effect(event_id=event_id, began_us=round(at_s * S), began_wall_us=round(at_s * S), **values)


def stored(event_id: str, **changes: Any) -> StoredEvent:
    return StoredEvent(**{"event_id": event_id, "digest": f"d-{event_id}", "sha256": f"s-{event_id}", **changes})


def dead_letter(event_id: str, consumer: str = "effects", **changes: Any) -> StoredDeadLetter:
    values = {"attempts": 3, "reason": "refused", "first_failed_at_us": 1, "last_failed_at_us": 2, **changes}
    return StoredDeadLetter(consumer=consumer, event_id=event_id, **values)


def completed(event_id: str, *, at_s: float, consumer: str = "effects") -> Completion:
    return Completion(consumer=consumer, event_id=event_id, completed_at_wall_us=round(at_s * S))


def waiting(place: str, *event_ids: str) -> Waiting:
    return Waiting(place=place, count=len(event_ids), event_ids=event_ids)


def fault(kind: str = "SIGKILL", victim: str = "broker", *, from_s: float, to_s: float | None, **changes: Any) -> Fault:
    values = {"number": 1, **changes}
    ended_us = None if to_s is None else round(to_s * S)
    return Fault(kind=kind, victim=victim, began_us=round(from_s * S), ended_us=ended_us, **values)


def measured(value: float, at_most: float) -> Measured:
    return Measured(what="memory", value=value, unit="MB", at_most=at_most)


def evidence(
    *,
    terms: Terms | None = None,
    sent: list[Sent] | None = None,
    tries: list[Tried] | None = None,
    gave_up: list[GaveUp] | None = None,
    faults: list[Fault] | None = None,
    effects: list[Effect] | None = None,
    measures: list[Measured] | None = None,
    **outcome: Any,
) -> Evidence:
    """Return evidence; what is not said is empty."""
    nothing: dict[str, Any] = {
        "events": (),
        "dead_letters": (),
        "completions": (),
        "recordings": 0,
        "differing": (),
        "waiting": (),
        "places": (),
    }
    return Evidence(
        terms=terms or TERMS,
        sent=sent or [],
        tries=tries or [],
        gave_up=gave_up or [],
        faults=faults or [],
        effects=effects or [],
        measures=measures or [],
        outcome=Outcome(**{**nothing, **outcome}),
    )


def all_went_well(*event_ids: str) -> dict[str, Any]:
    """Return what `evidence` takes for callbacks that were accepted, applied and handed on."""
    return {
        "sent": [sent(event_id) for event_id in event_ids],
        "tries": [tried(event_id) for event_id in event_ids],
        "effects": [effect(event_id) for event_id in event_ids],
        "events": tuple(stored(event_id) for event_id in event_ids),
        "completions": tuple(completed(event_id, at_s=0.2) for event_id in event_ids),
        "places": ("tiw.started", "spool of ingest-1"),
    }
