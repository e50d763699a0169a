"""A message as AMQP carries it: the body is the body, everything else is headers named `tiw-...`.

Headers are made anew for every publish. What a broker or another client put there (`x-death`, for one) is never
copied: old `x-` headers sent again change what the broker does with a message.
"""

import time
from collections.abc import Mapping
from typing import Any

from aiormq import spec

import schemas
from broker.message import Message

EVENT_ID = "tiw-event-id"
ROUTING_KEY = "tiw-routing-key"
RECEIVED_AT_US = "tiw-received-at-us"
ATTEMPT = "tiw-attempt"
CRASHES = "tiw-crashes"
TRACE = "tiw-trace"
FIRST_FAILED_AT_US = "tiw-first-failed-at-us"
LAST_FAILED_AT_US = "tiw-last-failed-at-us"
REASON = "tiw-reason"

#: A header frame is not split, and a frame has 128 KiB: longer texts are cut.
MAX_TEXT_CHARACTERS = 4096

#: How often a quorum queue saw a message come back; it is absent on the first delivery:
#: https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling
DELIVERY_COUNT = "x-delivery-count"

_PERSISTENT = 2
_MAX_INTEGER = 2**63 - 1


def to_properties(message: Message) -> spec.Basic.Properties:
    """Return the properties to publish `message` with. There is no message_id: it is made for each publish."""
    headers: dict[str, Any] = {
        EVENT_ID: _presentable(message.event_id),
        ROUTING_KEY: _presentable(message.routing_key),
        RECEIVED_AT_US: message.received_at_us,
        ATTEMPT: message.attempt,
        CRASHES: message.crashes,
        TRACE: _presentable(message.trace),
        FIRST_FAILED_AT_US: message.first_failed_at_us,
        LAST_FAILED_AT_US: message.last_failed_at_us,
        REASON: _presentable(message.reason),
    }
    return spec.Basic.Properties(
        content_type="application/json",
        delivery_mode=_PERSISTENT,
        headers={name: value for name, value in headers.items() if value not in ("", None)},
    )


def from_properties(body: bytes, properties: spec.Basic.Properties, routing_key: str) -> Message:
    """Return the message that was delivered, whoever published it, and raise nothing for what its headers hold.

    `routing_key` is that of the delivery; it counts for a stranger's message only. One without our event_id gets
    that of its body.
    """
    headers = properties.headers or {}
    received_at_us = _count(headers, RECEIVED_AT_US) or time.time_ns() // 1000
    event_id = _text(headers, EVENT_ID) or schemas.decode(body, received_at_us=received_at_us).event_id
    return Message(
        body=body,
        event_id=event_id,
        routing_key=_text(headers, ROUTING_KEY) or routing_key,
        received_at_us=received_at_us,
        attempt=_count(headers, ATTEMPT) or 1,
        crashes=_count(headers, CRASHES) or 0,
        trace=_text(headers, TRACE),
        first_failed_at_us=_count(headers, FIRST_FAILED_AT_US),
        last_failed_at_us=_count(headers, LAST_FAILED_AT_US),
        reason=_text(headers, REASON),
    )


def returns(properties: spec.Basic.Properties) -> int:
    """Return how often the broker saw this message come back unsettled since it was published."""
    return _count(properties.headers or {}, DELIVERY_COUNT) or 0


def _presentable(text: str) -> str:
    """Cut `text` and replace what UTF-8 cannot express (unpaired surrogates)."""
    return text[:MAX_TEXT_CHARACTERS].encode(errors="replace").decode()


def _text(headers: Mapping[str, Any], name: str) -> str:
    value = headers.get(name)
    return value if isinstance(value, str) else ""


def _count(headers: Mapping[str, Any], name: str) -> int | None:
    value = headers.get(name)
    return value if type(value) is int and 0 <= value <= _MAX_INTEGER else None
