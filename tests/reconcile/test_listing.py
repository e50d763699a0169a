"""What the vendor's lists tell: recordings of which every callback was lost, and those that run no more."""

import pytest
import structlog

from simulator import ApiFaults, ClassKind
from store import find_question, find_reconciled_apps
from tests.reconcile.world import APP, AWorld, a_class, callback_of

STARTED, STOPPED, FINISHED = "OnlineRecordStarted", "OnlineRecordStopped", "OnlineRecordFinished"


async def test_a_recording_that_no_callback_told_of_is_known_within_two_minutes_and_followed_to_its_end(
    world: AWorld,
) -> None:
    cls = a_class()
    async with world(cls) as w:
        with structlog.testing.capture_logs() as logs:
            await w.pass_by(cls.created_at + 110 - w.clock.now_s, step_s=5)
        recording = await w.recording(cls.task_id)
        (event,) = recording.events
        assert (recording.status, recording.room_id) == ("RECORDING", cls.room_id)
        assert (event.event_type, event.source, event.timestamp) == (STARTED, "reconcile", cls.created_at)
        assert recording.found[0].by == "DescribeRunningTasks"
        assert recording.found[0].late_s <= 110
        (told,) = [log for log in logs if log["event"] == "recording_found"]
        assert (told["by"], told["event_type"]) == ("DescribeRunningTasks", STARTED)
        assert w.questions() == 0

        await w.pass_by(3600, step_s=30)
        recording = await w.recording(cls.task_id)
        assert (recording.status, recording.verified) == ("FINISHED", True)
        assert [found.event_type for found in recording.found] == [STARTED, FINISHED]
        assert w.transport.types() == [STARTED, FINISHED]
        assert all(message.source == "reconcile" for message in w.transport.published)


async def test_a_recording_whose_callback_may_be_on_its_way_is_left_to_it(world: AWorld) -> None:
    cls = a_class()
    async with world(cls) as w:
        w.clock.now_s = cls.created_at + 25.0
        await w.settle()
        assert await w.statuses() == {}
        await w.deliver(callback_of(cls, STARTED))
        await w.pass_by(300)
        assert [event.source for event in (await w.recording(cls.task_id)).events] == [""]
        assert w.transport.published == []


async def test_what_is_listed_no_more_is_asked_about_and_nothing_is_concluded_from_its_absence(world: AWorld) -> None:
    cls = a_class(length_s=7200)
    async with world(cls) as w:
        w.clock.now_s = cls.created_at + 60.0
        await w.deliver(callback_of(cls, STARTED))
        await w.settle()
        before = (await w.recording(cls.task_id)).events
        # The vendor's list lacks it once, for whatever reason.
        lost, w.api.vendor._timelines = w.api.vendor._timelines, {}
        await w.pass_by(90, step_s=30)
        w.api.vendor._timelines = lost
        await w.pass_by(120, step_s=30)
        assert 1 <= w.questions() <= 2
        assert await w.statuses() == {cls.task_id: "RECORDING"}
        recording = await w.recording(cls.task_id)
        assert (recording.status, recording.events) == ("RECORDING", before)
        asked = w.questions()
        await w.pass_by(3600, step_s=60)
        assert w.questions() <= asked + 4


async def test_the_end_of_a_listed_recording_is_asked_about_within_the_next_minute(world: AWorld) -> None:
    cls = a_class()
    async with world(cls) as w:
        w.clock.now_s = cls.created_at + 60.0
        await w.deliver(callback_of(cls, STARTED))
        stopped_at = callback_of(cls, STOPPED).timestamp
        await w.pass_by(stopped_at - 1 - w.clock.now_s, step_s=60)
        assert w.questions() == 0
        await w.pass_by(90, step_s=5)
        assert w.questions() >= 1
        question = await find_question(w.store, APP, cls.task_id)
        assert question is not None
        assert question.why == "it is no longer listed as running"


@pytest.mark.parametrize("lists_stopped", [True, False])
async def test_it_does_not_matter_whether_stopped_recordings_are_listed(world: AWorld, lists_stopped: bool) -> None:
    classes = [a_class(seed=seed) for seed in (1, 2, 3)]
    async with world(*classes, lists_stopped=lists_stopped) as w:
        await w.pass_by(2 * 3600, step_s=60)
        assert set((await w.statuses()).values()) == {"FINISHED"}
        assert len(await w.statuses()) == 3


async def test_the_international_site_is_searched_by_rooms_in_use_and_by_known_ones(world: AWorld) -> None:
    first, second = a_class(seed=1), a_class(seed=2)
    async with world(first, second, site="international") as w:
        await w.pass_by(first.created_at + 110 - w.clock.now_s, step_s=5)
        assert {*(await w.statuses()).values()} == {"RECORDING"}
        assert (await w.recording(first.task_id)).found[0].by == "DescribeRecordSearch"
        await w.pass_by(3600)
        for cls in (first, second):
            recording = await w.recording(cls.task_id)
            assert (recording.status, recording.verified) == ("FINISHED", True)
        assert (await find_reconciled_apps(w.store))[APP].listed_ago_s is not None
        # The search says for a long time that they have ended: that is asked about once.
        asked = w.questions()
        await w.pass_by(3600)
        assert w.questions() == asked


async def test_the_search_finds_what_failed_before_anything_could_list_it(world: AWorld) -> None:
    failed = a_class(ClassKind.FAILED, seed=5)
    async with world(failed, site="international") as w:
        await w.pass_by(1800, step_s=60)
        recording = await w.recording(failed.task_id)
        assert recording.error is not None


async def test_one_room_that_cannot_be_searched_keeps_no_other_from_it(world: AWorld) -> None:
    first, second = a_class(seed=1), a_class(seed=2)

    def refuse(request: object) -> str | None:
        is_first = getattr(request, "params", {}).get("RoomId") == first.room_id
        return "InternalError" if is_first else None

    async with world(first, second, site="international", faults=ApiFaults(rules=[refuse])) as w:
        with structlog.testing.capture_logs() as logs:
            await w.pass_by(300)
        assert [*await w.statuses()] == [second.task_id]
        (told,) = [log for log in logs if log["event"] == "listing_failed"]
        assert "InternalError" in told["reason"]


async def test_a_list_that_cannot_be_had_is_asked_for_again_at_once(world: AWorld) -> None:
    cls = a_class()
    async with world(cls) as w:
        w.clock.now_s = cls.created_at + 60.0
        w.api.faults.fail_next("http 502", 2)
        await w.settle()
        assert [*await w.statuses()] == [cls.task_id]
        w.api.faults.fail_next("nulls", 3)
        w.clock.pass_by(61)
        with structlog.testing.capture_logs() as logs:
            await w.settle()
        assert [log["event"] for log in logs if log["log_level"] == "warning"] == ["listing_failed"]
        assert w.questions() == 0, "no list is not an empty list"


async def test_credentials_that_are_revoked_pause_the_application_with_one_warning_until_they_are_given_back(
    world: AWorld,
) -> None:
    classes = [a_class(seed=seed) for seed in (1, 2, 3)]
    async with world(*classes) as w:
        w.clock.now_s = classes[0].created_at + 60.0
        await w.settle()
        w.api.faults.is_revoked = True
        before = len(w.api.requests.all)
        with structlog.testing.capture_logs() as logs:
            await w.pass_by(3 * 3600, step_s=60)
        warnings = [log for log in logs if log["log_level"] in ("warning", "error")]
        assert [log["event"] for log in warnings] == ["application_paused"]
        assert "TIW_VENDOR_SECRET_ID" in warnings[0]["reason"]
        # After 1, 2, 4, ... minutes, at most an hour; a few at a time.
        assert len(w.api.requests.all) - before < 30
        app = (await find_reconciled_apps(w.store))[APP]
        assert app.pause_reason is not None
        assert app.paused_for_s <= 3600

        w.api.faults.is_revoked = False
        with structlog.testing.capture_logs() as logs:
            await w.pass_by(2 * 3600, step_s=120)
        assert [log["event"] for log in logs if log["event"].startswith("application")] == ["application_resumed"]
        assert set((await w.statuses()).values()) == {"FINISHED"}
        assert (await find_reconciled_apps(w.store))[APP].pause_reason is None


async def test_one_application_in_arrears_keeps_no_other_from_being_reconciled(world: AWorld) -> None:
    cls = a_class()
    other = 1400000002
    async with world(cls) as w:
        w.api.vendor.applications[other] = w.api.vendor.applications[APP]
        w.api.faults.in_arrears.add(other)
        w.apps = frozenset({APP, other})
        await w.pass_by(2 * 3600, step_s=60)
        assert (await w.recording(cls.task_id)).status == "FINISHED"
        apps = await find_reconciled_apps(w.store)
        assert (apps[APP].pause_reason, apps[other].pause_reason is None) == (None, False)


async def test_a_list_that_is_not_permitted_keeps_known_recordings_from_nothing(world: AWorld) -> None:
    known, unknown = a_class(seed=1), a_class(seed=2)

    def refuse(request: object) -> str | None:
        is_list = getattr(request, "action", "") == "DescribeRunningTasks"
        return "AuthFailure.UnauthorizedOperation" if is_list else None

    async with world(known, unknown, faults=ApiFaults(rules=[refuse])) as w:
        await w.deliver(callback_of(known, STARTED), callback_of(known, STOPPED))
        with structlog.testing.capture_logs() as logs:
            await w.pass_by(4 * 3600, step_s=60)
        assert await w.statuses() == {known.task_id: "FINISHED"}
        assert {log["event"] for log in logs if log["log_level"] == "warning"} == {"listing_failed", "recording_found"}
