"""Events of made-up classes: few different values, so that they tie, collide and contradict each other."""

from collections.abc import Sequence
from random import Random
from typing import Any

import msgspec

from schemas import EVENT_TYPES, decode
from store import KeptEvent

START_US = 1_700_000_000_000_000

#: Members of EventData that a sender may leave out, with the values that it may send.
_MEMBERS: dict[str, Sequence[Any]] = {
    "RoomId": [0, 1, 2**63 - 1, "room"],
    "RecordUserId": ["", "tic_record_user_1_a", "测试"],
    "PauseTime": [0, 5, 6],
    "EstimateStopTime": [0, 7, 8],
    "StopTime": [0, 9],
    "GroupId": ["", "g"],
    "FinishReason": ["AUTO", "EXCEPTION", "NEW_REASON"],
    "RecordStartTime": [0, 10],
    "RecordStopTime": [11],
    "TotalTime": [0, 12, {}],
    "ExceptionCnt": [0, 13],
    "OmittedDurations": [[], [{"VideoTime": 0, "PauseTime": 1, "ResumeTime": 2}, {"VideoTime": 3}]],
    "VideoInfos": [
        *([], [{}], [{"VideoId": "b", "VideoType": 99, "Width": 0}, {"VideoId": "a", "VideoType": 0}]),
        ["odd", {"VideoId": "c", "VideoSize": "large"}],
    ],
    "Error": [{}, {"Code": "FailedOperation.Record", "Message": "\\n"}, "odd"],
}


def keep(
    content: dict[str, Any], *, received_at_us: int = START_US, source: str = "", verified: bool | None = None
) -> KeptEvent:
    """Make of a callback's content what a consumer hands to the store."""
    body = msgspec.json.encode(content)
    decoded = decode(body, received_at_us=received_at_us)
    return KeptEvent(
        event=decoded.event,
        event_id=decoded.event_id,
        received_at_us=received_at_us,
        body=body,
        source=source,
        verified=verified,
    )


def callback(event_type: str, timestamp: int = 100, sdk_app_id: int = 1, **event_data: Any) -> dict[str, Any]:
    """Return the content of a callback."""
    return {"EventType": event_type, "Timestamp": timestamp, "SdkAppId": sdk_app_id, "EventData": event_data}


def random_event(random: Random, *, task_id: str, sdk_app_id: int = 1) -> KeptEvent:
    """Make any of the five events, with any of its members left out, by a callback or not, verified or not."""
    chosen = {name: random.choice(values) for name, values in _MEMBERS.items() if random.choice((True, True, False))}
    content = callback(
        random.choice([*EVENT_TYPES]), random.randint(100, 103), sdk_app_id, **chosen | {"TaskId": task_id}
    )
    return _accepted(random, keep(content, received_at_us=START_US + random.randint(0, 3)))


def _accepted(random: Random, one: KeptEvent) -> KeptEvent:
    """Return an event as it may come another time: by a callback or not, and verified, contradicted or neither."""
    source, verified = random.choice(("", "", "reconcile")), random.choice((None, None, True, False))
    return msgspec.structs.replace(one, source=source, verified=verified)


def random_deliveries(random: Random, *, task_id: str, sdk_app_id: int = 1, most: int = 8) -> list[KeptEvent]:
    """Make the deliveries of one class: out of order, and some events twice or more, accepted anew."""
    once = [random_event(random, task_id=task_id, sdk_app_id=sdk_app_id) for _ in range(random.randint(1, most))]
    again = [
        _accepted(random, msgspec.structs.replace(random.choice(once), received_at_us=START_US + random.randint(0, 9)))
        for _ in range(random.randint(0, most))
    ]
    deliveries = [*once, *again]
    random.shuffle(deliveries)
    return deliveries


def random_groups(random: Random, deliveries: Sequence[KeptEvent]) -> list[Sequence[KeptEvent]]:
    """Split deliveries into groups of any size, in order."""
    groups: list[Sequence[KeptEvent]] = []
    start = 0
    while start < len(deliveries):
        end = start + random.randint(1, len(deliveries) - start)
        groups.append(deliveries[start:end])
        start = end
    return groups
