"""Recordings, searched: one box, filters that stand in the address, and rows that say what is wrong."""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta, timezone
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import urlencode

from aiohttp import hdrs, web
from msgspec import Struct, structs

from console.rendering import attempt, command_line, option, plain
from console.requests import Answer, BadInputError, Request, Route, Shown, Translate, Unknown
from store import (
    END_OF_YEARS_S,
    ListedRecording,
    Page,
    RecordingFilter,
    RecordingStatus,
    RecordingSummary,
    Store,
    search_recordings,
)

PAGE_ROWS: Final = 50

#: A TaskId has 20 characters; less than this was typed to find one by its beginning.
_TASK_LETTERS = 16

_ROOM = re.compile(r"[0-9]{1,19}", re.ASCII)
_DAYS = ("today", "yesterday")
_FLAGS = ("failed", "found_late", "contradicted", "not_archived")
DAY_US: Final = 86_400 * 1_000_000

#: As what the text of the box is looked for.
Taken: TypeAlias = Literal["room", "task", "teacher"]


class Moment(Struct, frozen=True):
    """A point in time within a sentence, in microseconds since the Unix epoch."""

    at_us: int


#: A sentence whose moments are shown in the reader's zone.
Sentence: TypeAlias = tuple[str | Moment, ...]


def sentence(
    t: Translate, key: str, *, span: str | None = None, values: Mapping[str, object] | None = None, **moments: int
) -> Sentence:
    """Return a text with moments in it. `span` names another one with moments, which stands in its `{span}`.

    What `plain` gives of a callback's text has no NUL, which marks the moments here.
    """
    places = {name: f"\0{name}\0" for name in moments}
    inner = {} if span is None else {"span": t(span, **places)}
    text = t(key, **{**(values or {}), **places, **inner})
    return tuple(Moment(moments[part]) if number % 2 else part for number, part in enumerate(text.split("\0")) if part)


#: So long after the time that the vendor gave, a pause may still be heard of.
_PAUSE_GRACE_US: Final = 60_000_000


def told_us(seconds: int | None) -> int | None:
    """Return a moment that a callback tells in Unix seconds, None if it cannot be one."""
    return seconds * 1_000_000 if seconds is not None and 0 < seconds < END_OF_YEARS_S else None


def say_pause(t: Translate, summary: RecordingSummary, now_us: int, *, key: str, over_key: str) -> Sentence | None:
    """Return since when a recording is paused, and when it is stopped, or was to be; None if callbacks do not tell."""
    pause_us, stop_us = told_us(summary.pause_time), told_us(summary.estimate_stop_time)
    if pause_us is None or stop_us is None:
        return None
    is_over = now_us >= stop_us + _PAUSE_GRACE_US
    return sentence(t, over_key if is_over else key, pause=pause_us, stop=stop_us)


class Filters(Struct, frozen=True, kw_only=True):
    """What the address asks for. `offset` is how many minutes east of UTC the days are meant; `until` is included."""

    q: str | None = None
    taken: Taken | None = None
    task: str | None = None
    room: int | None = None
    teacher: str | None = None
    app: int | None = None
    status: RecordingStatus | None = None
    since: date | None = None
    until: date | None = None
    offset: int = 0
    failed: bool = False
    found_late: bool = False
    contradicted: bool = False
    not_archived: bool = False


#: Members of the address by the field that they fill, where the names differ.
_NAMES: Final = {"since": "from", "taken": "as"}

#: What a person takes for one filter, in the order of the form.
_SHOWN: Final = (
    *("q", "room", "teacher", "task", "app", "status", "since", "until"),
    *_FLAGS,
)


#: The usual questions.
_QUICK: Final = (
    ("recordings.quick_all", Filters()),
    ("recordings.quick_failed", Filters(failed=True)),
    ("recordings.quick_paused", Filters(status=RecordingStatus.PAUSED)),
    ("recordings.quick_not_archived", Filters(not_archived=True)),
    ("recordings.quick_contradicted", Filters(contradicted=True)),
    ("recordings.quick_found_late", Filters(found_late=True)),
)


async def list_recordings(request: Request) -> Answer:
    """Show recordings, those heard of last first."""
    t = request.t
    chosen = request.query.get("from")
    if chosen in _DAYS:
        return _redirected(request, chosen)
    filters = read_filters(request.query, t)
    if "" in request.query.values():
        # A form sends its empty fields, too: the address that is passed on has what was asked for.
        return _moved(query_of(filters, format=request.query.get("format") or None))
    after = request.query.get("after") or None
    filters, page = await _search(request.console.store, filters, after, t)
    next_query = None
    if page.next is not None:
        next_query = query_of(filters, after=page.next)
    is_filtered = any(_is_set(filters, name) for name in _SHOWN)
    is_empty = not page.rows and page.next is None and after is None
    drops = await _drops(request.console.store, filters) if is_empty else []
    now_us = time.time_ns() // 1000
    values = {
        "filters": filters,
        "form": _form_values(filters),
        "statuses": [status.value for status in RecordingStatus],
        "rows": [_row(one, now_us, t) for one in page.rows],
        "active": [{"text": text, "address": _address(_without(filters, name))} for name, text in _named(filters, t)],
        "is_filtered": is_filtered,
        "is_open": is_empty and is_filtered,
        "quick": list(_quick(filters)),
        # What a day that is pressed is asked of.
        "kept": _members(structs.replace(filters, since=None, until=None)),
        "others": [] if filters.q is None or filters.taken is None else _others(filters),
        "drops": drops
        if isinstance(drops, Unknown)
        else [{"text": text, "address": to} for text, to in _shown(drops, filters, t)],
        "is_later_page": after is not None,
        "searched": None
        if page.searched_until_us is None
        else sentence(t, "recordings.searched_until", at=page.searched_until_us),
    }
    return Shown(
        template="recordings.html",
        title=t("recordings.title"),
        values=values,
        document=[one.summary for one in page.rows],
        command=_command(filters, is_later_page=after is not None),
        next=next_query,
    )


async def _search(
    store: Store, filters: Filters, after: str | None, t: Translate
) -> tuple[Filters, Page[ListedRecording]]:
    """Return the recordings, and the filters with what the text of the box was taken for."""
    page: Page[ListedRecording] = Page(rows=[], next=None)
    for one in _interpretations(filters):
        try:
            page = await search_recordings(store, _stored(one), after=after, limit=PAGE_ROWS)
        except ValueError as error:
            raise BadInputError(t("recordings.bad_cursor")) from error
        if page.rows or page.next is not None:
            return one, page
    return filters, page


def _interpretations(filters: Filters) -> Iterator[Filters]:
    """Yield the filters with each meaning that the text of the box may have, the likeliest first."""
    text = filters.q
    if text is None or filters.taken is not None:
        yield filters
        return
    for taken in meanings(text):
        yield structs.replace(filters, taken=taken)


def meanings(text: str) -> Sequence[Taken]:
    """Return what a text that a person typed may be, the likeliest first."""
    if _ROOM.fullmatch(text) and int(text) < 2**63:
        return ("room", "task", "teacher")
    if text.startswith("tic_") or not text.isascii() or " " in text:
        return ("teacher", "task")
    return ("task", "teacher")


def _stored(filters: Filters) -> RecordingFilter:
    """Return what the store is asked for."""
    task, room, teacher = filters.task, filters.room, filters.teacher
    if filters.q is not None:
        match filters.taken:
            case "room" if room is None:
                room = int(filters.q)
            case "teacher" if teacher is None:
                teacher = filters.q
            case "task" if task is None:
                is_whole = len(filters.q) >= _TASK_LETTERS or filters.q.endswith("*")
                task = filters.q if is_whole else f"{filters.q}*"
    return RecordingFilter(
        app=filters.app,
        task=task,
        room=room,
        teacher=teacher,
        status=filters.status,
        from_us=None if filters.since is None else day_us(filters.since, filters.offset),
        until_us=None if filters.until is None else day_us(filters.until, filters.offset) + DAY_US,
        failed=filters.failed,
        found_late=filters.found_late,
        contradicted=filters.contradicted,
        not_archived=filters.not_archived,
    )


def day_us(day: date, offset_minutes: int) -> int:
    """Return when a day begins in a zone that is so many minutes east of UTC."""
    return (day.toordinal() - date(1970, 1, 1).toordinal()) * DAY_US - offset_minutes * 60 * 1_000_000


# What the address says.


def read_filters(query: Mapping[str, str], t: Translate) -> Filters:
    """Read the filters of an address. Raises `BadInputError` that says which cannot be meant."""
    # The store cannot hold U+0000, and no page can show it.
    shown = {name: value.replace("\0", "\N{REPLACEMENT CHARACTER}") for name, value in query.items()}
    texts = {name: shown.get(name, "").strip() for name in ("q", "task", "teacher", "status", "as")}
    status = None
    if texts["status"]:
        try:
            status = RecordingStatus(texts["status"].upper())
        except ValueError:
            raise BadInputError(t("recordings.bad_status", value=plain(texts["status"], 80))) from None
    filters = Filters(
        q=texts["q"] or None,
        task=texts["task"] or None,
        teacher=texts["teacher"] or None,
        room=whole_number(query, "room", t),
        app=whole_number(query, "app", t),
        status=status,
        since=_day(query, "from", t),
        until=_day(query, "until", t),
        offset=_offset(query),
        failed=_flag(query, "failed"),
        found_late=_flag(query, "found_late"),
        contradicted=_flag(query, "contradicted"),
        not_archived=_flag(query, "not_archived"),
    )
    if filters.q is not None and texts["as"] in meanings(filters.q):
        taken: Any = texts["as"]
        filters = structs.replace(filters, taken=taken)
    return filters


def whole_number(query: Mapping[str, str], name: str, t: Translate) -> int | None:
    """Return a number of 64 bits that an address has. Raises `BadInputError` for what is none."""
    text = query.get(name, "").strip()
    if not text:
        return None
    if re.fullmatch(r"-?[0-9]{1,19}", text, re.ASCII) and -(2**63) <= int(text) < 2**63:
        return int(text)
    raise BadInputError(t("recordings.bad_number", name=t(f"recordings.filter_{name}"), value=plain(text, 80)))


def _flag(query: Mapping[str, str], name: str) -> bool:
    return query.get(name, "") not in ("", "0", "false")


def _day(query: Mapping[str, str], name: str, t: Translate) -> date | None:
    text = query.get(name, "").strip()
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise BadInputError(
            t("recordings.bad_day", name=t(f"recordings.filter_{name}"), value=plain(text, 80))
        ) from None


def _offset(query: Mapping[str, str]) -> int:
    text = query.get("offset", "")
    # Zones reach from 12 hours west to 14 hours east.
    is_zone = re.fullmatch(r"[+-]?[0-9]{1,3}", text, re.ASCII) is not None
    return max(-720, min(840, int(text))) if is_zone else 0


def _members(filters: Filters) -> list[tuple[str, str]]:
    """Return what an address that asks for these filters says, by name."""
    members: list[tuple[str, str]] = []
    for name in Filters.__struct_fields__:
        value = getattr(filters, name)
        if value in (None, False) or name == "offset":
            continue
        shown = value.value if isinstance(value, RecordingStatus) else "1" if value is True else str(value)
        members.append((_NAMES.get(name, name), shown))
    if filters.since is not None or filters.until is not None:
        members.append(("offset", str(filters.offset)))
    return members


def query_of(filters: Filters, **more: str | None) -> str:
    """Return the query string that asks for these filters."""
    return urlencode([*_members(filters), *((name, value) for name, value in more.items() if value is not None)])


def _address(filters: Filters) -> str:
    query = query_of(filters)
    return f"/recordings?{query}" if query else "/recordings"


def _redirected(request: Request, day: str) -> web.Response:
    """Lead to the address that names the day: one that is passed on means the same tomorrow."""
    offset = _offset(request.query)
    number = (time.time_ns() // 1000 + offset * 60 * 1_000_000) // DAY_US - (day == "yesterday")
    at = date.fromordinal(date(1970, 1, 1).toordinal() + number)
    rest = {name: value for name, value in request.query.items() if name not in ("from", "until", "offset", "after")}
    query = urlencode({**rest, "from": at.isoformat(), "until": at.isoformat(), "offset": str(offset)})
    return _moved(query)


def _moved(query: str) -> web.Response:
    return web.Response(status=303, headers={hdrs.LOCATION: f"/recordings?{query}" if query else "/recordings"})


def _without(filters: Filters, name: str) -> Filters:
    changes: dict[str, Any] = {name: getattr(Filters(), name)}
    if name == "q":
        changes["taken"] = None
    return structs.replace(filters, **changes)


def _is_set(filters: Filters, name: str) -> bool:
    return getattr(filters, name) not in (None, False)


def _named(filters: Filters, t: Translate) -> Iterator[tuple[str, str]]:
    """Yield the name of each filter that is set, and how a person calls it."""
    for name in _SHOWN:
        if not _is_set(filters, name):
            continue
        text = t(f"recordings.filter_{_NAMES.get(name, name)}")
        value = getattr(filters, name)
        if isinstance(value, RecordingStatus):
            value = t(f"status.{value.value.lower()}")
        if value is not True:
            text = t("recordings.named_value", name=text, value=plain(value, 80))
        yield name, text


def _quick(filters: Filters) -> Iterator[dict[str, object]]:
    """Yield the usual questions: the name of the text, the address, and whether it is what is shown."""
    for key, wanted in _QUICK:
        is_shown = structs.replace(filters, offset=0) == wanted
        yield {"key": key, "address": _address(wanted), "is_shown": is_shown}


def _others(filters: Filters) -> list[dict[str, object]]:
    """Return the other meanings that the text of the box may have."""
    return [
        {"key": f"recordings.filter_{taken}", "address": _address(structs.replace(filters, taken=taken))}
        for taken in meanings(filters.q or "")
        if taken != filters.taken
    ]


def _form_values(filters: Filters) -> dict[str, str]:
    """Return what stands in the fields of the form."""
    shown = {name: getattr(filters, name) for name in Filters.__struct_fields__}
    return {
        _NAMES.get(name, name): value.value if isinstance(value, RecordingStatus) else str(value)
        for name, value in shown.items()
        if value not in (None, False) and name not in _FLAGS
    }


async def _drops(store: Store, filters: Filters) -> list[str] | Unknown:
    """Return which filters there would be recordings without."""
    names = [name for name in _SHOWN if _is_set(filters, name)]
    if len(names) == 1:
        return []
    found = []
    for name in names:
        for one in _interpretations(_without(filters, name)):
            page = await attempt(search_recordings(store, _stored(one), limit=1))
            if isinstance(page, Unknown):
                return page
            if page.rows:
                found.append(name)
                break
    return found


def _shown(drops: list[str], filters: Filters, t: Translate) -> Iterator[tuple[str, str]]:
    for name, text in _named(filters, t):
        if name in drops:
            yield text, _address(_without(filters, name))


# What a row says.


def _row(one: ListedRecording, now_us: int, t: Translate) -> dict[str, object]:
    summary = one.summary
    pause = None
    if summary.status is RecordingStatus.PAUSED:
        pause = say_pause(t, summary, now_us, key="recordings.paused", over_key="recordings.paused_over")
    return {
        "one": one,
        "summary": summary,
        "problems": list(_problems(one)),
        "pause": pause,
        "archive": one.archive or ("none" if summary.error is None else ""),
    }


def _problems(one: ListedRecording) -> Iterator[tuple[str, str]]:
    """Yield (kind of badge, name of its text)."""
    summary = one.summary
    if summary.error is not None:
        yield "bad", "recordings.badge_failed"
    if one.contradicted:
        yield "bad", "recordings.badge_contradicted"
    if one.archive == "lost":
        yield "bad", "recordings.archive_lost"
    if summary.force_stop_time:
        yield "warn", "recordings.badge_forced"
    if one.found_late:
        yield "warn", "recordings.badge_found_late"
    if one.is_test:
        yield "test", "recordings.badge_test"


def _command(filters: Filters, *, is_later_page: bool) -> str:
    """Return the command that lists the same; with a later page also those before it, which it cannot leave out."""
    # Where nothing was found, the text of the box was taken for nothing.
    stored = _stored(next(_interpretations(filters)))
    return command_line(
        *("tiw", "recordings", "list"),
        *option("--room", stored.room),
        *option("--teacher", stored.teacher),
        *option("--task", stored.task),
        *option("--app", stored.app),
        *option("--status", None if stored.status is None else stored.status.value.lower()),
        *(f"--{name.replace('_', '-')}" for name in _FLAGS if getattr(stored, name)),
        *days_of_command(filters.since, filters.until, filters.offset),
        *(() if is_later_page else ("--limit", PAGE_ROWS)),
    )


def days_of_command(since: date | None, until: date | None, offset_minutes: int) -> tuple[str, ...]:
    """Return the options that choose whole days, the last one included, of a zone so many minutes east of UTC."""
    zone = timezone(timedelta(minutes=offset_minutes))

    def begins(day: date) -> str:
        return datetime(day.year, day.month, day.day, tzinfo=zone).isoformat(timespec="minutes")

    # The last day that there is has none behind it.
    end = None if until is None or until == date.max else begins(until + timedelta(days=1))
    return (*option("--since", None if since is None else begins(since)), *option("--until", end))


ROUTES: tuple[Route, ...] = (Route(method="GET", path="/recordings", handler=list_recordings),)
