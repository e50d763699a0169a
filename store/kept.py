"""An event to keep, and the rows that it and its recording are: what the careful and the direct ways have in common."""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct, structs

from schemas import UNRECOGNIZED, Event, Unrecognized
from store.recording import list_counting, merge_counting, outranks
from store.statements import RecordingKey
from store.tables import storable


class KeptEvent(Struct, frozen=True, kw_only=True):
    """An event to keep: what `schemas.decode` made of `body`, and when it was accepted.

    `body` is the callback without Sign and ExpireTime; `received_at_us` is in microseconds since the Unix epoch.
    `source` is empty for a callback, else says who made the event. `verified` says whether
    the vendor confirms it, None if it was not asked.
    """

    event: Event
    event_id: str
    received_at_us: int
    body: bytes
    source: str = ""
    verified: bool | None = None


def recording_key(event: Event) -> RecordingKey:
    """Return the key of the recording that an event belongs to; without a TaskId if it belongs to none."""
    return event.sdk_app_id, "" if type(event) is Unrecognized else event.task_id


def event_row(one: KeptEvent) -> dict[str, Any]:
    """Return the row of `events`, by column."""
    event = one.event
    row = {
        "event_id": one.event_id,
        "sdk_app_id": event.sdk_app_id,
        "timestamp": event.timestamp,
        "outranks": outranks(event),
        "received_at_us": one.received_at_us,
        "body": one.body,
        "source": one.source,
        "verified": one.verified,
        "contradicted": one.verified is False,
    }
    if type(event) is Unrecognized:
        event_type = None if event.event_type is None else storable(event.event_type)
        reason = storable(event.reason)
        return row | {"routing_key": UNRECOGNIZED, "event_type": event_type, "task_id": None, "reason": reason}
    event_type = type(event).__name__
    return row | {"routing_key": event_type, "event_type": event_type, "task_id": event.task_id or None, "reason": None}


def recording_row(accepted: Sequence[KeptEvent]) -> dict[str, Any]:
    """Return the row of `recordings` that different events of one recording add up to, by column."""
    counting = list_counting(accepted)
    row: dict[str, Any] = structs.asdict(merge_counting(counting))
    error = row.pop("error")
    row["failed"] = error is not None
    row["error_code"] = error and error.code
    row["error_message"] = error and error.message
    row["active_at_us"] = max([one.received_at_us for one in counting])
    return row
