"""Sends a test callback, and shows what becomes of it.

It goes the way that a callback goes once it was accepted, and needs no key. Its source is `test`: nothing is asked or
fetched of it, nobody is told, and its TaskId says what it is wherever it is shown.
"""

import re
import secrets
import time
from collections.abc import Collection, Mapping
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import urlencode

import msgspec
from msgspec import Struct

from broker import Message, NotPublishedError
from console.rendering import attempt
from console.requests import BadInputError, Done, Request, Route, Shown, Unknown
from schemas import UNRECOGNIZED, Unrecognized, decode
from store import (
    TEST_SOURCE,
    EventOutcome,
    Store,
    StoreError,
    find_event,
    known_apps,
    list_event_outcomes,
)
from workers import BUILT_IN, known_consumers

#: What can be sent, in the order of a recording's life.
KINDS: Final = ("started", "long_pause_warning", "long_pause_force_stopped", "stopped", "finished", "failed", "unknown")

#: The application of the vendor's own documents; ours where none is known yet.
EXAMPLE_APP: Final = 1400000001
EXAMPLE_ROOM: Final = 880528

#: A name that is reserved for examples: who fetches the files of a test disturbs nobody.
_FILES: Final = "http://test-recording.file.example"

_EVENT_TYPES: Final[Mapping[str, str]] = {
    "started": "OnlineRecordStarted",
    "long_pause_warning": "OnlineRecordLongPauseWarning",
    "long_pause_force_stopped": "OnlineRecordLongPauseForceStopped",
    "stopped": "OnlineRecordStopped",
    "finished": "OnlineRecordFinished",
    "failed": "OnlineRecordFinished",
    "unknown": "OnlineRecordTested",
}
_TASK: Final = re.compile(r"test-[0-9a-z-]{8,60}")
_EVENT_ID: Final = re.compile(r"[0-9a-f]{16,128}")
_KEPT_BY: Final = frozenset(one.queues.consumer for one in BUILT_IN)

#: The page looks for news by itself for so long after a test was sent.
FOLLOWED_FOR_S: Final = 900.0

#: A class lasted so long before it was stopped, and was paused for so long.
_CLASS_S: Final = 2400
_PAUSED_S: Final = 1200

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
    task = request.query.get("task", "")
    return Shown(
        template="test.html",
        title=request.t("sending.title"),
        values={
            "kinds": KINDS,
            "event_types": _EVENT_TYPES,
            "kind": request.query.get("kind", "started"),
            "apps": [] if isinstance(apps, Unknown) else sorted(apps),
            "app": request.query.get("app") or (EXAMPLE_APP if isinstance(apps, Unknown) or not apps else min(apps)),
            "room": request.query.get("room") or EXAMPLE_ROOM,
            "consumers": consumers if isinstance(consumers, Unknown) else list(consumers),
            "consumer": request.query.get("consumer", ""),
            "task": task if _TASK.fullmatch(task) else None,
        },
        document=_choices(apps, consumers),
    )


def _choices(
    apps: Collection[int] | Unknown, consumers: Mapping[str, tuple[str, ...]] | Unknown
) -> SendChoices | Unknown:
    if isinstance(apps, Unknown):
        return apps
    if isinstance(consumers, Unknown):
        return consumers
    return SendChoices(kinds=dict(_EVENT_TYPES), apps=sorted(apps), consumers=dict(consumers))


async def send(request: Request) -> Done:
    """Send one, and lead to what becomes of it."""
    t, form = request.t, request.form
    kind = form.get("kind", "")
    if kind not in KINDS:
        raise BadInputError(t("sending.bad_kind"))
    app = _number(request, "app", greatest=2**53)
    room = _number(request, "room", greatest=2**53)
    task = form.get("task") or new_task_id()
    if not _TASK.fullmatch(task):
        raise BadInputError(t("sending.bad_task"))
    message = make_message(kind, app=app, room=room, task=task, now_s=time.time())
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


def new_task_id() -> str:
    """Return a TaskId that no other test has, and that says that it is one."""
    return f"test-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"


def make_message(kind: str, *, app: int, room: int, task: str, now_s: float) -> Message:
    """Return a callback as the vendor would have sent it just now, as it is once it was accepted."""
    content = {
        "SdkAppId": app,
        "EventType": _EVENT_TYPES[kind],
        "Timestamp": int(now_s),
        "EventData": _event_data(kind, room=room, task=task, now=int(now_s)),
    }
    body = msgspec.json.encode(content)
    received_at_us = round(now_s * 1_000_000)
    decoded = decode(body, received_at_us=received_at_us)
    is_unknown = isinstance(decoded.event, Unrecognized)
    return Message(
        body=body,
        event_id=decoded.event_id,
        routing_key=UNRECOGNIZED if is_unknown else type(decoded.event).__name__,
        received_at_us=received_at_us,
        source=TEST_SOURCE,
    )


def _event_data(kind: str, *, room: int, task: str, now: int) -> dict[str, Any]:
    teacher = f"tic_record_user_{room}_test"
    subject: dict[str, Any] = {"RecordUserId": teacher, "RoomId": room, "TaskId": task}
    began = now - _CLASS_S
    match kind:
        case "long_pause_warning":
            return subject | {"PauseTime": now - _PAUSED_S, "EstimateStopTime": now + _PAUSED_S}
        case "long_pause_force_stopped":
            return subject | {"PauseTime": now - _PAUSED_S, "StopTime": now}
        case "finished":
            return _finished(subject, room=room, began=began, now=now) | {"VideoInfos": _videos(room)}
        case "failed":
            error = {"Code": "FailedOperation.Record", "Message": "this is a test: nothing was recorded"}
            failed = {"RecordStartTime": 0, "TotalTime": 0, "FinishReason": "EXCEPTION", "Error": error}
            return _finished(subject, room=room, began=began, now=now) | failed
    return subject


def _finished(subject: Mapping[str, Any], *, room: int, began: int, now: int) -> dict[str, Any]:
    return {
        **subject,
        "GroupId": str(room),
        "FinishReason": "USER_CALL",
        "RecordStartTime": began,
        "RecordStopTime": now,
        "TotalTime": _CLASS_S * 1000,
        "ExceptionCnt": 0,
        "OmittedDurations": [],
        "VideoInfos": [],
    }


def _videos(room: int) -> list[dict[str, Any]]:
    """Return a camera and the whiteboard; nothing is behind their addresses."""
    folder = secrets.token_hex(8)
    videos = []
    for video_type, user in ((0, "teacher_0001"), (2, "")):
        video_id = secrets.token_hex(16)
        videos.append(
            {
                "VideoId": video_id,
                "VideoUrl": f"{_FILES}/{room}/{folder}/{video_id}.mp4",
                "VideoFormat": "mp4",
                "VideoType": video_type,
                "VideoSize": 64_000_000,
                "VideoPlayTime": 0,
                "VideoDuration": _CLASS_S * 1000,
                "UserId": user,
                "Width": 1280,
                "Height": 720,
            }
        )
    return videos


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
            "task": task if _TASK.fullmatch(task) else None,
            "app": query.get("app", ""),
            "consumer": consumer,
            "follow": not is_over and not is_old,
            "next": [
                (kind, _page(kind=kind, app=query.get("app"), room=query.get("room"), task=task))
                for kind in KINDS
                if kind != query.get("kind") and _TASK.fullmatch(task)
            ],
        },
        document=found,
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
