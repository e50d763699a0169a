import json

import msgspec
from msgspec import structs

from store import (
    Claim,
    DeadLetter,
    Forgotten,
    Notice,
    Question,
    Store,
    add_notices,
    apply_events,
    ask,
    claim,
    claim_notices,
    complete,
    find_question,
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

    about = [(1, "t"), (1, "tt"), (2, "t"), (3, "t")]
    await ask(store, [Question(sdk_app_id=app, task_id=task_id, why="w") for app, task_id in about])
    await add_notices(
        store,
        [
            Notice(
                notice_id=f"{app}/{task_id}/{channel}",
                channel=channel,
                rule="r",
                severity="s",
                sdk_app_id=app,
                task_id=task_id,
                expires_after_s=60,
            )
            for app, task_id in about
            for channel in ("a", "b")
        ],
    )

    traces = await find_traces(store, "t")
    assert [trace.sdk_app_id for trace in traces] == [1, 2, 3]
    expected = Forgotten(
        sdk_app_id=1,
        task_id="t",
        recordings=1,
        events=3,
        dead_letters=2,
        unresolved_dead_letters=1,
        completions=1,
        leases=1,
        questions=1,
        notices=2,
        archived_files=0,
    )
    assert await forget_recording(store, "t", traces[0], dry_run=True) == expected
    assert await forget_recording(store, "t", traces[0]) == expected

    assert [recording.sdk_app_id for recording in await find_recordings(store, "t")] == [2]
    assert {event.event_id for event in await list_events(store)} == {one.event_id for one in others}
    assert {letter.event_id for letter in await list_dead_letters(store)} == {"other", "family"}
    ids = [started.event_id, "unresolved", others[1].event_id]
    claims = await claim(store, consumer="c", event_ids=ids, lease_holder="p", lease_s=60)
    assert [*claims.values()] == [Claim.CLAIMED, Claim.CLAIMED, Claim.COMPLETED]
    assert [trace.sdk_app_id for trace in await find_traces(store, "t")] == [2, 3]
    for app, task_id in about:
        assert (await find_question(store, app, task_id) is None) == ((app, task_id) == (1, "t"))
    left = await claim_notices(store, channel="a", lease_holder="h", lease_s=60, limit=9)
    assert {(one.sdk_app_id, one.task_id) for one in left} == {*about[1:]}

    # Of this one nothing is known but that it was heard of.
    (*_, heard_of) = traces
    assert (await forget_recording(store, "t", heard_of)).questions == 1
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
