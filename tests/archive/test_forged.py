"""What somebody can do to others who sends any Finished event of an application, or writes a manifest: nothing."""

import asyncio
import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from archive import AddressRules, Fetcher, FetchLimits, FoundManifest, parse_networks, rebuild
from archive.files import LEASE_S
from archive.manifest import render_manifest
from archive.planning import MAX_FORGEABLE_FILES, plan_new
from archive.service import give_up_a_part
from schemas import FileOutcome, ManifestFile, file_key
from store import (
    ArchiveFile,
    Question,
    ask,
    claim_files,
    claim_questions,
    count_archive,
    finish_question,
    retry_files,
)
from tests.archive.recordings import file, manifest
from tests.archive.serving import SECRET, Caller, answering
from tests.archive.world import APP, World, a_class, a_world, end, finished
from tests.reconcile.world import forged

HOUR_S = 3600.0
LARGEST = 2**63 - 1


async def forge(w: World, *, task_id: str = "forged", videos: list[dict[str, Any]], **changes: Any) -> None:
    """Deliver a Finished event whose files somebody made up."""
    event = forged(finished(a_class(w, 99)), **changes)
    event["EventData"] |= {"TaskId": task_id, "VideoInfos": videos}
    event["Timestamp"] = int(w.clock())
    await w.deliver(event)


def a_video(url: str, **changes: Any) -> dict[str, Any]:
    return {"VideoId": "f", "VideoUrl": url, "VideoSize": 1000, "VideoType": 0, "VideoFormat": "mp4"} | changes


@pytest.mark.parametrize("number", [LARGEST, -LARGEST - 1, 0, -1, 253_402_300_799, 10**12])
async def test_no_number_of_a_forged_event_hurts_another_recording(tmp_path: Path, number: int) -> None:
    async with a_world(tmp_path) as w:
        video = a_video(
            f"{w.vendor_files.url}/nothing.mp4",
            **dict.fromkeys(("VideoSize", "VideoType", "VideoPlayTime", "VideoDuration", "Width", "Height"), number),
        )
        await forge(w, videos=[video], RecordStopTime=number, RecordStartTime=number, RoomId=number, TotalTime=number)
        cls = a_class(w)
        await end(w, cls)
        await w.settle()
        w.check_bytes(await w.recording(cls.task_id))
        # It can be listed, and neither goes before the others nor is tried for ever.
        (row,) = [row for row in await w.rows() if row.task_id == "forged"]
        assert "2026-01-05" <= row.deleted_at <= "2026-01-10"
        await w.pass_by(80 * HOUR_S, step_s=20 * HOUR_S)
        assert (await count_archive(w.store)).waiting == 0


@pytest.mark.parametrize("year", [1970, 9999])
async def test_a_source_cannot_choose_when_its_file_is_to_be_deleted(tmp_path: Path, year: int) -> None:
    head = f"HTTP/1.1 200 OK\r\nLast-Modified: Fri, 31 Dec {year} 23:59:59 GMT\r\nContent-Length: 1000\r\n\r\n"
    async with answering(head.encode() + b"cut off") as raw, a_world(tmp_path, more_hosts=raw.host) as w:
        await forge(w, videos=[a_video(raw.url)])
        await w.settle()
        (row,) = await w.rows()
        assert "2026-01-05" <= row.deleted_at <= "2026-01-10"
        assert SECRET not in repr(row)
        await w.pass_by(200 * HOUR_S, step_s=20 * HOUR_S)
        assert await w.states() == ["lost"]


@pytest.mark.parametrize("many", [1, 3])
async def test_callbacks_bound_the_files_of_a_recording_and_the_vendor_does_not(tmp_path: Path, many: int) -> None:
    async with a_world(tmp_path) as w:
        for event in range(many):
            w.clock.pass_by(1.0)
            urls = (f"http://evil.example/{event}/{number}" for number in range(3 * MAX_FORGEABLE_FILES // 2))
            await forge(w, videos=[a_video(url, VideoId=url) for url in urls])
            await plan_new(w.store, w.config, now_s=w.clock())
        (counts,) = [await count_archive(w.store)]
        assert counts.waiting == MAX_FORGEABLE_FILES
        # It still has the vendor's own.
        await answer(w, "forged", [a_video(f"{w.vendor_files.url}/true.mp4", VideoId="true")])
        await plan_new(w.store, w.config, now_s=w.clock())
        assert (await count_archive(w.store)).waiting == MAX_FORGEABLE_FILES + 1


async def answer(w: World, task_id: str, videos: list[dict[str, Any]]) -> None:
    """Have the vendor answer about a recording."""
    event = forged(finished(a_class(w, 99)))
    event["EventData"] |= {"TaskId": task_id, "VideoInfos": videos}
    await ask(w.store, [Question(sdk_app_id=APP, task_id=task_id, why="test")])
    (question,) = await claim_questions(w.store, apps=[APP], lease_holder="other", lease_s=60.0, limit=1)
    body = msgspec.json.encode(event)
    await finish_question(w.store, question, lease_holder="other", answer_status="FINISHED", answer=body)


def write_manifest(w: World, *files: ManifestFile, task_id: str = "forged") -> Path:
    """Put a manifest into the target, as anybody can who may write there."""
    folder = f"{APP}/2026-01-05_1_{task_id}"
    path = w.root / folder / "manifest.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    made = manifest(*files, sdk_app_id=APP, task_id=task_id, folder=folder)
    path.write_bytes(render_manifest(made))
    return path


async def rebuilt(w: World) -> list[str]:
    found: list[FoundManifest] = []
    await rebuild(w.store, w.place, on_found=found.append)
    return [one.problem for one in found]


async def test_a_manifest_does_not_make_a_file_archived_that_is_not_there(tmp_path: Path) -> None:
    async with a_world(tmp_path) as w:
        w.is_place_away = True
        cls = a_class(w)
        await end(w, cls)
        await w.settle()
        (video, *_) = (await w.recording(cls.task_id)).videos
        path = write_manifest(w, file("1_a.mp4", size=7, file_key=file_key(video)), task_id=cls.task_id)
        assert "1 of its files are not there" in (await rebuilt(w))[0]
        path.with_name("1_a.mp4").write_bytes(b"other")
        assert "1 of its files are not there" in (await rebuilt(w))[0]
        w.is_place_away = False
        await w.pass_by(HOUR_S)
        w.check_bytes(await w.recording(cls.task_id))


@pytest.mark.parametrize("outcome", ["lost", "refused", "archived"])
async def test_an_address_of_a_manifest_is_never_the_vendors_word(tmp_path: Path, outcome: FileOutcome) -> None:
    async with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd") as raw, a_world(tmp_path) as w:
        told = file("1_a.mp4", outcome=outcome, url=raw.url, address_from="vendor", size=4)
        write_manifest(w, told).with_name("1_a.mp4").write_bytes(b"abcd")
        assert await rebuilt(w) == [""]
        await retry_files(w.store, outcomes=["lost", "refused", "archived"])
        await w.settle()
        assert (await w.states(), raw.requests) == (["refused"], [])


async def test_a_manifest_that_cannot_be_is_told_and_the_others_are_read(tmp_path: Path) -> None:
    async with a_world(tmp_path) as w:
        cls = a_class(w)
        await end(w, cls)
        await w.settle()
        before = await w.rows()
        (path,) = w.root.rglob("manifest.json")
        odd = path.parent.with_name("0000-01-01_1_\x1b[31m") / "manifest.json"
        odd.parent.mkdir()
        odd.write_bytes(path.read_bytes())
        write_manifest(w, file(file_key="k"))
        problems = await rebuilt(w)
        assert [bool(problem) for problem in problems].count(True) == 2
        assert await w.rows() == before


async def test_files_that_never_end_let_others_go_first(tmp_path: Path) -> None:
    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b'HTTP/1.1 200 OK\r\nETag: "e"\r\nContent-Length: 60000000000\r\n\r\n')
        with suppress(ConnectionError):
            while True:
                writer.write(b"x" * 10_000)
                await writer.drain()
                await asyncio.sleep(0.05)

    limits = FetchLimits(at_once=1, least_bytes_per_s=1)
    async with answering(drip) as raw, a_world(tmp_path, more_hosts=raw.host, limits=limits, turn_s=0.0) as w:
        await forge(w, videos=[a_video(raw.url, VideoSize=60_000_000_000)])
        cls = a_class(w)
        async with asyncio.timeout(30):
            await end(w, cls)
            await plan_new(w.store, w.config, now_s=w.clock())
            (first,) = await claim(w, 1)
            assert first.task_id == "forged"
            assert not await w.worker.files.do(first)
            rest = await claim(w, 100)
            assert {one.task_id for one in rest} == {cls.task_id}
            assert all([await w.worker.files.do(one) for one in rest])
        # Its turn comes again; what came of it is still there, and it counts as no failure.
        w.clock.pass_by(61.0)
        (again,) = await claim(w, 1)
        assert (again.task_id, again.attempts, again.failing_at) == ("forged", 1, None)
        assert [part.size > 0 for part in w.worker.staging.parts()] == [True]


async def claim(w: World, limit: int) -> list[ArchiveFile]:
    return await claim_files(
        w.store,
        lease_holder=w.worker.lease_holder,
        lease_s=LEASE_S,
        limit=limit,
        staged_on=w.worker.staging.identity,
        can_fetch=True,
        can_place=True,
    )


@pytest.mark.parametrize("when", ["staged", "while it is fetched"])
async def test_the_vendors_address_outranks_what_was_fetched_from_a_forged_one(tmp_path: Path, when: str) -> None:
    async with a_world(tmp_path) as w:
        w.vendor_files.put("/forged.mp4", 1000)
        w.vendor_files.put("/true.mp4", 1000)
        await forge(w, videos=[a_video(f"{w.vendor_files.url}/forged.mp4")])
        w.is_place_away = True
        if when == "staged":
            await w.settle()
            assert await w.states() == ["staged"]
            await forge(w, videos=[a_video("http://evil.example/other.mp4")], RecordStopTime=int(w.clock()) - 5)
            await w.settle()
            assert await w.states() == ["staged"]
            claimed = []
        else:
            await plan_new(w.store, w.config, now_s=w.clock())
            claimed = await claim(w, 1)
        await answer(w, "forged", [a_video(f"{w.vendor_files.url}/true.mp4")])
        await plan_new(w.store, w.config, now_s=w.clock())
        for one in claimed:
            await w.worker.files.do(one)
        w.is_place_away = False
        await w.pass_by(HOUR_S)
        (made,) = [one.files[0] for one in w.manifests()]
        content = w.vendor_files.file("/true.mp4").content
        assert made.sha256 == hashlib.sha256(b"".join(content.read(0, content.size))).hexdigest()
        assert (made.address_from, made.url) == ("vendor", f"{w.vendor_files.url}/true.mp4")


#: What comes without end, and again and again: none of it is a body.
ENDLESS = {
    "interim answers": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n"),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"),
    "one header": (b"HTTP/1.1 200 OK\r\nX-A: ", b"b" * 100),
    "what stands behind a chunk's size": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;", b"b"),
    "trailers": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n", b"X-A: b\r\n"),
}


@pytest.mark.parametrize("pause_s", [0.0, 0.01])
@pytest.mark.parametrize("what", ENDLESS)
async def test_an_answer_that_goes_on_without_a_body_is_ended(tmp_path: Path, what: str, pause_s: float) -> None:
    begin, again = ENDLESS[what]

    async def answer_on(writer: asyncio.StreamWriter) -> None:
        writer.write(begin)
        while True:
            writer.write(again)
            await writer.drain()
            await asyncio.sleep(pause_s)

    limits = FetchLimits(answer_within_s=0.5, least_over_s=0.5, stalled_after_s=5.0)
    rules = AddressRules(hosts=(), networks=parse_networks("127.0.0.0/8"))
    async with answering(answer_on) as raw, Fetcher(rules, limits) as fetcher, asyncio.timeout(5):
        await Caller(fetcher, tmp_path / "a.part", raw.url).fail()


async def test_begun_files_give_way_where_the_disk_is_full(tmp_path: Path) -> None:
    async def cut_off(writer: asyncio.StreamWriter) -> None:
        writer.write(b'HTTP/1.1 200 OK\r\nETag: "e"\r\nContent-Length: 100000\r\n\r\n' + b"x" * 50_000)

    async with answering(cut_off) as raw, a_world(tmp_path, more_hosts=raw.host) as w:
        await forge(w, videos=[a_video(raw.url, VideoSize=100_000)])
        w.is_place_away = True
        cls = a_class(w)
        await end(w, cls)
        await w.settle()
        staged = len(w.staged())
        await plan_new(w.store, w.config, now_s=w.clock())
        assert await give_up_a_part(w.store, w.worker.staging) == 50_000
        # What is whole is never given up.
        assert await give_up_a_part(w.store, w.worker.staging) == 0
        assert len(w.staged()) == staged - 1
        w.is_place_away = False
        await w.pass_by(HOUR_S)
        w.check_bytes(await w.recording(cls.task_id))
