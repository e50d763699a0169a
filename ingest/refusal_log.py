"""Refusals in the log: enough to see what is wrong, never so many that a flood of requests becomes one of lines."""

import asyncio

import structlog

from ingest.refusals import Refusal

#: At most one line per reason in this time; the lines say how many refusals they stand for.
INTERVAL_S = 1.0


class RefusalLog:
    """Logs `callback_refused` and counts what it holds back, until it is closed."""

    def __init__(self) -> None:
        self._log = structlog.get_logger()
        self._held_back: dict[Refusal, int] = {}
        self._timers: dict[Refusal, asyncio.TimerHandle] = {}

    def note(self, refusal: Refusal, *, sdk_app_id: int | None) -> None:
        """Log a refusal now, or count it for the next line of its reason. Needs a running event loop."""
        if refusal in self._timers:
            self._held_back[refusal] = self._held_back.get(refusal, 0) + 1
        else:
            self._write(refusal, sdk_app_id=sdk_app_id, count=1)

    def close(self) -> None:
        """Write what is held back."""
        for timer in self._timers.values():
            timer.cancel()
        for refusal, count in self._held_back.items():
            self._line(refusal, count=count)
        self._timers.clear()
        self._held_back.clear()

    def _write(self, refusal: Refusal, *, sdk_app_id: int | None, count: int) -> None:
        self._line(refusal, sdk_app_id=sdk_app_id, count=count)
        self._timers[refusal] = asyncio.get_running_loop().call_later(INTERVAL_S, self._interval_passed, refusal)

    def _interval_passed(self, refusal: Refusal) -> None:
        del self._timers[refusal]
        count = self._held_back.pop(refusal, 0)
        if count:
            self._write(refusal, sdk_app_id=None, count=count)

    def _line(self, refusal: Refusal, *, count: int, sdk_app_id: int | None = None) -> None:
        app = {} if sdk_app_id is None else {"sdk_app_id": sdk_app_id}
        self._log.warning("callback_refused", reason=refusal.label, status=refusal.status, count=count, **app)
