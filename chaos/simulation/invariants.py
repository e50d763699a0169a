"""What must hold of every world, decided from what was seen and from what its database holds at the end."""

from collections import defaultdict
from collections.abc import Iterator
from random import Random
from typing import Any

import msgspec

from chaos.simulation.consumers import Handlers
from chaos.simulation.database import Database
from chaos.simulation.evidence import Evidence
from schemas import Unrecognized, decode
from simulator import render
from store import KeptEvent, Store, find_recordings, fold
from store.recording import makes_recording
from workers import Consumer

Violations = Iterator[str]


async def violations(
    *,
    evidence: Evidence,
    database: Database,
    store: Store,
    handlers: Handlers,
    consumers: tuple[Consumer, ...],
    seed: int,
) -> list[str]:
    """Return a sentence for each promise that was broken."""
    kept = {
        event_id: KeptEvent(
            event=decode(body, received_at_us=received_at_us).event,
            event_id=event_id,
            received_at_us=received_at_us,
            body=body,
        )
        for event_id, received_at_us, body in database.look("SELECT event_id, received_at_us, body FROM events")
    }
    dead = {
        (consumer, event_id): (reason, attempts)
        for consumer, event_id, reason, attempts in database.look(
            "SELECT consumer, event_id, reason, attempts FROM dead_letters WHERE resolved_at_us IS NULL"
        )
    }
    return [
        *evidence.late,
        *evidence.errors,
        *_nothing_is_lost(evidence, set(kept), set(dead), consumers),
        *_nothing_is_made_up(evidence, kept),
        *_nothing_takes_effect_twice(evidence),
        *_every_dead_letter_has_its_reason(evidence, handlers, dead, consumers),
        *await _recordings_are_what_their_events_add_up_to(store, kept, seed),
    ]


def _nothing_is_lost(
    evidence: Evidence, kept: set[str], dead: set[tuple[str, str]], consumers: tuple[Consumer, ...]
) -> Violations:
    for event_id in sorted(evidence.accepted):
        if event_id not in kept and not any(event_id == dead_id for _, dead_id in dead):
            yield f"lost: {event_id} was answered 200 and is not in the store"
        for consumer in consumers:
            place = consumer.name, event_id
            if event_id in evidence.forged or _routing_key(evidence, event_id) not in consumer.routing_keys:
                continue
            if not evidence.effects[place] and place not in dead and place not in evidence.dropped:
                yield f"lost: {event_id} was answered 200 and {consumer.name} has not handled it"


def _nothing_is_made_up(evidence: Evidence, kept: dict[str, KeptEvent]) -> Violations:
    for event_id, one in kept.items():
        callback = evidence.sent.get(event_id)
        if callback is None:
            yield f"made up: {event_id} is in the store and nobody who may has sent it"
        elif _members(one.body) != _members(render(callback)):
            yield f"changed: {event_id} is in the store with another content"
    for consumer, event_id in evidence.effects:
        if event_id not in evidence.sent:
            yield f"made up: {consumer} has handled {event_id}, and nobody who may has sent it"


def _nothing_takes_effect_twice(evidence: Evidence) -> Violations:
    # Outside the store an effect happens again if a worker dies, or loses its lease, before it is remembered.
    for (consumer, event_id), times in evidence.effects.items():
        if times > 1 + evidence.disturbances:
            yield f"repeated: {consumer} has handled {event_id} {times} times, disturbances: {evidence.disturbances}"


def _every_dead_letter_has_its_reason(
    evidence: Evidence,
    handlers: Handlers,
    dead: dict[tuple[str, str], tuple[str, int]],
    consumers: tuple[Consumer, ...],
) -> Violations:
    attempts = {consumer.name: consumer.attempts for consumer in consumers}
    for (consumer, event_id), (reason, attempt) in dead.items():
        if event_id not in evidence.sent:
            yield f"made up: a dead letter of {consumer} for {event_id}, which nobody who may has sent"
        elif reason == "worker crashed":
            if not evidence.disturbances:
                yield f"dead-lettered: {event_id} of {consumer} as a crash, and no worker has died"
        elif consumer not in attempts:
            yield f"dead-lettered: {event_id} of {consumer}, a consumer of ours, because of: {reason}"
        elif reason != "cannot be handled" and attempt < attempts[consumer]:
            manner = handlers.manner(consumer, event_id)
            yield f"dead-lettered: {event_id} of {consumer} ({manner}) after {attempt} attempts, because of: {reason}"


async def _recordings_are_what_their_events_add_up_to(store: Store, kept: dict[str, KeptEvent], seed: int) -> list[str]:
    rng = Random(f"permutations {seed}")
    by_recording: dict[tuple[int, str], list[KeptEvent]] = defaultdict(list)
    for one in kept.values():
        event = one.event
        if not isinstance(event, Unrecognized) and makes_recording(event):
            by_recording[event.sdk_app_id, event.task_id].append(one)
    found = []
    for (sdk_app_id, task_id), events in sorted(by_recording.items()):
        rng.shuffle(events)
        recordings = await find_recordings(store, task_id, app=sdk_app_id)
        if recordings != [fold(events)]:
            found.append(f"merged wrongly: {task_id} is not what its events add up to")
    return found


def _routing_key(evidence: Evidence, event_id: str) -> str:
    callback = evidence.sent[event_id]
    event = decode(render(callback), received_at_us=callback.timestamp * 1_000_000).event
    return "unrecognized" if isinstance(event, Unrecognized) else type(event).__name__


def _members(body: bytes) -> dict[str, Any]:
    members: dict[str, Any] = msgspec.json.decode(body)
    return members
