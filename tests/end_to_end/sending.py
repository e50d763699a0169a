"""Callbacks as the vendor sends them, over real HTTP."""

import hashlib
import json
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from simulator import sign

KEY = "4fd1c0a96b7e4c7f8a2e5d3b1c9f7a60"
APP = 1400000001
NOW = 1575545412

SAMPLES = Path(__file__).resolve().parent.parent / "samples"


def sample(name: str) -> dict[str, Any]:
    """Return a sample as the vendor prints it."""
    content: dict[str, Any] = json.loads((SAMPLES / f"{name}.json").read_bytes())
    return content


def callback(event_type: str, task_id: str, *, app: int = APP, timestamp: int = NOW, **data: Any) -> dict[str, Any]:
    """Return a callback that is not signed yet."""
    event_data = {"TaskId": task_id, "RoomId": 1253, "RecordUserId": "tic_record_user_1253_01", **data}
    return {"EventType": event_type, "Timestamp": timestamp, "SdkAppId": app, "EventData": event_data}


def signed(content: dict[str, Any], *, key: str = KEY, expires_in_s: int = 3600) -> dict[str, Any]:
    """Return a callback with a Sign of now."""
    signature = sign(key, int(time.time()) + expires_in_s)
    return {**content, "ExpireTime": signature.expire_time, "Sign": signature.sign}


def post(address: str, body: bytes | dict[str, Any], *, timeout_s: float = 10.0) -> int:
    """Post a body, or a callback as JSON, and return the status of the answer. Raises OSError if there is none."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(address, data=data, headers={"Content-Type": "application/json"})  # noqa: S310 - our own
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310 - our own
            answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def send(address: str, *callbacks: dict[str, Any]) -> None:
    """Sign and post callbacks, several at once; each must be answered 200."""
    with ThreadPoolExecutor(max_workers=8) as pool:
        statuses = list(pool.map(lambda content: post(address, signed(content)), callbacks))
    assert statuses == [200] * len(callbacks)


def event_id(content: dict[str, Any]) -> str:
    """Return the identity of a callback, computed as it is documented and without the code that is under test."""
    data = json.dumps(content["EventData"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    parts = (content.get("SdkAppId", 0), content["EventType"], content["Timestamp"], data)
    return hashlib.sha256("\n".join(str(part) for part in parts).encode()).hexdigest()[:32]
