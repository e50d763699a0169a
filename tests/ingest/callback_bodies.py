"""Callbacks as the vendor sends them, signed with the key of the tests."""

import json
import time
from pathlib import Path
from typing import Any

from ingest import sign

SDK_APP_ID = 1400000001
KEY = "a key that only the tests use"
KEYS = {SDK_APP_ID: (KEY,)}
SAMPLES = sorted((Path(__file__).parent.parent / "samples").glob("*.json"))

_PRINTED_SIGN = b"a2dabb362a9b811c0e26953a6276a41c"
_PRINTED_EXPIRE_TIME = b"1590046391"


def soon() -> int:
    """Return an ExpireTime that holds for the length of a test."""
    return int(time.time()) + 600


def signed_anew(sample: bytes, *, key: str = KEY) -> bytes:
    """Return a sample with an ExpireTime that has not passed, and the Sign for it."""
    expire_time = soon()
    return sample.replace(_PRINTED_EXPIRE_TIME, b"%d" % expire_time).replace(
        _PRINTED_SIGN, sign(key, expire_time).encode()
    )


def callback(*, key: str = KEY, expire_time: int | None = None, **members: Any) -> bytes:
    """Return a signed callback: a started recording unless `members` say otherwise."""
    expire_time = soon() if expire_time is None else expire_time
    envelope: dict[str, Any] = {
        "EventType": "OnlineRecordStarted",
        "EventData": {"TaskId": "t1", "RoomId": 1253, "RecordUserId": "tic_record_user_1253_01"},
        "Timestamp": 1575545412,
        "SdkAppId": SDK_APP_ID,
        "ExpireTime": expire_time,
        "Sign": sign(key, expire_time),
    }
    return json.dumps(envelope | members).encode()


def sign_of(body: bytes) -> str:
    """Return the Sign in a strict body."""
    return str(json.loads(body)["Sign"])
