"""The OpenAPI 3.1 document: what ingest and the admin listener are asked, and every answer that they give.

https://spec.openapis.org/oas/v3.1.0
"""

from itertools import groupby
from typing import Any

import msgspec

from ingest import IngestConfig, Refusal
from reconcile import REGISTER_PATH, RegisterRefusal, Registration
from schemas import EVENT_TYPES, JSON_SCHEMA_DIALECT, RejectedRow, Reverified, event_definitions
from telemetry import metrics
from tiw import __version__
from tiw.rejected import DEFAULT_LISTED, MAX_LISTED

_JSON = "application/json"
_SCHEMA_PLACE = "#/components/schemas/{name}"
_RESPONSE_PLACE = "#/components/responses/{name}"

#: What each status means, in the order in which they are decided.
_MEANINGS = {
    400: "The body is no JSON object, says who sent it more than once, or this is no valid HTTP. Not kept.",
    401: "It is not authentic. Not kept.",
    404: "Callbacks are not received at this address.",
    405: "Another method than POST.",
    408: "The body did not arrive within 2 seconds of the headers. Not kept.",
    413: "The body is larger than TIW_MAX_BODY_BYTES, or its parts do not end. Not kept.",
    415: "The body came with a Content-Encoding. Not kept.",
    500: "A defect of the receiver. Not known to be kept: send it again.",
    503: "Not known to be kept: send it again.",
}


def openapi_document() -> dict[str, Any]:
    """Return the document, complete in itself."""
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": JSON_SCHEMA_DIALECT,
        "info": {
            "title": "Receiver of the recording callbacks of Tencent Interactive Whiteboard",
            "version": __version__,
            "description": "The address of the callbacks is for the vendor, those of the admin listener are for the "
            "operator alone: each has a listener of its own.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "http://127.0.0.1:8080", "description": "TIW_HTTP"}],
        "tags": [
            {"name": "ingest", "description": "Receives callbacks, on TIW_HTTP."},
            {"name": "register", "description": "Takes registrations of recordings, on TIW_REGISTER."},
            {"name": "admin", "description": "Tells how a process is, on TIW_ADMIN."},
            {"name": "rejected", "description": "For the console: what an ingest node has refused, on TIW_ADMIN."},
        ],
        "paths": _callback_paths() | _register_paths() | _admin_paths() | _rejected_paths(),
        "components": {
            "schemas": {
                **event_definitions(_SCHEMA_PLACE),
                "Callback": _callback(),
                "Registration": _struct(Registration),
                "RejectedCallback": _struct(RejectedRow),
                "ReverifiedCallbacks": _struct(Reverified),
            },
            "responses": {**_callback_answers(), **_register_answers(), **_admin_answers(), **_rejected_answers()},
            "securitySchemes": {
                "register_token": {"type": "http", "scheme": "bearer", "description": "TIW_REGISTER_TOKEN"},
                "console_token": {"type": "http", "scheme": "bearer", "description": "TIW_CONSOLE_TOKEN"},
            },
        },
    }


def _callback_paths() -> dict[str, Any]:
    path = IngestConfig().path
    token = {
        "name": "path_token",
        "in": "path",
        "required": True,
        "description": "TIW_PATH_TOKEN",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._~-]{22,}$"},
    }
    return {
        path: {"post": _receive("receive", "Receive a callback, where no path token is set.")},
        f"{path}/{{path_token}}": {
            "post": _receive("receive_at_token", "Receive a callback, where a path token is set."),
            "parameters": [token],
        },
        "/": {"get": _health("health")},
        "/healthz": {"get": _health("healthz")},
    }


def _health(name: str) -> dict[str, Any]:
    return {
        "operationId": name,
        "tags": ["ingest"],
        "summary": "For load balancers: whether a callback could be kept. HEAD and OPTIONS do as well.",
        "responses": {"200": {"description": "It could."}, "503": {"description": "It could not."}},
    }


def _receive(name: str, summary: str) -> dict[str, Any]:
    statuses = sorted({200, *(refusal.status for refusal in Refusal)})
    return {
        "operationId": name,
        "tags": ["ingest"],
        "summary": summary,
        "description": "The only address that takes anything. Refused is, in this order, what comes to another "
        "address, with another method, encoded, too large, too slowly, not authentic, or does not say whom it is from. "
        "Whatever else an authentic callback contains is kept. The Content-Type is ignored.",
        "parameters": [
            {
                "name": "traceparent",
                "in": "header",
                "description": "The trace that a proxy in front began; anything that is none is ignored.",
                "schema": {"type": "string"},
            }
        ],
        "requestBody": {"required": True, "content": {_JSON: {"schema": _reference("Callback")}}},
        "responses": {str(status): {"$ref": _RESPONSE_PLACE.format(name=_answer_name(status))} for status in statuses},
    }


def _callback() -> dict[str, Any]:
    return {
        "description": "One of the five recording events, or anything else that is authentic: kept as `unrecognized`.",
        "anyOf": [*(_reference(name) for name in EVENT_TYPES), {"type": "object"}],
    }


def _callback_answers() -> dict[str, Any]:
    by_status = groupby(sorted(Refusal, key=lambda refusal: refusal.status), key=lambda refusal: refusal.status)
    answers = {_answer_name(status): _refused(status, list(refusals)) for status, refusals in by_status}
    kept = _object({"error_code": {"const": 0}})
    return {_answer_name(200): _answer("Kept: durable in the broker, or in the spool of this node.", kept), **answers}


def _refused(status: int, refusals: list[Refusal]) -> dict[str, Any]:
    content = _object(
        {"error_code": {"const": status}, "error_message": {"enum": [refusal.sentence for refusal in refusals]}}
    )
    answer = _answer(_MEANINGS[status], content)
    if Refusal.WRONG_METHOD in refusals:
        answer["headers"] = {"Allow": {"required": True, "schema": {"const": "POST"}}}
    return answer


def _answer_name(status: int) -> str:
    return f"Callback{status}"


def _register_paths() -> dict[str, Any]:
    statuses = sorted({202, *(refusal.status for refusal in RegisterRefusal)})
    return {
        REGISTER_PATH: {
            "servers": [{"url": "http://127.0.0.1:8070", "description": "TIW_REGISTER"}],
            "post": {
                "operationId": "register",
                "tags": ["register"],
                "summary": "Tell of a recording that was started, so that no lost callback can hide it.",
                "description": "The vendor is asked about it unless its callbacks come. On loopback and a unix socket "
                "no token is needed where none is set. The Content-Type is ignored.",
                "security": [{"register_token": []}, {}],
                "requestBody": {"required": True, "content": {_JSON: {"schema": _reference("Registration")}}},
                "responses": {
                    str(status): {"$ref": _RESPONSE_PLACE.format(name=f"Register{status}")} for status in statuses
                },
            },
        }
    }


def _struct(kind: type[msgspec.Struct]) -> dict[str, Any]:
    _, parts = msgspec.json.schema_components([kind], ref_template=_SCHEMA_PLACE)
    (schema,) = parts.values()  # it has no parts of its own
    assert isinstance(schema, dict)  # noqa: S101 - as every Struct's
    return schema


def _register_answers() -> dict[str, Any]:
    answers = {"Register202": _answer("Kept.", _object({"accepted": {"const": True}}))}
    for refusal in RegisterRefusal:
        answer = _answer(
            f"{refusal.sentence[0].upper()}{refusal.sentence[1:]}.", _object({"error": {"type": "string"}})
        )
        if refusal in _REGISTER_HEADERS:
            name, schema = _REGISTER_HEADERS[refusal]
            answer["headers"] = {name: {"required": True, "schema": schema}}
        answers[f"Register{refusal.status}"] = answer
    return answers


_REGISTER_HEADERS: dict[RegisterRefusal, tuple[str, dict[str, Any]]] = {
    RegisterRefusal.UNAUTHORIZED: ("WWW-Authenticate", {"const": "Bearer"}),
    RegisterRefusal.WRONG_METHOD: ("Allow", {"const": "POST"}),
    RegisterRefusal.TOO_MANY: ("Retry-After", {"const": "1"}),
    RegisterRefusal.NOT_KEPT: ("Retry-After", {"const": "1"}),
}


def _admin_paths() -> dict[str, Any]:
    return {
        "/livez": _asked("livez", "Whether the process lives: 200 as long as its event loop turns.", {"200": "Live"}),
        "/readyz": _asked(
            "readyz",
            "Whether the process could do its work now; of ingest: whether a callback could be kept.",
            {"200": "Ready", "503": "NotReady"},
        ),
        "/metrics": _asked(
            "metrics", "The metrics of the process and its children, for Prometheus.", {"200": "Metrics"}
        ),
    }


def _asked(name: str, summary: str, answers: dict[str, str]) -> dict[str, Any]:
    everywhere = {"405": "AdminWrongMethod"}
    return {
        "servers": [{"url": "http://127.0.0.1:9080", "description": "TIW_ADMIN"}],
        "get": {
            "operationId": name,
            "tags": ["admin"],
            "summary": summary,
            "responses": {
                status: {"$ref": _RESPONSE_PLACE.format(name=answer)}
                for status, answer in (answers | everywhere).items()
            },
        },
    }


def _admin_answers() -> dict[str, Any]:
    reasons = {"type": "array", "items": {"type": "string"}}
    ready = _object({"ready": {"const": True}, "not_ready": {**reasons, "maxItems": 0}})
    not_ready = _object({"ready": {"const": False}, "not_ready": {**reasons, "minItems": 1}})
    wrong_method = _answer("Another method than GET or HEAD.", _object({"error": {"const": "method not allowed"}}))
    return {
        "Live": _answer("It lives.", _object({"live": {"const": True}})),
        "Ready": _answer("It could.", ready),
        "NotReady": _answer("It could not; the reasons are named.", not_ready),
        "Metrics": {
            "description": "The metrics in the text format of Prometheus.",
            "content": {metrics.CONTENT_TYPE: {"schema": {"type": "string"}}},
        },
        "AdminWrongMethod": {
            **wrong_method,
            "headers": {"Allow": {"required": True, "schema": {"const": "GET,HEAD"}}},
        },
    }


def _rejected_paths() -> dict[str, Any]:
    def asked(name: str, summary: str, parameter: dict[str, Any], answer: str) -> dict[str, Any]:
        refused = {"400": "Unclear", "401": "Unauthorized", "404": "Absent", "405": "WrongMethod"}
        refused |= {"413": "TooLarge", "503": "Unable"}
        return {
            "operationId": name,
            "tags": ["rejected"],
            "summary": summary,
            "security": [{"console_token": []}],
            "parameters": [{"in": "query", **parameter}],
            "responses": {
                status: {"$ref": _RESPONSE_PLACE.format(name=f"Rejected{which}")}
                for status, which in ({"200": answer} | refused).items()
            },
        }

    servers = [{"url": "http://127.0.0.1:9080", "description": "TIW_ADMIN of `tiw ingest` and `tiw up`"}]
    limit = {"type": "integer", "minimum": 1, "maximum": MAX_LISTED, "default": DEFAULT_LISTED}
    return {
        "/rejected": {
            "servers": servers,
            "get": asked(
                "rejected",
                "What `tiw rejected list --json` prints: never a Sign, never a body.",
                {"name": "limit", "schema": limit},
                "List",
            ),
        },
        "/rejected/reverify": {
            "servers": servers,
            "post": asked(
                "reverify",
                "What `tiw rejected reverify --json` does, and prints.",
                {"name": "dry_run", "description": "1: nothing is let in.", "schema": {"enum": ["0", "1"]}},
                "Reverified",
            ),
        },
    }


def _rejected_answers() -> dict[str, Any]:
    error = _object({"error": {"type": "string"}})
    meanings = {
        "Unclear": "The query is not understood. Nothing was done.",
        "Unauthorized": "The header Authorization is not `Bearer` and the token of the console.",
        "Absent": "No console is known to this process: it is off, or has no token yet.",
        "WrongMethod": "Another method.",
        "TooLarge": "There is a body.",
        "Unable": "It cannot be done now; the sentence says why.",
    }
    rows = {"type": "array", "items": _reference("RejectedCallback")}
    return {
        "RejectedList": _answer("What is kept, newest first.", rows),
        "RejectedReverified": _answer("It was done, or with `dry_run` counted.", _reference("ReverifiedCallbacks")),
        **{f"Rejected{name}": _answer(meaning, error) for name, meaning in meanings.items()},
    }


def _answer(description: str, content: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {_JSON: {"schema": content}}}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _reference(name: str) -> dict[str, str]:
    return {"$ref": _SCHEMA_PLACE.format(name=name)}
