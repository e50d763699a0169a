"""Events and dead letters as people look for them, and how much there is."""

import asyncio
import time
from typing import Any

import pytest
from msgspec import structs
from sqlalchemy import text

from schemas import Manifest, RecordingArchived, RecordingStatus
from store import (
    Count,
    DeadLetter,
    DeadLetterFilter,
    EventFilter,
    EventOutcome,
    ReplayedLetters,
    Store,
    StoreUnavailableError,
    apply_events,
    claim,
    complete,
    count_overview,
    count_replayed,
    find_event,
    group_dead_letters,
    keep_dead_letters,
    list_event_outcomes,
    list_events,
    mark_replayed,
    register_consumers,
    search_dead_letters,
    search_events,
)
from store.paging import browsing
from tests.console.growing import grow
from tests.store.classes import START_US, callback, keep

STARTED = keep(callback("OnlineRecordStarted", TaskId="a"), received_at_us=START_US)
OTHER = keep(callback("OnlineRecordStarted", sdk_app_id=2, TaskId="b"), received_at_us=START_US + 1)
STRANGE = keep(callback("Strange", sdk_app_id=2), received_at_us=START_US + 2)
FOUND = keep(callback("OnlineRecordFinished", TaskId="a"), received_at_us=START_US + 3, source="reconcile")
TEST = keep(callback("OnlineRecordStarted", TaskId="t"), received_at_us=START_US + 4, source="test")
_MANIFEST = Manifest(sdk_app_id=1, task_id="a", folder="f", location="l", archived_at="2026-01-01T00:00:00Z")
OURS = structs.replace(
    keep(callback("RecordingArchived", TaskId="a"), received_at_us=START_US + 5, source="archive"),
    event=RecordingArchived(timestamp=100, sdk_app_id=1, task_id="a", manifest=_MANIFEST),
)
ALL = (OURS, TEST, FOUND, STRANGE, OTHER, STARTED)


async def test_events_are_found_by_each_filter(store: Store) -> None:
    await apply_events(store, ALL)
    await register_consumers(store, {"c": ["OnlineRecordStarted", "unrecognized"]})

    async def found(**chosen: Any) -> list[str]:
        page = await search_events(store, EventFilter(**chosen))
        assert page.next is None
        assert await list_events(store, EventFilter(**chosen)) == page.rows
        return [row.event_id for row in page.rows]

    def ids(*some: Any) -> list[str]:
        return [one.event_id for one in some]

    assert await found() == ids(*ALL)
    assert await found(app=2) == ids(STRANGE, OTHER)
    assert await found(task="a") == [one for one in ids(*ALL) if one in ids(FOUND, STARTED, OURS)]
    assert await found(task="a", app=1, event_type="OnlineRecordStarted") == ids(STARTED)
    assert await found(task="a", app=2) == []
    assert await found(event_type="OnlineRecordStarted") == ids(TEST, OTHER, STARTED)
    assert await found(event_type="Strange") == ids(STRANGE)
    assert await found(event_type="Strange", unrecognized=True, app=2) == ids(STRANGE)
    assert await found(unrecognized=True, app=1) == []
    assert await found(source="reconcile") == ids(FOUND)
    assert await found(source="archive") == ids(OURS)
    assert await found(source="") == ids(STRANGE, OTHER, STARTED)
    assert await found(source="other") == []
    assert await found(test=True) == ids(TEST)
    assert await found(test=False) == ids(OURS, FOUND, STRANGE, OTHER, STARTED)
    assert await found(test=True, source="reconcile") == []
    assert await found(test=True, unrecognized=True) == []
    assert await found(consumer="c") == ids(TEST, STRANGE, OTHER, STARTED)
    assert await found(consumer="nobody") == []
    assert await found(from_us=START_US + 1, until_us=START_US + 3) == ids(STRANGE, OTHER)
    for hostile in ("\0", "\ud800", "%", "x" * 1_000_000):
        for name in ("task", "event_type", "source", "consumer"):
            assert await found(**{name: hostile}) == []


@pytest.mark.parametrize("limit", [1, 2, 5, 50])
async def test_pages_have_every_event_once(store: Store, limit: int) -> None:
    kept = [keep(callback("OnlineRecordStopped", TaskId="c", RoomId=n), received_at_us=START_US) for n in range(5)]
    await apply_events(store, kept)
    for chosen in (EventFilter(), EventFilter(app=1), EventFilter(task="c")):
        seen: list[str] = []
        after = None
        while True:
            page = await search_events(store, chosen, after=after, limit=limit, bodies=True)
            assert all(row.body for row in page.rows)
            seen += [row.event_id for row in page.rows]
            after = page.next
            if after is None:
                break
        assert seen == sorted((one.event_id for one in kept), reverse=True)


async def test_a_search_for_events_is_paused_and_goes_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    await grow(store, count=300, total_events=3000, letters=0)
    for name, value in (("_AT_FIRST", 10), ("ENTRIES_LOOKED_AT", 500)):
        monkeypatch.setattr(f"store.paging.{name}", value)
    seen, after, pauses = 0, None, 0
    chosen = EventFilter(event_type="OnlineRecordLongPauseForceStopped")
    while True:
        page = await search_events(store, chosen, after=after)
        seen, after, pauses = seen + len(page.rows), page.next, pauses + (page.searched_until_us is not None)
        if after is None:
            break
    assert (seen, pauses) == (1, 5)


async def test_an_event_is_shown_with_its_body(store: Store) -> None:
    await apply_events(store, ALL)
    row = await find_event(store, STRANGE.event_id)
    assert row is not None
    assert (row.event_type, row.body) == ("Strange", STRANGE.body.decode())
    assert await find_event(store, "\0") is None


def letter(consumer: str, event_id: str, *, at_us: int = 5, reason: str = "r", kind: str | None = "K") -> DeadLetter:
    return DeadLetter(
        consumer=consumer,
        event_id=event_id,
        event_type=kind,
        sdk_app_id=1,
        attempts=8,
        reason=reason,
        first_failed_at_us=at_us - 1,
        last_failed_at_us=at_us,
        body=b"{}",
        routing_key="OnlineRecordStarted",
        received_at_us=1,
        traceback="T",
    )


async def test_it_is_told_what_each_consumer_did_with_an_event(store: Store) -> None:
    dead, replayed = letter("c", "dead"), letter("d", "replayed")
    await keep_dead_letters(store, [dead, replayed])
    await mark_replayed(store, [replayed])
    await complete(store, consumer="d", event_ids=["replayed", "done"], lease_holder="h")
    await claim(store, consumer="e", event_ids=["done"], lease_holder="h", lease_s=60)
    found = {
        (one.event_id, one.consumer): one for one in await list_event_outcomes(store, ["dead", "replayed", "done"])
    }
    assert [*found] == [("dead", "c"), ("done", "d"), ("done", "e"), ("replayed", "d")]
    assert found["dead", "c"] == EventOutcome(
        event_id="dead", consumer="c", dead=True, attempts=8, reason="r", last_failed_at_us=5
    )
    assert found["done", "d"].completed_at_us is not None
    assert found["done", "e"].leased_until_us is not None
    assert found["replayed", "d"].replayed_at_us is not None
    assert found["replayed", "d"].completed_at_us is not None
    assert not found["replayed", "d"].dead
    assert await list_event_outcomes(store, []) == []


async def test_dead_letters_of_one_reason_are_together(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    long = "x" * 300
    await keep_dead_letters(
        store,
        [
            letter("c", "1", at_us=10, reason="timed out\nafter 5 s"),
            letter("c", "2", at_us=30, reason="timed out", kind="L"),
            letter("c", "3", at_us=20, reason="timed out\nafter 7 s", kind=None),
            letter("c", "4", at_us=15, reason="timed outside"),
            letter("d", "1", at_us=40, reason=f"{long}1"),
            letter("d", "2", at_us=41, reason=f"{long}2"),
            letter("d", "3", at_us=42, reason="\nsecond line"),
        ],
    )
    groups = await group_dead_letters(store)
    assert [(one.consumer, one.reason, one.count, one.newest_event_id) for one in groups] == [
        ("d", "", 1, "3"),
        ("d", "x" * 200, 2, "2"),
        ("c", "timed out", 3, "2"),
        ("c", "timed outside", 1, "4"),
    ]
    timed_out = groups[2]
    assert timed_out.event_types == ("K", "L")
    assert (timed_out.first_failed_at_us, timed_out.last_failed_at_us, timed_out.is_at_least) == (9, 30, False)
    assert [one.consumer for one in await group_dead_letters(store, consumer="c")] == ["c", "c"]
    for group in groups:
        page = await search_dead_letters(store, DeadLetterFilter(consumer=group.consumer, reason=group.reason))
        assert len(page.rows) == group.count
        assert page.rows[0].event_id == group.newest_event_id
        assert page.rows[0].traceback == "T"
    assert len((await search_dead_letters(store, DeadLetterFilter(event_id="1"))).rows) == 2
    first = await search_dead_letters(store, DeadLetterFilter(), limit=6)
    rest = await search_dead_letters(store, DeadLetterFilter(), after=first.next, limit=6)
    assert [row.event_id for row in (*first.rows, *rest.rows)] == ["3", "2", "1", "2", "3", "4", "1"]
    await mark_replayed(store, [letter("c", "4", at_us=15, reason="timed outside")])
    assert [row.event_id for row in (await search_dead_letters(store, DeadLetterFilter(resolved=True))).rows] == ["4"]
    monkeypatch.setattr("store.browsing_letters.GROUPED", 2)
    assert [(one.count, one.is_at_least) for one in await group_dead_letters(store)] == [(1, True), (1, True)]


async def test_reasons_that_differ_in_what_changes_are_one_group_with_two_examples(store: Store) -> None:
    await keep_dead_letters(
        store,
        [
            *(letter("c", f"{at}", at_us=10 + at, reason=f"KeyError: 'TASK_{at}'") for at in range(3)),
            *(letter("c", f"{at}", at_us=at, reason="KeyError: 'bucket' of 1234567") for at in (7, 8)),
            letter("d", "9", at_us=1, reason="KeyError: 'TASK_9'"),
        ],
    )
    groups = await group_dead_letters(store)
    assert [(one.consumer, one.reason, one.first_reason, one.last_reason, one.count) for one in groups] == [
        ("c", "KeyError: '…'", "KeyError: 'TASK_0'", "KeyError: 'TASK_2'", 3),
        ("c", "KeyError: '…' of …", *["KeyError: 'bucket' of 1234567"] * 2, 2),
        ("d", "KeyError: '…'", *["KeyError: 'TASK_9'"] * 2, 1),
    ]
    for group in groups:
        page = await search_dead_letters(store, DeadLetterFilter(consumer=group.consumer, reason=group.reason))
        assert len(page.rows) == group.count
        assert page.rows[0].event_id == group.newest_event_id


async def test_what_became_of_a_replay_is_counted_by_consumer(store: Store) -> None:
    given = [letter(consumer, f"{at}") for consumer in ("c", "d") for at in range(4)]
    other = letter("c", "other")
    await keep_dead_letters(store, [*given, other])
    await mark_replayed(store, given, replay_at_us=7)
    await mark_replayed(store, [other], replay_at_us=8)
    await complete(store, consumer="c", event_ids=["0", "1", "other"], lease_holder="h")
    await claim(store, consumer="c", event_ids=["2"], lease_holder="h", lease_s=60)
    await keep_dead_letters(store, [letter("c", "3", at_us=9, reason="again")])
    await apply_events(store, [structs.replace(STARTED, event_id="0")])
    assert await count_replayed(store, 7) == [
        ReplayedLetters(consumer="c", count=4, completed=2, kept=1, failed_again=1),
        ReplayedLetters(consumer="d", count=4, completed=0, kept=1, failed_again=0),
    ]
    again = await search_dead_letters(store, DeadLetterFilter(replay_at_us=7))
    assert [(row.consumer, row.event_id, row.reason) for row in again.rows] == [("c", "3", "again")]
    await mark_replayed(store, [letter("c", "3", at_us=9)], replay_at_us=8)
    assert [one.count for one in await count_replayed(store, 7)] == [3, 4], "it is of the later replay"
    assert [one.count for one in await count_replayed(store, 8)] == [2]
    assert await count_replayed(store, 9) == []


async def test_what_fails_again_before_it_is_marked_is_of_its_replay(store: Store) -> None:
    await keep_dead_letters(store, [letter("c", "1")])
    await keep_dead_letters(store, [letter("c", "1", at_us=6)])
    await mark_replayed(store, [letter("c", "1")], replay_at_us=7)
    (one,) = await count_replayed(store, 7)
    assert (one.count, one.failed_again) == (1, 1)


async def test_the_overview_counts_and_stops_counting(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    now_us = time.time_ns() // 1000
    kept = [structs.replace(one, received_at_us=now_us - 120_000_000) for one in ALL]
    forged = keep(callback("OnlineRecordStarted", TaskId="f"), received_at_us=now_us, verified=False)
    failed = keep(callback("OnlineRecordFinished", TaskId="g", Error={"Code": "c"}), received_at_us=now_us)
    await apply_events(store, [*kept, forged, failed])
    await keep_dead_letters(store, [letter("c", "1"), letter("c", "2"), letter("d", "1")])
    overview = await count_overview(store)
    assert overview.by_status == {
        RecordingStatus.RECORDING: Count(count=2),
        RecordingStatus.PAUSED: Count(),
        RecordingStatus.STOPPED: Count(),
        RecordingStatus.FINISHED: Count(count=1),
    }
    assert (overview.failed, overview.contradicted) == (Count(count=1), Count(count=1))
    assert (overview.found_late, overview.not_archived) == (Count(count=1), Count())
    assert (overview.events_last_minute, overview.events_last_hour) == (Count(count=2), Count(count=7))
    assert (overview.events_last_day, overview.unrecognized_last_day) == (Count(count=7), Count(count=1))
    assert overview.dead_letters == {"c": Count(count=2), "d": Count(count=1)}
    monkeypatch.setattr("store.overview.COUNTED", 2)
    assert (await count_overview(store)).events_last_hour == Count(count=2, is_at_least=True)


async def test_the_overview_counts_tests_apart(store: Store) -> None:
    now_us = time.time_ns() // 1000

    def of(source: str, task: str, kind: str, **more: Any) -> Any:
        return keep(callback(f"OnlineRecord{kind}", TaskId=task, **more), received_at_us=now_us, source=source)

    await apply_events(
        store,
        [
            of("test", "test-1", "Started"),
            of("test", "test-2", "Finished"),
            of("test", "test-3", "Finished", Error={"Code": "c"}),
            keep(callback("Strange", 2), received_at_us=now_us, source="test"),
            # Whoever sends a test for a class that there was makes no test of it.
            of("", "real", "Started"),
            of("test", "real", "Stopped"),
            of("", "real-2", "Finished"),
        ],
    )
    overview = await count_overview(store)
    assert {status.value: one.count for status, one in overview.by_status.items()} == {
        "RECORDING": 0,
        "PAUSED": 0,
        "STOPPED": 1,
        "FINISHED": 1,
    }
    assert overview.failed == Count()
    assert (overview.events_last_minute, overview.events_last_day) == (Count(count=2), Count(count=2))
    assert (overview.unrecognized_last_day, overview.tests_last_day) == (Count(), Count(count=5))


async def test_a_page_that_takes_long_is_given_up_and_nobody_after_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.paging.TIMEOUT_S", 0.2)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    async with asyncio.timeout(30):
        with pytest.raises(StoreUnavailableError, match=r"interrupted|timeout"):
            async with browsing(store) as connection:
                await connection.execute(text(endless))
    # The connection is used again, and takes the time that it needs.
    counting = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000000) SELECT count(*) FROM n"
    )
    for _ in range(2):
        async with store.reading() as connection:
            assert (await connection.execute(text(counting))).scalar_one() == 2_000_000


async def test_events_are_applied_while_a_page_is_read(store: Store) -> None:
    await apply_events(store, [STARTED])
    async with asyncio.timeout(30), browsing(store) as connection:
        assert (await connection.execute(text("SELECT count(*) FROM events"))).scalar_one() == 1
        await apply_events(store, [OTHER])
        assert (await connection.execute(text("SELECT count(*) FROM events"))).scalar_one() == 1
    assert len((await search_events(store, EventFilter())).rows) == 2
