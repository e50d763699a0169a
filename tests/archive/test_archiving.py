"""From a Finished event to files in a folder: what is archived, what is not, and what is done again."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archive import PlanConfig, check_file, rebuild
from archive.checking import ExpectedFile, FoundManifest
from schemas import RECORDING_ARCHIVED, RecordingArchived, redecode
from simulator import ClassKind, FileFailure, FileFaults, render
from store import (
    Question,
    Store,
    ask,
    claim_questions,
    count_archive,
    finish_question,
    list_archive_files,
    migrate,
    retry_files,
)
from tests.archive.world import APP, World, a_class, a_world, end, finished
from tests.profiles import examples
from tests.reconcile.world import forged

HOUR_S = 3600.0


def world(tmp_path: Path, **options: Any) -> AbstractAsyncContextManager[World]:
    return a_world(tmp_path, **options)


async def test_every_file_of_every_class_is_archived_with_its_manifest_and_told_of_once(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        classes = [
            a_class(w, number, kind=kind)
            for number, kind in enumerate((ClassKind.NORMAL, ClassKind.SEVERAL_STREAMS, ClassKind.JOINED_VIDEOS), 1)
        ]
        await end(w, *classes)
        assert await w.settle()
        files = 0
        for cls in classes:
            recording = await w.recording(cls.task_id)
            w.check_bytes(recording)
            files += len(recording.videos)
            (manifest,) = [one for one in w.manifests() if one.task_id == cls.task_id]
            assert [file.sha256 for file in manifest.files] == [
                video.archive.sha256 for video in recording.videos if video.archive
            ]
            assert all(file.checked == ("size", "crc64") for file in manifest.files)
            assert (w.root / manifest.folder / "index.html").read_bytes().startswith(b"<!doctype html>")
        told = [message for message in w.transport.published if message.routing_key == RECORDING_ARCHIVED]
        events = [
            redecode(message.body, routing_key=message.routing_key, received_at_us=message.received_at_us)
            for message in told
        ]
        assert sorted(event.task_id for event in events if isinstance(event, RecordingArchived)) == sorted(
            cls.task_id for cls in classes
        )
        assert {message.source for message in told} == {"archive"}
        assert w.staged() == []
        # Once more: nothing is due, and nothing is asked for.
        requests = len(w.vendor_files.requests)
        assert (await w.settle(), len(w.vendor_files.requests)) == (0, requests)
        assert files == (await count_archive(w.store)).archived


@pytest.mark.parametrize("failure", [*FileFailure])
async def test_whatever_goes_wrong_with_a_file_it_is_archived_in_the_end(tmp_path: Path, failure: FileFailure) -> None:
    async with world(tmp_path) as w:
        cls = a_class(w, kind=ClassKind.SEVERAL_STREAMS)
        # What stalls is waited for in real time.
        w.vendor_files.faults.fail_next(failure, 2 if failure is FileFailure.STALLED else 6)
        await end(w, cls)
        await w.settle()
        await w.pass_by(6 * HOUR_S)
        if failure is FileFailure.REDIRECTED:
            # Never followed there; the address may be right again once somebody looked.
            assert "refused" in await w.states()
            await retry_files(w.store)
            await w.pass_by(600.0)
        assert set(await w.states()) == {"archived"}
        w.check_bytes(await w.recording(cls.task_id))
        assert w.staged() == []
        assert sum(message.routing_key == RECORDING_ARCHIVED for message in w.transport.published) == 1


async def test_files_that_are_not_there_yet_are_waited_for(tmp_path: Path) -> None:
    async with world(tmp_path, faults=FileFaults(late_s=0.0)) as w:
        cls = a_class(w)
        w.vendor_files.faults.late_s = 1800.0
        await end(w, cls)
        await w.settle()
        assert set(await w.states()) == {"waiting"}
        await w.pass_by(HOUR_S)
        assert set(await w.states()) == {"archived"}


async def test_what_was_deleted_before_it_could_be_had_is_lost_and_said_so(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        cls = a_class(w)
        w.vendor_files.faults.rules.append(lambda _: FileFailure.BUSY)
        await end(w, cls)
        await w.pass_by(70 * HOUR_S, step_s=7 * HOUR_S)
        assert set(await w.states()) == {"waiting"}
        await w.pass_by(6 * HOUR_S)
        rows = await w.rows()
        assert {row.state for row in rows} == {"lost"}
        assert all("404" in (row.reason or "") for row in rows)
        (manifest,) = w.manifests()
        assert {file.outcome for file in manifest.files} == {"lost"}
        assert not [one for one in w.transport.published if one.routing_key == RECORDING_ARCHIVED]


async def test_a_target_that_is_away_stops_no_download_and_what_is_staged_is_placed_once_it_is_back(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        classes = [a_class(w, number) for number in range(1, 6)]
        w.is_place_away = True
        await end(w, *classes)
        await w.pass_by(HOUR_S)
        files = len(await w.rows())
        assert await w.states() == ["staged"] * files
        assert len(w.staged()) == files
        gets = len(w.vendor_files.requests)
        w.is_place_away = False
        await w.pass_by(600.0)
        assert (await w.states(), w.staged(), len(w.vendor_files.requests)) == (["archived"] * files, [], gets)


async def test_repeated_and_amended_events_fetch_nothing_twice(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        cls = a_class(w, kind=ClassKind.SEVERAL_STREAMS)
        await end(w, cls)
        await w.settle()
        requests = len(w.vendor_files.requests)
        before = {row.name: row.sha256 for row in await w.rows()}
        await w.deliver(*cls.callbacks, *cls.callbacks)
        later = forged(finished(cls), TotalTime=1)
        later["Timestamp"] += 60
        w.clock.pass_by(120.0)
        await w.deliver(later)
        await w.settle()
        assert len(w.vendor_files.requests) == requests
        # One more file is fetched, and it alone; the others keep their names.
        another = dict(forged(finished(cls))["EventData"]["VideoInfos"][0])
        another |= {"VideoId": "one-more", "VideoUrl": f"{w.vendor_files.url}/more.mp4", "VideoSize": 5000}
        w.vendor_files.put("/more.mp4", 5000)
        more = forged(finished(cls))
        more["EventData"]["VideoInfos"] = [another, *more["EventData"]["VideoInfos"]]
        more["Timestamp"] += 120
        w.clock.pass_by(1.0)
        await w.deliver(more)
        await w.settle()
        assert {request.path for request in w.vendor_files.requests[requests:]} == {"/more.mp4"}
        after = {row.name: row.sha256 for row in await w.rows()}
        assert after.items() > before.items()
        told = [one for one in w.transport.published if one.routing_key == RECORDING_ARCHIVED]
        assert len({one.event_id for one in told}) == 2


async def test_with_credentials_only_an_address_that_the_vendor_answered_is_fetched(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.config = PlanConfig(vendor_is_asked=True)
        cls = a_class(w)
        w.vendor_files.put("/forged.mp4", 1000)
        event = forged(finished(cls))
        video = event["EventData"]["VideoInfos"][0]
        event["EventData"]["VideoInfos"] = [video | {"VideoUrl": f"{w.vendor_files.url}/forged.mp4", "VideoSize": 1000}]
        w.clock.now_s = finished(cls).timestamp + 10
        await w.deliver(event)
        await w.pass_by(HOUR_S)
        assert await w.rows() == []
        await ask(w.store, [Question(sdk_app_id=APP, task_id=cls.task_id, why="test")])
        (question,) = await claim_questions(w.store, apps=[APP], lease_holder="other", lease_s=60.0, limit=1)
        answer = render(finished(cls))
        await finish_question(w.store, question, lease_holder="other", answer_status="FINISHED", answer=answer)
        await w.pass_by(600.0)
        assert set(await w.states()) == {"archived"}
        assert "/forged.mp4" not in {request.path for request in w.vendor_files.requests}
        assert {file.address_from for file in w.manifests()[0].files} == {"vendor"}


async def test_an_answer_that_does_not_come_is_waited_for_until_a_day_before_the_deletion(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.config = PlanConfig(vendor_is_asked=True)
        cls = a_class(w)
        await end(w, cls)
        await w.pass_by(47 * HOUR_S, step_s=HOUR_S)
        assert await w.rows() == []
        await w.pass_by(2 * HOUR_S, step_s=HOUR_S)
        assert set(await w.states()) == {"archived"}
        assert {file.address_from for file in w.manifests()[0].files} == {"callback"}


async def test_a_flipped_bit_is_found_and_the_rows_are_made_again_from_the_folder(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        classes = [a_class(w, number, kind=ClassKind.SEVERAL_STREAMS) for number in (1, 2)]
        await end(w, *classes)
        await w.settle()
        before = await w.rows()
        (tmp_path / "again").mkdir()
        found: list[FoundManifest] = []
        async with Store(f"sqlite+aiosqlite:///{tmp_path}/again/store.db") as again:
            await migrate(again)
            assert await rebuild(again, w.place, on_found=found.append) == len(before)
            after = await list_archive_files(again, limit=0)
            # What is there already is not made worse, or twice.
            await rebuild(again, w.place, on_found=found.append)
            assert await list_archive_files(again, limit=0) == after
        assert [one.problem for one in found] == [""] * 4
        same = ("task_id", "name", "state", "size", "location", "sha256", "folder")
        assert sorted([getattr(row, name) for name in same] for row in after) == sorted(
            [getattr(row, name) for name in same] for row in before
        )

        async def verdicts() -> list[str]:
            checked = [
                await check_file(
                    w.place,
                    ExpectedFile(
                        sdk_app_id=row.sdk_app_id,
                        task_id=row.task_id,
                        key=f"{row.folder}/{row.name}",
                        size=row.size,
                        sha256=row.sha256,
                    ),
                    on_bytes=lambda _: None,
                )
                for row in before
            ]
            return [one.verdict for one in checked]

        assert set(await verdicts()) == {"whole"}
        flip_a_bit(before[0].location)
        remove(before[1].location)
        assert (await verdicts())[:2] == ["changed", "missing"]


async def test_a_recording_that_failed_and_one_that_is_contradicted_are_not_archived(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        cls = a_class(w, kind=ClassKind.FAILED)
        await end(w, cls)
        await w.settle()
        assert await w.rows() == []


def flip_a_bit(location: str | None) -> None:
    path = Path(location or "")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def remove(location: str | None) -> None:
    Path(location or "").unlink()


async def test_half_a_file_is_not_taken_for_all_of_it_however_often_it_failed_before(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        cls = a_class(w)
        videos = len(msgspec.json.decode(finished(cls).event_data)["VideoInfos"])
        w.vendor_files.faults.fail_next(FileFailure.BUSY, 4 * videos)
        w.vendor_files.faults.fail_next(FileFailure.SHORT, videos)
        await end(w, cls)
        await w.settle()
        await w.pass_by(HOUR_S)
        w.check_bytes(await w.recording(cls.task_id))


@settings(parent=examples(quick=4, thorough=200), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    plan=st.lists(
        st.sampled_from([*sorted(set(FileFailure) - {FileFailure.STALLED}), None, "away", "back"]), max_size=30
    ),
    seed=st.integers(0, 999),
)
async def test_in_any_mixture_of_failures_each_file_is_archived_once_and_right(
    tmp_path_factory: pytest.TempPathFactory, plan: list[str | None], seed: int
) -> None:
    folder = tmp_path_factory.mktemp("world")
    async with world(folder) as w:
        classes = [a_class(w, seed + number, kind=ClassKind.SEVERAL_STREAMS) for number in (1, 2)]
        await end(w, *classes)
        for step in plan:
            if step in ("away", "back"):
                w.is_place_away = step == "away"
            elif step is not None and step != FileFailure.REDIRECTED:
                w.vendor_files.faults.fail_next(step)
            await w.pass_by(300.0)
        w.is_place_away = False
        w.vendor_files.faults.rules.clear()
        await w.pass_by(4 * HOUR_S)
        for cls in classes:
            w.check_bytes(await w.recording(cls.task_id))
        assert w.staged() == []
        manifests = w.manifests()
        assert sorted(one.task_id for one in manifests) == sorted(cls.task_id for cls in classes)
        told = [msgspec.json.decode(one.body)["EventData"]["TaskId"] for one in w.transport.published]
        assert sorted(told) == sorted(cls.task_id for cls in classes)
