"""A callback before it is sent, and how the vendor writes it down."""

import json
from typing import Any

from msgspec import Struct

from schemas import decode
from simulator.signing import Signature


class Form(Struct, frozen=True, kw_only=True):
    """How a family of callbacks is written: the order of the members, and what stands between two of them."""

    order: tuple[str, ...]
    separator: str


#: The recording events: https://www.tencentcloud.com/document/product/1176/55568
RECORDING = Form(order=("EventData", "EventType", "ExpireTime", "SdkAppId", "Sign", "Timestamp"), separator=",")
#: Whiteboard push.
SPACED = Form(order=RECORDING.order, separator=", ")
#: Document transcoding, and the older recording events.
ENVELOPE_FIRST = Form(
    order=("Timestamp", "EventType", "EventData", "ExpireTime", "SdkAppId", "Sign"),
    separator=", ",
)


class Callback(Struct, frozen=True, kw_only=True):
    """One event as the vendor would report it. `event_data` is JSON text, `timestamp` Unix seconds.

    `sdk_app_id` is None in the oldest form, which is never signed.
    """

    event_id: str
    event_type: str
    timestamp: int
    sdk_app_id: int | None
    event_data: str
    form: Form


def make_callback(
    event_type: str, *, timestamp: int, sdk_app_id: int | None, event_data: dict[str, Any], form: Form = RECORDING
) -> Callback:
    """Return the callback with the event_id that a receiver will find."""
    unidentified = Callback(
        event_id="",
        event_type=event_type,
        timestamp=timestamp,
        sdk_app_id=sdk_app_id,
        event_data=json.dumps(event_data, ensure_ascii=False, separators=(form.separator, ": ")),
        form=form,
    )
    decoded = decode(render(unidentified), received_at_us=timestamp * 1_000_000)
    return Callback(
        event_id=decoded.event_id,
        event_type=event_type,
        timestamp=timestamp,
        sdk_app_id=sdk_app_id,
        event_data=unidentified.event_data,
        form=form,
    )


def render(callback: Callback, signature: Signature | None = None) -> bytes:
    """Return the body of the request: the content, and the signature where there is one."""
    members = {
        "EventData": callback.event_data,
        "EventType": json.dumps(callback.event_type),
        "Timestamp": str(callback.timestamp),
    }
    if callback.sdk_app_id is not None:
        members["SdkAppId"] = str(callback.sdk_app_id)
    if signature is not None:
        members["ExpireTime"] = str(signature.expire_time)
        members["Sign"] = json.dumps(signature.sign)
    form = callback.form
    content = form.separator.join(f'"{name}": {members[name]}' for name in form.order if name in members)
    return f"{{{content}}}".encode()
