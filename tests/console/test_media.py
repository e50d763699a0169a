"""Files of the archive for whoever watches: in parts, from a folder and a bucket, and why one is not sent."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest
from yarl import URL

from archive import AddressRules, Place, PlaceError, open_place, parse_hosts, parse_target
from console import media
from console.media import PIECE_BYTES, asked_range, media_address, media_origins, streams_of
from console.rendering import Texts
from schemas import file_key
from store import Recording, RecordingOmission, ShownVideo, VideoArchive
from tests.archive.recordings import STARTED_AT, event, recording, video
from tests.archive.test_s3 import make_bucket, settings
from tests.archive.test_s3 import moto as moto  # noqa: PLC0414 - a fixture
from tests.console.archived import APP, FOLDER, TASK, File, a_file, keep
from tests.console.world import World, running

CONTENT = os.urandom(700_000)
T = Texts().translator("en")


def folder_in(root: Path) -> Callable[[], AbstractAsyncContextManager[Place]]:
    return lambda: open_place(parse_target(str(root / "classes")))


@asynccontextmanager
async def watching(tmp_path: Path, *files: File, **options: Any) -> AsyncIterator[World]:
    """Yield a console with a recording that has these files in a folder."""
    opened = options.pop("open_place", folder_in(tmp_path))
    async with running(tmp_path, open_place=opened, **options) as world, opened() as place:
        await keep(world.store, place, files)
        yield world


def address(file: File, /, **changes: Any) -> str:
    return f"/media?{urlencode({'app': APP, 'task': TASK, 'file': file.key} | changes)}"


async def got(world: World, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes, Any]:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    session = world.browser.session
    async with session.request(method, url_of(world, path), headers=names) as answer:
        return answer.status, await answer.read(), answer.headers


def url_of(world: World, path: str) -> URL:
    return world.browser.base.join(URL(path, encoded=True))


@pytest.fixture(params=["folder", "bucket"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], AbstractAsyncContextManager[Place]]:
    """Return what opens an archive of each kind."""
    if request.param == "folder":
        return folder_in(tmp_path)
    url = request.getfixturevalue("moto")
    bucket = f"watched-{os.urandom(4).hex()}"
    await make_bucket(url, bucket)
    return lambda: open_place(parse_target(f"s3://{bucket}/kept"), settings(url))


async def test_a_file_is_sent_whole_or_in_parts(
    tmp_path: Path, place: Callable[[], AbstractAsyncContextManager[Place]]
) -> None:
    file = a_file("1_whiteboard.mp4", CONTENT)
    size = len(CONTENT)
    async with watching(tmp_path, file, open_place=place) as world:
        status, body, headers = await got(world, address(file))
        assert (status, body) == (200, CONTENT)
        assert headers["Content-Type"] == "video/mp4"
        assert headers["Content-Length"] == str(size)
        assert headers["Accept-Ranges"] == "bytes"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "private, no-cache"
        assert headers["Content-Disposition"] == f'inline; filename="2026-11-30_880528_{TASK}_1_whiteboard.mp4"'
        etag = headers["ETag"]
        for asked, begin, end in (
            ("bytes=0-", 0, size),
            ("bytes=0-0", 0, 1),
            ("bytes=1000-399999", 1000, 400_000),
            (f"bytes={size - 1}-{size + 5}", size - 1, size),
            ("bytes=-10", size - 10, size),
            (f"bytes=-{size + 1}", 0, size),
        ):
            status, body, headers = await got(world, address(file), Range=asked, If_Range=etag)
            assert (status, body) == (206, CONTENT[begin:end]), asked
            assert headers["Content-Range"] == f"bytes {begin}-{end - 1}/{size}"
            assert headers["Content-Length"] == str(end - begin)
        for asked in (f"bytes={size}-", "bytes=-0"):
            status, body, headers = await got(world, address(file), Range=asked)
            assert (status, body, headers["Content-Range"]) == (416, b"", f"bytes */{size}")
        for asked in ("bytes=5-1", "bytes=0-1,3-4", "bytes=-", "pages=1-2", "bytes=x-y", f"bytes={'9' * 5000}-"):
            status, body, _ = await got(world, address(file), Range=asked)
            assert (status, len(body)) == (200, size), asked
        status, body, _ = await got(world, address(file), Range="bytes=0-1", If_Range='"another"')
        assert (status, len(body)) == (200, size)
        status, body, headers = await got(world, address(file), "HEAD", Range="bytes=0-1")
        assert (status, body, headers["Content-Length"]) == (200, b"", str(size))
        for known in (etag, f'W/"x", {etag}', "*"):
            status, body, headers = await got(world, address(file), If_None_Match=known)
            assert (status, body, headers["ETag"]) == (304, b"", etag)


async def test_a_player_gets_a_piece_at_a_time_so_that_no_connection_stays(tmp_path: Path) -> None:
    file = a_file("1_camera.mp4", bytes(PIECE_BYTES + 5))
    async with watching(tmp_path, file) as world:
        status, body, headers = await got(world, address(file), Range="bytes=0-", Sec_Fetch_Dest="video")
        assert (status, len(body)) == (206, PIECE_BYTES)
        assert headers["Content-Range"] == f"bytes 0-{PIECE_BYTES - 1}/{PIECE_BYTES + 5}"
        status, body, _ = await got(world, address(file), Range=f"bytes={PIECE_BYTES}-", Sec_Fetch_Dest="audio")
        assert (status, len(body)) == (206, 5)
        status, body, _ = await got(world, address(file), Range="bytes=1-", Sec_Fetch_Dest="document")
        assert (status, len(body)) == (206, PIECE_BYTES + 4)


@pytest.mark.parametrize(
    ("name", "content_type", "disposition"),
    [
        ("1_camera.mp4", "video/mp4", "inline"),
        ("1_audio.mp3", "audio/mpeg", "inline"),
        ("1_camera.webm", "video/webm", "inline"),
        ("1_camera.flv", "application/octet-stream", "attachment"),
        ("1_camera.bin", "application/octet-stream", "attachment"),
    ],
)
async def test_only_what_a_browser_plays_is_sent_as_what_it_is(
    tmp_path: Path, name: str, content_type: str, disposition: str
) -> None:
    file = a_file(name, b"<script>alert(1)</script>")
    async with watching(tmp_path, file) as world:
        _, _, headers = await got(world, address(file))
        assert headers["Content-Type"] == content_type
        assert headers["Content-Disposition"].startswith(disposition)
        assert headers["X-Content-Type-Options"] == "nosniff"


async def test_only_who_is_logged_in_gets_a_file(tmp_path: Path) -> None:
    file = a_file("1_camera.mp4", CONTENT)
    async with watching(tmp_path, file) as world, world.another() as stranger:
        page = await stranger.get(address(file))
        assert page.url.path == "/login"


@pytest.mark.parametrize(
    "query",
    [
        {"file": "../../../etc/passwd"},
        {"file": "0" * 31},
        {"file": ""},
        {"app": "1/2"},
        {"app": "9" * 19},
        {"app": "٣"},
        {"task": ""},
        {"path": "/etc/passwd", "file": "http://169.254.169.254/"},
    ],
)
async def test_what_is_no_name_of_a_file_is_refused(tmp_path: Path, query: dict[str, str]) -> None:
    file = a_file("1_camera.mp4", CONTENT)
    async with watching(tmp_path, file) as world:
        page = await world.browser.get(address(file, **query))
        assert page.status == 400
        assert "not complete" in page.text


async def test_a_file_that_is_not_archived_says_how_far_it_is(tmp_path: Path) -> None:
    here, waiting = a_file("1_camera.mp4", CONTENT), a_file("2_camera.mp4", None)
    async with watching(tmp_path, here, waiting) as world:
        page = await world.browser.get(address(waiting))
        assert page.status == 404
        assert "waiting to be fetched" in page.text
        page = await world.browser.get(address(here, file="0" * 32))
        assert page.status == 404
        assert "no such file in the archive" in page.text
        page = await world.browser.get(address(here, file="0" * 32, format="json"))
        assert page.text == '{"error":"There is no such file in the archive."}'


async def test_a_file_that_is_gone_or_another_one_is_told(
    tmp_path: Path, place: Callable[[], AbstractAsyncContextManager[Place]]
) -> None:
    gone, other = a_file("1_camera.mp4", CONTENT), a_file("2_camera.mp4", CONTENT)
    async with watching(tmp_path, other, open_place=place) as world, place() as archive:
        await archive.put_bytes(f"{FOLDER}/2_camera.mp4", b"short", "video/mp4")
        await keep(world.store, _Losing(archive), [gone], task_id="lost")
        for file, task in ((gone, "lost"), (other, TASK)):
            for method in ("GET", "HEAD"):
                status, body, _ = await got(world, address(file, task=task), method, Range="bytes=2-")
                assert status == 404, (task, method)
                assert b"no longer in the archive" in body or method == "HEAD"


class _Losing:
    """A place that says that it has a file, and has not."""

    def __init__(self, place: Place) -> None:
        self._place = place

    async def put_bytes(self, key: str, *_: object) -> str:
        return self._place.location(key)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._place, name)


async def test_an_archive_that_is_away_is_told(tmp_path: Path) -> None:
    file = a_file("1_camera.mp4", CONTENT)
    async with watching(tmp_path, file) as world:
        (tmp_path / "classes").rename(tmp_path / "unmounted")
        for method in ("GET", "HEAD"):
            status, _, _ = await got(world, address(file), method, Range="bytes=0-")
            assert status == 503
        page = await world.browser.get(address(file))
        assert "The archive does not answer" in page.text
        assert "is not there: mount what belongs there" in page.text
        (tmp_path / "unmounted").rename(tmp_path / "classes")
        assert (await got(world, address(file)))[0] == 200
    async with running(tmp_path / "other", store=None, open_place=None) as world, folder_in(tmp_path)() as place:
        await keep(world.store, place, [file])
        page = await world.browser.get(address(file))
        assert (page.status, "TIW_ARCHIVE is not set" in page.text) == (503, True)


async def test_what_was_archived_elsewhere_is_told(tmp_path: Path) -> None:
    file = a_file("1_camera.mp4", CONTENT)
    (tmp_path / "moved").mkdir()
    async with watching(tmp_path, file, open_place=folder_in(tmp_path / "moved")) as world:
        async with folder_in(tmp_path)() as before:
            await keep(world.store, before, [file], task_id="before")
        page = await world.browser.get(address(file, task="before"))
        assert page.status == 404
        assert f"archived at {tmp_path}/classes" in page.text


async def test_no_link_leads_out_of_the_archive(tmp_path: Path) -> None:
    file = a_file("1_camera.mp4", CONTENT)
    secret = tmp_path / "secret"
    secret.write_bytes(CONTENT)
    async with watching(tmp_path, file) as world:
        there = tmp_path / "classes" / FOLDER / "1_camera.mp4"
        there.unlink()
        there.symlink_to(secret)
        status, body, _ = await got(world, address(file))
        assert status == 503
        assert b"is a link" in body
        assert CONTENT not in body


async def test_a_viewer_who_goes_away_ends_the_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many begin, take little and go: the places of all of them are free again."""
    file = a_file("1_camera.mp4", bytes(20_000_000))
    monkeypatch.setattr(media, "MOST_STREAMS", 2)
    monkeypatch.setattr(media, "_WAIT_S", 20.0)
    async with watching(tmp_path, file) as world:
        for _ in range(8):
            async with world.browser.session.get(url_of(world, address(file))) as answer:
                assert answer.status == 200
                await answer.content.readexactly(1000)
                answer.close()
        assert (await got(world, address(file), Range="bytes=0-9"))[0] == 206


async def test_who_comes_when_too_many_watch_is_asked_to_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = a_file("1_camera.mp4", bytes(50_000_000))
    monkeypatch.setattr(media, "MOST_STREAMS", 1)
    monkeypatch.setattr(media, "_WAIT_S", 0.1)
    async with watching(tmp_path, file) as world:
        async with world.browser.session.get(url_of(world, address(file))) as first:
            await first.content.readexactly(1)
            page = await world.browser.get(address(file))
            assert page.status == 503
            assert "1 files are being played or saved already" in page.text or "Try again" in page.text
            first.close()
        await _until(lambda: got(world, address(file), Range="bytes=0-0"), lambda found: found[0] == 206)


async def test_who_takes_nothing_loses_the_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = a_file("1_camera.mp4", bytes(50_000_000))
    monkeypatch.setattr(media, "_TAKEN_WITHIN_S", 0.3)
    monkeypatch.setattr(media, "MOST_STREAMS", 1)
    async with watching(tmp_path, file) as world, world.browser.session.get(url_of(world, address(file))) as idle:
        # It holds the only place, reads nothing of what comes, and must lose it to the next.
        assert idle.status == 200
        assert (await got(world, address(file), Range="bytes=0-0"))[0] == 206
        with pytest.raises(aiohttp.ClientError):
            await idle.read()


async def test_an_archive_that_fails_in_the_middle_breaks_the_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader must not take a part for the whole."""
    file = a_file("1_camera.mp4", bytes(5_000_000))
    async with watching(tmp_path, file) as world:
        place_type = type(await _console_place(tmp_path))
        whole = place_type.read_range

        async def failing(self: Place, key: str, begin: int, end: int, *, size: int) -> AsyncIterator[bytes]:
            async for block in whole(self, key, begin, end, size=size):
                yield block
                raise PlaceError("the disk is gone")

        monkeypatch.setattr(place_type, "read_range", failing)
        with pytest.raises(aiohttp.ClientError):
            await got(world, address(file))


async def _console_place(tmp_path: Path) -> Place:
    async with folder_in(tmp_path)() as place:
        return place


async def _until(ask: Callable[[], Any], is_so: Callable[[Any], bool]) -> None:
    async with asyncio.timeout(20):
        while not is_so(await ask()):  # noqa: ASYNC110 - the console tells nobody
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("bytes=0-", range(100)),
        ("Bytes=0-9", range(10)),
        ("bytes= 5-7 ", range(5, 8)),
        ("bytes=99-", range(99, 100)),
        ("bytes=100-", range(100, 100)),
        ("bytes=100-200", range(100, 100)),
        ("bytes=-1", range(99, 100)),
        ("bytes=-0", range(100, 100)),
        ("bytes=-500", range(100)),
        ("", None),
        ("bytes=", None),
        ("bytes=-", None),
        ("bytes=9-1", None),
        ("bytes=0-1,2-3", None),
        ("bytes=٣-", None),
        ("bytes=1-" + "9" * 20, None),
    ],
)
def test_a_range_is_read_as_the_standard_says(header: str, found: range | None) -> None:
    asked = asked_range(header, 100)
    assert (asked is None) == (found is None)
    assert list(asked or ()) == list(found or ())


def test_an_empty_file_has_no_range() -> None:
    assert list(asked_range("bytes=0-", 0) or ()) == []


# What the player is told.

NOW_S = STARTED_AT + 3600.0
KEPT_S = 72 * 3600.0
VENDORS = "http://online-recording-1259648581.file.myqcloud.com/a/b.mp4"


def shown(state: str | None = None, **changes: Any) -> ShownVideo:
    values = {"video_id": "v", "video_url": VENDORS, "user_id": "Mac_trtc_04", "video_play_time_ms": 3, **changes}
    archive = None if state is None else VideoArchive(state=state, location="/srv/x", sha256="0" * 64, archived_at="")
    return ShownVideo(archive=archive, video_type=values.pop("video_type", 0), video_format="mp4", **values)


def a_recording(*videos: ShownVideo, **changes: Any) -> Recording:
    received = event(STARTED_AT + 90)
    events = (
        type(received)(
            **{**{n: getattr(received, n) for n in received.__struct_fields__}, "received_at": "2026-11-29T17:02:00Z"}
        ),
    )
    return recording(videos=videos, events=events, **changes)


def told(*videos: ShownVideo, now_s: float = NOW_S, **changes: Any) -> list[media.Stream]:
    return streams_of(a_recording(*videos, **changes), now_s=now_s, kept_s=KEPT_S, t=T)


def test_an_archived_file_plays_from_here() -> None:
    [stream] = told(shown("archived", video_duration_ms=17_969))
    assert (
        stream.source
        == stream.link
        == media_address(1_400_000_001, "ghucnligqtgtvk2624mb", file_key(video(video_id="v")))
    )
    assert (stream.kind, stream.name, stream.user) == ("camera", "Camera", "Mac_trtc_04")
    assert (stream.starts_at_ms, stream.duration_ms) == (3, 17_969)
    assert (stream.is_archived, stream.note, stream.until_s) == (True, "", None)
    assert media_origins([stream]) == ()


@pytest.mark.parametrize("state", [None, "waiting", "fetching", "staged", "refused"])
def test_a_file_that_is_not_archived_plays_from_the_vendor_until_it_dies(state: str | None) -> None:
    [stream] = told(shown(state))
    assert (stream.source, stream.is_archived) == (VENDORS, False)
    assert "deletes it at" in stream.note
    assert stream.until_s == STARTED_AT + 60 + KEPT_S
    assert media_origins([stream, stream]) == ("http://online-recording-1259648581.file.myqcloud.com",)
    [stream] = told(shown(state), now_s=STARTED_AT + 60 + KEPT_S + 1)
    assert "has deleted it since" in stream.note
    assert stream.source == VENDORS


def test_a_forged_end_makes_no_file_live_longer() -> None:
    [stream] = told(shown(), record_stop_time=2**62)
    assert stream.until_s == STARTED_AT + 120 + KEPT_S
    [stream] = told(shown(), record_stop_time=0)
    assert stream.until_s == STARTED_AT + 120 + KEPT_S


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "http://10.0.0.1/a.mp4",
        "http://evil.example/a.mp4",
        "file:///etc/passwd",
        "http://user:secret@x.myqcloud.com/a.mp4",
        "http://x.myqcloud.com:8080/a.mp4",
        "//x.myqcloud.com/a.mp4",
        "http://x.myqcloud.com/\na",
    ],
)
def test_no_browser_is_sent_where_the_archive_would_not_fetch(url: str) -> None:
    [stream] = told(shown(video_url=url))
    assert (stream.source, stream.link) == ("", "")
    assert "not played from where a callback says it is" in stream.note
    assert "secret" not in stream.note
    assert media_origins([stream]) == ()


def test_hosts_that_the_archive_may_fetch_from_may_be_played_from() -> None:
    rules = AddressRules(hosts=parse_hosts("files.school.example"))
    url = "https://files.school.example/a.mp4"
    [stream] = streams_of(a_recording(shown(video_url=url)), now_s=NOW_S, kept_s=KEPT_S, t=T, rules=rules)
    assert stream.source == url


async def test_the_page_of_a_recording_keeps_to_the_hosts_of_the_settings(tmp_path: Path) -> None:
    elsewhere = a_file("1_camera.mp4", None, video_url="https://files.school.example/1_camera.mp4")
    file = a_file("2_camera.mp4", CONTENT)
    page_of = f"/recording?{urlencode({'app': APP, 'task': TASK})}"
    for hosts, is_played in ((".myqcloud.com", False), ("files.school.example", True)):
        folder = tmp_path / hosts
        folder.mkdir()
        async with watching(folder, file, elsewhere, addresses=AddressRules(hosts=parse_hosts(hosts))) as world:
            page = await world.browser.get(page_of)
            assert page.status == 200
            assert ('src="https://files.school.example/1_camera.mp4"' in page.text) is is_played
            policy = page.headers["Content-Security-Policy"]
            assert ("media-src 'self' https://files.school.example;" in policy) is is_played


def test_what_is_lost_or_has_no_address_says_so() -> None:
    lost, nowhere = told(shown("lost"), shown(video_id="w", video_url=None))
    assert (lost.source, "Lost" in lost.note) == ("", True)
    assert (nowhere.source, "no callback has said" in nowhere.note) == ("", True)


def test_times_that_no_class_can_have_are_passed_over() -> None:
    for wrong in (-1, 0, 2**62, None):
        [stream] = told(shown(video_duration_ms=wrong, video_play_time_ms=wrong))
        assert (stream.duration_ms, stream.starts_at_ms) == (None, 0)


def test_a_file_that_is_named_twice_plays_once_and_thousands_do_not_fill_the_page() -> None:
    assert len(told(shown(), shown())) == 1
    assert len(told(*(shown(video_id=str(number)) for number in range(5_000)))) == media.MOST_SHOWN


def test_sounds_are_no_videos() -> None:
    kinds = [stream.is_sound for stream in told(shown(video_type=4), shown(video_id="w", video_type=9))]
    assert kinds == [True, False]


def test_what_was_left_out_is_nothing_that_the_streams_know() -> None:
    omitted = (RecordingOmission(video_time_ms=1, pause_time_ms=1, resume_time_ms=2),)
    assert told(shown(), omitted_durations=omitted) == told(shown())
