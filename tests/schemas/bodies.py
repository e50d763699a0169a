"""Callbacks to decode."""

import json
from pathlib import Path
from typing import Any

from schemas import Decoded, decode

SAMPLES = Path(__file__).resolve().parent.parent / "samples"

#: Long after every Timestamp here.
RECEIVED_AT_US = 1_800_000_000_000_000


def sample(name: str) -> bytes:
    return (SAMPLES / name).read_bytes()


def decoded(body: bytes) -> Decoded:
    return decode(body, received_at_us=RECEIVED_AT_US)


def callback(event_type: str = "OnlineRecordFinished", /, **event_data: Any) -> bytes:
    """Return a callback of `event_type` with this EventData beside its TaskId."""
    return envelope(EventType=event_type, EventData={"TaskId": "task", **event_data})


def envelope(**members: Any) -> bytes:
    """Return a callback with these members beside the usual ones; `...` takes one out."""
    whole = {
        "EventType": "OnlineRecordStarted",
        "Timestamp": 1575545412,
        "SdkAppId": 1400000001,
        "EventData": {"TaskId": "task"},
        **members,
    }
    return json.dumps({name: value for name, value in whole.items() if value is not ...}).encode()
