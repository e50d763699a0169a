"""What is asked of known recordings, when, and what is made of each answer."""

import pytest
import structlog

from reconcile.asking import running_gap_s, stopped_gap_s
from schemas import OnlineRecordFinished, decode
from simulator import ApiFaults, ClassKind, SimulatedClass, render
from store import find_question, find_verdict
from tests.reconcile.world import APP, ASK_AFTER_S, AWorld, a_class, callback_of, forged

STARTED, STOPPED, FINISHED = "OnlineRecordStarted", "OnlineRecordStopped", "OnlineRecordFinished"


def decode_finished(cls: SimulatedClass) -> OnlineRecordFinished:
    event = decode(render(callback_of(cls, FINISHED)), received_at_us=0).event
    assert isinstance(event, OnlineRecordFinished)
    return event


async def test_a_stopped_recording_without_its_end_is_asked_about_after_a_quarter_of_an_hour_and_entered(
    world: AWorld,
) -> None:
    cls = a_class()
    async with world(cls) as w:
        await w.deliver(callback_of(cls, STARTED))
        await w.pass_by(3600, lists=False)
        await w.deliver(callback_of(cls, STOPPED))
        assert w.questions() == 0
        await w.pass_by(ASK_AFTER_S - 60, lists=False)
        assert w.questions() == 0
        with structlog.testing.capture_logs() as logs:
            await w.pass_by(90, lists=False)
        assert w.questions() == 1

        recording = await w.recording(cls.task_id)
        real = decode_finished(cls)
        assert (recording.status, recording.verified) == ("FINISHED", True)
        assert [video.video_url for video in recording.videos] == [video.video_url for video in real.video_infos]
        assert recording.record_stop_time == real.record_stop_time
        ours = next(event for event in recording.events if event.event_type == FINISHED)
        assert (ours.source, ours.timestamp) == ("reconcile", real.record_stop_time)
        (found,) = recording.found
        assert (found.event_type, found.by) == (FINISHED, "DescribeOnlineRecord")
        late_s = w.clock.now_s - callback_of(cls, STOPPED).timestamp
        assert late_s - 60 <= found.late_s <= late_s

        (message,) = w.transport.published
        assert (message.event_id, message.routing_key, message.source) == (ours.event_id, FINISHED, "reconcile")
        told = [log for log in logs if log["event"] == "recording_found"]
        assert [(log["by"], log["event_type"], log["late_s"]) for log in told] == [
            ("DescribeOnlineRecord", FINISHED, pytest.approx(found.late_s, abs=31))
        ]
        await w.pass_by(2 * 86_400, step_s=7200, lists=False)
        assert w.questions() == 1


async def test_the_vendors_own_callback_that_comes_late_wins_and_is_confirmed(world: AWorld) -> None:
    cls = a_class()
    async with world(cls) as w:
        await w.deliver(callback_of(cls, STARTED), callback_of(cls, STOPPED))
        await w.pass_by(7200, step_s=600, lists=False)
        assert (await w.recording(cls.task_id)).verified
        asked = w.questions()
        (event_id,) = await w.deliver(callback_of(cls, FINISHED))
        await w.settle(lists=False)
        recording = await w.recording(cls.task_id)
        by_id = {event.event_id: event for event in recording.events}
        assert (by_id[event_id].source, by_id[event_id].verified) == ("", True)
        assert recording.verified is True
        assert recording.exception_count == decode_finished(cls).exception_count
        assert w.questions() == asked, "it says what the vendor has already answered"
        assert len(w.transport.published) == 1


async def test_a_finished_callback_is_confirmed_by_one_question_and_nothing_is_published(world: AWorld) -> None:
    cls = a_class()
    async with world(cls) as w:
        await w.pass_by(3600, step_s=3600, lists=False)
        ids = await w.deliver(*(callback_of(cls, one) for one in (STARTED, STOPPED, FINISHED)))
        assert (await w.recording(cls.task_id)).verified is None
        await w.settle(lists=False)
        recording = await w.recording(cls.task_id)
        assert (recording.verified, recording.found, w.questions()) == (True, (), 1)
        verdict = await find_verdict(w.store, ids[2])
        assert verdict.verified
        assert verdict.answer is not None
        assert w.transport.published == []
        await w.pass_by(86_400, step_s=3600, lists=False)
        assert w.questions() == 1


async def test_a_forged_end_is_contradicted_marked_and_loses_to_the_vendors_answer(world: AWorld) -> None:
    cls = a_class()
    async with world(cls) as w:
        await w.pass_by(3600, step_s=3600, lists=False)
        real = callback_of(cls, FINISHED)
        videos = [{"VideoId": "x", "VideoUrl": "https://evil.example/x.mp4", "VideoSize": 1}]
        forgery = forged(real, VideoInfos=videos) | {"Timestamp": real.timestamp + 3600}
        (forged_id,) = await w.deliver(forgery)
        assert (await w.recording(cls.task_id)).videos[0].video_url == "https://evil.example/x.mp4"
        with structlog.testing.capture_logs() as logs:
            await w.settle(lists=False)
        recording = await w.recording(cls.task_id)
        assert (recording.status, recording.verified) == ("FINISHED", True)
        assert "evil" not in str(recording.videos)
        marked = {event.event_id: event.verified for event in recording.events}
        assert marked[forged_id] is False
        assert (await find_verdict(w.store, forged_id)).verified is False
        (told,) = [log for log in logs if log["event"] == "event_contradicted"]
        assert (told["event_id"], told["differs_in"], told["log_level"]) == (forged_id, ["VideoInfos"], "error")
        assert "evil" not in str(logs)
        # The real one, in any order, changes nothing but whose event it is.
        w.clock.pass_by(1)
        await w.deliver(real, forgery)
        await w.settle(lists=False)
        recording = await w.recording(cls.task_id)
        assert "evil" not in str(recording.videos)
        assert recording.verified is True


async def test_a_forged_end_of_a_recording_that_goes_on_is_doubted_for_a_quarter_of_an_hour(world: AWorld) -> None:
    cls = a_class(length_s=7200)
    async with world(cls) as w:
        await w.pass_by(120, lists=False)
        await w.deliver(callback_of(cls, STARTED))
        (forged_id,) = await w.deliver(forged(callback_of(cls, FINISHED), VideoInfos=[]))
        await w.pass_by(600, lists=False)
        recording = await w.recording(cls.task_id)
        assert (recording.status, recording.verified) == ("FINISHED", None)
        assert 3 <= w.questions() <= 8
        await w.pass_by(600, lists=False)
        recording = await w.recording(cls.task_id)
        assert (recording.status, recording.verified) == ("RECORDING", None)
        assert (await find_verdict(w.store, forged_id)).verified is False


async def test_a_true_end_that_the_vendor_denies_for_long_is_confirmed_once_it_says_so(world: AWorld) -> None:
    cls = a_class()
    async with world(cls) as w:
        await w.pass_by(120, lists=False)
        # Sent an hour before the vendor's API knows of it.
        ids = await w.deliver(*(callback_of(cls, one) for one in (STARTED, STOPPED, FINISHED)))
        await w.pass_by(1200, lists=False)
        assert (await w.recording(cls.task_id)).status == "STOPPED"
        await w.pass_by(3600, step_s=120, lists=False)
        recording = await w.recording(cls.task_id)
        assert (recording.status, recording.verified) == ("FINISHED", True)
        assert (await find_verdict(w.store, ids[2])).verified is True
        assert w.transport.types() == []


async def test_a_failed_recording_is_a_final_answer_and_its_callback_wins(world: AWorld) -> None:
    cls = a_class(ClassKind.FAILED)
    async with world(cls) as w:
        await w.deliver(callback_of(cls, STARTED))
        await w.pass_by(86_400 + 3600, step_s=3600, lists=False)
        recording = await w.recording(cls.task_id)
        assert (recording.status, recording.verified, w.questions()) == ("FINISHED", True, 1)
        assert recording.error is not None
        assert recording.error.code == "FailedOperation.Record"
        assert recording.room_id == cls.room_id
        (event_id,) = await w.deliver(callback_of(cls, FINISHED))
        await w.settle(lists=False)
        recording = await w.recording(cls.task_id)
        assert {event.event_id: event.verified for event in recording.events}[event_id] is True
        assert recording.exception_count == 0, "as only the callback says"


async def test_a_recording_that_the_vendor_does_not_know_is_asked_three_times_and_then_let_be(world: AWorld) -> None:
    stranger = a_class(seed=9)
    async with world() as w:
        await w.deliver(callback_of(stranger, STARTED), callback_of(stranger, STOPPED))
        with structlog.testing.capture_logs() as logs:
            await w.pass_by(86_400, step_s=450, lists=False)
        assert w.questions() == 3
        assert [log["event"] for log in logs if log["log_level"] != "info"] == ["recording_not_found"]
        assert (await w.recording(stranger.task_id)).status == "STOPPED", "nothing is deleted for it"


async def test_an_invented_recording_is_contradicted(world: AWorld) -> None:
    stranger = a_class(seed=9)
    async with world() as w:
        (event_id,) = await w.deliver(callback_of(stranger, FINISHED))
        await w.pass_by(600, lists=False)
        assert (await find_verdict(w.store, event_id)).verified is False
        assert (await w.recording(stranger.task_id)).verified is False


async def test_what_the_vendor_has_forgotten_proves_nothing(world: AWorld) -> None:
    cls = a_class()
    async with world(cls, forgets_after_s=3600.0) as w:
        await w.pass_by(3600, step_s=3600, lists=False)
        (event_id,) = await w.deliver(callback_of(cls, FINISHED))
        # Nobody asked for a day and a half.
        w.clock.pass_by(1.5 * 86_400)
        await w.pass_by(3600, step_s=300, lists=False)
        assert (await find_verdict(w.store, event_id)).verified is None
        assert (await w.recording(cls.task_id)).status == "FINISHED"


async def test_a_paused_recording_is_asked_about_a_minute_after_it_was_to_be_stopped(world: AWorld) -> None:
    cls = a_class(ClassKind.LONG_PAUSE_FORCE_STOPPED)
    warning = callback_of(cls, "OnlineRecordLongPauseWarning")
    async with world(cls) as w:
        w.clock.now_s = warning.timestamp + 5
        await w.deliver(callback_of(cls, STARTED), warning)
        estimate = (await w.recording(cls.task_id)).estimate_stop_time
        assert estimate is not None
        await w.pass_by(estimate + 30 - w.clock.now_s, step_s=300, lists=False)
        assert w.questions() == 0
        await w.pass_by(60, lists=False)
        assert w.questions() == 1
        await w.pass_by(2 * 3600, step_s=60, lists=False)
        recording = await w.recording(cls.task_id)
        assert (recording.status, recording.verified) == ("FINISHED", True)


async def test_after_an_outage_of_ours_all_that_is_unfinished_is_asked_about_however_old(world: AWorld) -> None:
    cls = a_class()
    async with world(cls) as w:
        await w.deliver(callback_of(cls, STARTED))
        w.clock.pass_by(20 * 86_400)
        await w.settle(lists=False)
        assert (await w.recording(cls.task_id)).status == "FINISHED"


@pytest.mark.parametrize("is_published", [True, False])
async def test_a_crash_between_the_steps_repeats_them_with_the_same_event(
    world: AWorld, monkeypatch: pytest.MonkeyPatch, is_published: bool
) -> None:
    cls = a_class()
    async with world(cls) as w:
        await w.deliver(callback_of(cls, STOPPED))
        w.clock.pass_by(7200)
        if is_published:
            # It dies before it can say that it is done.
            with monkeypatch.context() as patched:
                patched.setattr("reconcile.asking.finish_question", _die)
                await w.settle(lists=False)
        else:
            w.transport.is_away = True
            await w.settle(lists=False)
            w.transport.is_away = False
        assert (await w.recording(cls.task_id)).status == "FINISHED", "it is stored first"
        await w.pass_by(1800, step_s=300, lists=False)
        assert w.questions() == 2
        ids = {message.event_id for message in w.transport.published}
        assert len(ids) == 1
        assert len(w.transport.published) == 1 + is_published
        assert len((await w.recording(cls.task_id)).found) == 1
        question = await find_question(w.store, APP, cls.task_id)
        assert question is not None
        assert question.state == "done"


async def test_a_verdict_never_comes_without_the_answer_that_it_follows_from(
    world: AWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    true, invented = a_class(), a_class(seed=2)
    async with world(true, invented) as w:
        await w.pass_by(3600, step_s=3600, lists=False)
        (true_id,) = await w.deliver(callback_of(true, FINISHED))
        (forged_id,) = await w.deliver(forged(callback_of(invented, FINISHED), VideoInfos=[]))
        monkeypatch.setattr("reconcile.asking.finish_question", _die)
        await w.settle(lists=False)
        for event_id, expected in ((true_id, True), (forged_id, False)):
            verdict = await find_verdict(w.store, event_id)
            assert verdict.verified is expected
            assert verdict.answer is not None


async def _die(*_: object, **__: object) -> None:
    raise RuntimeError("killed")


async def test_nothing_learned_is_asked_again_soon_and_then_less_often(world: AWorld) -> None:
    cls = a_class()
    faults = ApiFaults(failures=["nulls"], share=1.0)
    async with world(cls, faults=faults) as w:
        await w.deliver(callback_of(cls, STOPPED))
        w.clock.pass_by(7200)
        with structlog.testing.capture_logs() as logs:
            await w.pass_by(2000, step_s=5, lists=False)
        gaps = [log["again_in_s"] for log in logs if log["event"] == "question_unanswered"]
        assert gaps == [5, 10, 20, 40, 80, 160, 320, 640, ASK_AFTER_S]
        assert (await w.recording(cls.task_id)).status == "STOPPED"


def test_gaps_grow_with_what_was_waited_for_and_stay_within_bounds() -> None:
    assert [stopped_gap_s(waited, ask_after_s=900) for waited in (0, 60, 900, 1800, 5000, 10**6)] == [
        *(900, 900, 900, 1800, 5000, 7200)
    ]
    assert running_gap_s(60, ask_after_s=900, is_listed=False) == 900
    assert running_gap_s(86_400, ask_after_s=900, is_listed=False) == 1800
    assert running_gap_s(86_400, ask_after_s=900, is_listed=True) == 7200
