"""The files of a recording for whoever watches: from the archive through the console, else where the vendor has them.

What is asked for is an application, a task and the key of a file. Where that lies, the store says: never an address.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode, urlsplit
from weakref import WeakKeyDictionary

import structlog
from aiohttp import web
from msgspec import Struct

from archive import (
    DEFAULT_HOSTS,
    AddressRules,
    ForbiddenAddressError,
    NotPlacedError,
    Place,
    PlaceError,
    check_url,
    kind_of,
)
from console.requests import Answer, BadInputError, Request, Route, Shown, Translate, Unknown
from schemas import file_key
from store import Recording, ShownVideo, locate_archive_file

if TYPE_CHECKING:
    from console.server import Console

#: What a browser gets as what it is; anything else is only ever a file to be kept.
CONTENT_TYPES: Final = {
    "aac": "audio/aac",
    "m4a": "audio/mp4",
    "m4v": "video/mp4",
    "mkv": "video/x-matroska",
    "mov": "video/quicktime",
    "mp3": "audio/mpeg",
    "mp4": "video/mp4",
    "ogg": "audio/ogg",
    "opus": "audio/ogg",
    "wav": "audio/wav",
    "webm": "video/webm",
}
_ANY_TYPE: Final = "application/octet-stream"
_SOUNDS: Final = frozenset(ending for ending, kind in CONTENT_TYPES.items() if kind.startswith("audio/"))

#: So many files are sent at once; who comes then waits a little, and is asked to come again.
MOST_STREAMS: Final = 24
_WAIT_S: Final = 10.0

#: A player gets so much at a time, and asks for more when it needs it. Of one that has enough the connection would
#: stay, and a browser has six for all its videos and pages: https://www.rfc-editor.org/rfc/rfc9110#section-15.3.7
PIECE_BYTES: Final = 4 * 1024 * 1024

#: For the first bytes from the archive, and for each block after them.
_READ_S: Final = 20.0
#: Who takes nothing for so long is gone, or has enough; a player asks again.
_TAKEN_WITHIN_S: Final = 60.0

#: Of what a callback says, more would only be in the way of what is true.
MOST_SHOWN: Final = 40
_LONGEST_MS: Final = 7 * 86_400_000

_log = structlog.get_logger()


class Stream(Struct, frozen=True, kw_only=True):
    """One file of a recording, as `_player.html` shows it.

    `kind` is camera, screen, whiteboard, mixed, audio or video; `name` is the same in the reader's language, and `user`
    is as it was sent. `starts_at_ms` is its place on the time line; `duration_ms` is None where nobody said it.

    `source` is what plays: an address of this console if it `is_archived`, else the vendor's, else empty. `link` is for
    keeping the file. `note` says why it does not play or will not for long; `until_s`, in Unix seconds, belongs to it.
    """

    key: str
    kind: str
    name: str
    user: str
    starts_at_ms: int
    duration_ms: int | None
    size: int | None
    is_sound: bool
    is_archived: bool
    source: str
    link: str
    note: str
    until_s: float | None


def streams_of(
    recording: Recording,
    *,
    now_s: float,
    kept_s: float,
    t: Translate,
    rules: AddressRules = AddressRules(hosts=DEFAULT_HOSTS),  # noqa: B008 - it cannot change
) -> list[Stream]:
    """Return the files of a recording for `_player.html`, which takes this list as `streams` and `recording` itself.

    `kept_s` is how long the vendor keeps a file after the recording's end. `rules` are those of the archive: an address
    that it would not fetch from is none that a reader's browser is sent to. A page that shows the player gives
    `media_origins(streams)` to `Shown`.
    """
    until_s = _ended_s(recording, now_s=now_s) + kept_s
    streams: dict[str, Stream] = {}
    for video in recording.videos:
        key = file_key(video)
        if key not in streams and len(streams) < MOST_SHOWN:
            streams[key] = _stream(recording, video, key, now_s=now_s, until_s=until_s, t=t, rules=rules)
    return list(streams.values())


def media_origins(streams: Sequence[Stream]) -> tuple[str, ...]:
    """Return from where else than this console the streams play, for the page's policy."""
    return tuple(dict.fromkeys(_origin(each.source) for each in streams if each.source and not each.is_archived))


def _origin(url: str) -> str:
    split = urlsplit(url)
    return f"{split.scheme}://{split.netloc}"


def _ended_s(recording: Recording, *, now_s: float) -> float:
    """Return when a recording ended, as far as that is known; what an event says of it may be forged."""
    received = [datetime.fromisoformat(event.received_at).timestamp() for event in recording.events]
    known_s = max(received, default=now_s)
    return min(recording.record_stop_time or known_s, known_s)


def _stream(
    recording: Recording,
    video: ShownVideo,
    key: str,
    *,
    now_s: float,
    until_s: float,
    t: Translate,
    rules: AddressRules,
) -> Stream:
    state = "" if video.archive is None else video.archive.state
    is_archived = state == "archived"
    source, note, noted_until_s = "", "", None
    if is_archived:
        source = media_address(recording.sdk_app_id, recording.task_id, key)
    else:
        try:
            source = "" if video.video_url is None else str(check_url(video.video_url, rules, is_vendors=False))
        except ForbiddenAddressError:
            note = t("player.forbidden", host=_host_of(video.video_url or ""))
        else:
            if not source:
                note = t("player.no_address")
            elif state == "lost":
                source, note = "", t("player.lost")
            else:
                note, noted_until_s = t("player.vendor" if now_s < until_s else "player.overdue"), until_s
    kind = kind_of(video.video_type)
    return Stream(
        key=key,
        kind=kind,
        name=t(f"player.kind.{kind}"),
        user=video.user_id or "",
        starts_at_ms=_milliseconds(video.video_play_time_ms) or 0,
        duration_ms=_milliseconds(video.video_duration_ms),
        size=video.video_size,
        is_sound=kind == "audio" or (video.video_format or "").lower() in _SOUNDS,
        is_archived=is_archived,
        source=source,
        link=source,
        note=note,
        until_s=noted_until_s,
    )


def _host_of(url: str) -> str:
    """Return the host that an address names; where there is none its scheme, as the rest may be a secret."""
    try:
        split = urlsplit(url)
        return split.hostname or f"{split.scheme[:20]}:"
    except ValueError:
        return ":"


def _milliseconds(value: int | None) -> int | None:
    """Return a time on the time line; None for one that no class can have."""
    return value if value is not None and 0 < value <= _LONGEST_MS else None


def media_address(sdk_app_id: int, task_id: str, key: str) -> str:
    """Return where this console gives a file of the archive."""
    return f"/media?{urlencode({'app': sdk_app_id, 'task': task_id, 'file': key})}"


class _NotSentError(Exception):
    """A file is not sent: the status and the sentence that say why."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


async def send_file(request: Request) -> Answer:
    """Send a file of the archive, or the part of it that was asked for."""
    t = request.t
    try:
        place, file = await _find(request)
        async with _slot(request):
            return await _send(request, place, file)
    except _NotSentError as error:
        status, reason = error.status, error.text
    except NotPlacedError as error:
        _log.warning("archived_file_missing", location=error.reason)
        status, reason = HTTPStatus.NOT_FOUND, t("player.gone", reason=error.reason)
    except PlaceError as error:
        status, reason = HTTPStatus.SERVICE_UNAVAILABLE, t("player.away", reason=error.reason)
    values = {"reason": reason, "app": request.query.get("app", ""), "task": request.query.get("task", "")}
    return Shown(template="media.html", title=t("player.title"), values=values, status=status)


class _Found(Struct, frozen=True, kw_only=True):
    """A file that is archived: `key` is its place there."""

    key: str
    size: int
    etag: str


async def _find(request: Request) -> tuple[Place, _Found]:
    t = request.t
    app, task, key = (request.query.get(name, "") for name in ("app", "task", "file"))
    sdk_app_id = int(app) if re.fullmatch(r"-?[0-9]{1,19}", app) else None
    is_key = re.fullmatch(r"[0-9a-f]{32}", key) is not None
    if sdk_app_id is None or not -(2**63) <= sdk_app_id < 2**63 or not task or not is_key:
        raise BadInputError(t("player.bad_address"))
    file = await locate_archive_file(request.console.store, sdk_app_id=sdk_app_id, task_id=task, file_key=key)
    if file is None:
        raise _NotSentError(HTTPStatus.NOT_FOUND, t("player.no_such_file"))
    if file.state != "archived" or file.size is None or file.sha256 is None:
        raise _NotSentError(HTTPStatus.NOT_FOUND, t(f"player.state.{file.state}"))
    place = await request.console.archive()
    if isinstance(place, Unknown):
        raise _NotSentError(HTTPStatus.SERVICE_UNAVAILABLE, t("player.away", reason=place.reason))
    if file.location != place.location(file.key):
        text = t("player.elsewhere", location=file.location, name=place.name)
        raise _NotSentError(HTTPStatus.NOT_FOUND, text)
    return place, _Found(key=file.key, size=file.size, etag=f'"{file.sha256}"')


_slots: WeakKeyDictionary["Console", asyncio.Semaphore] = WeakKeyDictionary()


@asynccontextmanager
async def _slot(request: Request) -> AsyncIterator[None]:
    """Hold one of the places of those to whom files are sent."""
    slots = _slots.setdefault(request.console, asyncio.Semaphore(MOST_STREAMS))
    try:
        async with asyncio.timeout(_WAIT_S):
            await slots.acquire()
    except TimeoutError:
        raise _NotSentError(HTTPStatus.SERVICE_UNAVAILABLE, request.t("player.busy", count=MOST_STREAMS)) from None
    try:
        yield
    finally:
        slots.release()


async def _send(request: Request, place: Place, file: _Found) -> web.StreamResponse:
    http = request.http
    if _names(http.headers.get("If-None-Match", ""), file.etag):
        return web.Response(status=HTTPStatus.NOT_MODIFIED, headers={"ETag": file.etag})
    response = web.StreamResponse(
        headers={"Accept-Ranges": "bytes", "ETag": file.etag, "Cache-Control": "private, no-cache"}
    )
    _describe(response, file.key)
    part = None
    if http.method == "GET" and http.headers.get("If-Range", file.etag) == file.etag:
        part = asked_range(http.headers.get("Range", ""), file.size)
    if part is None:
        wanted = range(file.size)
    elif part:
        is_player = http.headers.get("Sec-Fetch-Dest") in ("video", "audio")
        wanted = part[:PIECE_BYTES] if is_player else part
        response.set_status(HTTPStatus.PARTIAL_CONTENT)
        response.headers["Content-Range"] = f"bytes {wanted.start}-{wanted.stop - 1}/{file.size}"
    else:
        headers = {"Accept-Ranges": "bytes", "Content-Range": f"bytes */{file.size}"}
        return web.Response(status=HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, headers=headers)
    response.content_length = len(wanted)
    if http.method == "HEAD":
        await _check(request, place, file)
        await response.prepare(http)
    else:
        await _write(request, response, place, file, wanted)
    return response


async def _check(request: Request, place: Place, file: _Found) -> None:
    async with _patience(request, place):
        found = await place.size_of(file.key)
    if found != file.size:
        raise NotPlacedError(f"{place.location(file.key)} is not there, or not as it was archived")


async def _write(request: Request, response: web.StreamResponse, place: Place, file: _Found, wanted: range) -> None:
    """Send a part of a file. Raises only what is wrong before the first byte: then it can still be said."""
    http = request.http
    async with aclosing(place.read_range(file.key, wanted.start, wanted.stop, size=file.size)) as blocks:
        async with _patience(request, place):
            block = await anext(blocks, b"")
        await response.prepare(http)
        try:
            while block:
                async with asyncio.timeout(_TAKEN_WITHIN_S):
                    await response.write(block)
                async with asyncio.timeout(_READ_S):
                    block = await anext(blocks, b"")
        except (PlaceError, TimeoutError, ConnectionError) as error:
            # A part of what was promised is sent: only a connection that breaks tells the reader that more is missing.
            _log.info("file_not_sent", file=file.key, error=type(error).__name__)
            if http.transport is not None:
                http.transport.abort()
            return
    await response.write_eof()


@asynccontextmanager
async def _patience(request: Request, place: Place) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(_READ_S):
            yield
    except TimeoutError:
        text = request.t("player.slow", name=place.name, count=round(_READ_S))
        raise _NotSentError(HTTPStatus.SERVICE_UNAVAILABLE, text) from None


def _describe(response: web.StreamResponse, key: str) -> None:
    """Say what a file is, and how it is called where it is kept."""
    folder, _, name = key.rpartition("/")
    kind = CONTENT_TYPES.get(name.rpartition(".")[2], _ANY_TYPE)
    response.content_type = kind
    saved_as = re.sub(r"[^A-Za-z0-9._-]", "-", f"{folder.rpartition('/')[2]}_{name}")
    how = "attachment" if kind == _ANY_TYPE else "inline"
    response.headers["Content-Disposition"] = f'{how}; filename="{saved_as}"'


def _names(header: str, etag: str) -> bool:
    return header.strip() == "*" or etag in (part.strip().removeprefix("W/") for part in header.split(","))


#: As many digits as any size has: Python refuses to read endless ones.
_RANGE: Final = re.compile(r"bytes=[ \t]*([0-9]{0,19})-([0-9]{0,19})[ \t]*", re.IGNORECASE)


def asked_range(header: str, size: int) -> range | None:
    """Return the one range of a file's bytes that was asked for; an empty one lies behind its end.

    None: all is to be sent, because none was asked for, or several, or in a form that is none. See
    https://www.rfc-editor.org/rfc/rfc9110#section-14.2
    """
    match = _RANGE.fullmatch(header)
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        return range(max(0, size - int(match[2])), size)
    first, last = int(match[1]), int(match[2] or size)
    return None if match[2] and last < first else range(first, min(last + 1, size))


ROUTES: Final = (Route(method="GET", path="/media", handler=send_file),)
