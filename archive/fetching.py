"""Fetching one file over HTTP into a part file on local disk, resumed where it ended, and proved whole.

What a server says is not believed: neither its sizes nor its ranges, nor that what it sends is a video. What it sent
until something went wrong stays in the part file, so that the next attempt asks only for the rest.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from re import fullmatch
from typing import Final, Self, TypeVar

import aiohttp
from aiohttp.abc import AbstractResolver
from msgspec import Struct

from archive.addresses import AddressRules, FetchError
from archive.checked_session import CheckedSession, kind_of
from archive.part_file import MAX_PIECES, PartFile, free_bytes

Result = TypeVar("Result")

_NOT_THERE: Final = frozenset({403, 404, 410})
_MAX_RESTARTS: Final = 2
_LONGEST_AGAIN_S: Final = 3_600.0

#: Enough to be worth a visit to the writer's thread. More is not held while that is busy: of each file one batch is
#: being written and one gathered.
_BATCH_BYTES: Final = 128 * 1024
_BATCH_S: Final = 1.0

#: Neither video nor audio, whatever else the server says.
_PAGES: Final = frozenset({"text/html", "application/xhtml+xml", "text/xml", "application/xml", "application/json"})
_PAGE_BEGINS: Final = (b"<!doctype", b"<html", b"<?xml", b"<error")

_END_OF_YEARS_S: Final = 253_402_300_800

#: CRC-64/XZ of the whole object, in decimal: https://cloud.tencent.com/document/product/436/40334
_CRC64_HEADER: Final = "x-cos-hash-crc64ecma"


class NotThereError(FetchError):
    """The server has no such file, or does not show it: 403, 404, 410. It may have it later."""


class OtherSizeError(FetchError):
    """The file has another `size` than was announced."""

    def __init__(self, reason: str, *, size: int) -> None:
        super().__init__(reason)
        self.size = size


class TooLargeError(FetchError):
    """The file is larger than a file may be."""


class FetchLimits(Struct, frozen=True, kw_only=True):
    """What a Fetcher takes at most, and how patient it is.

    `bytes_per_s` bounds all files together, `at_once` their number. A source that sends less than `least_bytes_per_s`,
    measured over the `least_over_s` that it was waited for, is given up, and so is one of which nothing comes for
    `stalled_after_s`. A disk keeps `min_free_bytes` free. None: no bound.
    """

    bytes_per_s: int | None = None
    at_once: int = 4
    least_bytes_per_s: int = 65_536
    least_over_s: float = 60.0
    stalled_after_s: float = 30.0
    connect_within_s: float = 10.0
    answer_within_s: float = 60.0
    max_file_bytes: int | None = None
    min_free_bytes: int = 0


class Wanted(Struct, frozen=True, kw_only=True):
    """A file to fetch, and what was noted of the attempt that wrote what is in its `part` file.

    `is_vendors_address`: the vendor's API named `url`. `etag` and `last_modified_at` are those of FileHeaders; a part
    file of which neither is known is begun anew. `accept_other_size`: the server's size will do, whatever
    was announced, if it says none, or `seen_size`, which it said before: half a file may come once, as if it were all.
    """

    url: str
    part: Path
    is_vendors_address: bool = False
    announced_size: int | None = None
    accept_other_size: bool = False
    seen_size: int | None = None
    etag: str | None = None
    last_modified_at: float | None = None


class FileHeaders(Struct, frozen=True, kw_only=True):
    """What a server said of a file before it sent any of it. `size` is that of the whole file, None if it did not say.

    What comes begins at byte `begin`. `last_modified_at` is in Unix seconds, `crc64` the decimal text of COS.
    """

    begin: int
    size: int | None = None
    etag: str | None = None
    last_modified_at: float | None = None
    content_type: str | None = None
    crc64: str | None = None


class Fetched(Struct, frozen=True, kw_only=True):
    """A part file that is whole and on disk. Digests are of all its bytes; `crc64` is ours, in decimal.

    `checked` says what it was compared with: `size`, `crc64`. `restarted`: what was there before was thrown away.
    """

    size: int
    sha256: str
    crc64: str
    checked: tuple[str, ...]
    etag: str | None
    last_modified_at: float | None
    content_type: str | None
    restarted: bool


OnProgress = Callable[[int], None]
OnHeaders = Callable[[FileHeaders], Awaitable[None]]


class Fetcher:
    """Fetches files; an async context manager. Any number of tasks may `fetch` at once.

    `clock_s` measures how fast sources are. `resolver` looks names up instead of the system's, `free_bytes` tells what
    a folder's disk has left.
    """

    def __init__(
        self,
        rules: AddressRules,
        limits: FetchLimits,
        *,
        clock_s: Callable[[], float] = time.monotonic,
        resolver: AbstractResolver | None = None,
        free_bytes: Callable[[Path], int] = free_bytes,
    ) -> None:
        self._shared = _Shared(rules, limits, clock_s=clock_s, resolver=resolver)
        self._free_bytes = free_bytes
        self._at_once = asyncio.Semaphore(limits.at_once)

    async def __aenter__(self) -> Self:
        await self._shared.session.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._shared.session.__aexit__(*exc_info)

    def may_ask(self, url: str, *, is_vendors_address: bool) -> bool:
        """Say whether the rules let an address be asked, as far as it can be told without looking its host up."""
        return self._shared.session.may_ask(url, is_vendors=is_vendors_address)

    async def fetch(self, wanted: Wanted, *, on_progress: OnProgress, on_headers: OnHeaders) -> Fetched:
        """Fetch a file, or the rest of it, into its part file; return once that is whole and on disk.

        `on_headers` is awaited before a byte is written: what it is told must be in the next `wanted` for the part to
        be resumed. `on_progress` is called with the length of the part file. Raises FetchError. However it ends, by
        cancellation too, what came is in the part file, but for what was found wrong: that is deleted.
        """
        async with self._at_once, self._part_file(wanted.part) as (part, thread):
            try:
                return await _Fetch(
                    self._shared, wanted, part, thread, on_progress=on_progress, on_headers=on_headers
                ).run()
            finally:
                self._shared.to_come.pop(wanted.part, None)

    @asynccontextmanager
    async def _part_file(self, path: Path) -> AsyncIterator[tuple[PartFile, "_Thread"]]:
        """Yield the part file, open, and the thread that it lives on."""
        part = PartFile(path, min_free_bytes=self._shared.limits.min_free_bytes, free_bytes=self._free_bytes)
        thread = _Thread()
        try:
            await thread.run(part.open)
            yield part, thread
        finally:
            part.give_up()
            await thread.end(part.close)


class _Shared:
    """What all files of a Fetcher have together. `to_come`: how many bytes each of them still has to come."""

    def __init__(
        self,
        rules: AddressRules,
        limits: FetchLimits,
        *,
        clock_s: Callable[[], float],
        resolver: AbstractResolver | None,
    ) -> None:
        self.limits = limits
        self.clock_s = clock_s
        self.bandwidth = _Bandwidth(limits.bytes_per_s)
        self.to_come: dict[Path, int] = {}
        self.session = CheckedSession(
            rules,
            connect_within_s=limits.connect_within_s,
            answer_within_s=limits.answer_within_s,
            stalled_after_s=limits.stalled_after_s,
            resolver=resolver,
        )


class _Restart(Exception):  # noqa: N818 - no error: it is handled here
    """What is in the part file is not of what the server has now, or cannot be completed: ask for all of it."""


class _Fetch:
    """One call of `Fetcher.fetch`."""

    def __init__(
        self,
        shared: _Shared,
        wanted: Wanted,
        part: PartFile,
        thread: "_Thread",
        *,
        on_progress: OnProgress,
        on_headers: OnHeaders,
    ) -> None:
        self._shared = shared
        self._limits = shared.limits
        self._wanted = wanted
        self._part = part
        self._thread = thread
        self._on_progress = on_progress
        self._on_headers = on_headers
        self._had_bytes = part.size > 0
        self._host = ""

    async def run(self) -> Fetched:
        is_known = self._wanted.etag is not None or self._wanted.last_modified_at is not None
        begin = self._part.size if is_known else 0
        for _ in range(_MAX_RESTARTS + 1):
            try:
                return await self._attempt(begin)
            except _Restart:
                begin = 0
        raise FetchError(f"{self._host} has another file each time it is asked")

    async def _attempt(self, begin: int) -> Fetched:
        response = await self._ask("GET", begin)
        try:
            headers = self._judge(response, begin)
            if headers is None:
                return await self._finish_whole()
            await self._on_headers(headers)
            if headers.begin == 0:
                await self._thread.run(self._part.empty)
            await self._make_room(headers)
            self._on_progress(self._part.size)
            await self._receive(response, headers)
        finally:
            response.close()
        return await self._prove(headers, restarted=self._had_bytes and headers.begin == 0)

    async def _ask(self, method: str, begin: int) -> aiohttp.ClientResponse:
        wanted = self._wanted
        headers = {"Range": f"bytes={begin}-"} if begin and method == "GET" else {}
        # A weak tag never matches: https://www.rfc-editor.org/rfc/rfc9110#section-13.1.1
        if begin and wanted.etag is not None and not wanted.etag.startswith("W/"):
            headers["If-Match"] = wanted.etag
        response = await self._shared.session.ask(
            method, wanted.url, is_vendors=wanted.is_vendors_address, headers=headers
        )
        self._host = response.url.host or ""
        return response

    def _judge(self, response: aiohttp.ClientResponse, begin: int) -> FileHeaders | None:
        """Return what the answer says of the file; None: the part file holds all of it."""
        match response.status:
            case HTTPStatus.OK:
                place, size = 0, response.content_length
            case HTTPStatus.PARTIAL_CONTENT:
                place, size = self._partial(response, begin)
            case HTTPStatus.PRECONDITION_FAILED if begin:
                raise _Restart
            case HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE if begin:
                self._judge_end(response)
                return None
            case status if status in _NOT_THERE:
                raise NotThereError(f"{self._host} answered {status}", again_after_s=_again_after_s(response))
            case status:
                raise FetchError(f"{self._host} answered {status}", again_after_s=_again_after_s(response))
        headers = _headers(response, place, size)
        self._check_kind(response, headers)
        if place and self._is_other(headers):
            raise _Restart
        self._check_size(size)
        return headers

    def _partial(self, response: aiohttp.ClientResponse, begin: int) -> tuple[int, int]:
        match = fullmatch(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})", response.headers.get("Content-Range", ""))
        if match is None:
            raise self._no_range(begin)
        first, last, size = map(int, match.groups())
        if first != begin or last != size - 1 or response.content_length not in (None, size - begin):
            raise self._no_range(begin)
        return first, size

    def _no_range(self, begin: int) -> Exception:
        """Return what to raise as a range is another than that asked for: without one there is nothing to get wrong."""
        return _Restart() if begin else FetchError(f"{self._host} sent a part of the file when asked for all")

    def _judge_end(self, response: aiohttp.ClientResponse) -> None:
        """Judge 416: nothing comes behind what is in the part file."""
        match = fullmatch(r"bytes \*/([0-9]{1,18})", response.headers.get("Content-Range", ""))
        size = int(match[1]) if match else None
        if size is not None:
            self._check_size(size)
        if size != self._part.size:
            raise _Restart

    def _check_kind(self, response: aiohttp.ClientResponse, headers: FileHeaders) -> None:
        if headers.content_type in _PAGES:
            raise FetchError(f"{self._host} sent a page ({headers.content_type}) in the place of the file")
        if (encoding := response.headers.get("Content-Encoding", "identity").strip().lower()) not in ("", "identity"):
            raise FetchError(f"{self._host} sent the file compressed ({encoding[:20]!r}), which it was asked not to")

    def _is_other(self, headers: FileHeaders) -> bool:
        """Say whether the server has another file now than the one that the part file is of."""
        wanted = self._wanted
        if wanted.etag is not None or headers.etag is not None:
            return wanted.etag != headers.etag
        return wanted.last_modified_at != headers.last_modified_at

    def _check_size(self, size: int | None) -> None:
        announced = self._wanted.announced_size
        largest = self._limits.max_file_bytes
        if largest is not None and (size or 0) > largest:
            raise TooLargeError(f"the file has {size} bytes, more than the {largest} that a file may have")
        if size is None or (self._wanted.accept_other_size and size == self._wanted.seen_size):
            return
        if announced is not None and size != announced:
            raise OtherSizeError(f"{self._host} has {size} bytes, announced were {announced}", size=size)
        if size == 0 and announced is None:
            raise FetchError(f"{self._host} has an empty file")

    async def _make_room(self, headers: FileHeaders) -> None:
        to_come = max(0, (headers.size or self._wanted.announced_size or 0) - headers.begin)
        self._shared.to_come[self._wanted.part] = to_come
        await self._thread.run(self._part.check_room, sum(self._shared.to_come.values()))

    def _at_most(self, headers: FileHeaders) -> int | None:
        """Return how many bytes the whole file has at most, as far as somebody said it."""
        if headers.size is not None:
            return headers.size
        if not self._wanted.accept_other_size and self._wanted.announced_size is not None:
            return self._wanted.announced_size
        return self._limits.max_file_bytes

    async def _receive(self, response: aiohttp.ClientResponse, headers: FileHeaders) -> None:
        """Write what comes. The thread writes and digests one batch while the next one is gathered."""
        batch = _Batch(self._part, self._thread)
        at_most = self._at_most(headers)
        received = headers.begin
        try:
            async with aclosing(self._pieces(response)) as pieces:
                async for piece in pieces:
                    received += len(piece)
                    if at_most is not None and received > at_most:
                        await self._delete()
                        kind = FetchError if headers.size or self._wanted.announced_size else TooLargeError
                        raise kind(f"{self._host} sends more than {at_most} bytes")
                    if batch.add(piece):
                        await batch.write()
                        size = self._part.size
                        self._on_progress(size)
                        if headers.size is not None:
                            self._shared.to_come[self._wanted.part] = headers.size - size
                    await self._shared.bandwidth.take(len(piece))
        finally:
            # What came is kept, whatever ended it.
            await batch.write_rest()
        self._on_progress(self._part.size)

    async def _pieces(self, response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
        """Yield the body as it comes. Raises FetchError if it ends early or comes too slowly."""
        content = response.content
        pace = _Pace(self._limits, self._shared.clock_s)
        try:
            while True:
                # What is no body, such as what may stand behind a chunk's length, keeps the connection alive.
                with pace:
                    async with asyncio.timeout(self._limits.least_over_s):
                        piece, is_end = await content.readchunk()
                if piece:
                    pace.count(len(piece), self._host)
                    yield piece
                elif not is_end:
                    return
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            # What had come by then is behind the error: https://github.com/aio-libs/aiohttp/issues/3026
            content.set_exception(None)  # type: ignore[arg-type] # how its own readers are told that there is none
            if rest := content.read_nowait():
                yield rest
            raise FetchError(f"the body from {self._host} ended early: {kind_of(error)}") from None

    async def _finish_whole(self) -> Fetched:
        """Prove a part file that is whole already: a HEAD says what to compare it with."""
        response = await self._ask("HEAD", self._part.size)
        response.close()
        headers = _headers(response, self._part.size, response.content_length)
        if response.status != HTTPStatus.OK or headers.size != self._part.size or self._is_other(headers):
            raise _Restart
        return await self._prove(headers, restarted=False)

    async def _prove(self, headers: FileHeaders, *, restarted: bool) -> Fetched:
        part = self._part
        announced = self._wanted.announced_size
        expected = headers.size if headers.size is not None or self._wanted.accept_other_size else announced
        if expected is not None and part.size < expected:
            raise FetchError(f"{self._host} sent {part.size} of {expected} bytes")
        if headers.crc64 is not None and headers.crc64 != str(part.crc64):
            await self._delete()
            raise FetchError(f"what {self._host} sent differs from its CRC-64")
        beginning = await self._thread.run(part.begins_with, 64)
        if beginning.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_PAGE_BEGINS):
            await self._delete()
            raise FetchError(f"{self._host} sent a page in the place of the file")
        checked = (*(["size"] if expected is not None else []), *(["crc64"] if headers.crc64 is not None else []))
        if not checked:
            await self._delete()
            raise FetchError(f"{self._host} does not say how long the file is, so nobody knows if it is whole")
        await self._thread.run(part.sync)
        return Fetched(
            size=part.size,
            sha256=part.sha256,
            crc64=str(part.crc64),
            checked=checked,
            etag=headers.etag,
            last_modified_at=headers.last_modified_at,
            content_type=headers.content_type,
            restarted=restarted,
        )

    async def _delete(self) -> None:
        await self._thread.run(self._part.delete)


class _Thread:
    """One thread for what blocks. What it is given it does in that order."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="fetch")

    def begin(self, function: Callable[..., Result], *args: object) -> "asyncio.Future[Result]":
        return asyncio.wrap_future(self._executor.submit(function, *args))

    async def run(self, function: Callable[..., Result], *args: object) -> Result:
        return await self.begin(function, *args)

    async def end(self, function: Callable[[], None]) -> None:
        """Call a last function and end; it is called even if whoever waits for it is cancelled."""
        future = self.begin(function)
        self._executor.shutdown(wait=False)
        await asyncio.shield(future)


class _Batch:
    """Pieces on their way to the thread: one batch is written at a time, and the next is bounded meanwhile."""

    def __init__(self, part: PartFile, thread: _Thread) -> None:
        self._part = part
        self._thread = thread
        self._pieces: list[bytes] = []
        self._size = 0
        self._since_s = time.monotonic()
        self._writing: asyncio.Future[None] | None = None

    def add(self, piece: bytes) -> bool:
        """Add a piece; return whether it is time to write, which waits if the batch before is not written yet."""
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size >= _BATCH_BYTES or len(self._pieces) >= MAX_PIECES:
            return True
        is_free = self._writing is None or self._writing.done()
        return is_free and time.monotonic() - self._since_s > _BATCH_S

    async def write(self) -> None:
        """Begin to write the pieces as soon as those before are written, whose errors it raises."""
        await self._written()
        if self._pieces:
            self._writing = self._thread.begin(self._part.write, self._pieces)
        self._pieces, self._size, self._since_s = [], 0, time.monotonic()

    async def write_rest(self) -> None:
        """Write all; the thread does it even if whoever waits is cancelled."""
        await self.write()
        await self._written()

    async def _written(self) -> None:
        if self._writing is not None:
            await asyncio.shield(self._writing)


class _Pace:
    """How fast a source is, by the time that it was waited for: entered around each wait."""

    def __init__(self, limits: FetchLimits, clock_s: Callable[[], float]) -> None:
        self._limits = limits
        self._clock_s = clock_s
        self._began_s = 0.0
        self._waited_s = 0.0
        self._bytes = 0

    def __enter__(self) -> None:
        self._began_s = self._clock_s()

    def __exit__(self, *exc_info: object) -> None:
        self._waited_s += self._clock_s() - self._began_s

    def count(self, size: int, host: str) -> None:
        """Count bytes that came; raise FetchError if too few did."""
        self._bytes += size
        if self._waited_s < self._limits.least_over_s:
            return
        if self._bytes < self._limits.least_bytes_per_s * self._waited_s:
            raise FetchError(f"{host} sends less than {self._limits.least_bytes_per_s} bytes a second")
        self._waited_s, self._bytes = 0.0, 0


class _Bandwidth:
    """How many bytes a second may come in all: whoever has received some waits until they fit."""

    def __init__(self, bytes_per_s: int | None) -> None:
        self._bytes_per_s = bytes_per_s
        self._free_at_s = 0.0

    async def take(self, size: int) -> None:
        if self._bytes_per_s is None:
            return
        now_s = time.monotonic()
        self._free_at_s = max(self._free_at_s, now_s) + size / self._bytes_per_s
        await asyncio.sleep(self._free_at_s - now_s)


def _headers(response: aiohttp.ClientResponse, begin: int, size: int | None) -> FileHeaders:
    crc64 = response.headers.get(_CRC64_HEADER, "").strip()
    return FileHeaders(
        begin=begin,
        size=size,
        etag=_etag(response.headers.get("ETag")),
        last_modified_at=_time(response.headers.get("Last-Modified")),
        content_type=response.content_type if "Content-Type" in response.headers else None,
        crc64=str(int(crc64)) if fullmatch(r"[0-9]{1,20}", crc64) else None,
    )


def _etag(text: str | None) -> str | None:
    """Return an entity tag that can be sent back as it came; any other is as good as none."""
    return text if text and fullmatch(r"[\x21-\x7e]{1,256}", text) else None


def _time(text: str | None) -> float | None:
    try:
        at = 0.0 if text is None else parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
    # What a calendar of four digits has.
    return at if 0 < at < _END_OF_YEARS_S else None


def _again_after_s(response: aiohttp.ClientResponse) -> float | None:
    """Return what Retry-After says: https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3."""
    text = response.headers.get("Retry-After", "").strip()
    if fullmatch(r"[0-9]{1,9}", text):
        after_s = float(text)
    elif (at := _time(text or None)) is not None:
        after_s = at - time.time()
    else:
        return None
    return min(max(after_s, 0.0), _LONGEST_AGAIN_S)
