import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, func, select, text

from schemas import OnlineRecordStarted, Unrecognized, decode
from store import (
    EventFilter,
    KeptEvent,
    Store,
    StoreError,
    apply_events,
    count_events,
    find_recordings,
    fold,
    list_events,
    list_recordings,
    mark_verified,
)
from store.tables import events, recordings
from tests.store.classes import START_US, callback, keep, random_deliveries, random_groups

SAMPLES = Path(__file__).parents[1] / "samples"

_example = itertools.count()


@pytest.fixture(params=["direct", "careful"])
async def store(request: pytest.FixtureRequest, store_url: str) -> AsyncIterator[Store]:
    """Give an empty store with its tables, of each kind and with each way into it in turn."""
    async with Store(store_url, is_direct=request.param == "direct") as store:
        yield store


def sample(name: str, **event_data: Any) -> KeptEvent:
    content = json.loads((SAMPLES / name).read_text())
    for secret in ("Sign", "ExpireTime"):
        content.pop(secret, None)
    content["EventData"] |= event_data
    return keep(content)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(random=st.randoms(use_true_random=False))
async def test_any_order_repetition_and_grouping_gives_what_fold_gives(store: Store, random: Any) -> None:
    task_id = f"task-{next(_example)}"
    deliveries = random_deliveries(random, task_id=task_id)
    said: list[KeptEvent] = []
    for group in random_groups(random, deliveries):
        await apply_events(store, group)
        said += group
        for _ in range(random.randint(0, 2)):
            # The vendor is asked about an event meanwhile: the same as if it came again with the answer.
            marked = random.choice(deliveries)
            verified = random.choice((True, False))
            before = fold(said)
            news = await mark_verified(store, marked.event_id, verified)
            said += [msgspec.structs.replace(one, verified=verified) for one in said if one.event_id == marked.event_id]
            assert news == (fold(said).events != before.events)
    assert await find_recordings(store, task_id) == [fold(said)]


async def test_one_task_id_of_two_apps_and_of_other_families_stays_apart(store: Store) -> None:
    kept = [
        keep(callback("OnlineRecordStarted", sdk_app_id=1, TaskId="t", RoomId=1)),
        keep(callback("OnlineRecordStopped", sdk_app_id=2, TaskId="t", RoomId=2)),
        keep({"EventType": "OnlineRecordStarted", "Timestamp": 1, "EventData": {"TaskId": "t"}}),
        keep(callback("TranscodeFinished", sdk_app_id=1, TaskId="t", RoomId=3)),
        keep(callback("OnlineRecordFinished", sdk_app_id=1, Error={"Code": "c"})),
    ]
    await apply_events(store, kept)
    found = await find_recordings(store, "t")
    assert found == [fold([kept[2]]), fold([kept[0]]), fold([kept[1]])]
    assert [recording.sdk_app_id for recording in found] == [0, 1, 2]
    assert await find_recordings(store, "t", app=2) == [fold([kept[1]])]
    assert await find_recordings(store, "t", app=3) == []
    assert await count_events(store) == 5


async def test_the_samples_come_out_field_for_field(store: Store) -> None:
    names = sorted(path.name for path in SAMPLES.glob("*.json") if path.name != "finished-error.json")
    assert len(names) == 9
    failed = sample("finished-error.json", TaskId="failed")
    await apply_events(store, [failed, *map(sample, names)])

    finished = json.loads((SAMPLES / "finished.json").read_text())["EventData"]
    (recording,) = await find_recordings(store, finished["TaskId"])
    got = json.loads(msgspec.json.encode(recording))
    (ref,) = got.pop("events")
    assert (ref["event_type"], ref["timestamp"]) == ("OnlineRecordFinished", 1575545412)
    assert got == {
        "sdk_app_id": 1400000001,
        "task_id": "ghucnligqtgtvk2624mb",
        "room_id": 880528,
        "group_id": "880528",
        "record_user_id": "tic_record_user_880528_test-01",
        "status": "FINISHED",
        "finish_reason": "USER_CALL",
        "error": None,
        "record_start_time": 1568949369,
        "record_stop_time": 1568949392,
        "total_time_ms": 18317,
        "exception_count": 0,
        "pause_time": None,
        "estimate_stop_time": None,
        "force_stop_time": None,
        "omitted_durations": [],
        "verified": None,
        "found": [],
        "videos": [
            {
                "video_id": video["VideoId"],
                "video_url": video["VideoUrl"],
                "video_format": video["VideoFormat"],
                "video_type": video["VideoType"],
                "video_size": video["VideoSize"],
                "video_play_time_ms": video["VideoPlayTime"],
                "video_duration_ms": video["VideoDuration"],
                "user_id": video["UserId"],
                "width": None,
                "height": None,
                "archive": None,
            }
            for video in finished["VideoInfos"]
        ],
    }

    (paused,) = await find_recordings(store, "bj0mt2l23osdj300hl30", app=1400000001)
    assert (paused.status, paused.pause_time, paused.estimate_stop_time, paused.force_stop_time) == (
        "STOPPED",
        1575545412,
        1575546412,
        1575546412,
    )
    assert len(paused.events) == 4
    (unsigned,) = await find_recordings(store, "bj0mt2l23osdj300hl30", app=0)
    assert (unsigned.status, unsigned.room_id) == ("RECORDING", 1253)
    (failed_recording,) = await find_recordings(store, "failed")
    assert failed_recording == fold([failed])
    assert failed_recording.error is not None
    assert failed_recording.error.code == "FailedOperation.Record"
    assert failed_recording.record_start_time == 0
    assert await count_events(store) == 10
    unrecognized = {row.event_type for row in await list_events(store, EventFilter(unrecognized=True))}
    assert unrecognized == {"TranscodeFinished", "WhiteboardPushStopped"}


async def test_an_event_stays_as_it_was_first_accepted(store: Store) -> None:
    content = callback("OnlineRecordStarted", TaskId="t")
    first = keep(content | {"Extra": 1}, received_at_us=START_US)
    again = keep(content | {"Extra": 2}, received_at_us=START_US + 1)
    assert first.event_id == again.event_id
    for order in ([again, first], [first, again], [again]):
        await apply_events(store, order)
    (row,) = await list_events(store, bodies=True)
    assert (row.received_at, row.body) == ("2023-11-14T22:13:20.000000Z", first.body.decode())


async def test_a_mark_is_news_once_and_only_for_an_event_of_a_recording(store: Store) -> None:
    started = keep(callback("OnlineRecordStarted", TaskId="t", RoomId=1))
    forged = keep(callback("OnlineRecordFinished", TaskId="t", RoomId=2))
    strange = keep(callback("TranscodeFinished", TaskId="t"))
    await apply_events(store, [started, forged, strange])
    assert not await mark_verified(store, "nobody's", True)
    assert not await mark_verified(store, strange.event_id, True)
    assert await mark_verified(store, forged.event_id, False)
    assert not await mark_verified(store, forged.event_id, False)
    (recording,) = await list_recordings(store)
    assert (recording.status, recording.room_id, recording.verified) == ("RECORDING", 1, None)
    # The vendor knows it after all, and does not forget it again.
    assert await mark_verified(store, forged.event_id, True)
    assert not await mark_verified(store, forged.event_id, False)
    (recording,) = await list_recordings(store)
    assert (recording.status, recording.room_id, recording.verified) == ("FINISHED", 2, True)
    assert {row.event_id: row.verified for row in await list_events(store)} == {
        started.event_id: None,
        forged.event_id: True,
        strange.event_id: None,
    }


@pytest.mark.parametrize("grouped", [True, False])
async def test_a_forged_event_id_brings_no_answer_to_another_recording(store: Store, *, grouped: bool) -> None:
    honest = keep(callback("OnlineRecordStarted", TaskId="a"), source="reconcile")
    forged = msgspec.structs.replace(
        keep(callback("OnlineRecordStarted", TaskId="b"), received_at_us=START_US + 1, verified=True),
        event_id=honest.event_id,
    )
    for group in [[honest, forged]] if grouped else [[honest], [forged]]:
        await apply_events(store, group)
    assert await find_recordings(store, "a") == [fold([honest])]
    assert await find_recordings(store, "b") == []


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("recognized_first", [True, False])
async def test_an_event_that_is_recognized_once_is_recognized(
    store: Store, *, recognized_first: bool, grouped: bool
) -> None:
    content = callback("OnlineRecordStarted", timestamp=START_US // 1_000_000 + 86_401, TaskId="t")
    too_early, in_time = keep(content), keep(content, received_at_us=START_US + 2_000_000)
    assert isinstance(too_early.event, Unrecognized)
    assert isinstance(in_time.event, OnlineRecordStarted)
    order = [in_time, too_early] if recognized_first else [too_early, in_time]
    for group in [order] if grouped else [[one] for one in order]:
        await apply_events(store, group)
    assert await find_recordings(store, "t") == [fold([in_time])]
    assert await count_events(store) == 1


async def test_an_event_type_that_sql_cannot_hold_is_kept(store: Store) -> None:
    strange = KeptEvent(
        event=Unrecognized(reason="why\0", event_type="a\0b\ud800"), event_id="e", received_at_us=1, body=b"\xff\0"
    )
    await apply_events(store, [strange])
    (row,) = await list_events(store, bodies=True)
    assert row.event_type == "a\ufffdb\ufffd"
    assert row.body_base64 == "/wA="


@pytest.mark.parametrize("received_at_us", [START_US - 1, START_US, START_US + 1])
async def test_an_event_id_stays_with_the_recording_that_had_it_first(store: Store, received_at_us: int) -> None:
    honest = keep(callback("OnlineRecordStarted", TaskId="a"))
    forged = msgspec.structs.replace(
        keep(callback("OnlineRecordStarted", TaskId="b"), received_at_us=received_at_us), event_id=honest.event_id
    )
    await apply_events(store, [honest])
    await apply_events(store, [forged])
    assert [recording.task_id for recording in await list_recordings(store)] == ["a"]
    assert await find_recordings(store, "a") == [fold([honest])]
    assert await find_recordings(store, "b") == []


async def test_nothing_to_apply_is_nothing_done(store: Store) -> None:
    await apply_events(store, [])
    assert await count_events(store) == 0


async def test_thousands_of_recordings_in_one_group_are_split_over_statements(store: Store) -> None:
    kept = [keep(callback("OnlineRecordStarted", TaskId=f"t{number}")) for number in range(2_500)]
    await apply_events(store, kept)
    assert len(await list_recordings(store, limit=0)) == 2_500
    assert {recording.status for recording in await list_recordings(store, limit=0)} == {"RECORDING"}


async def test_a_group_that_cannot_be_applied_leaves_every_recording_whole_or_untouched(store: Store) -> None:
    good = keep(callback("OnlineRecordStarted", TaskId="a"))
    poison = keep(callback("OnlineRecordFinished", TaskId="b"))
    await apply_events(store, [msgspec.structs.replace(poison, body=b"{}")])
    weaker = keep(callback("OnlineRecordStarted", TaskId="b"))
    with pytest.raises(StoreError, match="recognized by another version"):
        await apply_events(store, [good, weaker])
    others = await find_recordings(store, "a")
    assert others in ([], [fold([good])])
    assert await count_events(store) == 1 + len(others)


class Traffic:
    """The statements that a store sends, with their parameters."""

    def __init__(self, store: Store) -> None:
        self.sent: list[tuple[str, Any]] = []
        event.listen(store._engine.sync_engine, "before_cursor_execute", self._note)

    def _note(self, _connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if not statement.startswith("BEGIN"):
            self.sent.append((statement, parameters))


async def rows_touched(store: Store, statement: str, parameters: Any) -> float:
    """Return the most rows that any step of a SELECT goes through (SQLite tells only whether it is all of them)."""
    explain = "EXPLAIN QUERY PLAN " if store.is_local else "EXPLAIN (ANALYZE, FORMAT JSON) "
    async with store.reading() as connection:
        plan = await connection.run_sync(lambda sync: sync.exec_driver_sql(explain + statement, parameters).all())
    if store.is_local:
        details = " ".join(row.detail for row in plan)
        is_sorted = "CORRELATED" in details and "TEMP B-TREE" in details
        return float("inf") if is_sorted or "SCAN events" in details or "SCAN recordings" in details else 1

    def most(node: dict[str, Any]) -> float:
        rows: float = max(
            node["Actual Rows"], node.get("Rows Removed by Filter", 0), *map(most, node.get("Plans", ())), 0
        )
        return rows

    (document,) = plan[0][0] if isinstance(plan[0][0], list) else json.loads(plan[0][0])
    return most(document["Plan"])


async def go_carefully(store: Store) -> None:
    """Let nothing be done directly from now on: the direct ways have tests of their own."""
    if store._direct is not None:
        await store._direct.close()
        store._direct = None


async def test_ten_thousand_losing_events_cost_the_next_one_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    winner = keep(callback("OnlineRecordFinished", timestamp=200, TaskId="t"))
    losers = [keep(callback("OnlineRecordFinished", TaskId="t", RoomId=number)) for number in range(10_000)]
    started = [keep(callback("OnlineRecordStarted", TaskId=task_id)) for task_id in ("t", "u")]
    forged = [
        keep(callback("OnlineRecordFinished", timestamp=201, TaskId="t", RoomId=number), verified=False)
        for number in range(1000)
    ]
    await apply_events(store, [winner, *losers, *forged])
    await go_carefully(store)
    decoded: list[bytes] = []

    def counting_decode(body: bytes, *, received_at_us: int) -> Any:
        decoded.append(body)
        return decode(body, received_at_us=received_at_us)

    monkeypatch.setattr("store.applying.decode", counting_decode)
    traffic = Traffic(store)
    await apply_events(store, started)
    assert decoded == [winner.body]
    sent = [*traffic.sent]
    # SQLite is asked what is there before it gets rows; PostgreSQL tells with the answer.
    assert len(sent) == (7 if store.is_local else 6)
    if not store.is_local:  # which would rightly scan a table that it knows to have two rows
        async with store.writing() as connection:
            await connection.execute(text("ANALYZE"))
    selects = [one for one in sent if one[0].startswith("SELECT")]
    assert len(selects) == (4 if store.is_local else 3)
    for statement, parameters in selects:
        assert await rows_touched(store, statement.removesuffix(" FOR UPDATE OF recordings"), parameters) <= 10
    (recording,) = await find_recordings(store, "t")
    assert len(recording.events) == 11_002


async def test_a_hundred_events_take_as_many_statements_as_one(store: Store) -> None:
    await go_carefully(store)
    traffic = Traffic(store)
    await apply_events(store, [keep(callback("OnlineRecordStarted", TaskId="t"))])
    for_one = len(traffic.sent)
    traffic.sent.clear()
    await apply_events(store, [keep(callback("OnlineRecordStarted", TaskId=f"t{number}")) for number in range(100)])
    assert len(traffic.sent) == for_one


async def test_no_recording_is_left_without_a_status(store: Store) -> None:
    await apply_events(store, [keep(callback("OnlineRecordStarted", TaskId="t"))])
    async with store.reading() as connection:
        statuses = (await connection.execute(select(recordings.c.status))).scalars().all()
        kept = (await connection.execute(select(func.count()).select_from(events))).scalar_one()
    assert (statuses, kept) == (["RECORDING"], 1)
