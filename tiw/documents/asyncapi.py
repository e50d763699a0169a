"""The AsyncAPI 3 document: the exchange that events are published to, and the queue of each consumer.

https://www.asyncapi.com/docs/reference/specification/v3.0.0
"""

from typing import Any

from broker import (
    BUILT_IN_CONSUMERS,
    EVENTS_EXCHANGE,
    MAX_TRACEBACK_BYTES,
    ROUTING_KEYS,
    ConsumerQueues,
    Headers,
    queue_name,
)
from schemas import (
    EVENT_TYPES,
    RECORDING_ARCHIVED,
    UNRECOGNIZED,
    RecordingArchived,
    archived_definitions,
    event_definitions,
)
from tiw import __version__

_SCHEMA_PLACE = "#/components/schemas/{name}"


def asyncapi_document() -> dict[str, Any]:
    """Return the document, complete in itself."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Recording callbacks of Tencent Interactive Whiteboard",
            "version": __version__,
            "description": "Authenticated callbacks as they travel over RabbitMQ: the body is the callback as it was "
            "sent, without Sign and ExpireTime; everything else is in headers. RecordingArchived is no callback: it "
            "tells in the same form that a recording is on the own storage.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {
            "events": _exchange(),
            **{consumer.consumer: _queue(consumer) for consumer in BUILT_IN_CONSUMERS},
        },
        "operations": {
            "publish": {
                "action": "send",
                "channel": {"$ref": "#/channels/events"},
                "summary": "An ingest node publishes an authentic callback and answers 200 once it is confirmed.",
                "messages": [{"$ref": f"#/channels/events/messages/{key}"} for key in ROUTING_KEYS],
            },
            **{f"handle_{consumer.consumer}": _operation(consumer) for consumer in BUILT_IN_CONSUMERS},
        },
        "components": {
            "messages": {key: _message(key) for key in ROUTING_KEYS},
            "schemas": {
                **event_definitions(_SCHEMA_PLACE),
                **archived_definitions(_SCHEMA_PLACE),
                "Headers": _headers(),
            },
        },
    }


def _exchange() -> dict[str, Any]:
    return {
        "address": EVENTS_EXCHANGE,
        "description": "The routing key is the EventType of a recognized event, else `unrecognized`.",
        "messages": {key: {"$ref": f"#/components/messages/{key}"} for key in ROUTING_KEYS},
        "bindings": {
            "amqp": {
                "is": "routingKey",
                "exchange": {"name": EVENTS_EXCHANGE, "type": "topic", "durable": True, "autoDelete": False},
                "bindingVersion": "0.3.0",
            }
        },
    }


def _queue(consumer: ConsumerQueues) -> dict[str, Any]:
    name = queue_name(consumer.consumer)
    return {
        "address": name,
        "messages": {key: {"$ref": f"#/components/messages/{key}"} for key in consumer.routing_keys},
        "bindings": {
            "amqp": {
                "is": "queue",
                "queue": {"name": name, "durable": True, "exclusive": False, "autoDelete": False},
                "bindingVersion": "0.3.0",
            }
        },
    }


def _operation(consumer: ConsumerQueues) -> dict[str, Any]:
    return {
        "action": "receive",
        "channel": {"$ref": f"#/channels/{consumer.consumer}"},
        "summary": f"The built-in consumer {consumer.consumer} keeps the event{_effect(consumer)}.",
        "messages": [{"$ref": f"#/channels/{consumer.consumer}/messages/{key}"} for key in consumer.routing_keys],
    }


def _effect(consumer: ConsumerQueues) -> str:
    return "" if RECORDING_ARCHIVED in consumer.routing_keys else " and updates its recording"


def _message(key: str) -> dict[str, Any]:
    if key == UNRECOGNIZED:
        payload: dict[str, Any] = {"description": "An authentic callback, whole, that is none of the five events."}
        summary = "Everything authentic that fits no event."
    else:
        payload = {"$ref": _SCHEMA_PLACE.format(name=key)}
        kind = RecordingArchived if key == RECORDING_ARCHIVED else EVENT_TYPES[key]
        summary = " ".join((kind.__doc__ or "").split())
    return {
        "name": key,
        "contentType": "application/json",
        "summary": summary,
        "headers": {"$ref": _SCHEMA_PLACE.format(name="Headers")},
        "payload": payload,
    }


def _headers() -> dict[str, Any]:
    instant = {"type": "integer", "description": "Microseconds since the Unix epoch."}
    return {
        "type": "object",
        "properties": {
            Headers.EVENT_ID: {"type": "string", "description": "The same for every repetition of an event."},
            Headers.ROUTING_KEY: {
                "enum": list(ROUTING_KEYS),
                "description": "Absent where the message was published with it as its routing key.",
            },
            Headers.RECEIVED_AT_US: instant | {"title": "When the callback came in"},
            Headers.ATTEMPT: {"type": "integer", "minimum": 1, "description": "Absent: 1."},
            Headers.CRASHES: {"type": "integer", "description": "Workers that died holding this message."},
            Headers.TRACE: {"type": "string", "description": "A W3C traceparent."},
            Headers.SOURCE: {
                "type": "string",
                "pattern": "^[a-z0-9_-]{1,32}$",
                "examples": ["reconcile", "archive"],
                "description": "Absent: the vendor sent it. `reconcile`: the vendor was asked for it. "
                "`archive`: it tells of our archive.",
            },
            Headers.WAITING_SINCE_US: instant
            | {"title": "When a consumer with verified=True first found that the vendor has yet to confirm it"},
            Headers.FIRST_FAILED_AT_US: instant | {"title": "When its first attempt failed"},
            Headers.LAST_FAILED_AT_US: instant | {"title": "When its last attempt failed"},
            Headers.REASON: {"type": "string", "description": "Why the last attempt failed."},
            Headers.TRACEBACK: {
                "type": "string",
                "description": f"Where, if its handler raised something: at most {MAX_TRACEBACK_BYTES} bytes.",
            },
        },
        "required": [Headers.EVENT_ID, Headers.RECEIVED_AT_US],
    }
