"""One recording, in the order in which a person asks: what happened, watch it, when, which files, what was done."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode

import msgspec

from archive import AddressRules, ForbiddenAddressError, check_url, kind_of
from console.events import outcomes_of
from console.live import RECENT_S
from console.media import media_address, media_origins, streams_of
from console.recordings import Sentence, say_pause, sentence, told_us, whole_number
from console.rendering import attempt, command_line, duration_s, plain, utc_us
from console.requests import Answer, BadInputError, Done, Request, Route, Shown, Translate, Unknown
from console.timeline import draw
from reconcile import explain_failure, explain_pause
from schemas import (
    EVENT_TYPES,
    OnlineRecordFinished,
    OnlineRecordLongPauseForceStopped,
    OnlineRecordStopped,
    RecordingStatus,
    file_key,
)
from store import (
    ArchiveFileRow,
    EventFilter,
    EventRow,
    Question,
    ReconciledApp,
    Recording,
    RecordingDetails,
    RecordingEventRef,
    RecordingFailure,
    RecordingQuestion,
    ShownVideo,
    Store,
    ask,
    find_reconciled_apps,
    find_recording_details,
    find_recordings,
    list_archive_files,
    list_event_outcomes,
    microseconds,
    retry_files,
    search_events,
)
from workers import known_consumers

#: So many events stand on the page with what they say; the rest has a page of its own.
MOST_EVENTS: Final = 20
MOST_FILES: Final = 100

#: Of a body so much stands here, and of one that is longer than this no order is made of its JSON.
BODY_CHARACTERS: Final = 20_000
_FORMATTED_BYTES: Final = 256 * 1024

#: Who asks lists what runs every minute, unless it was told otherwise; after this it seems to be gone.
_QUIET_S: Final = 900.0

#: Why a question is asked, as `store.questions` and `reconcile` say it, by the name of its text.
_WHYS: Final = {
    "it was registered": "registered",
    "somebody asked in the console": "console",
    "it was stopped and is not finished": "stopped",
    "it was to be stopped after a long pause": "paused",
    "it is a day old and not finished": "old",
    "its end is not verified": "unverified",
    "it runs for a day": "runs",
    "it is no longer listed as running": "gone",
    "a search says that it has ended": "search",
}
_ANSWERS: Final = frozenset(
    ("prepared", "recording", "paused", "stopped", "finished", "failed", "not_found", "not_asked")
)
_REASONS: Final = frozenset(("auto", "user_call", "exception", "force_stop"))
_SOURCES: Final = {"": "callback", "reconcile": "reconcile", "archive": "archive", "test": "test"}

#: What is to be done with a file whose attempts fail was to be done so long ago: whoever does it seems to be gone.
_OVERDUE_US: Final = 120_000_000


async def show(request: Request) -> Answer:
    """Show one recording, or the applications to choose from."""
    t, store = request.t, request.console.store
    task_id, app = _asked_for(request.query, t)
    if app is None:
        found = await find_recordings(store, task_id)
        if len(found) > 1:
            return _choice(request, task_id, found)
        if not found:
            return _absent(t, task_id)
        app = found[0].sdk_app_id
    details = await find_recording_details(store, app, task_id)
    if details is None:
        return _absent(t, task_id)
    recording = details.recording
    heading = _heading(details, t)
    listed = recording.events[-MOST_EVENTS:]
    now_us = time.time_ns() // 1000
    outcomes = await attempt(list_event_outcomes(store, [event.event_id for event in recording.events[-200:]]))
    bodies = await attempt(_bodies(store, recording))
    apps = await attempt(find_reconciled_apps(store))
    consumers = await attempt(known_consumers(store))
    known = [] if isinstance(outcomes, Unknown) else outcomes
    takes = {} if isinstance(consumers, Unknown) else consumers
    is_all_denied = all(event.verified is False for event in recording.events)
    kept_s = request.console.config.kept_s
    addresses = request.console.config.addresses
    streams = streams_of(recording, now_s=now_us / 1_000_000, kept_s=kept_s, rules=addresses, t=t)
    values = {
        "recording": recording,
        "heading": list(heading),
        "started_us": _started_us(details),
        "active_at_us": details.active_at_us,
        "said": list(say(details, now_us=now_us, kept_s=kept_s, t=t)),
        "failing": _say_failing(details, now_us=now_us, t=t),
        "means": _meaning(recording, request.language),
        "to_do": list(_to_do(details, now_us=now_us, t=t)),
        "because": _because(recording),
        "tone": _tone(details),
        "now_us": now_us,
        "is_test": any(event.source == "test" for event in recording.events),
        "denied": sum(event.verified is False for event in recording.events),
        "is_all_denied": is_all_denied,
        "streams": streams,
        "drawing": draw(recording, outcomes=known, now_us=now_us, t=t),
        "videos": _videos(details, addresses),
        "more_videos": max(0, len(recording.videos) - MOST_FILES),
        "orphans": _orphans(details),
        "events": [
            {
                **_event(event, bodies),
                "did": _did(event, is_all_denied=is_all_denied),
                "outcomes": [
                    one
                    for one in outcomes_of(event.event_id, event.event_type, known, takes)
                    if one["outcome"] is not None or not one["is_built_in"]
                ],
            }
            for event in listed
        ],
        "knows_consumers": not isinstance(consumers, Unknown),
        "more_events": len(recording.events) - len(listed),
        "unknown_parts": [part for part in (outcomes, bodies, consumers) if isinstance(part, Unknown)],
        "question": _asked(details.question),
        "ask_note": None if isinstance(apps, Unknown) else _who_asks(app, apps.get(app), request),
        "is_final": _is_final(details),
        "fetching": _fetching(details, has_archive=request.console.has_archive),
        "fetch_command": command_line("tiw", "archive", "retry", task_id, "--app", app),
    }
    return Shown(
        template="recording.html",
        # No script changes the zone there.
        title="".join(part if isinstance(part, str) else f"{utc_us(part.at_us)[:16]} UTC" for part in heading),
        values=values,
        document=recording,
        command=command_line("tiw", "recordings", "show", task_id, "--app", app),
        media_origins=media_origins(streams),
    )


def _asked_for(query: Mapping[str, str], t: Translate) -> tuple[str, int | None]:
    """Return which recording an address, or a form, names. Raises `BadInputError`."""
    task_id = query.get("task", "")
    if not task_id:
        raise BadInputError(t("recording.no_task"))
    return task_id, whole_number(query, "app", t)


def _choice(request: Request, task_id: str, found: Sequence[Recording]) -> Shown:
    t = request.t
    return Shown(
        template="recording_choice.html",
        title=t("recording.title", task=plain(task_id, 120)),
        values={"found": found},
        command=command_line("tiw", "recordings", "list"),
    )


def _absent(t: Translate, task_id: str) -> Shown:
    return Shown(
        template="recording_absent.html",
        title=t("recording.title", task=plain(task_id, 120)),
        values={"reason": t("recording.absent", task=plain(task_id, 120)), "task_id": task_id},
        command=command_line("tiw", "recordings", "list"),
        status=404,
    )


def _heading(details: RecordingDetails, t: Translate) -> Sentence:
    """Return what a person calls a recording: its room, and when it began."""
    room, started_us = details.recording.room_id, _started_us(details)
    if started_us is None:
        return (t("recording.heading_none") if room is None else t("recording.heading_room", room=room),)
    key = "recording.heading_start" if room is None else "recording.heading"
    return sentence(t, key, values={"room": room}, start=started_us)


def _started_us(details: RecordingDetails) -> int | None:
    return told_us(details.listed.started_s)


# What happened, in a sentence.


def say(details: RecordingDetails, *, now_us: int, kept_s: float, t: Translate) -> Sentence:
    """Return what happened to a recording."""
    recording = details.recording
    started_us = _started_us(details)
    stopped_us = _told_us(
        recording,
        recording.record_stop_time or recording.force_stop_time,
        OnlineRecordStopped,
        OnlineRecordLongPauseForceStopped,
        OnlineRecordFinished,
    )
    if recording.error is not None:
        return _failed(recording.error, t)
    match recording.status:
        case RecordingStatus.RECORDING:
            return sentence(t, "recording.said_recording", start=started_us or details.active_at_us)
        case RecordingStatus.PAUSED:
            said = say_pause(t, recording, now_us, key="recording.said_paused", over_key="recording.said_paused_over")
            return said or (t("recording.said_paused_bare"),)
        case RecordingStatus.STOPPED:
            key = "recording.said_forced" if recording.force_stop_time else "recording.said_stopped"
            return sentence(t, key, stop=stopped_us or details.active_at_us)
    return _finished(details, started_us, stopped_us, now_us=now_us, kept_s=kept_s, t=t)


def _failed(error: RecordingFailure, t: Translate) -> Sentence:
    # The vendor ends its texts with a line break, or with a backslash and an n.
    told = " ".join((error.message or "").split()).removesuffix("\\n").strip()
    code, message = plain(error.code, 200), plain(told, 600)
    if message:
        return (t("recording.said_failed", code=code or "?", message=message),)
    return (t("recording.said_failed_code", code=code) if code else t("recording.said_failed_bare"),)


def _finished(
    details: RecordingDetails,
    started_us: int | None,
    stopped_us: int | None,
    *,
    now_us: int,
    kept_s: float,
    t: Translate,
) -> Sentence:
    moments = {"start": started_us, "end": stopped_us}
    span = (
        "recording.span"
        if started_us and stopped_us
        else "recording.span_end"
        if stopped_us
        else "recording.span_unknown"
    )
    known = {name: at_us for name, at_us in moments.items() if at_us is not None}
    states = _states(details)
    archived = sum(state == "archived" for state in states)
    missing = sum(state in ("lost", "refused") for state in states)
    count = len(states)
    values: dict[str, object] = {"count": count, "archived": archived, "missing": missing}
    if not count:
        key = "recording.said_no_files"
    elif archived == count:
        key = "recording.said_archived"
    elif missing:
        key = "recording.said_lost"
    elif _failing(details) is not None:
        key = "recording.said_failing"
    elif any(state is not None for state in states):
        key = "recording.said_partly"
    else:
        known["deleted"] = _deleted_us(details, stopped_us, kept_s)
        key = "recording.said_kept" if known["deleted"] > now_us else "recording.said_kept_over"
    return sentence(t, key, span=span, values=values, **known)


def _deleted_us(details: RecordingDetails, stopped_us: int | None, kept_s: float) -> int:
    finished = [event for event in details.recording.events if event.event_type == OnlineRecordFinished.__name__]
    made_us = max((event.timestamp * 1_000_000 for event in finished), default=stopped_us or details.active_at_us)
    if told_us(made_us // 1_000_000) is None:
        made_us = details.active_at_us
    return made_us + round(kept_s * 1_000_000)


def _failing(details: RecordingDetails) -> ArchiveFileRow | None:
    """Return the file whose attempts fail and that the vendor deletes first."""
    failing = [
        row
        for row in details.archive
        if row.failing_since is not None and row.state in ("waiting", "fetching", "staged")
    ]
    return min(failing, key=lambda row: row.deleted_at, default=None)


def _say_failing(details: RecordingDetails, *, now_us: int, t: Translate) -> list[Sentence]:
    """Return what stands in the way of files: since when, why, when it is tried next, how long there is for it."""
    row = _failing(details)
    if row is None or row.failing_since is None:
        return []
    is_placing = row.failing_at == "placing"
    key = "recording.failing_placing" if is_placing else "recording.failing_fetching"
    reason = plain(row.reason or "", 300).rstrip(".")
    said = [sentence(t, key, values={"reason": reason}, since=microseconds(row.failing_since))]
    if row.next_at is None:
        said.append((t("recording.failing_now"),))
    else:
        next_us = microseconds(row.next_at)
        key = "recording.failing_next" if next_us > now_us - _OVERDUE_US else "recording.failing_overdue"
        said.append(sentence(t, key, next=next_us))
    deleted_us = microseconds(row.deleted_at)
    if is_placing:
        said.append((t("recording.failing_staged"),))
    elif deleted_us > now_us:
        said.append(sentence(t, "recording.failing_until", deleted=deleted_us))
    else:
        said.append(sentence(t, "recording.failing_over", deleted=deleted_us))
    return said


def _told_us(recording: Recording, seconds: int | None, *events: type) -> int | None:
    """Return a moment that can be one: told in Unix seconds, else the Timestamp of the latest of these events."""
    told = [seconds]
    for name in [event.__name__ for event in events]:
        told += [event.timestamp for event in reversed(recording.events) if event.event_type == name]
    return next((at_us for at_us in map(told_us, told) if at_us is not None), None)


def _states(details: RecordingDetails) -> list[str | None]:
    """Return how far each file of a recording has come; None for one that is not planned to be archived."""
    return [None if video.archive is None else video.archive.state for video in details.recording.videos]


def _tone(details: RecordingDetails) -> str:
    """Return the class of styles of the sentence: how good the news is."""
    recording, states = details.recording, _states(details)
    if recording.error is not None or "lost" in states or "refused" in states:
        return "bad"
    if recording.status is RecordingStatus.PAUSED or recording.verified is False or _failing(details) is not None:
        return "warn"
    is_whole = recording.status is RecordingStatus.FINISHED and bool(states)
    return "good" if is_whole and all(state == "archived" for state in states) else "calm"


def _meaning(recording: Recording, language: str) -> str | None:
    """Return what the vendor's error means; empty if nobody knows, None if there is none."""
    if recording.error is None:
        return None
    explained = explain_failure(recording.error.message)
    return "" if explained is None else explained.zh if language == "zh" else explained.en


def _to_do(details: RecordingDetails, *, now_us: int, t: Translate) -> Iterator[Sentence]:
    """Yield what can be done now, and before the next class."""
    recording = details.recording
    states = _states(details)
    if recording.error is not None:
        yield from _after_failure(details, now_us=now_us, t=t)
    elif recording.status is RecordingStatus.PAUSED:
        yield (t("recording.paused_do"),)
    elif recording.status is not RecordingStatus.FINISHED:
        yield (t("recording.quiet_do"),)
    elif any(state in ("lost", "refused") for state in states):
        yield (t("recording.lost_do"),)
    elif states and all(state is None for state in states):
        yield (t("recording.kept_do"),)


def _after_failure(details: RecordingDetails, *, now_us: int, t: Translate) -> Iterator[Sentence]:
    recording = details.recording
    count = len(recording.videos)
    yield (t("recording.failed_saved", count=count) if count else t("recording.failed_nothing"),)
    until_us = _deleted_us(details, None, RECENT_S)
    if until_us > now_us:
        yield sentence(t, "recording.failed_again", until=until_us)
    if recording.error is not None and explain_failure(recording.error.message) is not None:
        yield (t("recording.failed_known"),)
    else:
        yield (t("recording.failed_support", task=plain(recording.task_id, 120)),)
        yield (t("recording.failed_try"),)


def _because(recording: Recording) -> str | None:
    """Return the name of the text that says why a recording ended, without the prefix."""
    reason = (recording.finish_reason or "").lower()
    return reason if reason in _REASONS and recording.error is None else None


# Its files, events and questions.


def _videos(details: RecordingDetails, addresses: AddressRules) -> list[dict[str, object]]:
    rows = {(row.name.partition("_")[0]): row for row in details.archive}
    by_place: dict[str, ArchiveFileRow] = {row.location: row for row in details.archive if row.location is not None}
    shown = []
    for number, video in enumerate(details.recording.videos[:MOST_FILES], 1):
        location = None if video.archive is None else video.archive.location
        row = by_place.get(location) if location is not None else rows.get(str(number))
        shown.append(
            {
                "number": number,
                "video": video,
                "kind": kind_of(video.video_type),
                "state": "unplanned" if video.archive is None else video.archive.state,
                "row": row,
                "ours": media_address(details.recording.sdk_app_id, details.recording.task_id, file_key(video)),
                "link": _link(video, addresses),
            }
        )
    return shown


def _link(video: ShownVideo, addresses: AddressRules) -> str | None:
    """Return the vendor's address if the archive would fetch from it: a forged callback leads nobody elsewhere."""
    try:
        return None if video.video_url is None else str(check_url(video.video_url, addresses, is_vendors=False))
    except ForbiddenAddressError:
        return None


def _orphans(details: RecordingDetails) -> list[ArchiveFileRow]:
    """Return the archive's files that no video of the recording names any more."""
    if len(details.archive) <= len(details.recording.videos):
        return []
    named = {video.archive.location for video in details.recording.videos if video.archive is not None}
    return [row for row in details.archive if row.location is not None and row.location not in named][:MOST_FILES]


async def _bodies(store: Store, recording: Recording) -> dict[str, EventRow]:
    """Return the events with what they say, as far as the page shows them."""
    chosen = EventFilter(app=recording.sdk_app_id, task=recording.task_id)
    page = await search_events(store, chosen, limit=MOST_EVENTS, bodies=True)
    return {row.event_id: row for row in page.rows}


def _event(event: RecordingEventRef, bodies: Mapping[str, EventRow] | Unknown) -> dict[str, object]:
    row = None if isinstance(bodies, Unknown) else bodies.get(event.event_id)
    text, is_base64 = _body(row)
    return {
        "event": event,
        "received_us": microseconds(event.received_at),
        "source": _SOURCES.get(event.source, "other"),
        "body": None if text is None else text[:BODY_CHARACTERS],
        "is_cut": text is not None and len(text) > BODY_CHARACTERS,
        "is_base64": is_base64,
    }


def _did(event: RecordingEventRef, *, is_all_denied: bool) -> str:
    """Return what was done here with an event, which the built-in consumers do: the last part of a text's name."""
    if event.event_type not in EVENT_TYPES:
        return "kept"
    if event.verified is not False:
        return "applied"
    return "alone" if is_all_denied else "denied"


def _body(row: EventRow | None) -> tuple[str | None, bool]:
    if row is None:
        return None, False
    if isinstance(row.body, str):
        return in_order(row.body), False
    return (row.body_base64, True) if isinstance(row.body_base64, str) else (None, False)


def in_order(body: str) -> str:
    """Return JSON with line breaks and indents, digits and names as they were sent; other text as it is."""
    encoded = body.encode("utf-8", "surrogatepass")
    if len(encoded) > _FORMATTED_BYTES:
        return body
    try:
        return msgspec.json.format(encoded, indent=2).decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body


def _asked(question: RecordingQuestion | None) -> dict[str, object] | None:
    if question is None:
        return None
    status = (question.answer_status or "").lower()
    answer = None if question.answer is None else question.answer.decode("utf-8", "replace")
    return {
        "question": question,
        "why": _WHYS.get(question.why),
        "answer": status if status in _ANSWERS else None,
        "body": None if answer is None else in_order(answer)[:BODY_CHARACTERS],
    }


def _is_final(details: RecordingDetails) -> bool:
    """Say whether the vendor told how it ended, and what we have agrees: nothing is asked then."""
    question, recording = details.question, details.recording
    if question is None or question.answer is None or recording.status is not RecordingStatus.FINISHED:
        return False
    finished = [event for event in recording.events if event.event_type == OnlineRecordFinished.__name__]
    return question.state == "done" and all(event.verified is not None for event in finished)


def _fetching(details: RecordingDetails, *, has_archive: bool) -> str:
    """Return what it would come to if files were to be fetched now: the last part of a text's name."""
    if details.listed.is_test:
        return "test"
    if not details.archive:
        return "soon" if has_archive and details.recording.videos else "unplanned"
    if all(row.state == "archived" for row in details.archive):
        return "archived"
    return "here" if has_archive else "elsewhere"


def _who_asks(app: int, known: ReconciledApp | None, request: Request) -> str | None:
    """Return why nobody would ask for an application, as far as the store knows; None if somebody does."""
    t = request.t
    if app == 0:
        return t("recording.ask_no_app")
    if known is None or (known.listed_ago_s is None and not known.paused_for_s):
        return t("recording.ask_nobody", app=app)
    if known.paused_for_s:
        explained = explain_pause(known.pause_reason or "")
        is_chinese = explained is not None and request.language == "zh"
        reason = explained.zh if is_chinese and explained is not None else known.pause_reason or ""
        return t("recording.ask_paused", app=app, reason=plain(reason, 600))
    if known.listed_ago_s is not None and known.listed_ago_s > _QUIET_S:
        return t("recording.ask_quiet", app=app, length=duration_s(known.listed_ago_s))
    return None


# What can be done about it.


async def ask_now(request: Request) -> Answer:
    """Have the vendor asked about a recording by whoever asks: this process holds no vendor's secret."""
    t, store = request.t, request.console.store
    task_id, app = _asked_for(request.form, t)
    detail = {"sdk_app_id": app, "task_id": task_id}
    to = _address(app, task_id)
    known = None if app is None else await find_recording_details(store, app, task_id)
    if app is None or known is None:
        await request.note("recording.ask", detail, "no such recording")
        return Done(text=t("recording.absent", task=plain(task_id, 120)), to=to, ok=False)
    if known.listed.is_test:
        await request.note("recording.ask", detail, "a test")
        return Done(text=t("recording.ask_test"), to=to, ok=False)
    if app == 0:
        await request.note("recording.ask", detail, "no application")
        return Done(text=t("recording.ask_no_app"), to=to, ok=False)
    await ask(store, [Question(sdk_app_id=app, task_id=task_id, why="somebody asked in the console")])
    apps = await attempt(find_reconciled_apps(store))
    nobody = None if isinstance(apps, Unknown) else _who_asks(app, apps.get(app), request)
    await request.note("recording.ask", detail, "kept" if nobody else "asked")
    if nobody is not None:
        kept = t("recording.ask_kept", task=plain(task_id, 120), note=nobody)
        return Done(text=kept, to=to, ok=False)
    return Done(text=t("recording.ask_done", task=plain(task_id, 120)), to=to)


async def fetch_now(request: Request) -> Answer:
    """Have what is not archived of a recording fetched at once, as `tiw archive retry` does."""
    t, store = request.t, request.console.store
    task_id, app = _asked_for(request.form, t)
    detail = {"sdk_app_id": app, "task_id": task_id}
    to = _address(app, task_id)
    if app is None:
        await request.note("recording.fetch", detail, "no application named")
        return Done(text=t("recording.absent", task=plain(task_id, 120)), to=to, ok=False)
    files = await list_archive_files(store, task_id=task_id, app=app, limit=1)
    if not files:
        await request.note("recording.fetch", detail, "no file is planned")
        return Done(text=t("recording.fetch_unplanned"), to=to, ok=False)
    count = await retry_files(store, task_id=task_id, app=app)
    await request.note("recording.fetch", {**detail, "files": count}, "done")
    if not count:
        return Done(text=t("recording.fetch_none"), to=to)
    key = "recording.fetch_done" if request.console.has_archive else "recording.fetch_no_place"
    return Done(text=t(key, count=count), to=to, ok=request.console.has_archive)


def _address(app: int | None, task_id: str) -> str:
    query: dict[str, Any] = {} if app is None else {"app": app}
    return f"/recording?{urlencode({**query, 'task': task_id})}"


ROUTES: tuple[Route, ...] = (
    Route(method="GET", path="/recording", handler=show),
    Route(method="POST", path="/recording/ask", handler=ask_now, role="operate"),
    Route(method="POST", path="/recording/fetch", handler=fetch_now, role="operate"),
)
