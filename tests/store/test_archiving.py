"""Which files are to be archived, who has them when, and what becomes of them."""

import asyncio
import time
from typing import Any

import msgspec
import pytest
from sqlalchemy import select, update

from schemas import FileOutcome, Manifest, ManifestFile, file_key
from store import (
    ArchiveCounts,
    ArchiveFile,
    ArchivePlan,
    PlannedFile,
    Question,
    Store,
    apply_events,
    archived_files,
    archived_recordings,
    ask,
    claim_files,
    claim_manifests,
    claim_questions,
    count_archive,
    extend_leases,
    find_expiring_files,
    find_failing,
    find_recordings,
    find_traces,
    find_unplanned,
    finish_file,
    finish_manifest,
    finish_question,
    forget_recording,
    iso8601,
    known_archive_numbers,
    list_archive_files,
    list_refused_files,
    list_staged_files,
    note_file,
    plan_archive,
    postpone_file,
    postpone_manifest,
    restore_archive,
    retry_files,
    retry_refused_files,
)
from tests.store.classes import callback, keep

HOUR_S = 3600.0


def planned(number: int = 1, *, deleted_in_s: float = HOUR_S, url: str = "", **values: Any) -> PlannedFile:
    given: dict[str, Any] = {
        "file_key": f"k{number}",
        "number": number,
        "name": f"{number}_camera.mp4",
        "url": url or f"https://example.com/{number}.mp4",
        "address_from": "callback",
        "announced_size": 100,
        "details": {"video_id": f"v{number}"},
        "deleted_at_us": time.time_ns() // 1000 + round(deleted_in_s * 1_000_000),
    }
    return PlannedFile(**given | values)


def plan(*files: PlannedFile, task_id: str = "t", active_at_us: int = 1, **values: Any) -> ArchivePlan:
    given: dict[str, Any] = {
        "sdk_app_id": 1,
        "task_id": task_id,
        "folder": f"1/{task_id}",
        "active_at_us": active_at_us,
    }
    return ArchivePlan(**given | {"files": files} | values)


async def claimed(store: Store, **options: Any) -> list[ArchiveFile]:
    usual: dict[str, Any] = {"lease_holder": "h", "lease_s": 60.0, "limit": 100, "staged_on": "here"}
    return await claim_files(store, **usual | {"can_fetch": True, "can_place": True} | options)


async def claimed_one(store: Store, **options: Any) -> ArchiveFile:
    (file,) = await claimed(store, **options)
    return file


async def end(store: Store, file: ArchiveFile, outcome: Any = "archived", **values: Any) -> bool:
    return await finish_file(store, file.key, lease_holder="h", outcome=outcome, **values)


async def pass_time(store: Store, by_s: float) -> None:
    """Let everything of files and manifests have happened earlier."""
    for table in (archived_files, archived_recordings):
        columns = (table.c.due_at_us, table.c.leased_until_us)
        async with store.writing() as connection:
            await connection.execute(
                update(table).values({column.name: column - round(by_s * 1_000_000) for column in columns})
            )


async def manifests(store: Store, **options: Any) -> list[Any]:
    usual: dict[str, Any] = {"lease_holder": "h", "lease_s": 60.0, "limit": 10}
    return await claim_manifests(store, **usual | options)


async def test_files_are_claimed_once_and_first_those_that_the_vendor_deletes_first(store: Store) -> None:
    await plan_archive(
        store,
        [
            plan(planned(1, deleted_in_s=300), planned(2, deleted_in_s=100)),
            plan(planned(1, deleted_in_s=200), task_id="u"),
        ],
    )
    first = await claimed(store, limit=2)
    assert [(file.task_id, file.name) for file in first] == [("t", "2_camera.mp4"), ("u", "1_camera.mp4")]
    assert [(file.attempts, file.outcome, file.fetched_bytes, file.details) for file in first[:1]] == [
        (1, None, 0, {"video_id": "v2"})
    ]
    assert [file.name for file in await claimed(store, lease_holder="other")] == ["1_camera.mp4"]
    assert await claimed(store) == []


async def test_only_the_files_of_one_recording_are_claimed_if_asked(store: Store) -> None:
    await plan_archive(store, [plan(planned()), plan(planned(), task_id="u")])
    assert [file.task_id for file in await claimed(store, recording=(1, "u"))] == ["u"]
    assert [file.task_id for file in await claimed(store)] == ["t"]


async def test_a_claimer_gets_what_it_can_do(store: Store) -> None:
    await plan_archive(store, [plan(planned(1), planned(2))])
    staged = await claimed_one(store, limit=1)
    assert await note_file(store, staged.key, lease_holder="h", staged_on="here", is_staged=True, sha256="s")
    assert await postpone_file(store, staged.key, lease_holder="h", after_s=0)
    assert await claimed(store, can_fetch=False, can_place=False) == []
    placed = await claimed_one(store, can_fetch=False)
    assert (placed.name, placed.is_staged, placed.sha256) == (staged.name, True, "s")
    assert [file.number for file in await claimed(store, can_place=False)] == [2]


async def test_what_another_folder_has_a_part_of_is_left_to_it_for_ten_minutes(store: Store) -> None:
    await plan_archive(store, [plan(planned())])
    file = await claimed_one(store)
    values: dict[str, Any] = {
        "staged_on": "here",
        "is_staged": True,
        "fetched_bytes": 7,
        "etag": "e",
        "size": 7,
        "checked": ["size"],
    }
    assert await note_file(store, file.key, lease_holder="h", upload_id="up", **values)
    assert await postpone_file(store, file.key, lease_holder="h", after_s=0)
    await pass_time(store, 590)
    assert await claimed(store, staged_on="there") == []
    await pass_time(store, 20)
    assert await claimed(store, staged_on="there", can_fetch=False) == []
    taken = await claimed_one(store, staged_on="there")
    assert (taken.staged_on, taken.is_staged, taken.fetched_bytes, taken.etag, taken.size) == (
        None,
        False,
        0,
        None,
        None,
    )
    assert (taken.checked, taken.upload_id) == ((), "up")


async def test_what_is_in_the_claimers_own_folder_is_taken_up_there_at_once(store: Store) -> None:
    await plan_archive(store, [plan(planned())])
    file = await claimed_one(store)
    await note_file(store, file.key, lease_holder="h", staged_on="here", fetched_bytes=7, etag="e")
    await pass_time(store, 61)
    again = await claimed_one(store, lease_holder="next")
    assert (again.staged_on, again.fetched_bytes, again.etag, again.attempts) == ("here", 7, "e", 2)


async def test_whoever_lost_its_lease_changes_nothing(store: Store) -> None:
    await plan_archive(store, [plan(planned())])
    file = await claimed_one(store, lease_holder="slow")
    await pass_time(store, 61)
    assert await extend_leases(store, archived_files, [file.key], lease_holder="slow", lease_s=5) == {file.key}
    await pass_time(store, 6)
    await claimed_one(store)
    assert not await note_file(store, file.key, lease_holder="slow", fetched_bytes=7)
    assert not await postpone_file(store, file.key, lease_holder="slow", after_s=0)
    assert not await finish_file(store, file.key, lease_holder="slow", outcome="archived")
    assert await extend_leases(store, archived_files, [file.key], lease_holder="slow", lease_s=5) == frozenset()
    await pass_time(store, 61)
    again = await claimed_one(store)
    assert (again.fetched_bytes, again.attempts) == (0, 3)


async def test_an_extended_lease_holds_for_as_long_as_it_says_and_does_not_ask_for_the_file_sooner(
    store: Store,
) -> None:
    await plan_archive(store, [plan(planned())])
    file = await claimed_one(store, lease_s=5)
    await extend_leases(store, archived_files, [file.key], lease_holder="h", lease_s=1000)
    await pass_time(store, 990)
    assert await claimed(store, lease_holder="other") == []
    assert await end(store, file, "lost")
    await pass_time(store, 1000)
    assert await claimed(store) == []


async def test_a_failing_file_says_why_and_since_when(store: Store) -> None:
    await plan_archive(store, [plan(planned())])
    file = await claimed_one(store)
    await postpone_file(store, file.key, lease_holder="h", after_s=30, reason="HTTP 503\0", failing_at="fetching")
    assert await claimed(store) == []
    await pass_time(store, 31)
    again = await claimed_one(store)
    assert (again.failing_at, again.reason) == ("fetching", "HTTP 503\N{REPLACEMENT CHARACTER}")
    assert again.failing_since_us is not None
    await postpone_file(
        store, file.key, lease_holder="h", after_s=0, reason="reset", failing_at="fetching", not_found=2
    )
    third = await claimed_one(store)
    assert (third.failing_since_us, third.reason, third.not_found) == (again.failing_since_us, "reset", 2)
    await postpone_file(store, file.key, lease_holder="h", after_s=0)
    assert (await claimed_one(store)).failing_since_us == again.failing_since_us
    await postpone_file(store, file.key, lease_holder="h", after_s=0, reason="full", failing_at="placing")
    assert (await claimed_one(store)).failing_since_us != again.failing_since_us


async def test_the_manifest_is_due_when_no_file_is_due_any_more(store: Store) -> None:
    await plan_archive(store, [plan(planned(1), planned(2))])
    first, second = await claimed(store)
    assert await end(store, first, size=7, location="/a/1", sha256="s")
    assert await manifests(store) == []
    assert await end(store, second, "refused", reason="its host is not allowed")
    (work,) = await manifests(store)
    assert (work.folder, work.recording, work.archived_at_us) == ("1/t", None, None)
    assert [(file.outcome, file.reason, file.location) for file in work.files] == [
        ("archived", None, "/a/1"),
        ("refused", "its host is not allowed", None),
    ]
    assert await postpone_manifest(store, work.key, lease_holder="h", after_s=5)
    assert await manifests(store) == []
    await pass_time(store, 6)
    (work,) = await manifests(store, recording=(1, "t"))
    assert await finish_manifest(store, work.key, lease_holder="h", location="/a", archived_at_us=None)
    await pass_time(store, 1000)
    assert await manifests(store) == []


async def test_of_two_workers_that_finish_the_last_files_at_once_one_makes_the_manifest_due(store: Store) -> None:
    tasks = [f"t{number}" for number in range(20)]
    await plan_archive(store, [plan(planned(1), planned(2), task_id=task_id) for task_id in tasks])
    files = await claimed(store)
    assert all(await asyncio.gather(*(end(store, file) for file in files)))
    assert {work.task_id for work in await manifests(store, limit=100)} == {*tasks}


async def test_a_recording_of_which_no_file_is_named_has_a_manifest_too(store: Store) -> None:
    await plan_archive(store, [plan()])
    (work,) = await manifests(store)
    assert work.files == ()
    await finish_manifest(store, work.key, lease_holder="h", location="/a", archived_at_us=5)
    await plan_archive(store, [plan(active_at_us=2)])
    assert await manifests(store) == []


async def test_a_file_that_comes_later_makes_the_manifest_due_again(store: Store) -> None:
    await plan_archive(store, [plan(planned(1))])
    await end(store, await claimed_one(store))
    (work,) = await manifests(store)
    # While it is being written.
    await plan_archive(store, [plan(planned(1), planned(2), folder="another")])
    assert await finish_manifest(store, work.key, lease_holder="h", location="/a", archived_at_us=5)
    assert await manifests(store) == []
    late = await claimed_one(store)
    assert late.number == 2
    await end(store, late)
    (work,) = await manifests(store)
    assert (work.folder, work.archived_at_us, len(work.files)) == ("1/t", None, 2)
    await finish_manifest(store, work.key, lease_holder="h", location="/a", archived_at_us=6)
    await plan_archive(store, [plan(planned(1), planned(2), active_at_us=3)])
    assert await manifests(store) == []


async def test_a_file_that_is_done_while_the_manifest_is_written_is_in_the_next_one(store: Store) -> None:
    await plan_archive(store, [plan(planned(1))])
    await end(store, await claimed_one(store))
    (work,) = await manifests(store)
    await plan_archive(store, [plan(planned(1), planned(2))])
    await end(store, await claimed_one(store))
    assert await finish_manifest(store, work.key, lease_holder="h", location="/a", archived_at_us=5)
    assert [len(work.files) for work in await manifests(store)] == [2]


async def test_an_archived_file_is_fetched_again_only_where_that_is_asked_for(store: Store) -> None:
    await plan_archive(store, [plan(planned())])
    await end(store, await claimed_one(store))
    moved = planned(url="https://example.com/moved.mp4", address_from="vendor")
    await plan_archive(store, [plan(moved)])
    assert await retry_files(store) == 0
    assert await claimed(store) == []
    # It was found damaged.
    assert await retry_files(store, outcomes=["archived"]) == 1
    again = await claimed_one(store)
    assert (again.fetched_bytes, again.is_staged, again.archived_at_us, again.attempts) == (0, False, None, 1)


ADDRESSES = [
    ("callback", "https://a/new", ("callback", "https://a/new")),
    ("vendor", "https://a/new", ("vendor", "https://a/new")),
    ("vendor", "https://a/old", ("vendor", "https://a/old")),
    ("callback", "https://a/old", None),
]


async def test_an_archived_file_takes_the_vendors_address_only_where_it_is_fetched_again(store: Store) -> None:
    await plan_archive(store, [plan(planned(1))])
    await end(store, await claimed_one(store))
    vendors = plan(planned(1, url="https://vendor.example/1.mp4", address_from="vendor"))
    await plan_archive(store, [vendors])
    assert await claimed(store) == []
    assert await retry_files(store, task_id="t", outcomes=["archived"], also_due=False) == 1
    async with store.reading() as connection:
        # So that `find_unplanned` finds it again.
        assert (await connection.execute(select(archived_recordings.c.planned_active_at_us))).scalars().all() == [None]
    await plan_archive(store, [vendors])
    file = await claimed_one(store)
    assert (file.address_from, file.url) == ("vendor", "https://vendor.example/1.mp4")


@pytest.mark.parametrize(("source", "url", "expected"), ADDRESSES)
async def test_a_lost_file_is_due_again_if_it_has_another_address(
    store: Store, source: str, url: str, expected: object
) -> None:
    await plan_archive(store, [plan(planned(url="https://a/old"))])
    await end(store, await claimed_one(store), "lost", reason="404")
    await plan_archive(store, [plan(planned(url=url, address_from=source))])
    again = [(file.address_from, file.url) for file in await claimed(store)]
    assert again == ([] if expected is None else [expected])


async def test_a_callback_does_not_change_an_address_that_is_the_vendors(store: Store) -> None:
    await plan_archive(store, [plan(planned(url="https://a/vendors", address_from="vendor"))])
    await plan_archive(store, [plan(planned(url="https://a/forged"))])
    assert (await claimed_one(store)).url == "https://a/vendors"


@pytest.mark.parametrize("has_lapsed", [False, True])
async def test_another_address_that_comes_while_the_old_one_is_tried_is_tried_at_once(
    store: Store, *, has_lapsed: bool
) -> None:
    await plan_archive(store, [plan(planned(1), planned(2))])
    first, second = await claimed(store)
    if has_lapsed:
        await pass_time(store, 61)
    moved = [planned(number, url=f"https://b/{number}", address_from="vendor") for number in (1, 2)]
    await plan_archive(store, [plan(*moved)])
    assert await postpone_file(store, first.key, lease_holder="h", after_s=1000, reason="404", failing_at="fetching")
    assert await end(store, second, "lost")
    again = await claimed(store)
    assert {(file.url, file.attempts, file.outcome) for file in again} == {
        ("https://b/1", 1, None),
        ("https://b/2", 1, None),
    }
    assert await manifests(store) == []


async def test_what_the_source_said_of_its_age_stays_the_deadline(store: Store) -> None:
    await plan_archive(store, [plan(planned(1, deleted_in_s=100), planned(2, deleted_in_s=100))])
    first, _ = await claimed(store)
    await note_file(store, first.key, lease_holder="h", last_modified_at=5, deadline_at_us=777)
    await plan_archive(store, [plan(planned(1, deleted_in_s=900), planned(2, deleted_in_s=900))])
    await pass_time(store, 61)
    known, guessed = await claimed(store)
    assert known.deadline_at_us == 777
    assert guessed.deadline_at_us > time.time_ns() // 1000 + 800_000_000


async def test_numbers_and_names_never_collide(store: Store) -> None:
    assert await plan_archive(store, [plan(planned(1), planned(2))]) == {(1, "t")}
    assert await known_archive_numbers(store, [(1, "t"), (1, "u")]) == {
        (1, "t"): {"k1": (1, "1_camera.mp4"), "k2": (2, "2_camera.mp4")},
        (1, "u"): {},
    }
    # Planned by somebody who did not know of the two.
    clash = planned(2, file_key="other")
    assert await plan_archive(store, [plan(clash), plan(clash, task_id="u")]) == {(1, "u")}
    # Who knows a file by another name does not rename it.
    assert await plan_archive(store, [plan(planned(9, file_key="k1"))]) == {(1, "t")}
    assert (await known_archive_numbers(store, [(1, "t")]))[1, "t"]["k1"] == (1, "1_camera.mp4")


async def test_what_is_lost_or_waits_is_retried_when_asked(store: Store) -> None:
    await plan_archive(store, [plan(planned(1), planned(2), planned(3)), plan(planned(), task_id="u")])
    outcomes: tuple[FileOutcome, ...] = ("archived", "lost", "refused")
    for file, outcome in zip(await claimed(store, recording=(1, "t")), outcomes, strict=True):
        await end(store, file, outcome)
    waiting = await claimed_one(store)
    await postpone_file(store, waiting.key, lease_holder="h", after_s=1000)
    assert await retry_files(store, task_id="t", app=2) == 0
    assert await retry_files(store, task_id="t", outcomes=outcomes[1:2], also_due=False) == 1
    assert [(file.number, file.attempts) for file in await claimed(store)] == [(2, 1)]
    assert await retry_files(store, task_id="u", names=["another.mp4"]) == 0
    assert await retry_files(store, task_id="u") == 1
    assert [file.task_id for file in await claimed(store)] == ["u"]


async def test_of_what_was_refused_that_is_tried_again_which_is_named(store: Store) -> None:
    await plan_archive(store, [plan(planned(1), planned(2), planned(3))])
    for file in await claimed(store):
        await end(store, file, "archived" if file.number == 1 else "refused")
    one, other = sorted(await list_refused_files(store), key=lambda file: file.url)
    assert (one.key, one.url, one.address_from) == ((1, "t", "k2"), "https://example.com/2.mp4", "callback")
    assert await retry_refused_files(store, [(1, "t", "k1"), other.key]) == 1
    assert [(file.number, file.attempts) for file in await claimed(store)] == [(3, 1)]
    assert [file.key for file in await list_refused_files(store)] == [one.key]


def finished(task_id: str = "t", *, at_us: int | None = None, **event_data: Any) -> Any:
    videos = [{"VideoId": "v", "VideoUrl": "https://example.com/v.mp4", "VideoSize": 5}]
    content = callback("OnlineRecordFinished", 100, TaskId=task_id, **{"VideoInfos": videos} | event_data)
    return keep(content, received_at_us=at_us or time.time_ns() // 1000)


async def unplanned(store: Store, **options: Any) -> list[str]:
    given: dict[str, Any] = {"since_us": 0, "needs_answer": False, "limit": 100} | options
    return [one.task_id for one in await find_unplanned(store, **given)]


async def test_a_finished_recording_is_found_until_it_is_planned_as_it_is(store: Store) -> None:
    events = [
        finished("b", at_us=2_000_000),
        finished("a", at_us=3_000_000),
        finished("failed", Error={"Code": "c"}),
        keep(callback("OnlineRecordStopped", TaskId="running")),
    ]
    await apply_events(store, events)
    assert await unplanned(store) == ["b", "a"]
    assert await unplanned(store, limit=1) == ["b"]
    assert await unplanned(store, since_us=2_500_000) == ["a"]
    assert await unplanned(store, apps=[1]) == ["b", "a"]
    assert await unplanned(store, apps=[]) == []
    for one in await find_unplanned(store, since_us=0, needs_answer=False, limit=100):
        (shown,) = await find_recordings(store, one.task_id)
        assert one.recording == shown
        assert one.answer is None
        await plan_archive(store, [plan(task_id=one.task_id, active_at_us=one.active_at_us)])
    assert await unplanned(store) == []
    await apply_events(store, [finished("a", at_us=4_000_000, TotalTime=9)])
    assert await unplanned(store) == ["a"]


async def test_a_recording_shows_what_became_of_each_file(store: Store) -> None:
    kept = finished()
    await apply_events(store, [kept])
    (found,) = await find_unplanned(store, since_us=0, needs_answer=False, limit=1)
    await plan_archive(store, [plan(planned(file_key=file_key(found.recording.videos[0])))])
    await end(store, await claimed_one(store), location="/a/1", sha256="s", archived_at_us=5)
    (shown,) = await find_recordings(store, "t")
    assert msgspec.to_builtins(shown.videos[0].archive) == {
        "state": "archived",
        "location": "/a/1",
        "sha256": "s",
        "archived_at": "1970-01-01T00:00:00.000005Z",
    }


async def test_a_recording_waits_for_the_vendors_answer_but_not_for_ever(store: Store) -> None:
    forged, real = finished(at_us=5_000_000), finished(at_us=4_000_000, TotalTime=7)
    await apply_events(store, [msgspec.structs.replace(forged, verified=False), finished("other", at_us=6_000_000)])
    # What the vendor contradicts is no reason to fetch anything.
    assert await unplanned(store) == ["other"]
    assert await unplanned(store, needs_answer=True) == []
    assert await unplanned(store, needs_answer=True, unanswered_until_us=5_999_999) == []
    assert await unplanned(store, needs_answer=True, unanswered_until_us=6_000_000) == ["other"]
    await ask(store, [Question(sdk_app_id=1, task_id="t", why="w")])
    (question,) = await claim_questions(store, apps=[1], lease_holder="h", lease_s=60, limit=1)
    await finish_question(store, question, lease_holder="h", answer_status="FINISHED", answer=real.body)
    (one,) = await find_unplanned(store, since_us=0, needs_answer=True, limit=9)
    assert (one.task_id, one.answer, one.active_at_us) == ("t", real.body, 5_000_000)
    assert one.answered_at_us is not None
    await plan_archive(store, [plan(active_at_us=one.active_at_us)])
    assert await unplanned(store, needs_answer=True) == ["t"], "it was planned without the answer"
    await plan_archive(store, [plan(active_at_us=one.active_at_us, answered_at_us=one.answered_at_us)])
    assert await unplanned(store, needs_answer=True) == []


async def test_files_are_listed_counted_and_told_of(store: Store) -> None:
    assert await count_archive(store) == ArchiveCounts()
    await plan_archive(store, [plan(*(planned(number, deleted_in_s=number * 100) for number in range(1, 6)))])
    first, second, third, fourth, _ = await claimed(store)
    await end(store, first, location="/a/1", size=7, sha256="s", archived_at_us=5)
    await end(store, second, "lost", reason="404")
    await note_file(store, third.key, lease_holder="h", is_staged=True, staged_on="here", fetched_bytes=7)
    await postpone_file(store, third.key, lease_holder="h", after_s=0, reason="full", failing_at="placing")
    await postpone_file(store, fourth.key, lease_holder="h", after_s=0)
    states = {row.name[0]: row.state for row in await list_archive_files(store)}
    assert states == {"1": "archived", "2": "lost", "3": "staged", "4": "waiting", "5": "fetching"}
    for number, state in states.items():
        assert [row.name[0] for row in await list_archive_files(store, state=state, task_id="t", app=1)] == [number]
    assert await list_archive_files(store, since_us=time.time_ns() // 1000 + 60_000_000) == []
    assert len(await list_archive_files(store, limit=2)) == 2
    (row,) = await list_archive_files(store, state="archived")
    assert (row.size, row.location, row.archived_at) == (7, "/a/1", "1970-01-01T00:00:00.000005Z")
    assert (row.folder, row.deleted_at) == ("1/t", iso8601(first.deadline_at_us))
    counts = await count_archive(store)
    assert (counts.waiting, counts.staged, counts.failing) == (2, 1, 1)
    assert (counts.archived, counts.lost, counts.refused) == (1, 1, 0)
    assert 200 < (counts.next_deletion_in_s or 0) <= 300
    expiring = await find_expiring_files(store, within_s=410, limit=10)
    assert [(one.name[0], one.room_id) for one in expiring] == [("3", None), ("4", None)]
    assert await find_expiring_files(store, within_s=410, limit=1) == expiring[:1]
    assert expiring[0].expires_at_s == third.deadline_at_us // 1_000_000
    now_us = time.time_ns() // 1000 + 60_000_000
    (failing,) = await find_failing(store, since_us=now_us)
    assert (failing.failing_at, failing.reason, failing.count) == ("placing", "full", 1)
    assert await find_failing(store, since_us=5) == []


async def test_of_what_expires_the_next_stands_first_and_what_is_overdue_nowhere(store: Store) -> None:
    await plan_archive(store, [plan(*(planned(number, deleted_in_s=(number - 3) * 100) for number in range(1, 6)))])
    expiring = await find_expiring_files(store, within_s=1_000, limit=2)
    assert [one.name[0] for one in expiring] == ["4", "5"]


async def test_only_files_that_may_have_a_part_in_a_folder_are_listed_for_it(store: Store) -> None:
    await plan_archive(store, [plan(*(planned(number) for number in range(1, 6)))])
    here, there, worked_on = await claimed(store, limit=3)
    for file, folder in ((here, "here"), (there, "there")):
        await note_file(store, file.key, lease_holder="h", staged_on=folder, etag='"e"')
        await postpone_file(store, file.key, lease_holder="h", after_s=0)
    assert set(await list_staged_files(store, staged_on="here")) == {here.key, worked_on.key}
    await end(store, worked_on)
    assert await list_staged_files(store, staged_on="here") == [here.key]


def manifest(*files: ManifestFile, task_id: str = "t") -> Manifest:
    return Manifest(
        sdk_app_id=1,
        task_id=task_id,
        folder=f"1/{task_id}",
        location=f"/a/1/{task_id}",
        archived_at="2026-01-01T00:00:00Z",
        files=files,
    )


ARCHIVED = ManifestFile(
    file_key="k1",
    name="1_camera.mp4",
    outcome="archived",
    size=7,
    sha256="s",
    checked=("size",),
    archived_at="2026-01-01T00:00:00.000005Z",
    last_modified="2025-12-31T00:00:00+00:00",
    video_id="v1",
)
LOST = ManifestFile(file_key="k2", name="2_screen.mp4", outcome="lost", reason="404")


async def test_an_archive_is_restored_from_its_manifests(store: Store) -> None:
    for expected in (3, 0):
        assert await restore_archive(store, [manifest(ARCHIVED, LOST), manifest(ARCHIVED, task_id="u")]) == expected
    assert await restore_archive(store, []) == 0
    rows = {(row.task_id, row.name): row for row in await list_archive_files(store)}
    assert len(rows) == 3
    row = rows["t", "1_camera.mp4"]
    assert (row.state, row.size, row.location) == ("archived", 7, "/a/1/t/1_camera.mp4")
    assert row.archived_at == "2026-01-01T00:00:00.000005Z"
    assert rows["t", "2_screen.mp4"].reason == "404"
    assert await manifests(store) == []
    # What is found of it again is not fetched again, but what is new is.
    assert await plan_archive(store, [plan(planned(1), planned(3))]) == {(1, "t")}
    (new,) = await claimed(store)
    await end(store, new)
    (work,) = await manifests(store)
    assert [(file.number, file.outcome) for file in work.files] == [(1, "archived"), (2, "lost"), (3, "archived")]


async def test_a_manifest_makes_nothing_worse_and_ends_what_it_knows_to_be_archived(store: Store) -> None:
    await plan_archive(store, [plan(planned(1), planned(2))])
    files = await claimed(store)
    second = next(file for file in files if file.number == 2)
    await end(store, second, location="/a/2")
    worse = msgspec.structs.replace(LOST, name="2_camera.mp4")
    assert await restore_archive(store, [manifest(ARCHIVED, worse)]) == 1
    assert {row.name: row.state for row in await list_archive_files(store)} == {
        "1_camera.mp4": "archived",
        "2_camera.mp4": "archived",
    }
    assert not await end(store, next(file for file in files if file.number == 1), "lost")
    assert [len(work.files) for work in await manifests(store)] == [2]


async def test_a_manifest_says_where_files_lie_that_are_known(store: Store) -> None:
    await restore_archive(store, [manifest(ARCHIVED, LOST)])
    moved = msgspec.structs.replace(manifest(ARCHIVED, LOST), location="s3://bucket/1/t")
    other = msgspec.structs.replace(ARCHIVED, sha256="another")
    for wrong in (
        msgspec.structs.replace(moved, files=(other,)),
        # Who looks for it takes the recording's own folder.
        msgspec.structs.replace(moved, folder="1/other"),
    ):
        assert await restore_archive(store, [wrong]) == 0
        (row,) = await list_archive_files(store, state="archived")
        assert row.location == "/a/1/t/1_camera.mp4"
    for expected in (1, 0):
        assert await restore_archive(store, [moved]) == expected
    (row,) = await list_archive_files(store, state="archived")
    assert (row.location, row.sha256, row.folder) == ("s3://bucket/1/t/1_camera.mp4", "s", "1/t")
    assert await manifests(store) == []


async def test_the_rows_of_the_archive_go_with_their_recording(store: Store) -> None:
    await plan_archive(store, [plan(planned(1), planned(2)), plan(planned(), task_id="u")])
    (traces,) = await find_traces(store, "t")
    assert (await forget_recording(store, "t", traces)).archived_files == 2
    assert [file.task_id for file in await claimed(store)] == ["u"]
    assert await find_traces(store, "t") == []
