"""A school's day of which every callback is lost: what is found all the same, how late, and what it costs.

Here the test owns the clock; the scenario `lost-callbacks` of `./dev chaos` does it with processes and 200 classes.
"""

from collections.abc import Callable, Coroutine
from datetime import date
from random import Random

from reconcile import Registration, register
from schemas import OnlineRecordFinished, decode
from simulator import ClassKind, SimulatedClass, make_class, render
from store import find_reconciled_apps, find_recordings, find_unaccounted, list_recordings
from tests.reconcile.world import APP, ASK_AFTER_S, MORNING_S, AWorld, World, callback_of

#: Files come of all of them.
KINDS = (ClassKind.NORMAL, ClassKind.SEVERAL_STREAMS)

#: Classes begin within so long, and last no longer than that: as fast as a test can let them pass.
DAY_S = 3600
LONGEST_S = 1500


def school_day(count: int) -> list[SimulatedClass]:
    rng = Random(2026)
    return [
        make_class(
            KINDS[number % len(KINDS)],
            rng,
            sdk_app_id=APP,
            room_id=50_000 + number,
            started_at=MORNING_S + 60 + rng.randrange(DAY_S),
            length_s=rng.randrange(600, LONGEST_S),
        )
        for number in range(count)
    ]


async def hold(
    world: World,
    *,
    lists: bool,
    step_s: float,
    meanwhile: Callable[[], Coroutine[None, None, None]] | None = None,
) -> None:
    """Let the day pass."""
    while world.clock.now_s < MORNING_S + DAY_S + LONGEST_S + 3 * ASK_AFTER_S:
        world.clock.pass_by(step_s)
        if meanwhile is not None:
            await meanwhile()
        await world.settle(lists=lists)


async def lateness(world: World, classes: list[SimulatedClass]) -> tuple[list[int], list[int]]:
    """Return how late the start of each was known, and its end; fail if one is not as the vendor says."""
    starts: list[int] = []
    ends: list[int] = []
    for cls in classes:
        (recording,) = await find_recordings(world.store, cls.task_id)
        event = decode(render(callback_of(cls, "OnlineRecordFinished")), received_at_us=0).event
        assert isinstance(event, OnlineRecordFinished)
        assert (recording.status, recording.verified) == ("FINISHED", True)
        assert [one.video_url for one in recording.videos] == [one.video_url for one in event.video_infos]
        assert recording.total_time_ms == event.total_time_ms
        starts += [one.late_s for one in recording.found if one.event_type == "OnlineRecordStarted"]
        ends += [one.late_s for one in recording.found if one.event_type == "OnlineRecordFinished"]
    assert len(starts) == len(ends) == len(classes)
    return starts, ends


async def test_in_china_every_recording_is_known_within_two_minutes_and_to_its_end(world: AWorld) -> None:
    classes = school_day(60)
    async with world(*classes) as w:
        await hold(w, lists=True, step_s=61)
        starts, ends = await lateness(w, classes)
        assert max(starts) <= 120
        assert max(ends) <= 2 * ASK_AFTER_S
        # A list a minute, and three or four questions a recording.
        assert len(w.api.requests.of("DescribeRunningTasks")) <= (w.clock.now_s - MORNING_S) / 60
        assert w.questions() <= 4 * 60


async def test_where_nothing_is_listed_registered_recordings_are_known_as_soon_and_to_their_end(world: AWorld) -> None:
    classes = school_day(60)
    waiting = sorted(classes, key=lambda cls: cls.created_at)
    async with world(*classes, site="international") as w:

        async def start_classes() -> None:
            while waiting and waiting[0].created_at <= w.clock.now_s:
                cls = waiting.pop(0)
                await register(w.store, Registration(sdk_app_id=APP, task_id=cls.task_id))

        await hold(w, lists=False, step_s=30, meanwhile=start_classes)
        starts, ends = await lateness(w, classes)
        assert max(starts) <= 120
        assert max(ends) <= 3 * ASK_AFTER_S
        assert {request.action for request in w.api.requests.all} == {"DescribeOnlineRecord"}


async def test_with_neither_the_audit_names_every_room(world: AWorld) -> None:
    classes = school_day(200)
    async with world(*classes) as w:
        # 07:10 of the next day.
        w.clock.pass_by(22 * 3600 + 600)
        assert await w.audit.audit_due(APP)
        assert await list_recordings(w.store) == []
        rooms = await find_unaccounted(w.store, since=date(2026, 1, 5))
        assert {room.room_id for room in rooms} == {cls.room_id for cls in classes}
        assert all(10 <= room.minutes <= LONGEST_S / 60 for room in rooms)
        assert (await find_reconciled_apps(w.store))[APP].audited_day == "2026-01-05"
