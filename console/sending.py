"""Sends a test callback, and shows what becomes of it.

What it is, and how it is made: `workers.sending`. `tiw send-test` sends the same.
"""

import re
import time
from collections.abc import Collection, Mapping
from typing import Final, Literal, TypeAlias
from urllib.parse import urlencode

from msgspec import Struct

from broker import Message, NotPublishedError
from console.rendering import attempt, command_line, option
from console.requests import BadInputError, Done, Request, Route, Shown, Unknown
from store import (
    TEST_SOURCE,
    EventOutcome,
    Store,
    StoreError,
    find_event,
    known_apps,
    list_event_outcomes,
)
from workers import (
    BUILT_IN,
    EXAMPLE_APP,
    EXAMPLE_ROOM,
    TEST_EVENT_TYPES,
    is_test_task_id,
    known_consumers,
    make_test,
    new_test_task_id,
)

_EVENT_ID: Final = re.compile(r"[0-9a-f]{16,128}")
_KEPT_BY: Final = frozenset(one.queues.consumer for one in BUILT_IN)

#: The page looks for news by itself for so long after a test was sent.
FOLLOWED_FOR_S: Final = 900.0

State: TypeAlias = Literal["done", "kept", "at_work", "gave_up", "waits", "unknown"]


class Reached(Struct, frozen=True, kw_only=True):
    """How far a test has come with one consumer, as far as the store tells."""

    consumer: str
    state: State
    at_us: int | None = None
    attempts: int | None = None
    reason: str | None = None


class SendChoices(Struct, frozen=True, kw_only=True):
    """What a test callback can be: what happened, by the EventType that tells it, of which known application, to whom.

    `consumers` has what each of them takes.
    """

    kinds: dict[str, str]
    apps: list[int]
    consumers: dict[str, tuple[str, ...]]


class SentTest(Struct, frozen=True, kw_only=True):
    """What became of a test callback; `is_kept`: the store has its event."""

    event_id: str
    is_kept: bool
    consumers: list[Reached]


async def show_form(request: Request) -> Shown:
    """Show the form, or what became of a test that was sent."""
    if "sent" in request.query:
        return await _show_sent(request)
    store = request.console.store
    apps = await attempt(known_apps(store))
    consumers = await attempt(known_consumers(store))
    query = request.query
    kind, consumer, task = query.get("kind", ""), query.get("consumer", ""), query.get("task", "")
    # A link may name what no form has.
    kind, task = kind if kind in TEST_EVENT_TYPES else "started", task if is_test_task_id(task) else ""
    known_app = EXAMPLE_APP if isinstance(apps, Unknown) or not apps else min(apps)
    app, room = query.get("app") or known_app, query.get("room") or EXAMPLE_ROOM
    return Shown(
        template="test.html",
        title=request.t("sending.title"),
        values={
            "kinds": list(TEST_EVENT_TYPES),
            "event_types": TEST_EVENT_TYPES,
            "kind": kind,
            "apps": [] if isinstance(apps, Unknown) else sorted(apps),
            "app": app,
            "room": room,
            "consumers": consumers if isinstance(consumers, Unknown) else list(consumers),
            "consumer": consumer,
            "task": task or None,
        },
        document=_choices(apps, consumers),
        command=command_line(
            *("tiw", "send-test", kind),
            *option("--app", app),
            *option("--room", room),
            *option("--task", task or None),
            *option("--consumer", consumer or None),
        ),
    )


def _choices(
    apps: Collection[int] | Unknown, consumers: Mapping[str, tuple[str, ...]] | Unknown
) -> SendChoices | Unknown:
    if isinstance(apps, Unknown):
        return apps
    if isinstance(consumers, Unknown):
        return consumers
    return SendChoices(kinds=dict(TEST_EVENT_TYPES), apps=sorted(apps), consumers=dict(consumers))


async def send(request: Request) -> Done:
    """Send one, and lead to what becomes of it."""
    t, form = request.t, request.form
    kind = form.get("kind", "")
    if kind not in TEST_EVENT_TYPES:
        raise BadInputError(t("sending.bad_kind"))
    app = _number(request, "app", greatest=2**53)
    room = _number(request, "room", greatest=2**53)
    task = form.get("task") or new_test_task_id()
    if not is_test_task_id(task):
        raise BadInputError(t("sending.bad_task"))
    message = make_test(kind, app=app, room=room, task=task, now_s=time.time())
    consumer = form.get("consumer", "")
    detail: dict[str, object] = {"kind": kind, "app": app, "room": room, "task": task, "consumer": consumer}
    try:
        if consumer:
            await _send_to_one(request, consumer, message)
        else:
            await request.console.transport.publish(message)
    except NotPublishedError as error:
        await request.note("test", detail, f"not sent: {error}")
        return Done(text=t("sending.not_sent", reason=str(error)), to=_page(kind=kind, app=app, room=room), ok=False)
    await request.note("test", detail, f"sent {message.event_id}")
    to = _page(
        sent=message.event_id,
        key=message.routing_key,
        consumer=consumer or None,
        kind=kind,
        app=app,
        room=room,
        task=task,
        at=message.received_at_us // 1_000_000,
    )
    return Done(text=t("sending.sent"), to=to)


async def _send_to_one(request: Request, consumer: str, message: Message) -> None:
    """Put a message into one consumer's queue. Raises `BadInputError` where it has none, or takes no such events."""
    transport, t = request.console.transport, request.t
    takes = (await known_consumers(request.console.store)).get(consumer)
    if takes is None or not (await transport.inspect([consumer]))[0].exists:
        raise BadInputError(t("sending.no_consumer", consumer=consumer))
    if message.routing_key not in takes:
        taken = ", ".join(takes)
        raise BadInputError(t("sending.not_taken", consumer=consumer, event=message.routing_key, takes=taken))
    await transport.send(consumer, message)


def _number(request: Request, name: str, *, greatest: int) -> int:
    text = request.form.get(name, "").strip()
    if not re.fullmatch(r"[0-9]{1,16}", text) or int(text) > greatest:
        raise BadInputError(request.t("sending.bad_number"))
    return int(text)


async def _show_sent(request: Request) -> Shown:
    query = request.query
    event_id = query["sent"]
    if not _EVENT_ID.fullmatch(event_id):
        raise BadInputError(request.t("sending.bad_id"))
    consumer = query.get("consumer")
    found = await attempt(find_sent(request.console.store, event_id, query.get("key", ""), consumer=consumer))
    sent_at_s = float(query["at"]) if re.fullmatch(r"[0-9]{1,12}", query.get("at", "")) else None
    is_over = not isinstance(found, Unknown) and all(
        one.state in ("done", "kept", "gave_up") for one in found.consumers
    )
    is_old = sent_at_s is None or time.time() - sent_at_s > FOLLOWED_FOR_S
    task = query.get("task", "")
    return Shown(
        template="test_sent.html",
        title=request.t("sending.followed"),
        values={
            "event_id": event_id,
            "sent": found,
            "sent_at_s": sent_at_s,
            "task": task if is_test_task_id(task) else None,
            "app": query.get("app", ""),
            "consumer": consumer,
            "follow": not is_over and not is_old,
            "next": [
                (kind, _page(kind=kind, app=query.get("app"), room=query.get("room"), task=task))
                for kind in TEST_EVENT_TYPES
                if kind != query.get("kind") and is_test_task_id(task)
            ],
        },
        document=found,
        command=command_line("tiw", "events", "show", event_id),
    )


async def find_sent(store: Store, event_id: str, routing_key: str, *, consumer: str | None) -> SentTest:
    """Return what became of a test with this routing key, with `consumer` alone if it was sent to that one.

    Raises `StoreError`.
    """
    kept = await find_event(store, event_id)
    if kept is not None and kept.source != TEST_SOURCE:
        # Not ours to tell of on this page: it has one of its own.
        raise StoreError("this event is no test")
    outcomes = {one.consumer: one for one in await list_event_outcomes(store, [event_id])}
    known = await known_consumers(store)
    expected = [consumer] if consumer else [name for name, keys in known.items() if routing_key in keys]
    names = list(dict.fromkeys([*expected, *outcomes]))
    reached = [_reached(name, outcomes.get(name), is_kept=kept is not None) for name in names]
    return SentTest(event_id=event_id, is_kept=kept is not None, consumers=reached)


def _reached(name: str, outcome: EventOutcome | None, *, is_kept: bool) -> Reached:
    if outcome is not None:
        if outcome.dead:
            return Reached(
                consumer=name,
                state="gave_up",
                at_us=outcome.last_failed_at_us,
                attempts=outcome.attempts,
                reason=outcome.reason,
            )
        if outcome.completed_at_us is not None:
            return Reached(consumer=name, state="done", at_us=outcome.completed_at_us)
        if outcome.leased_until_us is not None and outcome.leased_until_us > time.time_ns() // 1000:
            return Reached(consumer=name, state="at_work")
    if name in _KEPT_BY:
        # They remember nothing but the event itself.
        return Reached(consumer=name, state="kept" if is_kept else "waits")
    return Reached(consumer=name, state="unknown")


def _page(**query: object) -> str:
    return f"/test?{urlencode({name: value for name, value in query.items() if value is not None})}"


ROUTES: tuple[Route, ...] = (
    Route(method="GET", path="/test", handler=show_form, store=False),
    Route(method="POST", path="/test", handler=send, role="operate"),
)
