"""Files in a bucket: real bytes and signatures with rclone, refusals with moto, and what neither does with a fake."""

import asyncio
import hashlib
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiobotocore.session import AioSession
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from fastcrc import crc64
from moto.server import ThreadedMotoServer

from archive.places import NotPlacedError, NotStagedError, PlaceError, S3Settings, S3Target
from archive.s3 import S3Place
from tests.servers.rclone import ACCESS_KEY_ID, SECRET_ACCESS_KEY, RcloneS3

MIB = 1024 * 1024
KEY = "1400000001/2026-11-30_880528_task/1_whiteboard.mp4"
#: S3 takes no smaller parts but the last: https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
PART = 5 * MIB


class Loopback(AbstractResolver):
    """Finds every host here, and notes which were looked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(host)
        assert family in (socket.AF_INET, socket.AF_UNSPEC)
        family = socket.AF_INET
        result = ResolveResult(hostname=host, host="127.0.0.1", port=port, family=family, proto=0, flags=0)
        return [result]

    async def close(self) -> None:
        pass


def settings(url: str, **changes: Any) -> S3Settings:
    values = {"style": "path", "access_key_id": ACCESS_KEY_ID, "secret_access_key": SECRET_ACCESS_KEY} | changes
    return S3Settings(endpoint=url, **values)


def place(url: str, *, bucket: str = "classes", prefix: str = "kept/here", part: int = PART, **options: Any) -> S3Place:
    target = S3Target(bucket=bucket, prefix=prefix)
    changes = {name: options.pop(name) for name in ("style", "secret_access_key", "access_key_id") if name in options}
    return S3Place(target, settings(url, **changes), attempts=1, part_size_bytes=part, **options)


@pytest.fixture(scope="module")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RcloneS3]:
    with RcloneS3(buckets(tmp_path_factory.mktemp("rclone"))) as server:
        yield server


def buckets(folder: Path) -> Path:
    """Return a folder with a bucket in it."""
    (folder / "buckets" / "classes").mkdir(parents=True)
    return folder / "buckets"


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@asynccontextmanager
async def asking(url: str) -> AsyncIterator[Any]:
    """Yield a client that can do everything, as another program would have it."""
    async with AioSession().create_client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY_ID,
        aws_secret_access_key=SECRET_ACCESS_KEY,
    ) as client:
        yield client


async def make_bucket(url: str, name: str) -> None:
    async with asking(url) as client:
        await client.create_bucket(Bucket=name)


class Staged:
    """A file of random bytes that is to be placed."""

    def __init__(self, folder: Path, size: int) -> None:
        self.path = folder / "staged.part"
        self.bytes = os.urandom(size)
        self.path.write_bytes(self.bytes)
        self.size = size
        self.sha256 = hashlib.sha256(self.bytes).hexdigest()
        self.upload_ids: list[str] = []
        self.progress: list[int] = []

    async def put(self, into: S3Place, *, upload_id: str | None = None, **changes: Any) -> str:
        async def note(upload_id: str) -> None:
            self.upload_ids.append(upload_id)

        values: dict[str, Any] = {"size": self.size, "sha256": self.sha256, "on_progress": self.progress.append}
        return await into.put_file(self.path, KEY, upload_id=upload_id, on_upload_id=note, **values | changes)


async def content(of: S3Place, key: str = KEY) -> bytes:
    return b"".join([block async for block in of.read(key)])


async def test_a_file_is_placed_whole_and_read_again(rclone: RcloneS3, tmp_path: Path) -> None:
    for size in (0, 1, PART, PART + 1, 2 * PART + 7):
        staged = Staged(tmp_path, size)
        async with place(rclone.url, prefix=f"of/{size}") as bucket:
            await bucket.check()
            await bucket.check()
            assert await bucket.size_of(KEY) is None
            assert await staged.put(bucket) == f"s3://classes/of/{size}/{KEY}"
            assert await bucket.size_of(KEY) == size
            assert await content(bucket) == staged.bytes
        assert staged.progress[-1] == size
        assert len(staged.upload_ids) == (1 if size > PART else 0)
        assert staged.path.exists()


async def part(of: S3Place, begin: int, end: int, size: int) -> bytes:
    return b"".join([block async for block in of.read_range(KEY, begin, end, size=size)])


@pytest.mark.parametrize("server", ["rclone", "moto"])
async def test_a_part_of_a_file_is_read(server: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    found = request.getfixturevalue(server)
    url = found if isinstance(found, str) else found.url
    if server == "moto":
        await make_bucket(url, "classes")
    staged = Staged(tmp_path, MIB + 3)
    async with place(url, prefix="parts") as bucket:
        await bucket.check()
        with pytest.raises(NotPlacedError, match="is not there"):
            await part(bucket, 0, 1, staged.size)
        await staged.put(bucket)
        for begin, end in ((0, staged.size), (0, 1), (7, 100_000), (staged.size - 1, staged.size), (5, 5)):
            assert await part(bucket, begin, end, staged.size) == staged.bytes[begin:end]
        for begin, end in ((0, 1), (staged.size + 5, staged.size + 9)):
            with pytest.raises(NotPlacedError, match=f"has not {staged.size + 9} bytes"):
                await part(bucket, begin, end, staged.size + 9)
    async with place(url, bucket="nothing-here") as bucket:
        with pytest.raises(PlaceError, match="NoSuchBucket") as caught:
            await part(bucket, 0, 1, 1)
        assert not isinstance(caught.value, NotPlacedError)


async def test_who_takes_no_more_gives_the_connection_back(moto: str, tmp_path: Path) -> None:
    await make_bucket(moto, "many-readers")
    staged = Staged(tmp_path, 4 * MIB)
    async with place(moto, bucket="many-readers") as bucket:
        await staged.put(bucket)
        # More than there are connections.
        for _ in range(40):
            reading = bucket.read_range(KEY, 0, staged.size, size=staged.size)
            async with asyncio.timeout(20):
                assert await anext(reading)
                await reading.aclose()


async def test_manifests_are_found_below_the_prefix_alone(rclone: RcloneS3) -> None:
    keys = {f"{app}/2026-11-30_1_t{number}/manifest.json" for app in (1, 2) for number in range(3)}
    async with place(rclone.url, prefix="many") as bucket:
        for key in sorted(keys):
            await bucket.put_bytes(key, b"{}", "application/json")
        await bucket.put_bytes("1/2026-11-30_1_t0/index.html", b"<!doctype html>", "text/html")
        assert {key async for key in bucket.manifests()} == keys


@pytest.mark.parametrize("wrong", [{"secret_access_key": "another-secret"}, {"access_key_id": "another-id"}])
async def test_a_wrong_key_is_told_and_no_secret(rclone: RcloneS3, tmp_path: Path, wrong: dict[str, Any]) -> None:
    async with place(rclone.url, **wrong) as bucket:
        with pytest.raises(PlaceError) as refused:
            await bucket.check()
    assert "access key" in refused.value.reason
    assert "another" not in str(refused.value)


async def test_a_bucket_can_stand_in_the_hosts_name(tmp_path: Path) -> None:
    staged, resolver = Staged(tmp_path, PART + 1), Loopback()
    with RcloneS3(buckets(tmp_path), is_virtual=True) as server:
        url = f"http://cos.example.test:{server.port}"
        async with place(url, style="virtual", resolver=resolver) as bucket:
            await bucket.check()
            await staged.put(bucket)
            assert await content(bucket) == staged.bytes
    assert set(resolver.asked) == {"classes.cos.example.test"}


async def test_what_is_configured_for_other_programs_is_not_used(
    rclone: RcloneS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config"
    config.write_text("[default]\ns3 =\n  addressing_style = virtual\n[profile other]\nregion = nowhere\n")
    for name, value in {
        "AWS_PROFILE": "missing",
        "AWS_CONFIG_FILE": str(config),
        "AWS_ACCESS_KEY_ID": "of-another",
        "AWS_SECRET_ACCESS_KEY": "of-another",
        "AWS_SESSION_TOKEN": "of-another",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
    }.items():
        monkeypatch.setenv(name, value)
    staged = Staged(tmp_path, 10)
    async with place(rclone.url) as bucket:
        await bucket.check()
        await staged.put(bucket)


async def test_an_upload_goes_on_where_it_was_cut_off(moto: str, tmp_path: Path) -> None:
    staged = Staged(tmp_path, 3 * PART)
    async with place(moto) as bucket:
        await make_bucket(moto, "classes")
        sent = await cut_off(bucket, staged, after=2)
        [upload_id] = staged.upload_ids
        sent.clear()
        await staged.put(bucket, upload_id=upload_id)
        assert sent == [3]
        assert await content(bucket) == staged.bytes
        assert staged.upload_ids == [upload_id]
        # Once more, as after a crash before it was noted: nothing is sent.
        sent.clear()
        staged.path.unlink()
        await staged.put(bucket, upload_id=upload_id)
        assert sent == []


async def cut_off(bucket: S3Place, staged: Staged, *, after: int) -> list[int]:
    """Cancel an upload once so many parts are there; return the list that gets the number of each part sent."""
    sent: list[int] = []
    enough = asyncio.Event()

    def note(params: dict[str, Any], **_: Any) -> None:
        sent.append(params["PartNumber"])

    bucket._client.meta.events.register("provide-client-params.s3.UploadPart", note)

    def progress(size: int) -> None:
        if size == after * PART:
            enough.set()

    task = asyncio.ensure_future(staged.put(bucket, on_progress=progress))
    waiting = asyncio.ensure_future(enough.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED, timeout=30)
    assert enough.is_set()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return sent


async def test_a_part_of_other_bytes_is_sent_again(moto: str, tmp_path: Path) -> None:
    old = Staged(tmp_path, 2 * PART)
    async with place(moto, bucket="others") as bucket:
        await make_bucket(moto, "others")
        sent = await cut_off(bucket, old, after=1)
        new = Staged(tmp_path, 2 * PART)
        sent.clear()
        await new.put(bucket, upload_id=old.upload_ids[0])
        assert sent == [1, 2]
        assert await content(bucket) == new.bytes


async def test_a_server_that_dies_in_the_middle_is_asked_and_begun_anew(tmp_path: Path) -> None:
    staged = Staged(tmp_path, 4 * PART)
    with RcloneS3(buckets(tmp_path)) as server:

        def kill_at_the_third(size: int) -> None:
            if size == 2 * PART:
                server.kill()

        async with place(server.url) as bucket:
            with pytest.raises(PlaceError, match=r"does not answer .* look after its endpoint and the network"):
                await staged.put(bucket, on_progress=kill_at_the_third)
            await asyncio.to_thread(server.start)
            await staged.put(bucket, upload_id=staged.upload_ids[-1])
            assert len(staged.upload_ids) == 2
            assert await content(bucket) == staged.bytes


async def test_an_upload_is_forgotten_when_asked(moto: str, tmp_path: Path) -> None:
    staged = Staged(tmp_path, 2 * PART)
    async with place(moto, bucket="forgotten") as bucket:
        await make_bucket(moto, "forgotten")
        await cut_off(bucket, staged, after=1)
        await bucket.abort(KEY, staged.upload_ids[0])
        await bucket.abort(KEY, staged.upload_ids[0])
        async with asking(moto) as client:
            assert (await client.list_multipart_uploads(Bucket="forgotten")).get("Uploads", []) == []


async def test_a_bucket_that_is_not_there_is_told(moto: str, tmp_path: Path) -> None:
    staged = Staged(tmp_path, 1)
    async with place(moto, bucket="missing") as bucket:
        for ask in (bucket.check(), staged.put(bucket), bucket.put_bytes(KEY, b"", "text/plain")):
            with pytest.raises(PlaceError, match=r"NoSuchBucket\): there is no such bucket: create it"):
                await ask


async def test_a_staged_file_that_is_not_the_proved_one_is_not_placed(moto: str, tmp_path: Path) -> None:
    async with place(moto, bucket="proved") as bucket:
        await make_bucket(moto, "proved")
        for size in (10, PART + 10):
            staged = Staged(tmp_path, size)
            with pytest.raises(NotStagedError, match="instead of"):
                await staged.put(bucket, size=size + 1)
            with pytest.raises(NotStagedError, match="not what was fetched"):
                await staged.put(bucket, sha256="0" * 64)
            staged.path.unlink()
            with pytest.raises(NotStagedError, match="fetch it again"):
                await staged.put(bucket)
        assert await bucket.size_of(KEY) is None


Answer = web.Response | None


class Fake:
    """A server that answers as a test says, and else takes everything."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        #: What was put, and the digest that was signed with it.
        self.bodies: list[tuple[str, bytes]] = []
        self.answer: Callable[[web.Request], Answer] = lambda _: None
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.method, request.path_qs))
        body = await request.read()
        if request.method == "PUT":
            self.bodies.append((request.headers["x-amz-content-sha256"], body))
        answer = self.answer(request)
        if answer is not None:
            return answer
        query = request.query_string
        if request.method == "POST" and query == "uploads":
            return xml("<InitiateMultipartUploadResult><UploadId>U</UploadId></InitiateMultipartUploadResult>")
        if request.method == "POST":
            return xml("<CompleteMultipartUploadResult/>")
        if request.method == "GET":
            return xml("<ListPartsResult/>")
        if request.method == "HEAD":
            return web.Response(status=404)
        return web.Response(headers={"ETag": f'"{hashlib.md5(body).hexdigest()}"'})  # noqa: S324 - as S3 does


def xml(body: str, status: int = 200) -> web.Response:
    return web.Response(text=f"<?xml version='1.0'?>{body}", status=status, content_type="application/xml")


def refusal(code: str, status: int) -> web.Response:
    return xml(f"<Error><Code>{code}</Code><Message>secret of {SECRET_ACCESS_KEY}</Message></Error>", status)


@asynccontextmanager
async def fake() -> AsyncIterator[Fake]:
    server = Fake()
    app = web.Application(client_max_size=100 * MIB)
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    server.url = f"http://{host}:{port}"
    try:
        yield server
    finally:
        await runner.cleanup()


async def test_what_goes_over_plain_http_is_signed_with_digests_that_no_loop_has_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_by, read = [], os.pread

    def noting(file: int, size: int, place: int) -> bytes:
        read_by.append(threading.current_thread())
        return read(file, size, place)

    monkeypatch.setattr(os, "pread", noting)
    async with fake() as server, place(server.url) as bucket:
        for size in (10, 2 * PART + 7):
            # There is no file to be verified in the end.
            with pytest.raises(PlaceError):
                await Staged(tmp_path, size).put(bucket)
    assert len(server.bodies) == 4
    assert all(signed == hashlib.sha256(body).hexdigest() for signed, body in server.bodies)
    assert read_by
    assert threading.main_thread() not in read_by


@pytest.mark.parametrize(
    ("region", "url"),
    [
        ("eu-central-1", "https://s3.eu-central-1.amazonaws.com"),
        ("cn-north-1", "https://s3.cn-north-1.amazonaws.com.cn"),
    ],
)
async def test_a_bucket_without_an_endpoint_is_amazons_of_its_region(region: str, url: str) -> None:
    of_region = S3Settings(region=region, access_key_id=ACCESS_KEY_ID, secret_access_key=SECRET_ACCESS_KEY)
    async with S3Place(S3Target(bucket="classes"), of_region) as bucket:
        assert bucket._client.meta.endpoint_url == url


REFUSALS = [
    ("AccessDenied", 403, "allow it to list the bucket"),
    ("SignatureDoesNotMatch", 403, "the secret does not belong to the access key"),
    ("InvalidAccessKeyId", 403, "correct it"),
    ("RequestTimeTooSkewed", 403, "clock"),
    ("PermanentRedirect", 301, "set its endpoint and region"),
    ("AuthorizationHeaderMalformed", 400, "region"),
    ("PathStyleDomainForbidden", 403, "set the style to virtual"),
    ("SlowDown", 503, "tried again later"),
    ("InternalError", 500, "tried again later"),
    ("SomethingNew", 418, "server's log"),
]


async def test_a_refusal_says_what_to_do_and_nothing_secret(tmp_path: Path) -> None:
    staged = Staged(tmp_path, 10)
    async with fake() as server, place(server.url) as bucket:
        for code, status, remedy in REFUSALS:
            server.answer = lambda request, answer=(code, status): (  # type: ignore[misc]
                None if request.method == "HEAD" else refusal(*answer)
            )
            with pytest.raises(PlaceError) as refused:
                await staged.put(bucket)
            assert f"({code})" in refused.value.reason
            assert remedy in refused.value.reason
            assert not refused.value.is_full
            assert "secret of" not in refused.value.reason


async def test_a_full_bucket_is_told_as_one(tmp_path: Path) -> None:
    async with fake() as server, place(server.url) as bucket:
        for code, status in (
            ("QuotaExceeded", 403),
            ("XMinioStorageFull", 507),
            ("", 507),
            ("InsufficientCapacity", 507),
        ):
            server.answer = lambda _, answer=(code, status): refusal(*answer)  # type: ignore[misc]
            with pytest.raises(PlaceError, match="make room there") as refused:
                await bucket.check()
            assert refused.value.is_full


async def test_a_busy_server_is_asked_again(tmp_path: Path) -> None:
    staged, refusals = Staged(tmp_path, 10), [refusal("SlowDown", 503)]
    async with fake() as server, S3Place(S3Target(bucket="classes"), settings(server.url), attempts=2) as bucket:

        def answer(request: web.Request) -> Answer:
            if request.method == "PUT":
                return refusals.pop() if refusals else None
            return head(staged.size) if not refusals else None

        server.answer = answer
        await staged.put(bucket)


async def test_a_server_that_never_says_continue_gets_the_body(tmp_path: Path) -> None:
    """Some servers and proxies know nothing of `Expect: 100-continue`."""
    staged, bodies = Staged(tmp_path, 100_000), []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        begin = await reader.readuntil(b"\r\n\r\n")
        if begin.startswith(b"PUT"):
            bodies.append(await reader.readexactly(staged.size))
            writer.write(b'HTTP/1.1 200 OK\r\nETag: "e"\r\nConnection: close\r\nContent-Length: 0\r\n\r\n')
        elif bodies:
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % staged.size)
        else:
            writer.write(b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with place(f"http://127.0.0.1:{port}", stalled_after_s=5) as bucket:
        await staged.put(bucket)
    assert bodies == [staged.bytes]
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("code", ["InvalidPart", "InvalidPartOrder", "NoSuchUpload"])
async def test_an_upload_whose_parts_are_lost_begins_anew_once(tmp_path: Path, code: str) -> None:
    staged = Staged(tmp_path, PART + 1)
    async with fake() as server, place(server.url) as bucket:
        status = 404 if code == "NoSuchUpload" else 400
        server.answer = lambda request: (
            refusal(code, status) if request.method == "POST" and "uploadId" in request.query else None
        )
        with pytest.raises(PlaceError, match="begins anew"):
            await staged.put(bucket)
        assert len(staged.upload_ids) == 2
        aborted = [path for method, path in server.asked if method == "DELETE"]
        assert len(aborted) == (0 if code == "NoSuchUpload" else 2)


async def test_a_completed_upload_whose_answer_was_lost_is_found(tmp_path: Path) -> None:
    staged = Staged(tmp_path, PART + 1)
    is_complete = False

    def answer(request: web.Request) -> Answer:
        nonlocal is_complete
        if request.method == "HEAD" and is_complete:
            headers = {"Content-Length": str(staged.size), "x-amz-meta-sha256": staged.sha256}
            return web.Response(headers=headers)
        if request.method == "POST" and "uploadId" in request.query:
            is_complete = True
            return refusal("NoSuchUpload", 404)
        return None

    async with fake() as server, place(server.url) as bucket:
        server.answer = answer
        await staged.put(bucket)
    assert len(staged.upload_ids) == 1


def head(size: int, **headers: str) -> web.Response:
    return web.Response(headers={"Content-Length": str(size)} | headers)


@pytest.mark.parametrize("size", [10, PART + 10], ids=str)
async def test_a_file_of_another_size_than_was_sent_is_not_placed(tmp_path: Path, size: int) -> None:
    staged = Staged(tmp_path, size)
    async with fake() as server, place(server.url) as bucket:
        server.answer = lambda request: head(size - 1) if request.method == "HEAD" else None
        with pytest.raises(PlaceError, match=f"has {size - 1} bytes of a file of {size}: it is placed again"):
            await staged.put(bucket)


@pytest.mark.parametrize("size", [10, PART + 10], ids=str)
async def test_the_checksum_that_cos_tells_is_compared(tmp_path: Path, size: int) -> None:
    staged = Staged(tmp_path, size)
    crc = str(crc64.xz(staged.bytes))
    async with fake() as server, place(server.url) as bucket:
        for told in (crc, "1"):
            server.answer = lambda request, told=told: (  # type: ignore[misc]
                head(size, **{"x-cos-hash-crc64ecma": told}) if request.method == "HEAD" else None
            )
            if told == crc:
                await staged.put(bucket)
            else:
                with pytest.raises(PlaceError, match="has other bytes than were sent"):
                    await staged.put(bucket)


async def test_a_server_that_takes_nothing_more_is_given_up(tmp_path: Path) -> None:
    """The body is larger than what lies in between, so that sending it stands still."""
    staged = Staged(tmp_path, 64 * MIB)
    held = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"HEAD"):
            writer.write(b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        if b"100-continue" in head.lower():
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        held.append(writer)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with place(f"http://127.0.0.1:{port}", part=staged.size, stalled_after_s=0.5) as bucket:
        with pytest.raises(PlaceError, match="does not answer"):
            await staged.put(bucket)
    for writer in held:
        writer.close()
    server.close()
    await server.wait_closed()


async def test_nothing_is_asked_for_a_path_that_leads_elsewhere(tmp_path: Path) -> None:
    async with fake() as server, place(server.url) as bucket:
        with pytest.raises(PlaceError, match="cannot be a path"):
            await bucket.put_bytes("../other", b"", "text/plain")
        assert server.asked == []
