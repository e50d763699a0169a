"""A slice of the requests that `./dev fuzz` sends, and answers of both listeners against docs/openapi.json."""

import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaos.fuzzing import http as raw_http
from chaos.fuzzing.api import DOCUMENT, Conformance
from chaos.fuzzing.http import read_answers
from chaos.fuzzing.outcome import BrokenPromiseError
from chaos.fuzzing.serving import KEYS, PATH_TOKEN, SDK_APP_ID, Served, served_in_thread, sign
from schemas import EVENT_TYPES

RECEIVE = "/callbacks/tiw"
CONFORMANCE = Conformance()


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with served_in_thread() as everything:
        yield everything


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
_callbacks = st.fixed_dictionaries(
    {},
    optional={
        "EventType": st.sampled_from([*EVENT_TYPES, "TranscodeFinished"]) | _json,
        "Timestamp": st.integers(0, 2**40) | _json,
        "SdkAppId": st.sampled_from([0, 2, SDK_APP_ID]) | _json,
        "EventData": st.fixed_dictionaries({"TaskId": st.text(max_size=300)}, optional={"RoomId": _json}) | _json,
        "ExpireTime": _json,
        "Sign": _json,
        "Else": _json,
    },
)
_headers = st.dictionaries(
    st.sampled_from(["Content-Type", "Content-Encoding", "traceparent", "Accept", "Expect", "X-Else"]),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=60)
    | st.sampled_from(["identity", "gzip", "application/json", "100-continue"]),
    max_size=3,
)
_methods = st.sampled_from(["POST"] * 8 + ["GET", "PUT", "DELETE", "OPTIONS", "PATCH"])


def signed(callback: dict[str, Any]) -> dict[str, Any]:
    expire_time = int(time.time()) + 600
    key = KEYS[SDK_APP_ID][0]
    return callback | {
        "SdkAppId": SDK_APP_ID,
        "ExpireTime": expire_time,
        "Sign": sign(key, b"%d" % expire_time).decode(),
    }


def ask(
    port: int, method: str, path: str, *, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


@settings(max_examples=80, deadline=None)
@given(method=_methods, callback=_callbacks, is_signed=st.booleans(), headers=_headers, token=st.booleans())
def test_every_answer_to_a_callback_is_described(
    served: Served, *, method: str, callback: dict[str, Any], is_signed: bool, headers: dict[str, str], token: bool
) -> None:
    body = json.dumps(signed(callback) if is_signed else callback).encode()
    port, path = (served.ingest_with_token, f"{RECEIVE}/{PATH_TOKEN}") if token else (served.ingest, RECEIVE)
    status, answered, content = ask(port, method, path, body=body, headers=headers)
    CONFORMANCE.check(RECEIVE, "post", status=status, headers=answered, body=content)
    if is_signed and method == "POST":
        assert status in {200, 415}  # 415: a random Content-Encoding


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_every_answer_of_the_admin_listener_is_described(served: Served, path: str, method: str) -> None:
    status, headers, body = ask(served.admin, method, path)
    assert status == (200 if method == "GET" else 405)
    CONFORMANCE.check(path, "get", status=status, headers=headers, body=body)


def test_hostile_requests_get_described_answers_and_leave_the_server_well(tmp_path: Path) -> None:
    outcome = raw_http.fuzz(requests=200, seed=7, folder=tmp_path)
    assert outcome.reason is None
    assert outcome.executions == 200


def test_an_answer_that_is_not_described_is_noticed() -> None:
    with pytest.raises(BrokenPromiseError, match="the status 418 is described"):
        CONFORMANCE.check(RECEIVE, "post", status=418, headers={}, body=b"")
    json_type = {"content-type": "application/json"}
    with pytest.raises(BrokenPromiseError, match="the content of 200 is described"):
        CONFORMANCE.check(RECEIVE, "post", status=200, headers=json_type, body=b'{"error_code":1}')
    with pytest.raises(BrokenPromiseError, match="the content type of 200 is described"):
        CONFORMANCE.check(RECEIVE, "post", status=200, headers={"content-type": "text/html"}, body=b"")
    body = b'{"error_code":405,"error_message":"callbacks are sent with POST"}'
    with pytest.raises(BrokenPromiseError, match="the header Allow of 405 is described"):
        CONFORMANCE.check(RECEIVE, "post", status=405, headers=json_type, body=body)


@pytest.mark.parametrize(
    "sent",
    [b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{", b"x\r\n\r\n"],
)
def test_half_an_answer_is_noticed(sent: bytes) -> None:
    with pytest.raises(BrokenPromiseError):
        read_answers(sent)


def test_the_document_is_of_this_build() -> None:
    assert json.loads(DOCUMENT.read_bytes())["openapi"].startswith("3.1.")
