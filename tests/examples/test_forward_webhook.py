"""Events are forwarded as Standard Webhooks."""

import base64
import hashlib
import hmac
import json
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from schemas import OnlineRecordStarted, Unrecognized
from tests.examples.endpoint import Endpoint
from tests.examples.loading import load_example
from workers import Ack, Consumer, DeadLetter, LoadError, Retry, run_consumer

EVENT = OnlineRecordStarted(task_id="task", timestamp=1575545412)
BODY = b'{"EventType":"OnlineRecordStarted","Timestamp":1575545412,"EventData":{"TaskId":"task", "New":1e2}}'
OLD, NEW = b"o" * 24, b"n" * 64


def forward_webhook(monkeypatch: pytest.MonkeyPatch, url: str, secrets: str | None = None) -> Consumer:
    monkeypatch.setenv("FORWARD_URL", url)
    monkeypatch.setenv("FORWARD_SECRETS", secret(OLD) if secrets is None else secrets)
    return load_example("forward_webhook")


def secret(key: bytes) -> str:
    return f"whsec_{base64.b64encode(key).decode()}"


def test_signatures_are_those_of_the_reference_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    # https://github.com/standard-webhooks/standard-webhooks/blob/main/libraries/go/webhook_test.go, TestWebhookSign
    consumer = forward_webhook(monkeypatch, "https://example.com/", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signatures: Any = consumer.function.__globals__["signatures"]
    expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert signatures("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}') == expected


async def test_an_event_arrives_signed_with_every_secret(monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint) -> None:
    consumer = forward_webhook(monkeypatch, endpoint.url, f"{secret(NEW)} {secret(OLD)}")
    before_s = int(time.time())
    assert await run_consumer(consumer, EVENT, event_id="e" * 32, body=BODY) == Ack()
    (request,) = endpoint.requests
    timestamp = request.headers["webhook-timestamp"]
    assert request.headers["webhook-id"] == "e" * 32
    assert before_s <= int(timestamp) <= time.time()
    content = b".".join([b"e" * 32, timestamp.encode(), request.body])
    expected = [
        "v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode() for key in (NEW, OLD)
    ]
    assert request.headers["webhook-signature"].split(" ") == expected


async def test_the_payload_has_type_and_timestamp_and_the_callback_byte_for_byte(
    monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint
) -> None:
    await run_consumer(forward_webhook(monkeypatch, endpoint.url), EVENT, body=BODY)
    (request,) = endpoint.requests
    assert request.headers["content-type"] == "application/json"
    assert BODY in request.body
    assert json.loads(request.body) == {
        "type": "OnlineRecordStarted",
        "timestamp": "2019-12-05T11:30:12Z",
        "data": json.loads(BODY),
    }


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (Unrecognized(reason="r", event_type="TranscodeFinished"), "TranscodeFinished"),
        (Unrecognized(reason="r"), "unrecognized"),
    ],
)
async def test_what_is_not_recognized_goes_too_with_the_moment_it_came_in(
    monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint, event: Unrecognized, kind: str
) -> None:
    received_at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    body = b'{"EventType": "\xff"'
    consumer = forward_webhook(monkeypatch, endpoint.url)
    assert await run_consumer(consumer, event, body=body, received_at=received_at) == Ack()
    assert json.loads(endpoint.requests[0].body) == {
        "type": kind,
        "timestamp": "2026-01-02T03:04:05Z",
        "data": {"body_base64": base64.b64encode(body).decode()},
    }


async def test_a_timestamp_that_is_no_date_does_not_stop_an_event(
    monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint
) -> None:
    event = OnlineRecordStarted(task_id="task", timestamp=-(2**63))
    received_at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    consumer = forward_webhook(monkeypatch, endpoint.url)
    assert await run_consumer(consumer, event, received_at=received_at) == Ack()
    assert json.loads(endpoint.requests[0].body)["timestamp"] == "2026-01-02T03:04:05Z"


async def test_every_attempt_has_the_same_id_and_the_same_payload(
    monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint
) -> None:
    consumer = forward_webhook(monkeypatch, endpoint.url)
    for attempt in (1, 2):
        await run_consumer(consumer, EVENT, event_id="e" * 32, attempt=attempt, body=BODY)
    first, second = endpoint.requests
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body


@pytest.mark.parametrize("status", [200, 201, 202, 204])
async def test_any_2xx_is_success(monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint, status: int) -> None:
    endpoint.status = status
    assert await run_consumer(forward_webhook(monkeypatch, endpoint.url), EVENT) == Ack()


async def test_an_endpoint_that_is_gone_makes_a_dead_letter(
    monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint
) -> None:
    endpoint.status = 410
    outcome = await run_consumer(forward_webhook(monkeypatch, endpoint.url), EVENT)
    assert isinstance(outcome, DeadLetter)
    assert "410" in outcome.reason


@pytest.mark.parametrize("status", [302, 400, 401, 404, 429, 500, 502, 503, 504])
async def test_any_other_answer_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint, status: int
) -> None:
    endpoint.status = status
    outcome = await run_consumer(forward_webhook(monkeypatch, endpoint.url), EVENT)
    assert outcome == Retry(reason=f"the endpoint answered {status}")
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_in_seconds_is_obeyed(
    monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint, status: int
) -> None:
    endpoint.status, endpoint.headers = status, {"Retry-After": "120"}
    outcome = await run_consumer(forward_webhook(monkeypatch, endpoint.url), EVENT)
    assert outcome == Retry(after_s=120, reason=f"the endpoint answered {status}")


@pytest.mark.parametrize(("ahead_s", "at_least_s", "at_most_s"), [(100, 50, 100), (-100, 0, 0)])
async def test_retry_after_as_a_date_is_obeyed(
    monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint, ahead_s: int, at_least_s: float, at_most_s: float
) -> None:
    moment = datetime.now(UTC) + timedelta(seconds=ahead_s)
    endpoint.status, endpoint.headers = 503, {"Retry-After": format_datetime(moment, usegmt=True)}
    outcome = await run_consumer(forward_webhook(monkeypatch, endpoint.url), EVENT)
    assert isinstance(outcome, Retry)
    assert outcome.after_s is not None
    assert at_least_s <= outcome.after_s <= at_most_s


@pytest.mark.parametrize("nonsense", ["soon", "-5", "1.5", "\u00b2"])
async def test_a_retry_after_that_means_nothing_is_overlooked(
    monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint, nonsense: str
) -> None:
    endpoint.status, endpoint.headers = 503, {"Retry-After": nonsense}
    outcome = await run_consumer(forward_webhook(monkeypatch, endpoint.url), EVENT)
    assert outcome == Retry(reason="the endpoint answered 503")


async def test_an_endpoint_that_hangs_up_is_tried_again_and_its_address_stays_secret(
    monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint
) -> None:
    endpoint.hangs_up = True
    outcome = await run_consumer(forward_webhook(monkeypatch, endpoint.url), EVENT)
    assert outcome == Retry(reason="the endpoint was not reached: ServerDisconnectedError")


@pytest.mark.parametrize("url", ["", "example.com", "ftp://example.com"])
def test_a_missing_or_wrong_address_is_said_at_the_start(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    with pytest.raises(LoadError, match="FORWARD_URL must be the address"):
        forward_webhook(monkeypatch, url)


@pytest.mark.parametrize(
    "secrets", ["", "whsec_", "whsec_no*base64", secret(b"s" * 23), secret(b"s" * 65), f"{secret(OLD)} whsec_c2hvcnQ="]
)
def test_a_missing_or_wrong_secret_is_said_at_the_start_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, secrets: str
) -> None:
    with pytest.raises(LoadError, match="FORWARD_SECRETS must be whsec_ and 24 to 64 bytes") as refused:
        forward_webhook(monkeypatch, "https://example.com", secrets)
    assert all(part not in str(refused.value) for part in secrets.split() if part != "whsec_")
