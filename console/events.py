"""Events: what came in, what nobody understood and why, what each consumer did with it, and giving it once more."""

import asyncio
import re
import time
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any, Final
from urllib.parse import urlencode

from msgspec import UNSET, Struct, structs

from broker import BUILT_IN_CONSUMERS, BrokerError, Headers
from console.bodies import body_bytes, shown_body
from console.recordings import DAY_US, PAGE_ROWS, day_us, days_of_command
from console.rendering import attempt, command_line, option, plain
from console.requests import Answer, BadInputError, Done, Request, Route, Shown, Translate
from schemas import UNRECOGNIZED, Unrecognized, decode
from store import (
    EventFilter,
    EventOutcome,
    EventRow,
    KeptRow,
    Page,
    Store,
    find_event,
    find_kept,
    list_changes,
    list_event_outcomes,
    microseconds,
    search_events,
)
from workers import EventSelection, ReplayedEvents, known_consumers, preview_event, replay_events

#: What an address says of where events come from, and what the store calls it.
SOURCES: Final = {"callback": "", "reconcile": "reconcile", "archive": "archive", "test": "test"}

#: The kinds that there are, as a person chooses one.
KINDS: Final = tuple(dict.fromkeys(key for queues in BUILT_IN_CONSUMERS for key in queues.routing_keys))

#: What the decoder says, by the last part of a text's key; what it says of single members is shown as it is.
_WHYS: Final = {
    "not a JSON object": "not_object",
    "malformed JSON": "malformed",
    "not UTF-8": "not_utf8",
    "a name stands twice in one object": "name_twice",
    "EventData is not an object": "no_data",
    "EventType is none of the five recording events": "other_kind",
    "Timestamp lies more than a day ahead of the arrival": "ahead",
    "TaskId holds the character U+0000, which SQL text cannot": "nul",
}

_BUILT_IN: Final = frozenset(queues.consumer for queues in BUILT_IN_CONSUMERS)


class Filters(Struct, frozen=True, kw_only=True):
    """What the address asks for. `offset` is how many minutes east of UTC the days are meant; `until` is included."""

    event_type: str | None = None
    task: str | None = None
    app: int | None = None
    source: str | None = None
    consumer: str | None = None
    unrecognized: bool = False
    since: date | None = None
    until: date | None = None
    offset: int = 0


async def list_events(request: Request) -> Answer:
    """Show events, the latest accepted first."""
    filters = read_filters(request.query, request.t)
    # To say why nobody understood them.
    with_bodies = filters.unrecognized
    page = await _search(request, filters, bodies=with_bodies)
    # In a thread: somebody may have made fifty megabytes to be slow.
    rows = await asyncio.to_thread(lambda: [_row(row, explain=with_bodies) for row in page.rows])
    document = [structs.replace(row, body=UNSET, body_base64=UNSET) for row in page.rows] if with_bodies else page.rows
    return Shown(
        template="events.html",
        title=request.t("events.title"),
        values={
            "filters": filters,
            "rows": rows,
            "kinds": [kind for kind in KINDS if kind != UNRECOGNIZED],
            "sources": list(SOURCES),
            "is_filtered": filters != Filters(offset=filters.offset),
            "searched_until_us": page.searched_until_us,
            "is_last": page.next is None,
        },
        document=document,
        command=command_line(
            *("tiw", "events", "list"),
            *option("--type", filters.event_type),
            *option("--task", filters.task),
            *option("--app", filters.app),
            *option("--source", filters.source),
            *option("--consumer", filters.consumer),
            *days_of_command(filters.since, filters.until, filters.offset),
            *(["--unrecognized"] if filters.unrecognized else []),
            # Later pages have no command of their own: it lists those before them, too.
            *([] if request.query.get("after") else ["--limit", PAGE_ROWS]),
        ),
        next=None if page.next is None else _query(filters, after=page.next),
    )


async def show_event(request: Request) -> Answer:
    """Show one event whole, and what became of it."""
    store = request.console.store
    event_id = request.query.get("id", "")
    row = await find_event(store, event_id)
    kept = None if row is None else await find_kept(store, event_id)
    if row is None or kept is None:
        return Shown(
            template="event.html",
            title=request.t("event.title"),
            values={"event": None, "event_id": event_id},
            document=[],
            command=command_line("tiw", "events", "show", event_id),
            status=404,
        )
    outcomes = await list_event_outcomes(store, [event_id])
    is_unrecognized = kept.routing_key == UNRECOGNIZED
    why = await asyncio.to_thread(why_unrecognized, row) if is_unrecognized else None
    return Shown(
        template="event.html",
        title=request.t("event.title"),
        values={
            "event": row,
            "kept": kept,
            "why": None if why is None else {"key": _WHYS.get(why), "text": why},
            "is_unrecognized": is_unrecognized,
            "headers": _headers(kept),
            "body_shown": shown_body(row),
            "outcomes": outcomes_of(event_id, kept.routing_key, outcomes, await known_consumers(store)),
        },
        document=[row],
        command=command_line("tiw", "events", "show", event_id),
    )


async def preview_replay(request: Request) -> Answer:
    """Say what a replay of one event to one consumer would do, and change nothing."""
    t, console = request.t, request.console
    consumer, event_id = request.query.get("consumer", ""), request.query.get("id", "")
    kept, _ = await _wanted(console.store, consumer, event_id, t)
    affected = await preview_event(console.transport, consumer)
    outcomes = await list_event_outcomes(console.store, [event_id])
    outcome = next((one for one in outcomes if one.consumer == consumer), None)
    return Shown(
        template="events_replay.html",
        title=t("events.replay_title"),
        values={
            "kept": kept,
            "event_type": kept.routing_key,
            "consumer": consumer,
            "affected": affected,
            "was_done": outcome is not None and outcome.completed_at_us is not None,
            "is_dead": outcome is not None and outcome.dead,
            "seen_us": time.time_ns() // 1000,
        },
        document=ReplayedEvents(consumer=consumer, replayed=0, matching=1),
        command=command_line("tiw", "events", "replay", "--consumer", consumer, "--event-id", event_id, "--dry-run"),
    )


async def replay(request: Request) -> Answer:
    """Give an event to a consumer once more, unless somebody else did so since this one looked."""
    t, console = request.t, request.console
    consumer, event_id = request.form.get("consumer", ""), request.form.get("id", "")
    _, keys = await _wanted(console.store, consumer, event_id, t)
    detail = {"consumer": consumer, "event_id": event_id}
    back = f"/event?{urlencode({'id': event_id}, errors='replace')}"
    seen = request.form.get("seen", "")
    if not re.fullmatch(r"[0-9]{1,18}", seen):
        raise BadInputError(t("events.bad_form"))
    async with console.turn("events"):
        if await _is_replayed_since(console.store, detail, seen_us=int(seen)):
            await request.note("events.replay", detail, "somebody else did meanwhile")
            return Done(text=t("events.already_replayed", consumer=plain(consumer, 80)), to=back, ok=False)
        try:
            (state,) = await console.transport.inspect([consumer])
        except BrokerError as error:
            await request.note("events.replay", detail, f"stopped: {error}")
            return Done(text=t("events.stopped", reason=plain(error, 300)), to=back, ok=False)
        if not state.exists:
            await request.note("events.replay", detail, "no queue")
            return Done(text=t("events.no_queue", consumer=plain(consumer, 80)), to=back, ok=False)
        selection = EventSelection(routing_keys=keys, event_id=event_id)
        done = await replay_events(console.store, console.transport, consumer, selection)
        await request.note("events.replay", detail, f"stopped: {done.stopped}" if done.stopped else "replayed")
    if done.stopped:
        return Done(text=t("events.stopped", reason=plain(done.stopped, 300)), to=back, ok=False)
    return Done(text=t("events.replayed", consumer=plain(consumer, 80)), to=back)


async def _is_replayed_since(store: Store, detail: Mapping[str, object], *, seen_us: int) -> bool:
    changes = await attempt(list_changes(store))
    return isinstance(changes, Page) and any(
        (change.action, change.detail, change.result) == ("events.replay", detail, "replayed")
        for change in changes.rows
        if change.at_us >= seen_us
    )


async def _wanted(store: Store, consumer: str, event_id: str, t: Translate) -> tuple[KeptRow, tuple[str, ...]]:
    """Return the event and the routing keys of the consumer. Raises `BadInputError` if they do not go together."""
    kept = await find_kept(store, event_id)
    if kept is None:
        raise BadInputError(t("event.none"))
    keys = (await known_consumers(store)).get(consumer)
    if keys is None:
        raise BadInputError(t("events.no_consumer", consumer=plain(consumer, 80)))
    if kept.routing_key not in keys:
        raise BadInputError(t("events.unwanted", consumer=plain(consumer, 80), event_type=plain(kept.routing_key, 80)))
    return kept, keys


def why_unrecognized(row: EventRow) -> str | None:
    """Return why this version makes no event of a body; None if it does, unlike the one that took it in."""
    event = decode(body_bytes(row), received_at_us=microseconds(row.received_at)).event
    return event.reason if isinstance(event, Unrecognized) else None


def read_filters(query: Mapping[str, str], t: Translate) -> Filters:
    """Read the filters of an address. Raises `BadInputError` that says which cannot be meant."""
    source = query.get("source", "").strip() or None
    if source is not None and source not in SOURCES:
        raise BadInputError(t("events.bad_source", value=plain(source, 80)))
    return Filters(
        event_type=query.get("type", "").strip() or None,
        task=query.get("task", "").strip() or None,
        app=_number(query.get("app", "").strip(), t),
        source=source,
        consumer=query.get("consumer", "").strip() or None,
        unrecognized=query.get("unrecognized", "") not in ("", "0", "false"),
        since=_day(query.get("from", "").strip(), t),
        until=_day(query.get("until", "").strip(), t),
        offset=_offset(query.get("offset", "")),
    )


def _number(text: str, t: Translate) -> int | None:
    if not text:
        return None
    if re.fullmatch(r"[0-9]{1,18}", text, re.ASCII):
        return int(text)
    raise BadInputError(t("events.bad_app", value=plain(text, 80)))


def _day(text: str, t: Translate) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise BadInputError(t("events.bad_day", value=plain(text, 80))) from None


def _offset(text: str) -> int:
    # Zones reach from 12 hours west to 14 hours east.
    return max(-720, min(840, int(text))) if re.fullmatch(r"[+-]?[0-9]{1,3}", text, re.ASCII) else 0


def _query(filters: Filters, **more: str) -> str:
    given: dict[str, Any] = {
        "type": filters.event_type,
        "task": filters.task,
        "app": filters.app,
        "source": filters.source,
        "consumer": filters.consumer,
        "unrecognized": 1 if filters.unrecognized else None,
        "from": filters.since,
        "until": filters.until,
        "offset": filters.offset or None,
        **more,
    }
    return urlencode({name: str(value) for name, value in given.items() if value is not None}, errors="replace")


async def _search(request: Request, filters: Filters, *, bodies: bool) -> Page[EventRow]:
    chosen = EventFilter(
        app=filters.app,
        task=filters.task,
        event_type=filters.event_type,
        unrecognized=filters.unrecognized,
        source=None if filters.source is None else SOURCES[filters.source],
        consumer=filters.consumer,
        from_us=None if filters.since is None else day_us(filters.since, filters.offset),
        until_us=None if filters.until is None else day_us(filters.until, filters.offset) + DAY_US,
    )
    try:
        return await search_events(
            request.console.store,
            chosen,
            after=request.query.get("after") or None,
            limit=PAGE_ROWS,
            bodies=bodies,
        )
    except ValueError as error:
        raise BadInputError(request.t("events.bad_place")) from error


def _row(row: EventRow, *, explain: bool) -> dict[str, object]:
    why = why_unrecognized(row) if explain else None
    return {
        "event": row,
        # What is listed does not say more: the page of the event does.
        "is_kind": row.event_type in KINDS,
        "source": next((name for name, source in SOURCES.items() if source == row.source), "other"),
        "why": why if why is None else {"key": _WHYS.get(why), "text": why},
    }


def _headers(kept: KeptRow) -> dict[str, str]:
    """Return what travels beside the body to each consumer."""
    return {
        Headers.EVENT_ID: kept.event_id,
        Headers.ROUTING_KEY: kept.routing_key,
        Headers.RECEIVED_AT_US: str(kept.received_at_us),
        **({Headers.SOURCE: kept.source} if kept.source else {}),
    }


def outcomes_of(
    event_id: str, routing_key: str, outcomes: Iterable[EventOutcome], known: Mapping[str, tuple[str, ...]]
) -> list[dict[str, object]]:
    """Return what is known of each consumer that gets such events, or did something with this one."""
    found = {outcome.consumer: outcome for outcome in outcomes if outcome.event_id == event_id}
    takes = [name for name, keys in known.items() if routing_key in keys]
    shown: list[dict[str, object]] = []
    for name in [*takes, *(name for name in found if name not in takes)]:
        outcome = found.get(name)
        members = urlencode({"id": event_id, "consumer": name}, errors="replace")
        shown.append(
            {
                "consumer": name,
                "is_built_in": name in _BUILT_IN,
                "outcome": outcome,
                "state": _state(name, outcome),
                "letter": f"/dead-letter?{members}",
                "replay": f"/events/replay?{members}" if name in takes else None,
            }
        )
    return shown


def _state(consumer: str, outcome: EventOutcome | None) -> str:
    """Return how a consumer stands with an event, as the last part of a text's key."""
    if outcome is not None and outcome.dead:
        return "dead"
    if outcome is not None and outcome.completed_at_us is not None:
        return "done"
    if outcome is not None and (outcome.leased_until_us or 0) > time.time_ns() // 1000:
        return "working"
    if outcome is not None and outcome.replayed_at_us is not None:
        return "replayed"
    return "kept" if consumer in _BUILT_IN else "nothing"


ROUTES: tuple[Route, ...] = (
    Route(method="GET", path="/events", handler=list_events),
    Route(method="GET", path="/event", handler=show_event),
    Route(method="GET", path="/events/replay", handler=preview_replay),
    Route(method="POST", path="/events/replay", handler=replay, role="operate"),
)
