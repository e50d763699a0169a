import json

import msgspec
from msgspec import structs

from store import (
    Claim,
    DeadLetter,
    Forgotten,
    Store,
    apply_events,
    claim,
    complete,
    find_recordings,
    find_traces,
    forget_recording,
    keep_dead_letters,
    list_dead_letters,
    list_events,
    mark_replayed,
)
from tests.store.classes import callback, keep


def _letter(event_id: str, task_id: str, *, sdk_app_id: int = 1, event_type: str = "OnlineRecordStarted") -> DeadLetter:
    return DeadLetter(
        consumer="c",
        event_id=event_id,
        event_type=event_type,
        sdk_app_id=sdk_app_id,
        attempts=8,
        reason="r",
        first_failed_at_us=1,
        last_failed_at_us=2,
        body=msgspec.json.encode(callback(event_type, TaskId=task_id)),
        routing_key=event_type,
        received_at_us=1,
    )


async def test_everything_of_a_recording_goes_and_nothing_else(store: Store) -> None:
    started, finished = (keep(callback(kind, TaskId="t")) for kind in ("OnlineRecordStarted", "OnlineRecordFinished"))
    not_understood = keep(callback("OnlineRecordStarted", 2**40, TaskId="t"))
    of_another_family = keep(callback("TranscodeFinished", TaskId="t"))
    others = [
        of_another_family,
        keep(callback("OnlineRecordStarted", TaskId="tt")),
        keep(callback("OnlineRecordStarted", TaskId="t", sdk_app_id=2)),
    ]
    await apply_events(store, [started, finished, not_understood, *others])
    replayed, unresolved = _letter("replayed", "t"), _letter("unresolved", "t")
    kept = [_letter("other", "tt"), _letter("family", "t", event_type="TranscodeFinished")]
    await keep_dead_letters(store, [replayed, unresolved, *kept])
    await mark_replayed(store, [replayed])
    await complete(store, consumer="c", event_ids=[started.event_id, others[1].event_id], lease_holder="o")
    await claim(store, consumer="c", event_ids=["unresolved"], lease_holder="o", lease_s=60)

    traces = await find_traces(store, "t")
    assert [trace.sdk_app_id for trace in traces] == [1, 2]
    expected = Forgotten(
        sdk_app_id=1,
        task_id="t",
        recordings=1,
        events=3,
        dead_letters=2,
        unresolved_dead_letters=1,
        completions=1,
        leases=1,
    )
    assert await forget_recording(store, "t", traces[0], dry_run=True) == expected
    assert await forget_recording(store, "t", traces[0]) == expected

    assert [recording.sdk_app_id for recording in await find_recordings(store, "t")] == [2]
    assert {event.event_id for event in await list_events(store)} == {one.event_id for one in others}
    assert {letter.event_id for letter in await list_dead_letters(store)} == {"other", "family"}
    ids = [started.event_id, "unresolved", others[1].event_id]
    claims = await claim(store, consumer="c", event_ids=ids, lease_holder="p", lease_s=60)
    assert [*claims.values()] == [Claim.CLAIMED, Claim.CLAIMED, Claim.COMPLETED]
    assert [trace.sdk_app_id for trace in await find_traces(store, "t")] == [2]


async def test_a_task_is_found_however_its_name_is_written(store: Store) -> None:
    task_id = "测试/1"
    body = json.dumps(callback("OnlineRecordStarted", TaskId=task_id), ensure_ascii=True).encode()
    await keep_dead_letters(store, [structs.replace(_letter("a", task_id), body=body), _letter("b", task_id)])
    (traces,) = await find_traces(store, task_id)
    assert traces.letter_ids == {"a", "b"}
    assert await find_traces(store, "1") == []


async def test_what_comes_after_a_recording_was_forgotten_makes_it_anew(store: Store) -> None:
    await apply_events(store, [keep(callback("OnlineRecordFinished", TaskId="t"))])
    (traces,) = await find_traces(store, "t")
    await forget_recording(store, "t", traces)
    await apply_events(store, [keep(callback("OnlineRecordStarted", TaskId="t"))])
    (recording,) = await find_recordings(store, "t")
    assert recording.status == "RECORDING"
