import time
from typing import Any

import pytest
from msgspec import structs

from store import (
    Change,
    Store,
    apply_events,
    find_traces,
    forget_recording,
    keep_change,
    list_changes,
    list_who_did,
    prune_changes,
)
from store.changes import FORGOTTEN, MAX_CHARACTERS
from tests.store.classes import callback, keep


def change(at_us: int = 1, **detail: Any) -> Change:
    return Change(
        at_us=at_us, who="s1", role="operate", address="127.0.0.1", action="recording.ask", detail=detail, result="done"
    )


async def test_changes_are_listed_the_latest_first_and_whole(store: Store) -> None:
    made = [change(at_us, number=at_us, name="a", some=[1, None, {"b": True}]) for at_us in range(7)]
    for one in made:
        await keep_change(store, one)
    listed: list[Change] = []
    after = None
    while True:
        page = await list_changes(store, after=after, limit=3)
        listed += page.rows
        after = page.next
        if after is None:
            break
    assert listed == made[::-1]
    with pytest.raises(ValueError, match="begin at its first page"):
        await list_changes(store, after="nowhere")


async def test_who_did_something_lately_is_told(store: Store) -> None:
    for who, action, at_us in [("s1", "logout", 5), ("s2", "logout", 9), ("s2", "logout", 10), ("s3", "test", 10)]:
        await keep_change(store, structs.replace(change(at_us), who=who, action=action))
    assert await list_who_did(store, "logout", since_us=6) == {"s2"}
    assert await list_who_did(store, "logout", since_us=0) == {"s1", "s2"}


async def test_two_changes_of_one_moment_are_both_kept(store: Store) -> None:
    await keep_change(store, change())
    await keep_change(store, change())
    assert len((await list_changes(store)).rows) == 2


async def test_what_somebody_sends_makes_no_large_row_and_no_error(store: Store) -> None:
    hostile = structs.replace(change(name="\0\ud800" + "x" * 1_000_000), result="\0", who="\N{RIGHT-TO-LEFT OVERRIDE}")
    await keep_change(store, hostile)
    (kept,) = (await list_changes(store)).rows
    assert kept.detail["name"].startswith("\N{REPLACEMENT CHARACTER}" * 2 + "xx")
    assert len(kept.detail["name"]) == MAX_CHARACTERS
    assert (kept.result, kept.who) == ("\N{REPLACEMENT CHARACTER}", "\N{RIGHT-TO-LEFT OVERRIDE}")


async def test_old_changes_are_pruned(store: Store) -> None:
    new = change(time.time_ns() // 1000)
    for one in (change(), new):
        await keep_change(store, one)
    assert await prune_changes(store, older_than_s=60) == 1
    assert (await list_changes(store)).rows == [new]


async def test_a_recording_that_is_forgotten_is_named_by_no_change(store: Store) -> None:
    task_id = "测试/1"
    await apply_events(store, [keep(callback("OnlineRecordStarted", TaskId=task_id))])
    of_it = [change(5, sdk_app_id=1, task_id=task_id), change(4, app=1, task=task_id, room=7), change(3, task=task_id)]
    others = [change(2, sdk_app_id=2, task_id=task_id), change(1, sdk_app_id=1, task_id=f"{task_id}1")]
    for one in (*of_it, *others):
        await keep_change(store, one)
    (traces,) = await find_traces(store, task_id)
    await forget_recording(store, task_id, traces, dry_run=True)
    assert (await list_changes(store)).rows == [*of_it, *others]
    await forget_recording(store, task_id, traces)
    rows = (await list_changes(store)).rows
    assert [row.detail for row in rows[:3]] == [
        {"sdk_app_id": 1, "task_id": FORGOTTEN},
        {"app": 1, "task": FORGOTTEN, "room": 7},
        {"task": FORGOTTEN},
    ]
    assert [structs.replace(row, detail={}) for row in rows[:3]] == [structs.replace(one, detail={}) for one in of_it]
    assert rows[3:] == others
