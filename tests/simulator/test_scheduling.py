import hashlib
import json
from itertools import islice
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator import DEFAULT_KINDS, ClassKind, Send, render, schedule

DEFAULTS: dict[str, Any] = {
    "classes": 12,
    "kinds": DEFAULT_KINDS,
    "sdk_app_id": 1,
    "seed": 0,
    "duplicates": 0.0,
    "disorder": 0.0,
}


def plan(**changes: Any) -> list[Send]:
    return list(schedule(**DEFAULTS | changes))


def contents(sends: list[Send]) -> list[bytes]:
    return [render(send.callback) for send in sends]


def task_ids(sends: list[Send]) -> set[str]:
    return {json.loads(send.callback.event_data).get("TaskId", "") for send in sends}


SHARES = st.floats(min_value=0, max_value=1)


@settings(deadline=None)
@given(
    classes=st.integers(1, 40),
    kinds=st.lists(st.sampled_from(ClassKind), min_size=1, max_size=9),
    seed=st.integers(),
    duplicates=SHARES,
    disorder=SHARES,
)
def test_every_event_is_sent_whatever_the_disorder(
    classes: int, kinds: list[ClassKind], seed: int, duplicates: float, disorder: float
) -> None:
    orderly = plan(classes=classes, kinds=kinds, seed=seed)
    sends = plan(classes=classes, kinds=kinds, seed=seed, duplicates=duplicates, disorder=disorder)

    first = [send.callback.event_id for send in sends if send.copy == 0]
    assert len(set(first)) == len(first)
    assert set(first) == {send.callback.event_id for send in orderly}
    assert sum(send.ends_class for send in sends) == classes
    seen: set[str] = set()
    for send in sends:
        assert (send.copy == 0) == (send.callback.event_id not in seen)
        seen.add(send.callback.event_id)


def test_the_same_seed_gives_the_same_sends_in_the_same_order() -> None:
    assert plan(seed=7, duplicates=0.5, disorder=0.5) == plan(seed=7, duplicates=0.5, disorder=0.5)
    assert contents(plan(seed=7)) == contents(plan(seed=7))


def test_a_seed_means_the_same_bytes_for_every_python() -> None:
    sends = plan(kinds=tuple(ClassKind), classes=18, seed=7, duplicates=0.5, disorder=0.5)

    digest = hashlib.sha256(b"\n".join(contents(sends))).hexdigest()
    assert digest == "611d226184c07e22e81be7b108ce9ffa27d9fa0d5aa5d68b02e82cf2738224e7"


def test_another_seed_gives_other_tasks() -> None:
    assert not task_ids(plan(seed=7)) & task_ids(plan(seed=8))


def test_every_class_has_a_task_and_a_room_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulator.sending._ROOM_IDS", range(10_000, 10_200))

    sends = plan(classes=200, kinds=[ClassKind.NORMAL])

    assert len(task_ids(sends)) == 200
    assert len({json.loads(send.callback.event_data)["RoomId"] for send in sends}) == 200


def test_more_classes_leave_the_first_ones_as_they_were() -> None:
    assert set(contents(plan(classes=5))) <= set(contents(plan(classes=50)))


def test_kinds_take_turns() -> None:
    kinds = [ClassKind.NORMAL, ClassKind.FAILED]
    sends = plan(classes=6, kinds=kinds)

    assert sum(send.callback.event_type == "OnlineRecordStopped" for send in sends) == 3
    assert sum('"EXCEPTION"' in send.callback.event_data for send in sends) == 3


def test_without_disorder_each_class_is_in_order() -> None:
    last: dict[str, int] = {}
    for send in plan(classes=50):
        task_id = json.loads(send.callback.event_data)["TaskId"]
        assert last.get(task_id, 0) <= send.callback.timestamp
        last[task_id] = send.callback.timestamp


def test_with_disorder_events_overtake_each_other() -> None:
    overtaken = 0
    last: dict[str, int] = {}
    for send in plan(classes=50, kinds=[ClassKind.NORMAL], disorder=0.5):
        task_id = json.loads(send.callback.event_data)["TaskId"]
        overtaken += send.callback.timestamp < last.get(task_id, 0)
        last[task_id] = max(send.callback.timestamp, last.get(task_id, 0))

    assert overtaken >= 20


def test_with_all_duplicated_everything_is_sent_twice() -> None:
    sends = plan(duplicates=1.0)

    assert [send.copy for send in sends].count(0) == [send.copy for send in sends].count(1) == len(sends) / 2


def test_classes_run_at_the_same_time() -> None:
    first_sends = plan(classes=50)[:30]

    assert len(task_ids(first_sends)) > 8


def test_a_long_schedule_is_made_as_it_is_needed() -> None:
    assert len(list(islice(schedule(**DEFAULTS | {"classes": 10**9}), 100))) == 100
