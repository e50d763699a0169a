import asyncio
import hashlib
import os
import socket
import struct
import time
import tracemalloc
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archive import (
    AddressRules,
    DiskFullError,
    Fetched,
    Fetcher,
    FetchError,
    FetchLimits,
    ForbiddenAddressError,
    NotThereError,
    TooLargeError,
    Wanted,
    parse_networks,
)
from archive.part_file import PartFile
from simulator import FileFailure, FileFaults, VendorFile, VendorFiles
from tests.archive.serving import SECRET, Answer, Caller, answering, until

LOOPBACK = AddressRules(hosts=(), networks=parse_networks("127.0.0.0/8"))
PATH = "/a/class.mp4"
SIZE = 1_500_000
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\n"


class World:
    """A file at the vendor's, and who fetches it."""

    def __init__(self, files: VendorFiles, caller: Caller) -> None:
        self.files = files
        self.caller = caller

    @property
    def file(self) -> VendorFile:
        return self.files.file(PATH)

    def resumed_at(self) -> list[str]:
        """Return what each request asked for."""
        return [request.range for request in self.files.requests if request.method == "GET"]

    def assert_whole(self, fetched: Fetched) -> None:
        whole = b"".join(self.file.content.read(0, self.file.content.size))
        assert self.caller.part.read_bytes() == whole
        assert fetched.size == len(whole)
        assert fetched.sha256 == hashlib.sha256(whole).hexdigest()
        assert fetched.crc64 == str(self.file.content.crc64())
        assert fetched.etag == self.file.etag


@asynccontextmanager
async def fetching(limits: FetchLimits | None = None, **options: Any) -> AsyncIterator[Fetcher]:
    async with asyncio.timeout(60), Fetcher(LOOPBACK, limits or FetchLimits(), **options) as fetcher:
        yield fetcher


@asynccontextmanager
async def world(
    folder: Path, *, size: int = SIZE, limits: FetchLimits | None = None, **options: Any
) -> AsyncIterator[World]:
    async with VendorFiles(faults=FileFaults()) as files, fetching(limits, **options) as fetcher:
        files.put(PATH, size)
        url = f"{files.url}{PATH}?{SECRET}"
        yield World(files, Caller(fetcher, folder / "a.part", url, announced_size=size))


async def test_a_file_is_fetched_with_its_digests_and_what_they_were_compared_with(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        fetched = await there.caller.fetch()

        there.assert_whole(fetched)
        assert fetched.checked == ("size", "crc64")
        assert fetched.content_type == "video/mp4"
        assert fetched.last_modified_at == int(there.file.modified_at)
        assert not fetched.restarted
        assert there.caller.progress[0] == 0
        assert there.caller.progress[-1] == SIZE
        assert there.caller.progress == sorted(there.caller.progress)
        assert [headers.begin for headers in there.caller.headers] == [0]
        assert there.caller.part.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("size", [1, 65_536, 262_144, 262_145])
async def test_a_file_of_any_size_is_fetched(tmp_path: Path, size: int) -> None:
    async with world(tmp_path, size=size) as there:
        there.assert_whole(await there.caller.fetch())


async def test_what_came_before_a_connection_ended_is_kept_and_only_the_rest_is_asked_for(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        there.files.faults.fail_next(FileFailure.CUT_OFF, 3)
        lengths = []
        for _ in range(3):
            assert "ended early" in (await there.caller.fail()).reason
            lengths.append(there.caller.length)
        fetched = await there.caller.fetch()

        there.assert_whole(fetched)
        assert not fetched.restarted
        # Half of what was left came each time, all of which was kept.
        assert lengths == [SIZE // 2, SIZE // 2 + SIZE // 4, SIZE // 2 + SIZE // 4 + SIZE // 8]
        assert there.resumed_at() == ["", *(f"bytes={length}-" for length in lengths)]
        assert [request.if_match for request in there.files.requests] == ["", *[there.file.etag] * 3]


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_cancelled_at_any_byte_the_rest_is_fetched_later_and_nothing_twice(tmp_path: Path, seed: int) -> None:
    folder = tmp_path / uuid.uuid4().hex
    folder.mkdir()
    asyncio.run(_cancelled_again_and_again(folder, Random(seed)))


async def _cancelled_again_and_again(folder: Path, rng: Random) -> None:
    async with world(folder) as there:
        caller = there.caller
        for _ in range(4):
            before = caller.length
            task = asyncio.create_task(caller.fetch())
            # By bytes that came, or by turns of the loop, wherever that is.
            enough = rng.randrange(SIZE)
            for _ in range(rng.randrange(400)):
                await asyncio.sleep(0)
                if task.done() or caller.length > enough:
                    break
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert caller.length >= before
        begun = [caller.length]
        there.assert_whole(await caller.fetch())
        last = there.resumed_at()[-1] if there.files.requests[-1].method == "GET" else f"bytes={SIZE}-"
        assert last == (f"bytes={begun[-1]}-" if begun[-1] else "")


async def test_no_byte_that_is_there_is_asked_for_again(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        caller, rng, resumed = there.caller, Random(7), []
        there.files.faults.bytes_per_s = 4_000_000
        while caller.length < SIZE:
            resumed.append(caller.length)
            stop_at = caller.length + rng.randrange(1, 300_000)
            task = asyncio.create_task(caller.fetch())
            await until(partial(lambda task, stop_at: task.done() or caller.length >= stop_at, task, stop_at))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert len(resumed) > 2
        there.assert_whole(await caller.fetch())
        asked = [text for text in there.resumed_at() if text != f"bytes={SIZE}-"]
        assert asked == [f"bytes={begin}-" if begin else "" for begin in resumed]


async def test_a_part_file_that_is_whole_is_proved_without_fetching_anything(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        await there.caller.fetch()
        sent = sum(request.sent for request in there.files.requests)
        fetched = await there.caller.fetch()

        there.assert_whole(fetched)
        assert fetched.checked == ("size", "crc64")
        assert sum(request.sent for request in there.files.requests) == sent


@pytest.mark.parametrize("harm", ["longer", "bits", "unknown"])
async def test_a_part_file_that_is_not_of_this_file_is_found_out(tmp_path: Path, harm: str) -> None:
    async with world(tmp_path) as there:
        there.files.faults.fail_next(FileFailure.CUT_OFF)
        await there.caller.fail()
        if harm == "longer":
            there.caller.part.write_bytes(bytes(SIZE + 1))
        elif harm == "bits":
            there.caller.part.write_bytes(bytes(SIZE // 2))
            assert "CRC-64" in (await there.caller.fail()).reason
            assert not there.caller.part.exists()
        else:
            # Whoever wrote it did not live to note what it is of.
            there.caller.headers.clear()
        there.assert_whole(await there.caller.fetch())


async def test_another_file_of_the_same_name_is_fetched_from_its_start(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        there.files.faults.fail_next(FileFailure.CUT_OFF)
        await there.caller.fail()
        there.files.faults.fail_next(FileFailure.CHANGED)
        fetched = await there.caller.fetch()

        there.assert_whole(fetched)
        assert fetched.restarted
        assert [request.answer for request in there.files.requests][-1] == "200"


async def test_a_file_that_changes_each_time_ends_in_an_error_and_not_in_a_loop(tmp_path: Path) -> None:
    tags = iter(range(100))

    async def answer(writer: asyncio.StreamWriter) -> None:
        head = f'HTTP/1.1 206 P\r\nETag: "{next(tags)}"\r\nContent-Range: bytes 5-9/10\r\nContent-Length: 5\r\n\r\n'
        writer.write(head.encode() + b"world")
        await writer.drain()

    async with answering(answer) as raw, fetching() as fetcher:
        caller = Caller(fetcher, tmp_path / "a.part", raw.url)
        caller.part.write_bytes(b"hello")
        wanted = Wanted(url=raw.url, part=caller.part, is_vendors_address=True, etag='"old"')
        with pytest.raises(FetchError):
            await fetcher.fetch(wanted, on_progress=caller.progress.append, on_headers=caller._note)
        assert len(raw.requests) <= 3


async def test_a_server_without_ranges_is_begun_anew(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        there.files.faults.fail_next(FileFailure.CUT_OFF)
        await there.caller.fail()
        there.files.faults.fail_next(FileFailure.NO_RANGES)
        fetched = await there.caller.fetch()

        there.assert_whole(fetched)
        assert fetched.restarted


async def test_a_wrong_bit_is_found_by_the_checksum_and_nothing_of_it_is_kept(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        there.files.faults.fail_next(FileFailure.CORRUPT)
        assert "CRC-64" in (await there.caller.fail()).reason
        assert not there.caller.part.exists()
        there.assert_whole(await there.caller.fetch())


async def test_without_the_vendors_checksum_the_size_is_what_was_compared(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        there.files.faults.fail_next(FileFailure.NO_CRC)
        fetched = await there.caller.fetch()

        there.assert_whole(fetched)
        assert fetched.checked == ("size",)


@pytest.mark.parametrize("failure", [FileFailure.NOT_FOUND, FileFailure.FORBIDDEN])
async def test_what_is_not_there_may_be_there_later(tmp_path: Path, failure: FileFailure) -> None:
    async with world(tmp_path) as there:
        there.files.faults.fail_next(FileFailure.CUT_OFF)
        await there.caller.fail()
        length = there.caller.length
        there.files.faults.fail_next(failure)
        error = await there.caller.fail()
        assert isinstance(error, NotThereError)
        assert failure.value in error.reason
        assert there.caller.length == length
        there.assert_whole(await there.caller.fetch())


async def test_what_goes_wrong_for_a_while_costs_nothing_of_what_is_there(tmp_path: Path) -> None:
    async with world(tmp_path, limits=FetchLimits(stalled_after_s=0.2)) as there:
        there.files.faults.fail_next(FileFailure.CUT_OFF)
        await there.caller.fail()
        for failure in (FileFailure.BUSY, FileFailure.ERROR_PAGE, FileFailure.STALLED):
            length = there.caller.length
            there.files.faults.fail_next(failure)
            error = await there.caller.fail()
            assert type(error) is FetchError
            assert there.caller.length >= length
        there.assert_whole(await there.caller.fetch())
        assert there.resumed_at().count("") == 1


async def test_half_a_file_as_if_it_were_all_is_not_taken_for_it(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        there.files.faults.fail_next(FileFailure.SHORT)
        error = await there.caller.fail()
        assert error.reason == f"127.0.0.1 has {SIZE // 2} bytes, announced were {SIZE}"
        assert there.caller.length == 0


async def test_another_size_than_announced_will_do_once_the_caller_says_so(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        there.caller.announced_size = SIZE + 1
        assert "announced" in (await there.caller.fail()).reason
        there.caller.accept_other_size = True
        there.caller.seen_size = SIZE
        there.files.faults.fail_next(FileFailure.SHORT)
        assert f"has {SIZE // 2} bytes" in (await there.caller.fail()).reason
        there.assert_whole(await there.caller.fetch())


async def test_whether_an_address_may_be_asked_is_known_without_asking(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        may_ask = there.caller.fetcher.may_ask
        assert may_ask(there.caller.url, is_vendors_address=True)
        assert not may_ask(there.caller.url, is_vendors_address=False)
        assert not may_ask("http://169.254.169.254/a.mp4", is_vendors_address=True)
        assert there.files.requests == []


async def test_any_mixture_of_failures_ends_in_the_right_bytes(tmp_path: Path) -> None:
    limits = FetchLimits(stalled_after_s=0.1)
    async with world(tmp_path, size=400_000, limits=limits) as there:
        there.files.faults.share = 0.7
        there.files.faults.failures = [failure for failure in FileFailure if failure != FileFailure.SHORT]
        there.files.faults.rng = Random(3)
        for _ in range(100):
            try:
                fetched = await there.caller.fetch()
            except FetchError:
                continue
            there.assert_whole(fetched)
            there.caller.part.unlink()
            there.caller.headers.clear()
        assert len({request.answer for request in there.files.requests}) > 8


# Slow and endless.


async def test_a_source_that_is_too_slow_is_given_up_and_what_came_is_kept(tmp_path: Path) -> None:
    began_s = time.monotonic()

    def clock_s() -> float:
        return (time.monotonic() - began_s) * 1_000

    async with world(tmp_path, clock_s=clock_s) as there:
        # A tenth of a second is 100: about 13 KB/s.
        there.files.faults.bytes_per_s = 5_000_000
        error = await there.caller.fail()
        assert error.reason == "127.0.0.1 sends less than 65536 bytes a second"
        assert 0 < there.caller.length < SIZE
        there.files.faults.bytes_per_s = None
        there.caller.fetcher = Fetcher(LOOPBACK, FetchLimits())
        async with there.caller.fetcher:
            there.assert_whole(await there.caller.fetch())


async def test_our_own_slowness_is_not_the_sources(tmp_path: Path) -> None:
    limits = FetchLimits(bytes_per_s=2_000_000, least_bytes_per_s=1_900_000, least_over_s=0.2)
    async with world(tmp_path, limits=limits) as there:
        there.assert_whole(await there.caller.fetch())


async def test_all_files_together_keep_to_the_bandwidth(tmp_path: Path) -> None:
    async with VendorFiles() as files, fetching(FetchLimits(bytes_per_s=2_000_000)) as fetcher:
        callers = []
        for number in range(4):
            file = files.put(f"/{number}.mp4", 300_000)
            callers.append(Caller(fetcher, tmp_path / f"{number}.part", f"{files.url}{file.path}"))
        began_s = time.monotonic()
        fetched = await asyncio.gather(*(caller.fetch() for caller in callers))
        took_s = time.monotonic() - began_s

        assert [one.size for one in fetched] == [300_000] * 4
        assert took_s >= 0.5


async def test_no_more_files_are_fetched_at_once_than_may_be(tmp_path: Path) -> None:
    running: set[int] = set()
    most = 0
    async with VendorFiles() as files, fetching(FetchLimits(at_once=2)) as fetcher:

        async def one(number: int) -> None:
            def note(length: int) -> None:
                nonlocal most
                running.add(number)
                most = max(most, len(running))

            caller = Caller(fetcher, tmp_path / f"{number}.part", f"{files.url}{files.put(f'/{number}', 300_000).path}")
            await fetcher.fetch(caller.wanted(), on_progress=note, on_headers=caller._note)
            running.discard(number)

        await asyncio.gather(*map(one, range(6)))
    assert most == 2


async def test_a_large_file_takes_little_memory(tmp_path: Path) -> None:
    async with world(tmp_path, size=40_000_000) as there:
        tracemalloc.start()
        try:
            fetched = await there.caller.fetch()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert fetched.size == 40_000_000
        assert peak < 8_000_000


def endless(head: bytes) -> Answer:
    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")
            await writer.drain()

    return send


@pytest.mark.parametrize("announced", [None, 100_000])
async def test_a_body_without_end_is_ended_and_not_kept(tmp_path: Path, announced: int | None) -> None:
    limits = FetchLimits(max_file_bytes=1_000_000)
    answer = endless(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    async with answering(answer) as raw, fetching(limits) as fetcher:
        caller = Caller(fetcher, tmp_path / "a.part", raw.url, announced_size=announced)
        error = await caller.fail()
        assert isinstance(error, TooLargeError) == (announced is None)
        assert "sends more than" in error.reason
        assert not caller.part.exists()


async def test_a_file_that_is_larger_than_may_be_is_not_begun(tmp_path: Path) -> None:
    async with world(tmp_path, limits=FetchLimits(max_file_bytes=SIZE - 1)) as there:
        assert isinstance(await there.caller.fail(), TooLargeError)
        assert there.caller.length == 0
        assert there.caller.headers == []


# HTTP that is broken.


def answer(*headers: str, body: bytes = b"", status: str = "200 OK", kind: str = "video/mp4") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def length(size: int) -> str:
    return f"Content-Length: {size}"


#: 1,000 bytes that a first answer promises and of which it sends 600.
FILE = bytes(range(250)) * 4
CUT = answer(length(1000), 'ETag: "a"', body=FILE[:600])
REST = answer(length(400), "Content-Range: bytes 600-999/1000", 'ETag: "a"', status="206 P", body=FILE[600:])
ALL = answer(length(1000), 'ETag: "a"', body=FILE)


async def reset(writer: asyncio.StreamWriter) -> None:
    writer.write(CUT)
    await writer.drain()
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await asyncio.sleep(0.1)
    writer.transport.abort()


async def drip(writer: asyncio.StreamWriter, text: bytes) -> None:
    for byte in text:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("first", "kept"),
    [
        pytest.param(CUT, 600, id="truncated"),
        pytest.param(reset, 600, id="reset"),
        pytest.param(answer(length(1000), 'ETag: W/"a"', body=FILE[:600]), 600, id="weak"),
        pytest.param(b"\x00\xff no HTTP at all\r\n\r\n", 0, id="no HTTP"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", 0, id="negative length"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 0, id="two lengths"),
        pytest.param(answer("X: " + "x" * 100_000, body=FILE), 0, id="huge header"),
        pytest.param(answer(length(999), body=FILE), 0, id="length too small"),
        pytest.param(answer(length(1001), body=FILE), 0, id="length too large"),
        pytest.param(answer("Transfer-Encoding: chunked", body=b"5\r\nhello\r\n"), 5, id="chunks end early"),
        pytest.param(answer("Transfer-Encoding: chunked", body=b"xyz\r\nhello\r\n"), 0, id="no chunks"),
        pytest.param(answer(body=FILE[:600]), 600, id="no length and too little"),
        pytest.param(answer(length(1000), "Content-Encoding: gzip", body=FILE), 0, id="compressed"),
        pytest.param(answer(length(1000), body=FILE, kind="text/html; charset=utf-8"), 0, id="a page"),
        pytest.param(answer(length(1000), body=FILE, kind="application/xml"), 0, id="an error of S3"),
        pytest.param(answer(length(1000), body=b"\n<!DOCTYPE html>".ljust(1000)), 0, id="a page as a video"),
        pytest.param(answer(length(1000), body=FILE, status="206 Partial"), 0, id="a part unasked for"),
        pytest.param(answer(length(1000), body=FILE, status="203 Perhaps"), 0, id="203"),
        pytest.param(answer(length(0), status="204 Nothing"), 0, id="204"),
        pytest.param(answer(length(0), status="304 Not Modified"), 0, id="304"),
        pytest.param(answer(length(0), status="302 Found"), 0, id="redirect to nowhere"),
        pytest.param(answer(length(0), status="416 Range"), 0, id="416 unasked for"),
        pytest.param(answer(length(0), status="412 Precondition"), 0, id="412 unasked for"),
        pytest.param(answer(length(0), status="500 Oops"), 0, id="500"),
        pytest.param(answer(length(1000), "x-cos-hash-crc64ecma: 1", body=FILE), 0, id="wrong CRC"),
        pytest.param(partial(drip, text=HEAD * 100), 0, id="headers that never end"),
    ],
)
async def test_what_no_server_should_answer_is_an_error_and_a_later_answer_is_taken(
    tmp_path: Path, first: bytes | Answer, kept: int
) -> None:
    limits = FetchLimits(answer_within_s=0.3)
    async with answering(first, ALL) as raw, fetching(limits) as fetcher:
        caller = Caller(fetcher, tmp_path / "a.part", raw.url, announced_size=1000)
        error = await caller.fail()
        assert caller.length == kept, error.reason
        assert error.reason.startswith(("127.0.0.1 ", "the body from 127.0.0.1 ", "what 127.0.0.1 "))
        fetched = await caller.fetch()
        assert fetched.sha256 == hashlib.sha256(FILE).hexdigest()
        assert caller.part.read_bytes() == FILE


async def test_a_server_that_says_nothing_is_an_error(tmp_path: Path) -> None:
    # aiohttp asks once more where a connection ends before a line came.
    async with answering(b"", b"HTTP/1.1", ALL) as raw, fetching() as fetcher:
        caller = Caller(fetcher, tmp_path / "a.part", raw.url)
        assert "was not reached" in (await caller.fail()).reason
        assert (await caller.fetch()).size == 1000


async def test_a_size_that_no_longer_is_as_announced_costs_nothing_of_what_is_there(tmp_path: Path) -> None:
    short = answer(length(0), "Content-Range: bytes */600", status="416 Range")
    async with answering(CUT, short, REST) as raw, fetching() as fetcher:
        caller = Caller(fetcher, tmp_path / "a.part", raw.url, announced_size=1000)
        await caller.fail()
        assert (await caller.fail()).reason == "127.0.0.1 has 600 bytes, announced were 1000"
        assert not (await caller.fetch()).restarted


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(("bytes 0-399/1000", 400, FILE[:400]), id="from the start"),
        pytest.param(("bytes 599-999/1000", 401, FILE[599:]), id="one before"),
        pytest.param(("bytes 599-999/1000", 400, FILE[599:999]), id="one before, with the length of the rest"),
        pytest.param(("bytes 601-999/1000", 399, FILE[601:]), id="one behind"),
        pytest.param(("bytes 600-998/1000", 399, FILE[600:999]), id="not to the end"),
        pytest.param(("bytes 600-999/1000", 500, bytes(500)), id="longer than it says"),
        pytest.param(("bytes 600-999/1000", 300, bytes(300)), id="shorter than it says"),
        pytest.param(("bytes 600-999/*", 400, FILE[600:]), id="of unknown size"),
        pytest.param(("bytes 999-600/1000", 400, FILE[600:]), id="backwards"),
        pytest.param(("bytes 600-99999999999999999999/1000", 400, FILE[600:]), id="huge"),
        pytest.param(("chunks 600-999/1000", 400, FILE[600:]), id="another unit"),
        pytest.param(("", 400, FILE[600:]), id="none"),
    ],
)
async def test_a_range_that_was_not_asked_for_is_not_believed(tmp_path: Path, second: tuple[str, int, bytes]) -> None:
    content_range, size, body = second
    wrong = answer(length(size), f"Content-Range: {content_range}", 'ETag: "a"', status="206 P", body=body)
    async with answering(CUT, wrong, ALL) as raw, fetching() as fetcher:
        caller = Caller(fetcher, tmp_path / "a.part", raw.url, announced_size=1000)
        await caller.fail()
        fetched = await caller.fetch()

        assert caller.part.read_bytes() == FILE
        assert fetched.sha256 == hashlib.sha256(FILE).hexdigest()
        assert fetched.restarted
        assert "Range" not in raw.requests[2]


async def test_a_rest_is_joined_to_what_was_there(tmp_path: Path) -> None:
    async with answering(CUT, REST) as raw, fetching() as fetcher:
        caller = Caller(fetcher, tmp_path / "a.part", raw.url)
        await caller.fail()
        fetched = await caller.fetch()
        assert fetched.sha256 == hashlib.sha256(FILE).hexdigest()
        assert not fetched.restarted
        assert "Range: bytes=600-\r\n" in raw.requests[1]
        assert 'If-Match: "a"\r\n' in raw.requests[1]
        assert "Accept-Encoding: identity\r\n" in raw.requests[1]


async def test_a_tag_that_is_weak_is_compared_but_not_sent(tmp_path: Path) -> None:
    cut, rest = (one.replace(b'ETag: "a"', b'ETag: W/"a"') for one in (CUT, REST))
    async with answering(cut, rest) as raw, fetching() as fetcher:
        caller = Caller(fetcher, tmp_path / "a.part", raw.url)
        await caller.fail()
        assert not (await caller.fetch()).restarted
        assert "Range: bytes=600-\r\n" in raw.requests[1]
        assert "If-Match" not in raw.requests[1]


@pytest.mark.parametrize("is_same", [True, False])
async def test_without_a_tag_a_file_is_known_by_when_it_was_changed(tmp_path: Path, is_same: bool) -> None:
    old, new = b"Last-Modified: Sun, 29 Nov 2026 10:00:00 GMT", b"Last-Modified: Sun, 29 Nov 2026 10:00:01 GMT"
    cut, rest, whole = (one.replace(b'ETag: "a"', old if is_same or one is CUT else new) for one in (CUT, REST, ALL))
    async with answering(cut, rest, whole) as raw, fetching() as fetcher:
        caller = Caller(fetcher, tmp_path / "a.part", raw.url)
        await caller.fail()
        fetched = await caller.fetch()
        assert fetched.sha256 == hashlib.sha256(FILE).hexdigest()
        assert fetched.restarted != is_same


async def test_of_a_server_that_says_nothing_of_its_file_nothing_is_joined(tmp_path: Path) -> None:
    cut, whole = (one.replace(b'ETag: "a"\r\n', b"") for one in (CUT, ALL))
    async with answering(cut, whole) as raw, fetching() as fetcher:
        caller = Caller(fetcher, tmp_path / "a.part", raw.url)
        await caller.fail()
        assert (await caller.fetch()).restarted
        assert "Range" not in raw.requests[1]


async def test_a_file_whose_length_nobody_knows_is_not_taken_for_whole(tmp_path: Path) -> None:
    async with answering(answer(body=FILE)) as raw, fetching() as fetcher:
        caller = Caller(fetcher, tmp_path / "a.part", raw.url)
        assert "how long" in (await caller.fail()).reason
        assert not caller.part.exists()
        caller.announced_size = 1000
        assert (await caller.fetch()).checked == ("size",)


async def test_an_empty_file_is_none_unless_it_was_announced_so(tmp_path: Path) -> None:
    async with answering(answer(length(0))) as raw, fetching() as fetcher:
        caller = Caller(fetcher, tmp_path / "a.part", raw.url)
        assert "empty" in (await caller.fail()).reason
        caller.announced_size = 0
        assert (await caller.fetch()).size == 0


async def test_a_server_says_when_to_come_again(tmp_path: Path) -> None:
    busy = partial(answer, length(0), status="503 Busy")
    date = "Retry-After: Sun, 29 Nov 2009 10:00:00 GMT"
    async with (
        answering(
            busy("Retry-After: 17"), busy(date), busy("Retry-After: soon"), busy("Retry-After: 99999999"), busy()
        ) as raw,
        fetching() as fetcher,
    ):
        caller = Caller(fetcher, tmp_path / "a.part", raw.url)
        assert [(await caller.fail()).again_after_s for _ in range(5)] == [17.0, 0.0, None, 3600.0, None]


async def test_redirects_are_followed_three_times(tmp_path: Path) -> None:
    turn = answer(length(0), "Location: /b.mp4?b", status="302 Found")
    async with answering(turn, turn, turn, ALL, turn) as raw, fetching() as fetcher:
        caller = Caller(fetcher, tmp_path / "a.part", raw.url)
        assert (await caller.fetch()).size == 1000
        assert [request.split(" ")[1] for request in raw.requests] == [f"/a.mp4?{SECRET}", *["/b.mp4?b"] * 3]
        caller.part.unlink()
        assert "redirected more than 3 times" in (await caller.fail()).reason


async def test_cookies_are_not_sent_back(tmp_path: Path) -> None:
    async with answering(ALL.replace(b"ETag", b"Set-Cookie: a=b\r\nETag")) as raw, fetching() as fetcher:
        await Caller(fetcher, tmp_path / "a.part", raw.url).fetch()
        await Caller(fetcher, tmp_path / "b.part", raw.url).fetch()
        assert "Cookie" not in "".join(raw.requests)


# The part file and its disk.


def link(part: Path, elsewhere: Path) -> None:
    part.symlink_to(elsewhere)


def link_to_nothing(part: Path, elsewhere: Path) -> None:
    part.symlink_to(elsewhere.with_name("nothing"))


def hard_link(part: Path, elsewhere: Path) -> None:
    part.hardlink_to(elsewhere)


def fifo(part: Path, elsewhere: Path) -> None:
    os.mkfifo(part)


def folder(part: Path, elsewhere: Path) -> None:
    part.mkdir()


@pytest.mark.parametrize("make", [link, link_to_nothing, hard_link, fifo, folder])
async def test_a_part_file_that_is_no_file_of_ours_is_not_written(
    tmp_path: Path, make: Callable[[Path, Path], None]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"not ours")
    async with world(tmp_path) as there:
        make(there.caller.part, elsewhere)
        assert "part file" in (await there.caller.fail()).reason
        assert elsewhere.read_bytes() == b"not ours"
        assert not elsewhere.with_name("nothing").exists()
        assert there.files.requests == []


async def test_no_two_write_one_part_file(tmp_path: Path) -> None:
    async with world(tmp_path) as there, fetching() as other_process:
        there.files.faults.bytes_per_s = 3_000_000
        first = asyncio.create_task(there.caller.fetch())
        await until(lambda: bool(there.caller.progress))
        second = Caller(other_process, there.caller.part, there.caller.url)
        assert "another process" in (await second.fail()).reason
        there.assert_whole(await first)
        there.assert_whole(await Caller(other_process, there.caller.part, there.caller.url).fetch())


async def test_a_disk_keeps_its_floor(tmp_path: Path) -> None:
    free = 10_000_000

    def free_bytes(folder: Path) -> int:
        return free

    async with world(tmp_path, limits=FetchLimits(min_free_bytes=9_000_000), free_bytes=free_bytes) as there:
        assert isinstance(await there.caller.fail(), DiskFullError)
        assert there.caller.length == 0
        free = 9_000_000 + SIZE
        there.assert_whole(await there.caller.fetch())


async def test_files_that_come_at_once_share_what_a_disk_has_left(tmp_path: Path) -> None:
    def free_bytes(folder: Path) -> int:
        return 501_000 - sum(part.stat().st_size for part in folder.iterdir())

    faults, limits = FileFaults(bytes_per_s=600_000), FetchLimits(min_free_bytes=1_000)
    async with VendorFiles(faults=faults) as files, fetching(limits, free_bytes=free_bytes) as fetcher:
        callers = []
        for number in range(3):
            file = files.put(f"/{number}.mp4", 300_000)
            callers.append(Caller(fetcher, tmp_path / f"{number}.part", f"{files.url}{file.path}"))
        results = await asyncio.gather(*(caller.fetch() for caller in callers), return_exceptions=True)
        assert sorted(type(result).__name__ for result in results) == ["DiskFullError", "DiskFullError", "Fetched"]


async def test_a_disk_that_fills_up_meanwhile_ends_it_and_what_is_there_is_resumed(tmp_path: Path) -> None:
    free = 10**12
    size = 40_000_000

    def free_bytes(folder: Path) -> int:
        return free - (10**12 if there.caller.length > 10_000_000 else 0)

    async with world(tmp_path, size=size, limits=FetchLimits(min_free_bytes=1), free_bytes=free_bytes) as there:
        assert isinstance(await there.caller.fail(), DiskFullError)
        kept = there.caller.length
        assert 10_000_000 < kept < size
        free = 10**13
        there.assert_whole(await there.caller.fetch())
        assert there.resumed_at() == ["", f"bytes={kept}-"]


def test_nothing_is_written_behind_what_could_not_be(tmp_path: Path) -> None:
    part = PartFile(tmp_path / "a.part", min_free_bytes=1, free_bytes=lambda _: 0)
    part.open()
    part.write([b"hello"])
    for pieces in ([bytes(1 << 24)], [b"world"]):
        with pytest.raises(DiskFullError):
            part.write(pieces)
    part.close()
    assert part.path.read_bytes() == b"hello"


async def test_a_caller_that_cannot_note_what_comes_gets_nothing_written(tmp_path: Path) -> None:
    async def refuse(_: object) -> None:
        raise LookupError("the lease is another's")

    async with world(tmp_path) as there:
        with pytest.raises(LookupError):
            await there.caller.fetcher.fetch(there.caller.wanted(), on_progress=lambda _: None, on_headers=refuse)
        assert there.caller.length == 0
        there.assert_whole(await there.caller.fetch())


async def test_an_address_is_checked_before_anything_is_asked(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        there.caller.url = there.caller.url.replace("127.0.0.1", "10.0.0.1")
        assert isinstance(await there.caller.fail(), ForbiddenAddressError)
        wanted = Wanted(url=f"{there.files.url}{PATH}", part=tmp_path / "b.part")
        with pytest.raises(ForbiddenAddressError):
            await there.caller.fetcher.fetch(wanted, on_progress=lambda _: None, on_headers=there.caller._note)
        assert there.files.requests == []
