import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator import ClassKind, Content, Day, FileFailure, FileFaults, VendorFiles, make_classes
from simulator.vendor_files import KEPT_S, crc64

NOW = 1_793_500_000
APP = 1_400_000_001
PATH = "/a/class.mp4"
SIZE = 300_000


class Downloader:
    """Asks for a file over HTTP, with aiohttp."""

    def __init__(self, files: VendorFiles, session: aiohttp.ClientSession) -> None:
        self.files = files
        self.session = session

    async def get(self, **headers: str) -> tuple[aiohttp.ClientResponse, bytes]:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.get(f"{self.files.url}{PATH}", headers=names, allow_redirects=False) as response:
            return response, await response.read()


@asynccontextmanager
async def serving(*, size: int = SIZE, now: float = NOW, **faults: Any) -> AsyncIterator[Downloader]:
    async with (
        VendorFiles(clock=lambda: now, faults=FileFaults(**faults)) as files,
        aiohttp.ClientSession(auto_decompress=False) as session,
    ):
        files.put(PATH, size, modified_at=NOW)
        yield Downloader(files, session)


def bytes_of(size: int = SIZE) -> bytes:
    return b"".join(Content(seed=PATH, size=size).read(0, size))


def test_the_checksum_is_the_one_of_the_catalogue() -> None:
    assert crc64(b"123456789") == 0x995DC9BBDF1939FA


@settings(max_examples=20)
@given(
    size=st.integers(0, 100) | st.sampled_from([65_535, 65_536, 65_537, 140_000]),
    cut=st.integers(0, 140_000),
    seed=st.text(max_size=3),
)
def test_content_is_the_same_however_it_is_read_and_has_its_checksum(size: int, cut: int, seed: str) -> None:
    content = Content(seed=seed, size=size)
    cut = min(cut, size)

    whole = b"".join(content.read(0, size))

    assert len(whole) == size
    assert b"".join(content.read(0, cut)) + b"".join(content.read(cut, size)) == whole
    assert content.crc64() == crc64(whole)


def test_no_block_is_like_another() -> None:
    blocks = list(Content(seed="a", size=65_536 * 50).read(0, 65_536 * 50))

    assert len(set(blocks)) == 50
    assert not set(blocks) & set(Content(seed="b", size=65_536 * 50).read(0, 65_536 * 50))


async def test_a_whole_file_comes_with_all_that_a_download_needs() -> None:
    async with serving() as downloader:
        response, body = await downloader.get()
        async with downloader.session.head(f"{downloader.files.url}{PATH}") as head:
            assert head.headers["Content-Length"] == str(SIZE)
            assert head.headers["x-cos-hash-crc64ecma"] == response.headers["x-cos-hash-crc64ecma"]

    assert response.status == 200
    assert body == bytes_of()
    assert response.headers["x-cos-hash-crc64ecma"] == str(crc64(body))
    assert response.headers["Accept-Ranges"] == "bytes"
    assert response.headers["Content-Type"] == "video/mp4"
    assert response.headers["ETag"].startswith('"')
    assert parsedate_to_datetime(response.headers["Last-Modified"]).timestamp() == NOW


@pytest.mark.parametrize(
    ("wanted", "begin", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=65530-131079", 65_530, 131_080),
        ("bytes=299999-", 299_999, 300_000),
        ("bytes=0-999999", 0, 300_000),
        ("bytes=-10", 299_990, 300_000),
    ],
)
async def test_a_range_comes_as_a_part_of_the_whole(wanted: str, begin: int, end: int) -> None:
    async with serving() as downloader:
        response, body = await downloader.get(Range=wanted)

    assert response.status == 206
    assert response.headers["Content-Range"] == f"bytes {begin}-{end - 1}/{SIZE}"
    assert body == bytes_of()[begin:end]
    # It is of the whole all the same.
    assert response.headers["x-cos-hash-crc64ecma"] == str(crc64(bytes_of()))


async def test_past_the_end_is_416_and_several_ranges_are_all() -> None:
    async with serving() as downloader:
        past, body = await downloader.get(Range=f"bytes={SIZE}-{SIZE + 1}")
        several, whole = await downloader.get(Range="bytes=0-1,5-6")
        empty, _ = await downloader.get(Range="bytes=5-2")

    assert past.status == 416
    assert past.headers["Content-Range"] == f"bytes */{SIZE}"
    assert b"InvalidRange" in body
    assert (several.status, len(whole), empty.status) == (200, SIZE, 200)


async def test_if_match_holds_until_another_file_takes_the_place() -> None:
    async with serving() as downloader:
        first, _ = await downloader.get()
        etag = first.headers["ETag"]
        same, _ = await downloader.get(Range="bytes=10-19", If_Match=etag)
        downloader.files.change(PATH)
        changed, _ = await downloader.get(Range="bytes=10-19", If_Match=etag)
        second, other = await downloader.get()

    assert (same.status, changed.status, second.status) == (206, 412, 200)
    assert second.headers["ETag"] != etag
    assert other != bytes_of()
    assert len(other) == SIZE


async def test_files_of_a_class_come_with_it_and_go_after_three_days() -> None:
    now = [0.0]
    async with VendorFiles(clock=lambda: now[0], shrink=10_000) as files, aiohttp.ClientSession() as session:
        (cls,) = make_classes(
            1, sdk_app_id=APP, seed=1, kinds=[ClassKind.NORMAL], day=Day(starts_at=NOW), bucket=files.bucket
        )
        files.add([cls])
        finished = cls.callbacks[-1]
        videos = json.loads(finished.event_data)["VideoInfos"]
        statuses = []
        moments = [NOW, finished.timestamp - 1, finished.timestamp, finished.timestamp + KEPT_S]
        for now[0] in moments:
            async with session.get(videos[0]["VideoUrl"]) as response:
                statuses.append(response.status)
                if response.status == 200:
                    body = await response.read()
        files.faults.late_s = 1_000
        now[0] = finished.timestamp
        async with session.get(videos[0]["VideoUrl"]) as response:
            late = response.status

    assert statuses == [404, 200, 200, 404]
    assert late == 404
    assert len(body) == videos[0]["VideoSize"] < 30_000


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (FileFailure.NOT_FOUND, 404),
        (FileFailure.FORBIDDEN, 403),
        (FileFailure.BUSY, 503),
        (FileFailure.REDIRECTED, 302),
    ],
)
async def test_a_file_can_be_refused(failure: FileFailure, status: int) -> None:
    async with serving() as downloader:
        downloader.files.faults.fail_next(failure)
        refused, _ = await downloader.get()
        served, _ = await downloader.get()

    assert (refused.status, served.status) == (status, 200)
    assert refused.headers.get("Location", "").startswith("http://169.254") == (status == 302)
    assert [request.answer for request in downloader.files.requests] == [failure, "200"]


async def test_a_download_is_cut_off_in_the_middle_and_can_be_resumed() -> None:
    async with serving() as downloader:
        downloader.files.faults.fail_next(FileFailure.CUT_OFF)
        received = b""
        async with downloader.session.get(f"{downloader.files.url}{PATH}") as response:
            with suppress(aiohttp.ClientPayloadError):
                async for piece in response.content.iter_any():
                    received += piece
        _, rest = await downloader.get(Range=f"bytes={len(received)}-{SIZE - 1}")

    assert 0 < len(received) < SIZE
    assert received + rest == bytes_of()
    assert downloader.files.requests[0].sent == SIZE // 2


async def test_a_download_can_stall() -> None:
    async with serving() as downloader:
        downloader.files.faults.fail_next(FileFailure.STALLED)
        timeout = aiohttp.ClientTimeout(sock_read=0.1)
        async with downloader.session.get(f"{downloader.files.url}{PATH}", timeout=timeout) as response:
            with pytest.raises(asyncio.TimeoutError):
                await response.read()


async def test_what_comes_can_be_wrong() -> None:
    async with serving() as downloader:
        faults = downloader.files.faults
        faults.fail_next(FileFailure.SHORT)
        short, half = await downloader.get()
        faults.fail_next(FileFailure.CORRUPT)
        corrupt, wrong = await downloader.get()
        faults.fail_next(FileFailure.ERROR_PAGE)
        page, text = await downloader.get()
        faults.fail_next(FileFailure.NO_CRC)
        without, _ = await downloader.get()
        faults.fail_next(FileFailure.NO_RANGES)
        ignored, whole = await downloader.get(Range="bytes=5-9")

    assert (short.status, len(half)) == (200, SIZE // 2)
    assert corrupt.headers["x-cos-hash-crc64ecma"] == str(crc64(bytes_of()))
    assert sum(a != b for a, b in zip(wrong, bytes_of(), strict=True)) == 1
    assert (page.status, len(text) < 100) == (200, True)
    assert "x-cos-hash-crc64ecma" not in without.headers
    assert (ignored.status, len(whole)) == (200, SIZE)


async def test_a_file_changes_while_it_is_downloaded() -> None:
    async with serving() as downloader:
        response, _ = await downloader.get(Range="bytes=0-9")
        downloader.files.faults.fail_next(FileFailure.CHANGED)
        second, _ = await downloader.get(Range="bytes=10-19", If_Match=response.headers["ETag"])

    assert second.status == 412


async def test_files_come_as_slowly_as_they_are_told_to() -> None:
    async with serving(bytes_per_s=1_000_000.0) as downloader:
        began_s = time.monotonic()
        _, body = await downloader.get()

    assert body == bytes_of()
    assert 0.25 < time.monotonic() - began_s < 5


async def test_a_file_of_many_gigabytes_costs_nothing_until_it_is_read() -> None:
    size = 3 * 2**30
    async with serving(size=size) as downloader:
        response, body = await downloader.get(Range=f"bytes={size - 5}-{size - 1}")

    assert response.headers["Content-Range"] == f"bytes {size - 5}-{size - 1}/{size}"
    assert len(body) == 5
