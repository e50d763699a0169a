import time
from random import Random
from typing import Any

from msgspec import structs
from sqlalchemy import text, update

from store import (
    DeadLetter,
    Store,
    apply_events,
    find_recordings,
    fold,
    keep_dead_letters,
    list_dead_letters,
    list_events,
    mark_replayed,
    prune_dead_letters,
    prune_events,
)
from store.retention import ADVISORY_LOCK
from store.tables import dead_letters
from tests.store.classes import callback, keep, random_deliveries, random_event

LETTER = DeadLetter(
    consumer="c",
    event_id="a",
    event_type=None,
    sdk_app_id=1,
    attempts=8,
    reason="r",
    first_failed_at_us=1,
    last_failed_at_us=2,
    body=b"{}",
    routing_key="unrecognized",
    received_at_us=1,
)


async def _pruned(store: Store, *, older_than_s: float = 60, at_once: int = 1000) -> int:
    return sum([pruned.deleted async for pruned in prune_events(store, older_than_s=older_than_s, at_once=at_once)])


async def _event_ids(store: Store) -> set[str]:
    return {event.event_id for event in await list_events(store, limit=0)}


def _content(recording: Any) -> dict[str, Any]:
    """Return what a recording is, but for the lists of its events, some of which are gone."""
    content = structs.asdict(recording)
    del content["events"], content["found"]
    return content


async def test_a_recording_is_right_whatever_is_pruned_and_whatever_comes_late(store: Store) -> None:
    random = Random(4711)
    for number in range(6):
        task_id = f"task-{number}"
        deliveries = random_deliveries(random, task_id=task_id, most=12)
        late = [random_event(random, task_id=task_id) for _ in range(3)]
        await apply_events(store, deliveries)
        await _pruned(store, at_once=random.randint(1, 4))
        (pruned,) = await find_recordings(store, task_id)
        assert _content(pruned) == _content(fold(deliveries))
        assert len({event.event_type for event in pruned.events}) == len(pruned.events), "one of each type is enough"
        # Some of what was pruned comes again, too.
        await apply_events(store, [*late, *deliveries[:2]])
        (merged,) = await find_recordings(store, task_id)
        assert _content(merged) == _content(fold([*deliveries, *late]))


async def test_what_is_old_and_of_no_recording_is_pruned(store: Store) -> None:
    events = [
        keep(callback("TranscodeFinished", TaskId="t")),
        keep(callback("OnlineRecordFinished", Error={"Code": "c"})),
        keep(callback("OnlineRecordStarted", TaskId="t")),
        keep(callback("TranscodeFinished", TaskId="u"), received_at_us=time.time_ns() // 1000),
    ]
    await apply_events(store, events)
    assert await _pruned(store) == 2
    assert await _event_ids(store) == {events[2].event_id, events[3].event_id}


async def test_a_few_are_pruned_at_a_time_and_nothing_is_locked_in_between(store: Store) -> None:
    await apply_events(store, [keep(callback("Other", number)) for number in range(10)])
    pruned = []
    async for page in prune_events(store, older_than_s=60, at_once=4):
        pruned.append(page)
        await apply_events(store, [keep(callback("OnlineRecordStarted", TaskId="t"))])
    # The last page holds the event that was applied meanwhile.
    assert sum(page.deleted for page in pruned) == 10
    assert [page.deleted for page in pruned][:2] == [4, 4]
    assert len(await _event_ids(store)) == 1
    # A later round goes on where this one ended.
    assert [page async for page in prune_events(store, older_than_s=60, after=pruned[-1].place)] == []


async def test_one_process_prunes_and_the_others_do_not_wait(store: Store) -> None:
    await apply_events(store, [keep(callback("Other"))])
    if store.is_local:
        assert await _pruned(store) == 1
        return
    async with store.writing() as connection:
        await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
        assert await _pruned(store) == 0
    assert await _pruned(store) == 1


async def test_dead_letters_are_pruned_long_after_they_were_replayed_and_never_before(store: Store) -> None:
    letters = [structs.replace(LETTER, event_id=f"{number}") for number in range(5)]
    open_letter = structs.replace(LETTER, event_id="open")
    await keep_dead_letters(store, [*letters, open_letter])
    await mark_replayed(store, letters)
    assert await prune_dead_letters(store, older_than_s=60) == 0
    async with store.writing() as connection:
        replayed = dead_letters.c.resolved_at_us.is_not(None)
        await connection.execute(update(dead_letters).where(replayed).values(resolved_at_us=1))
    assert await prune_dead_letters(store, older_than_s=60, at_once=2) == 5
    assert [letter.event_id for letter in await list_dead_letters(store)] == ["open"]
