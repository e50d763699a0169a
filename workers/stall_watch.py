"""Tell who blocks the event loop.

A handler that blocks (a sleep, a large file, `requests`) stops every other handler of its process, and the
connection's heartbeats too: the broker then hands its deliveries to somebody else.
"""

import asyncio
import sys
import threading
import time
from collections.abc import Mapping
from types import CodeType, FrameType
from typing import Self

import structlog

from telemetry import metrics

#: How long the loop may not turn before it is logged.
STALL_S = 1.0

_BEAT_S = 0.25

_log = structlog.get_logger()


class StallWatch:
    """Watches the running loop from a thread, as an async context manager.

    `consumers` maps the code of handlers to their consumer's name, to say whose code the loop is stuck in. A stall
    is logged once when it has lasted `STALL_S`, and once more with its length when it is over.
    """

    def __init__(self, consumers: Mapping[CodeType, str], *, stall_s: float = STALL_S) -> None:
        self._consumers = consumers
        self._stall_s = stall_s
        self._last_beat_s = time.monotonic()
        self._stop = threading.Event()
        self._loop_thread_id = 0
        self._handle: asyncio.TimerHandle | None = None
        self._thread = threading.Thread(target=self._watch, name="tiw-stall-watch", daemon=True)

    async def __aenter__(self) -> Self:
        self._loop_thread_id = threading.get_ident()
        self._beat()
        self._thread.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._stop.set()

    def _beat(self) -> None:
        self._last_beat_s = time.monotonic()
        self._handle = asyncio.get_running_loop().call_later(_BEAT_S, self._beat)

    def _watch(self) -> None:
        stalled: tuple[float, str | None] | None = None
        while not self._stop.wait(_BEAT_S):
            beat_s = self._last_beat_s
            if stalled is None and time.monotonic() - beat_s > self._stall_s:
                consumer, at = self._culprit()
                stalled = (beat_s, consumer)
                metrics.LOOP_STALLS.labels(consumer or "").inc()
                _log.warning("loop_stalled", consumer=consumer, at=at, advice="use a plain def, or await instead")
            elif stalled is not None and beat_s != stalled[0]:
                _log.warning("loop_resumed", consumer=stalled[1], stalled_s=round(beat_s - stalled[0], 1))
                stalled = None

    def _culprit(self) -> tuple[str | None, str | None]:
        """Return the consumer whose code is on the loop's stack, and where the stack ends."""
        frame: FrameType | None = sys._current_frames().get(self._loop_thread_id)  # noqa: SLF001 - public by its docs
        at = None if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"
        while frame is not None:
            name = self._consumers.get(frame.f_code)
            if name is not None:
                return name, at
            frame = frame.f_back
        return None, at
