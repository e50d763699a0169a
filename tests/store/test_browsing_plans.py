"""What the databases do for each page: they walk an index in the order of the page, and read no table whole.

Held by their plans on a store with few rows, where no way but an index is open to the planner. What pages cost with
many rows is measured with tests/console/growing.py.
"""

import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import pytest
from sqlalchemy import Connection, event

from schemas import RecordingStatus
from store import (
    DeadLetterFilter,
    EventFilter,
    RecordingFilter,
    Store,
    count_dead_letters,
    count_overview,
    count_replayed,
    find_event,
    find_recording_details,
    group_dead_letters,
    list_changes,
    list_event_outcomes,
    search_dead_letters,
    search_events,
    search_recordings,
)
from store.paging import cursor
from tests.console.growing import APP, event_id, grow

_TASK: Final = event_id(500, 0)[:20]
_DEEP: Final = 1_600_000_000_000_000

Operation = Callable[[Store], Awaitable[object]]


def _recordings(**chosen: Any) -> Operation:
    return lambda store: search_recordings(store, RecordingFilter(**chosen), after=cursor((_DEEP * 2, APP, "t")))


def _events(**chosen: Any) -> Operation:
    return lambda store: search_events(store, EventFilter(**chosen), after=cursor((_DEEP * 2, "e")))


def _letters(**chosen: Any) -> Operation:
    return lambda store: search_dead_letters(store, DeadLetterFilter(**chosen), after=cursor((_DEEP * 2, "c", "e")))


#: Pages that are walked in their order, by the index that they walk.
_WALKED: Final[dict[str, tuple[str, Operation]]] = {
    "recordings": ("ix_recordings_active", _recordings()),
    "recordings of an application": ("ix_recordings_active", _recordings(app=APP)),
    "recordings by the beginning of a task": ("ix_recordings_active", _recordings(task="0*")),
    "recordings of a room": ("ix_recordings_active", _recordings(room=5)),
    "recordings with a status": ("ix_recordings_active", _recordings(status=RecordingStatus.PAUSED)),
    "recordings that failed": ("ix_recordings_active", _recordings(failed=True)),
    "recordings of a day": ("ix_recordings_active", _recordings(from_us=_DEEP, until_us=_DEEP * 2)),
    "recordings of a teacher": ("ix_recordings_active", _recordings(teacher="teacher_0007")),
    "events": ("ix_events_received", _events()),
    "events of an application": ("ix_events_received", _events(app=APP)),
    "events of a type": ("ix_events_received", _events(event_type="OnlineRecordFinished")),
    "events of a consumer": ("ix_events_received", _events(consumer="consumer_1")),
    "events of a day": ("ix_events_received", _events(from_us=_DEEP, until_us=_DEEP * 2)),
    "events of our archive": ("ix_events_received", _events(source="archive")),
    "events that nobody recognized": ("ix_events_unrecognized", _events(unrecognized=True)),
    "events that nobody recognized of a type": ("ix_events_unrecognized", _events(event_type="TranscodeFinished")),
    "events of tests": ("ix_events_marked", _events(test=True)),
    "events found by asking": ("ix_events_marked", _events(source="reconcile")),
    "dead letters": ("ix_dead_letters_failed", _letters()),
    "dead letters of a consumer": ("ix_dead_letters_failed", _letters(consumer="consumer_1", reason="r")),
    "dead letters that were replayed": ("ix_dead_letters_failed", _letters(resolved=True)),
    "changes": ("changes", list_changes),
}

#: What is found by keys, or sorted because it is little.
_LOOKED_UP: Final[dict[str, Operation]] = {
    "a recording": _recordings(task=_TASK),
    "recordings found late": _recordings(found_late=True),
    "recordings that the vendor contradicts": _recordings(contradicted=True, teacher="nobody"),
    "recordings that are not archived": _recordings(not_archived=True, failed=True),
    "all of a recording": lambda store: find_recording_details(store, APP, _TASK),
    "events of a task": _events(task=_TASK, event_type="OnlineRecordFinished"),
    "an event": lambda store: find_event(store, event_id(500, 0)),
    "outcomes": lambda store: list_event_outcomes(store, [event_id(number, 0) for number in range(50)]),
    "dead letters of an event": _letters(event_id="e"),
    "groups of dead letters": group_dead_letters,
    "what became of a replay": lambda store: count_replayed(store, _DEEP),
    "groups of a consumer's dead letters": lambda store: group_dead_letters(store, consumer="consumer_1"),
    "the overview": count_overview,
}


async def _plans(store: Store, operation: Operation) -> list[str]:
    """Return the plan of each statement that an operation executes."""
    executed: list[tuple[str, Any]] = []

    def note(*details: Any) -> None:
        executed.append((details[2], details[3]))

    engine = store._engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        await operation(store)
    finally:
        event.remove(engine, "before_cursor_execute", note)
    explain = "EXPLAIN QUERY PLAN" if store.is_local else "EXPLAIN"
    plans = []
    async with store.reading() as connection, store.dialect.browsing(connection, timeout_s=60):
        for statement, parameters in executed:
            if statement.startswith("SELECT") and "set_config" not in statement:
                explained = partial(
                    Connection.exec_driver_sql, statement=f"{explain} {statement}", parameters=parameters
                )
                rows = await connection.run_sync(explained)
                plans.append(f"{statement}\n" + "\n".join(str(row[-1]) for row in rows))
    assert plans
    return plans


#: A table of which there may be many rows, read whole.
_WHOLE: Final = re.compile(
    r"Seq Scan on (events|recordings|completions|dead_letters|archived|recording_questions|changes)"
    r"|SCAN (events|recordings|completions|dead_letters|archived_\w+|recording_questions|changes)\b(?! USING)"
)
_SORTED: Final = re.compile(r"\bSort\b|TEMP B-TREE FOR ORDER BY")


@pytest.fixture
async def grown(store: Store) -> Store:
    """Give a store with some of everything."""
    await grow(store, count=1000, total_events=9000, letters=300)
    return store


async def test_pages_walk_their_index_in_its_order(grown: Store) -> None:
    for name, (index, operation) in _WALKED.items():
        plans = await _plans(grown, operation)
        assert any(index in plan for plan in plans), (name, plans)
        for plan in plans:
            assert not _WHOLE.search(plan), (name, plan)
            assert not _SORTED.search(plan), (name, plan)


async def test_what_is_looked_up_reads_no_table_whole(grown: Store) -> None:
    for name, operation in _LOOKED_UP.items():
        for plan in await _plans(grown, operation):
            assert not _WHOLE.search(plan), (name, plan)


async def test_dead_letters_are_counted_without_a_look_at_each(grown: Store) -> None:
    plans = await _plans(grown, lambda store: count_dead_letters(store, until_us=_DEEP))
    # PostgreSQL weighs it: its answer depends on when the table was vacuumed.
    assert not grown.is_local or all("COVERING INDEX ix_dead_letters_failed" in plan for plan in plans)
