"""Recordings as people look for them."""

import pytest
from sqlalchemy import text, update

from schemas import RecordingStatus
from store import (
    ArchivePlan,
    PlannedFile,
    RecordingFilter,
    Store,
    apply_events,
    find_recording_details,
    list_recordings,
    plan_archive,
    search_recordings,
)
from store.paging import cursor
from store.tables import archived_recordings
from tests.console.growing import FIRST_ROOM, RARE_APP, grow
from tests.store.classes import START_US, callback, keep


async def found(store: Store, **chosen: object) -> list[str]:
    """Return what a page has, as does the listing of all."""
    page = await search_recordings(store, RecordingFilter(**chosen))  # type: ignore[arg-type]
    assert page.next is None
    assert await list_recordings(store, RecordingFilter(**chosen)) == [row.summary for row in page.rows]  # type: ignore[arg-type]
    return [row.summary.task_id for row in page.rows]


async def test_recordings_are_found_by_each_filter(store: Store) -> None:
    await apply_events(
        store,
        [
            keep(callback("OnlineRecordStarted", TaskId="a", RoomId=1, RecordUserId="bot_1"), received_at_us=START_US),
            keep(
                callback("OnlineRecordFinished", TaskId="ab", RoomId=2, VideoInfos=[{"UserId": 'te"acher'}]),
                received_at_us=START_US + 1,
            ),
            keep(
                callback("OnlineRecordFinished", sdk_app_id=2, TaskId="b", Error={"Code": "c"}),
                received_at_us=START_US + 2,
            ),
            keep(callback("OnlineRecordStarted", TaskId="late"), received_at_us=START_US + 3, source="reconcile"),
            keep(callback("OnlineRecordStarted", TaskId="forged"), received_at_us=START_US + 4, verified=False),
            keep(callback("OnlineRecordStarted", TaskId="test"), received_at_us=START_US + 5, source="test"),
        ],
    )
    assert await found(store) == ["test", "forged", "late", "b", "ab", "a"]
    assert await found(store, app=2) == ["b"]
    assert await found(store, task="a") == ["a"]
    assert await found(store, task="a*") == ["ab", "a"]
    assert await found(store, room=2) == ["ab"]
    assert await found(store, teacher="bot_1") == ["a"]
    assert await found(store, teacher='te"acher') == ["ab"]
    assert await found(store, teacher="acher") == []
    assert await found(store, status=RecordingStatus.FINISHED) == ["b", "ab"]
    assert await found(store, from_us=START_US + 1, until_us=START_US + 2) == ["ab"]
    assert await found(store, failed=True) == ["b"]
    assert await found(store, found_late=True) == ["late"]
    assert await found(store, contradicted=True) == ["forged"]
    assert await found(store, not_archived=True) == []
    details = await find_recording_details(store, 1, "test")
    assert details is not None
    assert details.listed.is_test
    assert await find_recording_details(store, 1, "b") is None


@pytest.mark.parametrize("limit", [1, 2, 3, 10])
async def test_pages_have_every_recording_once(store: Store, limit: int) -> None:
    await apply_events(
        store,
        [
            keep(callback("OnlineRecordStarted", sdk_app_id=number % 2, TaskId=f"t{number}"), received_at_us=START_US)
            for number in range(7)
        ],
    )
    seen, after = [], None
    while True:
        page = await search_recordings(store, RecordingFilter(), after=after, limit=limit)
        seen += [row.summary.task_id for row in page.rows]
        after = page.next
        if after is None:
            break
    assert seen == ["t5", "t3", "t1", "t6", "t4", "t2", "t0"]
    with pytest.raises(ValueError, match="begin at its first page"):
        await search_recordings(store, RecordingFilter(), after="x")


HOSTILE_PLACES = ["", "!", "AA", cursor((1,)), cursor((1, 2, 3)), cursor((2**64, 1, "a")), cursor((1, 1, "a\0")), "é"]


@pytest.mark.parametrize("after", HOSTILE_PLACES)
async def test_what_names_no_place_in_a_listing_is_refused(store: Store, after: str) -> None:
    with pytest.raises(ValueError, match="begin at its first page"):
        await search_recordings(store, RecordingFilter(), after=after)


async def test_hostile_filters_find_nothing(store: Store) -> None:
    await apply_events(store, [keep(callback("OnlineRecordStarted", TaskId="a"))])
    for name in ("a\0", "\ud800", "%", "'", "x" * 1_000_000, "\U0010ffff*", '"user_id":"'):
        assert await found(store, task=name) == []
        assert await found(store, teacher=name) == []
    with pytest.raises(ValueError, match="correct it"):
        await found(store, room=2**63)


async def _all(store: Store, chosen: RecordingFilter, *, limit: int = 20) -> tuple[list[str], int]:
    """Return what is found by going on to the end, and how often the search was paused before a page was full."""
    names: list[str] = []
    after, pauses = None, 0
    while True:
        page = await search_recordings(store, chosen, after=after, limit=limit)
        names += [row.summary.task_id for row in page.rows]
        pauses += page.searched_until_us is not None
        after = page.next
        if after is None:
            return names, pauses


async def test_a_search_that_looks_at_little_at_a_time_finds_the_same(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await grow(store, count=1500, total_events=9000, letters=0)
    filters = [
        RecordingFilter(failed=True),
        RecordingFilter(found_late=True),
        RecordingFilter(contradicted=True),
        RecordingFilter(not_archived=True),
        RecordingFilter(app=RARE_APP),
        RecordingFilter(room=FIRST_ROOM + 3, status=RecordingStatus.FINISHED),
        RecordingFilter(teacher="teacher_0017"),
        RecordingFilter(found_late=True, teacher="teacher_0005"),
        RecordingFilter(not_archived=True, contradicted=True),
        RecordingFilter(task="0*"),
        RecordingFilter(room=1),
    ]
    at_once = [await _all(store, chosen) for chosen in filters]
    assert [bool(names) for names, _ in at_once] == [True] * 8 + [False, True, False]
    assert not any(pauses for _, pauses in at_once)
    for name, value in (("_AT_FIRST", 7), ("ENTRIES_LOOKED_AT", 100)):
        monkeypatch.setattr(f"store.paging.{name}", value)
    monkeypatch.setattr("store.browsing.FEW", 0)
    monkeypatch.setattr("store.browsing._LOOKED_UP", 50)
    paused = [await _all(store, chosen) for chosen in filters]
    assert [names for names, _ in paused] == [names for names, _ in at_once]
    # A teacher alone may look at more rows than there are here.
    assert [bool(pauses) for _, pauses in paused] == [True] * 6 + [False] + [True] * 4


async def test_a_recording_has_the_best_start_that_is_known(store: Store) -> None:
    started = callback("OnlineRecordStarted", 1000, TaskId="started")
    await apply_events(
        store,
        [
            keep(started),
            keep(callback("OnlineRecordStarted", 5000, TaskId="started"), verified=False),
            keep(callback("OnlineRecordStarted", 1000, TaskId="finished")),
            keep(callback("OnlineRecordFinished", 3000, TaskId="finished", RecordStartTime=1001)),
            keep(callback("OnlineRecordStarted", 1000, TaskId="failed")),
            keep(callback("OnlineRecordFinished", 3000, TaskId="failed", RecordStartTime=0)),
            keep(callback("OnlineRecordStarted", 1000, TaskId="absurd")),
            keep(callback("OnlineRecordFinished", 3000, TaskId="absurd", RecordStartTime=2**62)),
            keep(callback("OnlineRecordStopped", 3000, TaskId="unknown")),
            keep(callback("OnlineRecordStarted", 1000, TaskId="forged"), verified=False),
        ],
    )
    page = await search_recordings(store, RecordingFilter())
    assert {row.summary.task_id: row.started_s for row in page.rows} == {
        "started": 1000,
        "finished": 1001,
        "failed": 1000,
        "absurd": 1000,
        "unknown": None,
        "forged": 1000,
    }


async def test_a_recording_says_how_far_its_archive_is(store: Store) -> None:
    names = ("waiting", "archived", "lost", "none")
    await apply_events(store, [keep(callback("OnlineRecordFinished", TaskId=name)) for name in names])
    file = PlannedFile(
        file_key="k", number=0, name="n", url="https://a.example/b", address_from="callback", deleted_at_us=1
    )
    plans = [
        ArchivePlan(sdk_app_id=1, task_id=name, folder=name, active_at_us=START_US, files=(file,)) for name in names[:3]
    ]
    await plan_archive(store, plans)
    async with store.writing() as connection:
        await connection.execute(text("UPDATE archived_files SET outcome = 'lost' WHERE task_id = 'lost'"))
        done = update(archived_recordings).where(archived_recordings.c.task_id == "archived").values(archived_at_us=1)
        await connection.execute(done)
    page = await search_recordings(store, RecordingFilter())
    assert {row.summary.task_id: row.archive for row in page.rows} == {
        "waiting": "waiting",
        "archived": "archived",
        "lost": "lost",
        "none": None,
    }
    assert sorted(await found(store, not_archived=True)) == ["lost", "waiting"]
