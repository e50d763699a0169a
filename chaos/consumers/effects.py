"""A consumer of everything whose effect outside the store is one line in a file, durable before it returns."""

import hashlib
import json
import os
import time

from schemas import RecordingEvent, Unrecognized
from workers import Context, consumer

#: `OTHER_APP` of chaos/machine/deployment.py: its events are in no ledger.
_OTHER_APP = 1400000002


@consumer
def effects(event: RecordingEvent | Unrecognized, ctx: Context) -> None:
    """Write down that, and with which content, it was called: an `Effect` of chaos/evidence.py."""
    if event.sdk_app_id == _OTHER_APP:
        return
    began_us, began_wall_us = time.monotonic_ns() // 1000, time.time_ns() // 1000
    effect = {
        "consumer": "effects",
        "event_id": ctx.event_id,
        "sha256": hashlib.sha256(ctx.body).hexdigest(),
        "attempt": ctx.attempt,
        "pid": os.getpid(),
        "began_us": began_us,
        "began_wall_us": began_wall_us,
    }
    # Named by the harness; append-only, so that two processes share it.
    file = os.open(os.environ["CHAOS_EFFECTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, json.dumps(effect).encode() + b"\n")
        os.fsync(file)
    finally:
        os.close(file)
