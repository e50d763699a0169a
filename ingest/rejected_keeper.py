"""Keeping rejected callbacks while requests flow: off the event loop, a bounded number a second, never in the way.

A flood of forged callbacks costs the same as before, but for a look at a dictionary: what is written is a sample of it.
"""

import asyncio
import random
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import structlog
from prometheus_client import Counter

from ingest.refusals import Refusal
from ingest.rejected import Rejected, is_mendable
from ingest.rejected_file import RejectedFileError, keep_rejected
from telemetry import metrics

#: What was refused meanwhile is written together.
WRITE_INTERVAL_S = 1.0

#: Of more in that time, a sample is kept: of applications that are configured, and of those that are not.
MAX_WAITING = 50
MAX_WAITING_BYTES = 2 * 1024 * 1024

#: What is too old goes, even if nothing new comes.
SWEEP_INTERVAL_S = 600.0

#: How long an end waits for the last write. A disk that hangs must not hold it up.
CLOSE_TIMEOUT_S = 1.0

#: A disk that refuses is logged this often.
LOG_INTERVAL_S = 60.0

_log = structlog.get_logger()


class RejectedKeeper:
    """Writes what `note` is given into `folder` while it is entered. Nothing it does raises or waits for a disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # All time series from the start.
        self._crowded_out = metrics.REJECTED_NOT_KEPT.labels(reason="crowded")
        self._lost_to_disk = metrics.REJECTED_NOT_KEPT.labels(reason="disk")
        self._samples = {True: Sample(self._crowded_out), False: Sample(self._crowded_out)}
        self._timer: asyncio.TimerHandle | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._writing: asyncio.Future[None] | None = None
        self._logged_at_s = -LOG_INTERVAL_S

    def note(self, body: bytes, refusal: Refusal, *, sdk_app_id: int | None, received_at_us: int) -> None:
        """Keep a callback that was just refused, if another key could let it in. Returns at once."""
        if sdk_app_id is None or not is_mendable(refusal, sdk_app_id, len(body)):
            return
        rejected = Rejected(received_at_us=received_at_us, reason=refusal.label, sdk_app_id=sdk_app_id, body=body)
        # Whoever invents applications is no competition for those that there are.
        self._samples[refusal is not Refusal.UNKNOWN_APP].add(rejected)
        if self._timer is None and self._writing is None:
            self._timer = asyncio.get_running_loop().call_later(WRITE_INTERVAL_S, self._write)

    async def __aenter__(self) -> Self:
        self._sweep()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for timer in (self._timer, self._sweeper):
            if timer is not None:
                timer.cancel()
        self._sweeper = None
        deadline_s = time.monotonic() + CLOSE_TIMEOUT_S
        if self._writing is not None:
            await asyncio.wait({self._writing}, timeout=CLOSE_TIMEOUT_S)
        if self._writing is None and any(self._samples.values()):
            self._write()
        if self._writing is not None:
            await asyncio.wait({self._writing}, timeout=deadline_s - time.monotonic())

    def _sweep(self) -> None:
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_INTERVAL_S, self._sweep)
        if self._timer is None and self._writing is None:
            self._write()

    def _write(self) -> None:
        self._timer = None
        batch = [rejected for sample in self._samples.values() for rejected in sample.take()]
        loop = asyncio.get_running_loop()
        self._writing = loop.create_future()
        # A thread of its own, and one that nobody waits for: those of the pool have callbacks to look at.
        threading.Thread(
            target=_keep, args=(self._folder, batch, loop, self._written), daemon=True, name="rejected"
        ).start()

    def _written(self, count: int, error: RejectedFileError | None) -> None:
        if self._writing is not None:
            self._writing.set_result(None)
            self._writing = None
        if error is None:
            metrics.REJECTED_KEPT.inc(count)
        else:
            self._lost_to_disk.inc(count)
            if time.monotonic() - self._logged_at_s >= LOG_INTERVAL_S:
                self._logged_at_s = time.monotonic()
                _log.error("rejected_not_kept", error=str(error))
        if self._sweeper is not None and any(self._samples.values()):
            self._timer = asyncio.get_running_loop().call_later(WRITE_INTERVAL_S, self._write)


class Sample:
    """What waits to be written: each body once, and of too many each with the same chance to be among them.

    `crowded_out` counts those that are not.
    """

    def __init__(self, crowded_out: Counter) -> None:
        self._crowded_out = crowded_out
        self._waiting: dict[bytes, Rejected] = {}
        self._size_bytes = 0
        self._seen = 0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, rejected: Rejected) -> None:
        """Put one in, and another one out if there is no room for both."""
        before = self._waiting.get(rejected.body)
        if before is not None:
            self._waiting[rejected.body] = Rejected(
                received_at_us=before.received_at_us,
                reason=rejected.reason,
                sdk_app_id=rejected.sdk_app_id,
                body=rejected.body,
                tries=before.tries + 1,
            )
            return
        self._seen += 1
        if len(self._waiting) >= MAX_WAITING:
            place = random.randrange(self._seen)  # noqa: S311 - a sample, no secret
            self._crowded_out.inc()
            if place >= MAX_WAITING:
                return
            self._drop(list(self._waiting)[place])
        self._waiting[rejected.body] = rejected
        self._size_bytes += len(rejected.body)
        while self._size_bytes > MAX_WAITING_BYTES:
            # The largest: a few of them would shut out all others.
            self._drop(max(self._waiting, key=len))
            self._crowded_out.inc()

    def take(self) -> list[Rejected]:
        """Return what waits, and begin anew."""
        taken = list(self._waiting.values())
        self._waiting = {}
        self._size_bytes = self._seen = 0
        return taken

    def _drop(self, body: bytes) -> None:
        del self._waiting[body]
        self._size_bytes -= len(body)


def _keep(
    folder: Path,
    batch: Sequence[Rejected],
    loop: asyncio.AbstractEventLoop,
    written: Callable[[int, RejectedFileError | None], None],
) -> None:
    """Run in the thread."""
    error = None
    try:
        keep_rejected(folder, batch, now_us=time.time_ns() // 1000)
    except RejectedFileError as failure:
        error = failure
    try:
        loop.call_soon_threadsafe(written, len(batch), error)
    except RuntimeError:
        # The loop did not wait for a disk that hung: nobody is left to tell.
        return
