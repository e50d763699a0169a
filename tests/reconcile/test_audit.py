"""The nightly audit: rooms on the vendor's bill of which nothing is known."""

from datetime import date

import structlog

from reconcile.audit import days_to_audit
from store import find_reconciled_apps, find_unaccounted
from tests.reconcile.world import APP, MORNING_S, AWorld, a_class, callback_of

DAY_S = 86_400


def china_time(day: int, hour: int, minute: int = 0) -> float:
    """Return a time of January 2026 in China, in Unix seconds; `MORNING_S` is 09:00 on the 5th."""
    return MORNING_S + (day - 5) * DAY_S + (hour - 9) * 3600 + minute * 60


async def test_every_room_is_named_of_which_no_callback_list_or_registration_told(world: AWorld) -> None:
    known, *lost = (a_class(seed=seed) for seed in range(1, 6))
    async with world(known, *lost) as w:
        await w.pass_by(4 * 3600, step_s=4 * 3600, lists=False)
        await w.deliver(*known.callbacks)
        w.clock.now_s = china_time(6, 7, 10)
        with structlog.testing.capture_logs() as logs:
            assert await w.audit.audit_due(APP)
        told = [log for log in logs if log["event"] == "room_unaccounted_for"]
        assert {log["room_id"] for log in told} == {cls.room_id for cls in lost}
        assert {(log["day"], log["minutes"], log["log_level"]) for log in told} == {("2026-01-05", 30, "error")}
        assert {room.room_id for room in await find_unaccounted(w.store)} == {cls.room_id for cls in lost}

        with structlog.testing.capture_logs() as logs:
            assert await w.audit.audit_due(APP)
        assert logs == [], "each is told once"
        # What becomes known later is accounted for.
        await w.deliver(callback_of(lost[0], "OnlineRecordFinished"))
        assert {room.room_id for room in await find_unaccounted(w.store)} == {cls.room_id for cls in lost[1:]}
        assert await find_unaccounted(w.store, since=date(2026, 1, 6)) == []


async def test_a_day_is_audited_once_its_bill_is_there_and_none_is_left_out(world: AWorld) -> None:
    classes = [a_class(seed=day, started_at=int(china_time(day, 10))) for day in (5, 6, 8)]
    async with world(*classes) as w:
        w.clock.now_s = china_time(6, 6, 30)
        assert await w.audit.audit_due(APP)
        assert (await find_reconciled_apps(w.store))[APP].audited_day == "2026-01-04"
        # Nobody audits until the ninth.
        w.clock.now_s = china_time(9, 8)
        assert await w.audit.audit_due(APP)
        assert (await find_reconciled_apps(w.store))[APP].audited_day == "2026-01-08"
        found = [(room.day, room.room_id) for room in await find_unaccounted(w.store)]
        assert found == [("2026-01-08", 1008), ("2026-01-06", 1006), ("2026-01-05", 1005)]


async def test_an_audit_that_fails_is_tried_again_and_keeps_its_place(world: AWorld) -> None:
    cls = a_class()
    async with world(cls) as w:
        w.clock.now_s = china_time(6, 8)
        w.api.faults.fail_next("http 500")
        with structlog.testing.capture_logs() as logs:
            assert not await w.audit.audit_due(APP)
            assert not await w.audit.audit_due(APP), "not at once"
        assert [log["event"] for log in logs] == ["audit_failed"]
        w.clock.pass_by(700)
        assert await w.audit.audit_due(APP)
        assert len(await find_unaccounted(w.store)) == 1


async def test_a_recording_over_midnight_accounts_for_both_days(world: AWorld) -> None:
    cls = a_class(started_at=int(china_time(5, 23, 45)))
    async with world(cls) as w:
        w.clock.now_s = china_time(6, 1)
        await w.deliver(*cls.callbacks)
        for day in (6, 7):
            w.clock.now_s = china_time(day, 8)
            assert await w.audit.audit_due(APP)
        assert await find_unaccounted(w.store) == []


def test_at_most_a_month_is_audited_and_at_first_yesterday_alone() -> None:
    at = china_time(6, 7, 10)
    assert [*days_to_audit(None, now_s=at)] == [date(2026, 1, 5)]
    assert [*days_to_audit(None, now_s=china_time(6, 6, 59))] == [date(2026, 1, 4)]
    assert [*days_to_audit("2026-01-05", now_s=at)] == []
    assert [*days_to_audit("2026-01-03", now_s=at)] == [date(2026, 1, 4), date(2026, 1, 5)]
    days = [*days_to_audit("2025-01-01", now_s=at)]
    assert (len(days), days[0], days[-1]) == (31, date(2025, 12, 6), date(2026, 1, 5))
