"""The callbacks that are sent: real samples with TaskIds of their own, signed anew.

One event type per measurement: ours has a queue per type, a peer has one for all, and two quorum queues would share
what one has to carry.
"""

import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct

import schemas
from broker import Message
from simulator import sign

APP = 1400000001
KEY = "b0c1d2e3f4a5968778695a4b3c2d1e0f"

#: Time enough for the longest run.
EXPIRES_IN_S = 6 * 3600

#: The vendor signs anew every second: who remembers a Sign must find that it changes.
DISTINCT_SIGNS = 500

#: The samples that a class sends, in their order.
CLASS = ("started", "stopped", "finished")

_SAMPLES = Path(__file__).resolve().parents[2] / "tests" / "samples"


class Payload(Struct, frozen=True, kw_only=True):
    """A signed callback, and the event_id under which it is kept."""

    body: bytes
    event_id: str


def signed_callbacks(count: int, *, sample: str = "started", at_least_bytes: int = 0) -> Iterator[Payload]:
    """Yield `count` callbacks of a sample, each with a TaskId of its own and a Sign that is valid for six hours.

    A body is as long as the sample's, about 270 bytes for `started`; with `at_least_bytes` the list of videos of
    `finished` is repeated until it is long enough.
    """
    content = _sample(sample)
    _lengthen(content, at_least_bytes)
    for number, task_id in enumerate(_task_ids(count)):
        content["EventData"]["TaskId"] = task_id
        yield _signed(content, number=number)


def signed_classes(count: int) -> Iterator[Payload]:
    """Yield what `count` classes send: each of their recordings is started, stopped and finished."""
    contents = [_sample(name) for name in CLASS]
    for task_id in _task_ids(count):
        for content in contents:
            content["EventData"]["TaskId"] = task_id
            yield _signed(content, number=0)


def messages(count: int, *, sample: str = "started") -> Iterator[Message]:
    """Yield `count` messages as ingest publishes them: without Sign and ExpireTime, everything of ours in headers."""
    content = _sample(sample)
    for task_id in _task_ids(count):
        content["EventData"]["TaskId"] = task_id
        body = _written({**content, "SdkAppId": APP})
        yield Message(
            body=body,
            event_id=_event_id(body),
            routing_key=content["EventType"],
            received_at_us=time.time_ns() // 1000,
        )


def _signed(content: dict[str, Any], *, number: int) -> Payload:
    signature = sign(KEY, int(time.time()) + EXPIRES_IN_S + number % DISTINCT_SIGNS)
    body = _written({**content, "ExpireTime": signature.expire_time, "SdkAppId": APP, "Sign": signature.sign})
    return Payload(body=body, event_id=_event_id(body))


def _sample(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((_SAMPLES / f"{name}.json").read_bytes())
    for member in ("ExpireTime", "Sign", "SdkAppId"):
        content.pop(member, None)
    return content


def _lengthen(content: dict[str, Any], at_least_bytes: int) -> None:
    missing = at_least_bytes - len(_written(content))
    if missing <= 0:
        return
    videos: list[Any] = content["EventData"]["VideoInfos"]
    videos += videos * (missing // len(_written(videos)) + 1)


def _written(content: object) -> bytes:
    """Write JSON as the vendor does."""
    return json.dumps(content, separators=(",", ": "), ensure_ascii=False).encode()


def _task_ids(count: int) -> Iterator[str]:
    """Yield ids as long as the vendor's (20 characters) that no other run has used."""
    prefix = secrets.token_hex(5)
    return (f"{prefix}{number:010d}" for number in range(count))


def _event_id(body: bytes) -> str:
    return schemas.decode(body, received_at_us=time.time_ns() // 1000).event_id
