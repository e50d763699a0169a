"""A fake of the vendor's file server: the files behind each VideoUrl, of any size and of no cost in memory.

It speaks as Tencent Cloud's object storage does: https://cloud.tencent.com/document/product/436/7753 (GET Object),
https://cloud.tencent.com/document/product/436/40334 (the CRC-64 header). Its files are there for three days.
"""

import asyncio
import hashlib
import re
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import format_datetime
from enum import StrEnum
from functools import lru_cache
from random import Random
from typing import Self
from urllib.parse import urlsplit

from aiohttp import web
from msgspec import Struct, structs

from simulator.classes import Bucket, SimulatedClass
from simulator.faults import Faults
from simulator.serving import HttpServer
from simulator.vendor_answers import timeline

KEPT_S = 3 * 86_400
_NO_SUCH_KEY = (404, "NoSuchKey")
_BLOCK = 65_536
_INDEX = 8


class Content(Struct, frozen=True, kw_only=True):
    """Bytes that nobody holds: the same for the same `seed` and `size`, none like those of another block or seed.

    Each block of 64 KiB is its number, in 8 bytes, and the same pseudo-random bytes.
    """

    seed: str
    size: int

    def read(self, begin: int, end: int) -> Iterator[bytes]:
        """Yield the bytes from `begin` to before `end`, in pieces of at most a block."""
        filling = _filling(self.seed)
        while begin < end:
            number, offset = divmod(begin, _BLOCK)
            piece = (number.to_bytes(_INDEX) + filling)[offset : offset + min(end - begin, _BLOCK - offset)]
            yield piece
            begin += len(piece)

    def crc64(self) -> int:
        """Return the CRC-64/XZ of it all, which takes a second for each 6 GB, once: blocks are combined."""
        return _crc64_of(self)


@lru_cache(maxsize=64)
def _filling(seed: str) -> bytes:
    return Random(seed).randbytes(_BLOCK - _INDEX)  # noqa: S311 - to be reproducible is the point


@lru_cache(maxsize=4_096)
def _crc64_of(content: Content) -> int:
    whole, rest = divmod(content.size, _BLOCK)
    filling_crc = crc64(_filling(content.seed))
    append_block, append_filling = _appending(_BLOCK), _appending(_BLOCK - _INDEX)
    crc = 0
    for number in range(whole):
        block_crc = append_filling(crc64(number.to_bytes(_INDEX))) ^ filling_crc
        crc = append_block(crc) ^ block_crc
    return crc64(b"".join(content.read(content.size - rest, content.size)), crc)


#: CRC-64/XZ: https://reveng.sourceforge.io/crc-catalogue/17plus.htm#crc.cat.crc-64-xz
_POLYNOMIAL = 0xC96C5795D7870F42
_ONES = 2**64 - 1


def _shifted(crc: int, bits: int) -> int:
    for _ in range(bits):
        crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
    return crc


_TABLE = [_shifted(byte, 8) for byte in range(256)]


def crc64(data: bytes, crc: int = 0) -> int:
    """Return the CRC-64/XZ of `data`, or of what `crc` is of and `data` after it. Slow, and meant for little."""
    crc ^= _ONES
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 255]
    return crc ^ _ONES


class _Append:
    """What so many bytes that follow do to a CRC, but for their own: crc(a + b) = append(crc(a)) ^ crc(b)."""

    def __init__(self, size: int) -> None:
        # The effect of one byte on each of 64 bits; squared and multiplied as a number is raised to a power.
        power, squared = [1 << bit for bit in range(64)], [_shifted(1 << bit, 8) for bit in range(64)]
        while size:
            if size & 1:
                power = [_times(squared, vector) for vector in power]
            squared = [_times(squared, vector) for vector in squared]
            size >>= 1
        self._tables = [[_times(power, byte << 8 * place) for byte in range(256)] for place in range(8)]

    def __call__(self, crc: int) -> int:
        appended = 0
        for place, table in enumerate(self._tables):
            appended ^= table[crc >> 8 * place & 255]
        return appended


_appending = lru_cache(_Append)


def _times(matrix: list[int], vector: int) -> int:
    product = 0
    for column in matrix:
        if vector & 1:
            product ^= column
        vector >>= 1
    return product


class VendorFile(Struct, frozen=True, kw_only=True):
    """A file as it lies there. It can be had from `since` until `until`; `modified_at` is its Last-Modified.

    All are in Unix seconds. `content` can be of another size than its callback said, where that is what goes wrong.
    """

    path: str
    content: Content
    since: float
    until: float
    modified_at: float
    content_type: str = "video/mp4"

    @property
    def etag(self) -> str:
        """As of an object that was uploaded in parts: no digest of its content."""
        return f'"{hashlib.sha256(self.content.seed.encode()).hexdigest()[:32]}-{self.content.size // _BLOCK + 1}"'


class FileFailure(StrEnum):
    """What can become of a request for a file."""

    NOT_FOUND = "404"
    FORBIDDEN = "403"
    BUSY = "503"
    #: The connection ends in the middle of what was asked for.
    CUT_OFF = "cut off"
    #: Nothing more comes in the middle of what was asked for; the connection stays.
    STALLED = "stalled"
    #: Half of the file, as if it were all.
    SHORT = "short"
    #: The right length, and one wrong bit in the middle of what was asked for.
    CORRUPT = "corrupt"
    #: From now on it is another file of the same name.
    CHANGED = "changed"
    #: 302 to `redirect_to`.
    REDIRECTED = "redirected"
    #: A range is asked for and all of it comes.
    NO_RANGES = "no ranges"
    #: Without the CRC-64, as a CDN may pass it on.
    NO_CRC = "no crc"
    #: A page of text that says something is wrong, with status 200.
    ERROR_PAGE = "error page"


_REFUSALS: dict[str, tuple[int, str]] = {
    FileFailure.NOT_FOUND: _NO_SUCH_KEY,
    FileFailure.FORBIDDEN: (403, "AccessDenied"),
    FileFailure.BUSY: (503, "SlowDown"),
}


class FileRequest(Struct, kw_only=True):
    """A request that came in. `answer` is its status, or what else became of it; `sent` the bytes of the body."""

    at_s: float
    method: str
    path: str
    range: str
    if_match: str
    answer: str = ""
    sent: int = 0


class FileFaults(Faults[FileRequest], kw_only=True):
    """What goes wrong with files; see Faults. A failure is a FileFailure.

    `late_s`: a file can be had only so long after its recording is finished. `bytes_per_s` bounds each connection.
    """

    late_s: float = 0.0
    bytes_per_s: float | None = None
    #: An address that no program should ask for what it is told to: that of a cloud machine's secrets.
    redirect_to: str = "http://169.254.0.23/latest/meta-data/"


class VendorFiles:
    """The server; an async context manager. Files come and go by `clock`, that of the classes.

    `bucket` is for making classes whose addresses lead here, their files `shrink` times smaller than real; `add` such
    classes then. `put` adds any other file. `faults` can be changed while it runs; `requests` has all that came in.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.time,
        host: str = "127.0.0.1",
        port: int = 0,
        shrink: int = 1,
        kept_s: float = KEPT_S,
        faults: FileFaults | None = None,
    ) -> None:
        self.faults = faults or FileFaults()
        self.requests: list[FileRequest] = []
        self._files: dict[str, VendorFile] = {}
        self._clock = clock
        self._shrink = shrink
        self._kept_s = kept_s
        application = web.Application()
        application.router.add_get("/{path:.*}", self._handle)
        self._server = HttpServer(application, host=host, port=port)

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._server.__aexit__(*exc_info)

    @property
    def url(self) -> str:
        """`http://HOST:PORT`."""
        return self._server.url

    @property
    def bucket(self) -> Bucket:
        """Where classes must be made to lie for their files to be found here."""
        return Bucket(url=self.url, shrink=self._shrink)

    def add(self, classes: Iterable[SimulatedClass]) -> None:
        """Have the files of these classes, each uploaded between the end of its class and its Finished."""
        for cls in classes:
            line = timeline(cls)
            for video in line.result.get("VideoInfos", ()):
                finished_at = line.finished_at or 0
                uploaded_at = ((line.stopped_at or finished_at) + finished_at) // 2
                self.put(urlsplit(video["VideoUrl"]).path, video["VideoSize"], modified_at=uploaded_at)

    def put(self, path: str, size: int, *, modified_at: float | None = None) -> VendorFile:
        """Have a file of `size` bytes, uploaded at `modified_at` (Unix seconds, by default now); return it."""
        modified_at = self._clock() if modified_at is None else modified_at
        file = VendorFile(
            path=path,
            content=Content(seed=path, size=size),
            since=modified_at,
            until=modified_at + self._kept_s,
            modified_at=modified_at,
            content_type="audio/mpeg" if path.endswith(".mp3") else "video/mp4",
        )
        self._files[path] = file
        return file

    def file(self, url: str) -> VendorFile:
        """Return the file behind an address, as it is now. Raises KeyError if there never was one."""
        return self._files[urlsplit(url).path]

    def change(self, url: str) -> VendorFile:
        """Put another file of the same name and size in the place of one."""
        old = self.file(url)
        content = structs.replace(old.content, seed=f"{old.content.seed} again")
        new = structs.replace(old, content=content, modified_at=self._clock())
        self._files[old.path] = new
        return new

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        noted = FileRequest(
            at_s=time.monotonic(),
            method=request.method,
            path=request.path,
            range=request.headers.get("Range", ""),
            if_match=request.headers.get("If-Match", ""),
        )
        self.requests.append(noted)
        failure = self.faults.choose(noted)
        noted.answer = failure or ""
        file = self._present(request.path)
        if file is None:
            return _refusal(noted, *_NO_SUCH_KEY)
        match failure:
            case FileFailure.NOT_FOUND | FileFailure.FORBIDDEN | FileFailure.BUSY:
                return _refusal(noted, *_REFUSALS[failure])
            case FileFailure.REDIRECTED:
                return web.Response(status=302, headers={"Location": self.faults.redirect_to})
            case FileFailure.ERROR_PAGE:
                return web.Response(text="<html>Sorry, something went wrong.</html>", content_type="text/html")
            case FileFailure.CHANGED:
                file = self.change(file.path)
            case FileFailure.SHORT:
                file = structs.replace(file, content=structs.replace(file.content, size=file.content.size // 2))
        return await self._serve(request, file, noted, failure)

    def _present(self, path: str) -> VendorFile | None:
        file = self._files.get(path)
        now = self._clock()
        return file if file is not None and file.since + self.faults.late_s <= now < file.until else None

    async def _serve(
        self, request: web.Request, file: VendorFile, noted: FileRequest, failure: str | None
    ) -> web.StreamResponse:
        size = file.content.size
        if noted.if_match not in ("", "*", file.etag):
            return _refusal(noted, 412, "PreconditionFailed")
        wanted = None if failure == FileFailure.NO_RANGES else _range(noted.range, size)
        begin, end = wanted or (0, size)
        if begin >= end and wanted is not None:
            return _refusal(noted, 416, "InvalidRange", {"Content-Range": f"bytes */{size}"})
        headers = {
            "Accept-Ranges": "bytes",
            "Content-Length": str(end - begin),
            "Content-Type": file.content_type,
            "ETag": file.etag,
            "Last-Modified": format_datetime(datetime.fromtimestamp(file.modified_at, UTC), usegmt=True),
            "Server": "tencent-cos",
            "x-cos-request-id": uuid.uuid4().hex,
        }
        if failure != FileFailure.NO_CRC:
            headers["x-cos-hash-crc64ecma"] = str(file.content.crc64())
        if wanted is not None:
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{size}"
        response = web.StreamResponse(status=200 if wanted is None else 206, headers=headers)
        noted.answer = noted.answer or str(response.status)
        # Whoever has had enough goes; that is no fault of the server's.
        with suppress(ConnectionError):
            await response.prepare(request)
            if request.method == "GET":
                async for piece in self._paced(file.content.read(begin, end), noted, failure, (end - begin) // 2):
                    await response.write(piece)
                    noted.sent += len(piece)
        if noted.sent < end - begin and request.method == "GET" and request.transport is not None:
            request.transport.close()
        return response

    async def _paced(
        self, pieces: Iterable[bytes], noted: FileRequest, failure: str | None, middle: int
    ) -> AsyncIterator[bytes]:
        """Yield the pieces, as slowly as they are to come, and in the `middle` what goes wrong there."""
        for whole in pieces:
            piece, place = whole, middle - noted.sent
            is_middle = 0 <= place < len(whole)
            if is_middle and failure in (FileFailure.CUT_OFF, FileFailure.STALLED):
                piece = piece[:place]
            elif is_middle and failure == FileFailure.CORRUPT:
                piece = piece[:place] + bytes([piece[place] ^ 1]) + piece[place + 1 :]
            if self.faults.bytes_per_s is not None:
                await asyncio.sleep(len(piece) / self.faults.bytes_per_s)
            yield piece
            if len(piece) < len(whole):
                if failure == FileFailure.STALLED:
                    await asyncio.Event().wait()
                return


def _range(text: str, size: int) -> tuple[int, int] | None:
    """Return from where to before where is asked for; (size, size) if it is past the end; None: all."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", text)
    if match is None or match[0] == "bytes=-":
        return None
    if not match[1]:
        return max(0, size - int(match[2])), size
    begin = int(match[1])
    end = min(size, int(match[2]) + 1) if match[2] else size
    if match[2] and int(match[2]) < begin:
        return None
    return (begin, end) if begin < size else (size, size)


def _refusal(noted: FileRequest, status: int, code: str, headers: dict[str, str] | None = None) -> web.Response:
    noted.answer = noted.answer or str(status)
    body = f"<?xml version='1.0' encoding='utf-8' ?>\n<Error><Code>{code}</Code></Error>\n"
    return web.Response(status=status, text=body, content_type="application/xml", headers=headers)
