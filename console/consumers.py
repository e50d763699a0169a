"""Each consumer: what waits for it, what it does, and what became of what it failed at."""

import asyncio
from collections import Counter
from http import HTTPStatus
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from broker import BUILT_IN_CONSUMERS, BrokerError, queue_name
from console.attention import LATE_AFTER_S, STILL_AFTER_S, oldest_age_s
from console.live import Situation
from console.rendering import attempt, command_line
from console.requests import BadInputError, Request, Route, Shown
from store import DeadLetterFilter, DeadLetterRow, Store, iso8601, search_dead_letters
from workers import ConsumerState

Health: TypeAlias = Literal["well", "no_worker", "stuck", "still", "late", "unknown"]

_BUILT_IN: Final = frozenset(consumer.consumer for consumer in BUILT_IN_CONSUMERS)

#: What becomes of deliveries, in the words of the workers' metric; each has a text.
OUTCOMES: Final = (
    *("ack", "retry", "drop", "dead_letter", "duplicate", "leased", "unverified", "unwanted", "passed_on"),
)

#: Dead letters that the page of one consumer shows.
_LETTERS: Final = 5

#: Of so many consumers the last error is looked up for the page of all.
_FAILING: Final = 30


class ConsumerView(Struct, frozen=True, kw_only=True):
    """A consumer as pages show it. None where nobody tells.

    `oldest_s`: so long ago the first event that waits was received; `handled_s`: in this time after its arrival nearly
    every event was handled lately; `per_minute`: so many are handled.
    """

    state: ConsumerState
    health: Health
    is_built_in: bool
    dead_is_at_least: bool = False
    oldest_s: float | None = None
    still_s: float | None = None
    handled_s: float | None = None
    per_minute: float | None = None
    outcomes: dict[str, int] = {}


def consumer_views(now: Situation) -> list[ConsumerView]:
    """Return every consumer with a queue, as far as it is known: the built-in ones first, then users' by name."""
    broker, store = now.broker.value, now.store.value
    if broker is None:
        return []
    events = {one.consumer: one.routing_keys for one in BUILT_IN_CONSUMERS}
    letters = {} if store is None else store.overview.dead_letters
    if store is not None:
        events |= store.consumers
    overdue = Counter(() if store is None else [one.consumer for one in store.overdue])
    tells = now.peers.is_current and any(peer.ok for peer in now.peers.value or ())
    views = []
    for state in broker.states:
        name = state.consumer
        of_it = letters.get(name)
        shown = ConsumerState(
            name=name,
            events=events.get(name, ()),
            queue=queue_name(name),
            ready=state.ready,
            unacked=state.unacked,
            connected=state.connected,
            retrying=state.retrying,
            next_retry_at=None if state.next_retry_at_us is None else iso8601(state.next_retry_at_us),
            dead=state.dead + (0 if of_it is None else of_it.count),
            overdue=overdue[name],
            abandoned=state.connected == 0,
        )
        since_s = broker.still_since_s.get(name)
        oldest_s = oldest_age_s(state.oldest_received_at_us, now.at_s)
        still_s = None if since_s is None else max(0.0, now.at_s - since_s)
        views.append(
            ConsumerView(
                state=shown,
                health=_health(shown, oldest_s, still_s) if now.broker.is_current else "unknown",
                is_built_in=name in _BUILT_IN,
                dead_is_at_least=of_it is not None and of_it.is_at_least,
                oldest_s=oldest_s,
                still_s=still_s,
                handled_s=now.rates.quantile_s("tiw_lag_seconds_bucket", 0.99, consumer=name) if tells else None,
                per_minute=now.rates.per_minute("tiw_deliveries_total", consumer=name) if tells else None,
                outcomes=now.rates.grown_by("tiw_deliveries_total", "outcome", consumer=name) if tells else {},
            )
        )
    return views


def _health(state: ConsumerState, oldest_s: float | None, still_s: float | None) -> Health:
    if state.overdue:
        return "stuck"
    if state.abandoned:
        return "no_worker"
    if state.ready and still_s is not None and still_s > STILL_AFTER_S:
        return "still"
    return "late" if oldest_s is not None and oldest_s > LATE_AFTER_S else "well"


async def list_consumers(request: Request) -> Shown:
    """Show all of them."""
    now = await request.console.live.look()
    views = consumer_views(now)
    failing = [one.state.name for one in views if one.state.dead][:_FAILING]
    last = await asyncio.gather(*(attempt(_last_letter(request.console.store, name)) for name in failing))
    return Shown(
        template="consumers.html",
        title=request.t("consumers.title"),
        values={"now": now, "consumers": views, "errors": dict(zip(failing, last, strict=True))},
        document=_document(request, now),
        command=command_line("tiw", "consumers"),
    )


async def _last_letter(store: Store, consumer: str) -> DeadLetterRow | None:
    rows = (await search_dead_letters(store, DeadLetterFilter(consumer=consumer), limit=1)).rows
    return rows[0] if rows else None


async def show_consumer(request: Request) -> Shown:
    """Show one of them, with what it gave up last."""
    name = request.query.get("name", "")
    now = await request.console.live.look()
    found = [one for one in consumer_views(now) if one.state.name == name]
    if not found:
        if now.broker.value is None:
            raise BrokerError(now.broker.reason)
        raise BadInputError(request.t("consumers.none", name=name))
    letters = await attempt(search_dead_letters(request.console.store, DeadLetterFilter(consumer=name), limit=_LETTERS))
    return Shown(
        template="consumer.html",
        title=request.t("consumers.one", name=name),
        values={
            "now": now,
            "consumer": found[0],
            "outcomes": OUTCOMES,
            "letters": letters,
            "start": command_line("tiw", "work", name),
            "remove": command_line("tiw", "consumers", "remove", name),
        },
        document=_document(request, now, name),
        command=command_line("tiw", "consumers", "list", name),
    )


def _document(request: Request, now: Situation, name: str | None = None) -> list[ConsumerState] | None:
    """Return what `tiw consumers --json` prints. Raises `BrokerError` for a script that would take old numbers."""
    wants = request.wants_json
    if wants and not (now.broker.is_current and now.store.is_current):
        raise BrokerError(now.broker.reason or now.store.reason or HTTPStatus.SERVICE_UNAVAILABLE.phrase)
    return [one.state for one in consumer_views(now) if name in (None, one.state.name)]


ROUTES: tuple[Route, ...] = (
    # What is known of the queues is shown also while the store is away.
    Route(method="GET", path="/consumers", handler=list_consumers, store=False),
    Route(method="GET", path="/consumer", handler=show_consumer, store=False),
)
