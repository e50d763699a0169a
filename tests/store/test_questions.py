"""Which recordings the vendor is asked about, and when; what it answered, and what that says of an event."""

import time
from typing import Any

import pytest
from sqlalchemy import update

from store import (
    KeptEvent,
    ListedTask,
    Question,
    RecordingQuestion,
    Store,
    Verdict,
    apply_events,
    ask,
    claim_questions,
    find_question,
    find_reconciled_apps,
    find_recordings,
    find_traces,
    find_verdict,
    finish_question,
    forget_recording,
    mark_audited,
    mark_verified,
    next_question_in_s,
    note_listing,
    pause_app,
    postpone_question,
    prune_questions,
    resume_app,
    sweep,
)
from store.tables import recording_questions
from tests.store.classes import callback, keep

ASK_AFTER_S = 900.0
DAY_S = 86_400


def of(event_type: str, *, ago_s: float = 0.0, task_id: str = "t", sdk_app_id: int = 1, **event_data: Any) -> KeptEvent:
    """Make an event of a recording that was accepted so long ago, when it was sent too."""
    accepted_us = time.time_ns() // 1000 - round(ago_s * 1_000_000)
    content = callback(
        f"OnlineRecord{event_type}", accepted_us // 1_000_000, sdk_app_id, **{"TaskId": task_id} | event_data
    )
    return keep(content, received_at_us=accepted_us)


async def swept(store: Store) -> int:
    return await sweep(store, apps=[1], ask_after_s=ASK_AFTER_S)


async def claimed(store: Store, *, apps: tuple[int, ...] = (1,)) -> list[RecordingQuestion]:
    return await claim_questions(store, apps=apps, lease_holder="h", lease_s=60, limit=100)


async def claimed_one(store: Store) -> RecordingQuestion:
    (question,) = await claimed(store)
    return question


async def pass_time(store: Store, by_s: float) -> None:
    """Let every question have been due and considered earlier."""
    columns = (
        recording_questions.c.due_at_us,
        recording_questions.c.considered_at_us,
        recording_questions.c.answered_at_us,
        recording_questions.c.leased_until_us,
    )
    earlier = {column.name: column - round(by_s * 1_000_000) for column in columns}
    async with store.writing() as connection:
        await connection.execute(update(recording_questions).values(earlier))


#: Recordings: their events, accepted how long ago, with an EstimateStopTime so far from now; and whether it is time.
RECORDINGS: dict[str, tuple[list[tuple[str, float, float | None]], bool]] = {
    "started": ([("Started", DAY_S - 600, None)], False),
    "started a day ago": ([("Started", DAY_S + 600, None)], True),
    "started before an outage of ours": ([("Started", 400 * DAY_S, None)], True),
    "stopped": ([("Started", 9000, None), ("Stopped", ASK_AFTER_S - 600, None)], False),
    "stopped long ago": ([("Started", 9000, None), ("Stopped", ASK_AFTER_S + 600, None)], True),
    "stopped before an outage of ours": ([("Stopped", 400 * DAY_S, None)], True),
    "force-stopped long ago": ([("LongPauseForceStopped", ASK_AFTER_S + 600, None)], True),
    "paused": ([("LongPauseWarning", 1600, 0)], False),
    "paused for too long": ([("LongPauseWarning", 1600, -600)], True),
    "paused, and nobody says until when": ([("LongPauseWarning", 1600, None)], False),
    "paused a day ago, and nobody says until when": ([("LongPauseWarning", DAY_S + 600, None)], True),
    "paused until too late": ([("LongPauseWarning", 1600, float("inf"))], False),
    "paused a day ago until too late": ([("LongPauseWarning", DAY_S + 600, float("inf"))], True),
    "paused until too early": ([("LongPauseWarning", 1600, float("-inf"))], True),
    "finished": ([("Started", 9000, None), ("Finished", 5, None)], True),
    "finished within three days": ([("Finished", 2.9 * DAY_S, None)], True),
    "finished before": ([("Finished", 3.1 * DAY_S, None)], False),
}


def estimate(from_now_s: float | None) -> dict[str, int]:
    if from_now_s is None:
        return {}
    greatest = 2**63 - 1
    return {"EstimateStopTime": int(min(max(time.time() + from_now_s, -greatest - 1), greatest))}


async def test_a_recording_is_asked_about_when_it_is_time(store: Store) -> None:
    await apply_events(
        store,
        [
            of(kind, ago_s=ago_s, task_id=name, **estimate(from_now_s))
            for name, (events, _) in RECORDINGS.items()
            for kind, ago_s, from_now_s in events
        ],
    )
    expected = {name for name, (_, is_asked) in RECORDINGS.items() if is_asked}
    assert await swept(store) == len(expected)
    assert await swept(store) == 0
    assert {question.task_id for question in await claimed(store)} == expected


async def test_a_finished_recording_is_asked_about_until_all_its_ends_are_verified(store: Store) -> None:
    real, forged = of("Finished", TotalTime=1), of("Finished", ago_s=60, TotalTime=2)
    await apply_events(store, [real, forged])
    assert await swept(store) == 1
    question = await claimed_one(store)
    await mark_verified(store, real.event_id, True)
    await mark_verified(store, forged.event_id, False)
    assert await finish_question(store, question, lease_holder="h", answer_status="FINISHED", answer=b"{}")
    await pass_time(store, 10 * DAY_S)
    assert await swept(store) == 0
    assert await next_question_in_s(store, apps=[1]) is None


async def test_an_end_that_comes_after_the_answer_is_asked_about_at_once(store: Store) -> None:
    first = of("Finished", ago_s=60)
    await apply_events(store, [first])
    await swept(store)
    question = await claimed_one(store)
    await mark_verified(store, first.event_id, True)
    await finish_question(store, question, lease_holder="h", answer_status="FINISHED")
    await apply_events(store, [of("Finished", TotalTime=666)])
    assert await swept(store) == 1
    again = await claimed_one(store)
    assert (again.attempts, again.not_found) == (1, 0)


async def test_an_end_that_came_late_from_a_queue_or_was_left_undecided_is_asked_about_an_hour_later(
    store: Store,
) -> None:
    first = of("Finished", ago_s=60)
    await apply_events(store, [first])
    await swept(store)
    question = await claimed_one(store)
    await mark_verified(store, first.event_id, True)
    await finish_question(store, question, lease_holder="h", answer_status="FINISHED")
    await apply_events(store, [of("Finished", ago_s=50, TotalTime=666)])
    assert await swept(store) == 0
    await pass_time(store, 3601)
    assert await swept(store) == 1


async def test_what_was_asked_is_asked_again_only_as_its_postponement_says_or_when_there_is_news(store: Store) -> None:
    await apply_events(store, [of("Stopped", ago_s=2000)])
    await swept(store)
    question = await claimed_one(store)
    assert (question.why, question.attempts) == ("it was stopped and is not finished", 1)
    assert await postpone_question(store, question, lease_holder="h", after_s=5000, answer_status="STOPPED")
    assert await swept(store) == 0
    await apply_events(store, [of("Finished", ago_s=1)])
    assert await swept(store) == 1
    again = await claimed_one(store)
    assert (again.attempts, again.answer_status) == (2, "STOPPED")


@pytest.mark.parametrize("late", [False, True], ids=["accepted since", "accepted before, applied since"])
async def test_a_recording_that_the_vendor_did_not_know_is_asked_about_again_if_there_is_news(
    store: Store, *, late: bool
) -> None:
    await ask(store, [Question(sdk_app_id=1, task_id="t", why="registered", found_by="register")])
    question = await claimed_one(store)
    assert await postpone_question(store, question, lease_holder="h", after_s=0, not_found=3)
    question = await claimed_one(store)
    assert question.not_found == 3
    assert await finish_question(store, question, lease_holder="h", answer_status="TaskNotFound")
    await pass_time(store, 10 * DAY_S)
    assert await swept(store) == 0
    accepted_ago_s = 11 * DAY_S if late else 2 * DAY_S
    await apply_events(store, [of("Stopped", ago_s=accepted_ago_s)])
    assert await swept(store) == 1
    assert (await claimed_one(store)).not_found == 0


async def test_only_recordings_of_the_applications_are_asked_about(store: Store) -> None:
    events = [of("Stopped", ago_s=DAY_S, sdk_app_id=app) for app in (0, 1, 2)]
    await apply_events(store, [*events, of("Finished", sdk_app_id=2, task_id="u")])
    assert await swept(store) == 1
    assert await sweep(store, apps=[], ask_after_s=ASK_AFTER_S) == 0
    assert await sweep(store, apps=[1, 2], ask_after_s=ASK_AFTER_S) == 2
    assert await claimed(store, apps=()) == []
    assert [question.sdk_app_id for question in await claimed(store)] == [1]
    assert {question.task_id for question in await claimed(store, apps=(1, 2))} == {"t", "u"}


async def test_questions_come_in_the_order_in_which_files_are_deleted(store: Store) -> None:
    ages = {"young": 2000, "old": 2 * DAY_S, "middle": DAY_S}
    await apply_events(store, [of("Stopped", ago_s=ago_s, task_id=task_id) for task_id, ago_s in ages.items()])
    await swept(store)
    assert [question.task_id for question in await claimed(store)] == ["old", "middle", "young"]


async def test_a_question_is_made_due_sooner_and_never_later(store: Store) -> None:
    def question(after_s: float, why: str) -> Question:
        return Question(sdk_app_id=1, task_id="t", why=why, after_s=after_s)

    await ask(store, [question(100, "first")])
    await ask(store, [question(1000, "later")])
    assert 99 < (await next_question_in_s(store, apps=[1]) or 0) <= 100
    await ask(store, [question(10, "sooner")])
    assert 9 < (await next_question_in_s(store, apps=[1]) or 0) <= 10
    found = await find_question(store, 1, "t")
    assert found is not None
    assert found.why == "sooner"
    assert await find_question(store, 1, "another") is None


async def test_news_while_the_vendor_is_asked_is_not_lost(store: Store) -> None:
    await ask(store, [Question(sdk_app_id=1, task_id="t", why="w")])
    question = await claimed_one(store)
    await ask(store, [Question(sdk_app_id=1, task_id="t", why="news")])
    assert await claimed(store) == []
    assert await postpone_question(store, question, lease_holder="h", after_s=1000)
    question = await claimed_one(store)
    await ask(store, [Question(sdk_app_id=1, task_id="t", why="news")])
    assert await finish_question(store, question, lease_holder="h", answer_status="FINISHED", answer=b"{}")
    assert (await claimed_one(store)).answer == b"{}"


async def test_a_listed_recording_of_which_no_event_told_is_known_from_then_on(store: Store) -> None:
    await apply_events(store, [of("Started", task_id="told")])
    tasks = [ListedTask(task_id="told"), ListedTask(task_id="lost", room_id=5, created_at=77)]
    for _ in range(2):
        unknown = await note_listing(store, 1, tasks, found_by="DescribeRunningTasks", is_complete=True)
        assert unknown == [tasks[1]]
    question = await find_question(store, 1, "lost")
    assert question is not None
    assert (question.found_by, question.room_id, question.created_at) == ("DescribeRunningTasks", 5, 77)
    assert DAY_S - 60 < (await next_question_in_s(store, apps=[1]) or 0) <= DAY_S
    (app,) = (await find_reconciled_apps(store)).values()
    assert app.listed_ago_s is not None
    assert app.listed_ago_s < 60


async def test_what_was_listed_and_is_so_no_more_is_asked_about_now(store: Store) -> None:
    tasks = [ListedTask(task_id=task_id) for task_id in ("a", "b", "c")]
    await note_listing(store, 1, tasks, found_by="D", is_complete=True)
    await note_listing(store, 2, tasks, found_by="D", is_complete=True)
    await ask(store, [Question(sdk_app_id=1, task_id="registered", why="w", after_s=500)])
    # A list that is not whole says nothing of what it lacks.
    await note_listing(store, 1, tasks[:1], found_by="D", is_complete=False)
    assert await claimed(store, apps=(1, 2)) == []
    await note_listing(store, 1, tasks[:1], found_by="D", is_complete=True)
    gone = await claimed(store, apps=(1, 2))
    assert {(question.sdk_app_id, question.task_id, question.gone_from_list) for question in gone} == {
        (1, "b", True),
        (1, "c", True),
    }
    for question in gone:
        assert await postpone_question(store, question, lease_holder="h", after_s=1000, answer_status="RECORDING")
    # Once is enough, unless it is listed again.
    await note_listing(store, 1, tasks[:1], found_by="D", is_complete=True)
    assert await claimed(store) == []
    await note_listing(store, 1, tasks, found_by="D", is_complete=True)
    await note_listing(store, 1, [], found_by="D", is_complete=True)
    assert len(await claimed(store)) == 3


async def test_who_found_a_recording_is_told_with_it(store: Store) -> None:
    await note_listing(store, 1, [ListedTask(task_id="t")], found_by="DescribeRunningTasks", is_complete=True)
    found = [keep(callback("OnlineRecordStarted", 100, TaskId="t"), source="reconcile")]
    await apply_events(store, found)
    (recording,) = await find_recordings(store, "t")
    assert [(one.event_type, one.by) for one in recording.found] == [("OnlineRecordStarted", "DescribeRunningTasks")]
    (ref,) = recording.events
    assert (ref.source, ref.verified) == ("reconcile", None)


async def test_nothing_is_asked_about_an_application_with_a_pause_and_one_is_told_of_it(store: Store) -> None:
    await ask(store, [Question(sdk_app_id=app, task_id="t", why="w") for app in (1, 2)])
    assert await pause_app(store, 1, for_s=100, reason="AuthFailure")
    assert not await pause_app(store, 1, for_s=100, reason="AuthFailure")
    assert await pause_app(store, 1, for_s=100, reason="arrears")
    assert [question.sdk_app_id for question in await claimed(store, apps=(1, 2))] == [2]
    app = (await find_reconciled_apps(store))[1]
    assert (app.pause_reason, 99 < app.paused_for_s <= 100) == ("arrears", True)
    assert await pause_app(store, 1, for_s=0, reason="arrears") is False
    assert [question.sdk_app_id for question in await claimed(store, apps=(1, 2))] == [1]
    assert await resume_app(store, 1)
    assert not await resume_app(store, 1)
    assert await pause_app(store, 1, for_s=100, reason="arrears")


async def test_a_day_is_audited_once(store: Store) -> None:
    assert await mark_audited(store, 1, "2026-01-02")
    assert not await mark_audited(store, 1, "2026-01-02")
    assert not await mark_audited(store, 1, "2026-01-01")
    assert await mark_audited(store, 1, "2026-01-03")
    assert await mark_audited(store, 2, "2026-01-02")
    assert (await find_reconciled_apps(store))[1].audited_day == "2026-01-03"


async def test_a_verdict_is_none_until_the_vendor_was_asked_and_has_its_answer(store: Store) -> None:
    finished = of("Finished")
    assert await find_verdict(store, finished.event_id) == Verdict()
    await apply_events(store, [finished])
    await swept(store)
    question = await claimed_one(store)
    assert await find_verdict(store, finished.event_id) == Verdict()
    await mark_verified(store, finished.event_id, True)
    await finish_question(store, question, lease_holder="h", answer_status="FINISHED", answer=b'{"a":1}')
    assert await find_verdict(store, finished.event_id) == Verdict(verified=True, answer=b'{"a":1}')


async def test_old_questions_about_what_nobody_knows_are_pruned(store: Store) -> None:
    await apply_events(store, [of("Stopped", ago_s=2000, task_id="known")])
    names = ["known", "unknown", "undone"]
    await ask(store, [Question(sdk_app_id=1, task_id=task_id, why="w") for task_id in names])
    for question in await claimed(store):
        if question.task_id != "undone":
            await finish_question(store, question, lease_holder="h", answer_status="TaskNotFound")
    assert await prune_questions(store, older_than_s=60) == 0
    await pass_time(store, 61)
    assert await prune_questions(store, older_than_s=60) == 1
    assert [await find_question(store, 1, task_id) is None for task_id in names] == [False, True, False]


async def test_the_question_goes_with_its_recording_while_the_vendor_is_asked(store: Store) -> None:
    await apply_events(store, [of("Stopped", ago_s=2000)])
    await swept(store)
    question = await claimed_one(store)
    (traces,) = await find_traces(store, "t")
    await forget_recording(store, "t", traces)
    assert not await finish_question(store, question, lease_holder="h", answer_status="FINISHED")
