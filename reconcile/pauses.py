"""Applications about which nothing can be asked until a person acts: told once, tried again at growing gaps."""

import time
from collections.abc import Callable, Collection
from typing import Final

import structlog

from store import Store, find_reconciled_apps, pause_app, resume_app
from telemetry import metrics
from vendor_api import AppPaused, ClockOff

#: Until the first try; doubled with each that fails, up to the last.
FIRST_PAUSE_S: Final = 60.0
LAST_PAUSE_S: Final = 3600.0

_log = structlog.get_logger()


class Pauses:
    """The pauses that this process knows of; those of all processes are in the store. `monotonic_s` is its clock."""

    def __init__(self, store: Store, *, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._monotonic_s = monotonic_s
        self._lasting_s: dict[int, float] = {}
        self._over_at_s: dict[int, float] = {}

    async def look(self, apps: Collection[int]) -> frozenset[int]:
        """Return which of `apps` may be asked about now."""
        found = await find_reconciled_apps(self._store)
        paused = {app for app, one in found.items() if one.pause_reason is not None}
        metrics.APPS_PAUSED.set(len(paused & {*apps}))
        # One that another process has paused ends when this one gets an answer, too.
        self._lasting_s = {app: self._lasting_s.get(app, FIRST_PAUSE_S) for app in paused}
        return frozenset(app for app in apps if app not in found or not found[app].paused_for_s)

    async def refused(self, sdk_app_id: int, refusal: AppPaused | ClockOff) -> None:
        """Pause an application. Raises `StoreError`."""
        now_s = self._monotonic_s()
        if now_s < self._over_at_s.get(sdk_app_id, 0.0):
            # Asked before it was paused, or just at the same time.
            return
        before_s = self._lasting_s.get(sdk_app_id)
        for_s = FIRST_PAUSE_S if before_s is None else min(2 * before_s, LAST_PAUSE_S)
        self._lasting_s[sdk_app_id] = for_s
        self._over_at_s[sdk_app_id] = now_s + for_s
        if await pause_app(self._store, sdk_app_id, for_s=for_s, reason=refusal.reason):
            _log.warning(
                "application_paused",
                sdk_app_id=sdk_app_id,
                reason=refusal.reason,
                detail=refusal.detail,
                again_in_s=for_s,
                consequence="lost callbacks of it are not found meanwhile; it goes on by itself",
            )

    async def answered(self, sdk_app_id: int) -> None:
        """End an application's pause, if it has one. Raises `StoreError`."""
        if self._lasting_s.pop(sdk_app_id, None) is None:
            return
        self._over_at_s.pop(sdk_app_id, None)
        if await resume_app(self._store, sdk_app_id):
            _log.info("application_resumed", sdk_app_id=sdk_app_id)
