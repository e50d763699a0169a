"""The nightly audit: which rooms the vendor recorded, by its bill, and of which of them nothing is known.

It finds what nothing else can: that recordings were lost of which no callback, list or registration told. Minutes of a
day can be had from 07:00 of the next: https://cloud.tencent.com/document/product/1137/40049
(`DescribeTIWRoomDailyUsage`).
"""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Final

import structlog

from reconcile.pauses import Pauses
from store import (
    Store,
    UnaccountedRoom,
    find_reconciled_apps,
    keep_unaccounted,
    known_rooms,
    mark_audited,
    reserve,
)
from telemetry import metrics
from vendor_api import AppPaused, ClockOff, VendorClient, VendorError

#: At most; older files are gone, and the vendor tells of 31 days at a time.
MAX_DAYS: Final = 31

#: When the bill of a day is there, and a little more.
_BILLED_AFTER: Final = timedelta(days=1, hours=7, minutes=5)

_CHINA: Final = timezone(timedelta(hours=8))

#: How often an audit that could not be finished is tried again, by all processes together.
_AGAIN_S = 600.0

_log = structlog.get_logger()


class Audit:
    """Audits the days that were not audited yet, once for all processes. `now_s` is the time in Unix seconds."""

    def __init__(
        self, store: Store, vendor: VendorClient, pauses: Pauses, *, now_s: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._vendor = vendor
        self._pauses = pauses
        self._now_s = now_s

    async def audit_due(self, sdk_app_id: int) -> bool:
        """Audit the days of an application that can be and were not; say whether none is left. Raises `StoreError`."""
        app = (await find_reconciled_apps(self._store)).get(sdk_app_id)
        days = [*days_to_audit(None if app is None else app.audited_day, now_s=self._now_s())]
        if not days:
            return True
        turn_s = await reserve(self._store, f"audit of {sdk_app_id}", every_s=_AGAIN_S, burst=1, at_most_wait_s=0.0)
        if turn_s is None:
            # Another process is at it, or it failed lately.
            return False
        for day in days:
            try:
                await self._audit(sdk_app_id, day)
            except VendorError as error:
                if isinstance(error.refusal, ClockOff):
                    await self._pauses.refused(sdk_app_id, error.refusal)
                is_refused = isinstance(error.refusal, AppPaused)
                _log.warning(
                    "audit_failed",
                    sdk_app_id=sdk_app_id,
                    day=day.isoformat(),
                    reason=str(error),
                    advice="allow DescribeTIWRoomDailyUsage, see docs/recordings.md" if is_refused else None,
                )
                return False
        return True

    async def _audit(self, sdk_app_id: int, day: date) -> None:
        usages = await self._vendor.daily_usage(sdk_app_id, day)
        known = await known_rooms(self._store, sdk_app_id, day)
        unknown = [
            UnaccountedRoom(sdk_app_id=sdk_app_id, day=day.isoformat(), room_id=usage.room_id, minutes=usage.minutes)
            for usage in usages
            if usage.room_id not in known
        ]
        for room in await keep_unaccounted(self._store, unknown):
            metrics.ROOMS_UNACCOUNTED.inc()
            _log.error(
                "room_unaccounted_for",
                sdk_app_id=room.sdk_app_id,
                day=room.day,
                room_id=room.room_id,
                minutes=room.minutes,
                consequence="nothing is known of what was recorded there; files are deleted after 3 days",
                advice="find the TaskId where it was started, and run `tiw register TASK_ID --app ID`",
            )
        if await mark_audited(self._store, sdk_app_id, day.isoformat()):
            counts = {"rooms": len(usages), "unknown": len(unknown)}
            _log.info("day_audited", sdk_app_id=sdk_app_id, day=day.isoformat(), **counts)


def days_to_audit(audited_day: str | None, *, now_s: float) -> Iterator[date]:
    """Yield the days of China's that can be audited now and come after `audited_day`; without one, the last alone.

    The earliest first, at most the last `MAX_DAYS`.
    """
    last = (datetime.fromtimestamp(now_s, UTC).astimezone(_CHINA) - _BILLED_AFTER).date()
    first = last if audited_day is None else date.fromisoformat(audited_day) + timedelta(days=1)
    day = max(first, last - timedelta(days=MAX_DAYS - 1))
    while day <= last:
        yield day
        day += timedelta(days=1)
