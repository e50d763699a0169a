"""What every accepting peer does besides publishing: decode, authenticate, answer."""

import hashlib
import hmac
import json
import os
import time
from typing import Any

AMQP_URL = os.environ.get("BENCH_AMQP_URL", "")
PORT = int(os.environ.get("BENCH_PORT", "8080"))
KEY = os.environ.get("BENCH_KEY", "")

PATH = "/callbacks/tiw"
EXCHANGE = "bench.events"
QUEUE = "bench.callbacks"
ANSWER = b'{"error_code":0}'
REFUSAL = b'{"error_code":401,"error_message":"not authentic"}'

#: Clocks differ.
SKEW_S = 300


def authentic(body: bytes) -> dict[str, Any] | None:
    """Return the callback, decoded; None if it is not authentic."""
    callback: dict[str, Any] = json.loads(body)
    expire_time, sign = callback.get("ExpireTime"), callback.get("Sign")
    if not isinstance(expire_time, int) or not isinstance(sign, str):
        return None
    expected = hashlib.md5(f"{KEY}{expire_time}".encode(), usedforsecurity=False).hexdigest()
    if not hmac.compare_digest(expected, sign) or expire_time < time.time() - SKEW_S:
        return None
    return callback
