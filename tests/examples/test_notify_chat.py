"""A chat robot is told of failed recordings."""

import json

import pytest
import structlog
from structlog.testing import capture_logs

from schemas import OnlineRecordFinished, OnlineRecordLongPauseForceStopped, RecordingError
from tests.examples.endpoint import Endpoint
from tests.examples.loading import load_example
from workers import Ack, Consumer, DeadLetter, LoadError, Outcome, Retry, run_consumer

FAILED = OnlineRecordFinished(
    task_id="task",
    room_id=7,
    sdk_app_id=1400000001,
    timestamp=1,
    error=RecordingError(code="InternalError", message="x"),
)
FINISHED = OnlineRecordFinished(task_id="task", timestamp=1)
FORCE_STOPPED = OnlineRecordLongPauseForceStopped(task_id="task", room_id=7, timestamp=1)
WELL = b'{"errcode":0,"errmsg":"ok"}'


def notify_chat(monkeypatch: pytest.MonkeyPatch, url: str, kind: str = "wecom") -> Consumer:
    monkeypatch.setenv("CHAT_WEBHOOK_URL", url)
    monkeypatch.setenv("CHAT_KIND", kind)
    return load_example("notify_chat")


@pytest.mark.parametrize(
    ("kind", "well", "expected"),
    [
        ("wecom", WELL, {"msgtype": "text", "text": {"content": ...}}),
        ("dingtalk", WELL, {"msgtype": "text", "text": {"content": ...}, "msgUuid": "0" * 32}),
        ("feishu", b'{"code":0,"msg":"success","data":{}}', {"msg_type": "text", "content": {"text": ...}}),
        ("feishu", b'{"StatusCode":0,"StatusMessage":"success"}', {"msg_type": "text", "content": {"text": ...}}),
    ],
)
async def test_a_failed_recording_is_told_in_the_form_of_the_robot(
    monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint, kind: str, well: bytes, expected: dict[str, object]
) -> None:
    endpoint.body = well
    assert await run_consumer(notify_chat(monkeypatch, endpoint.url, kind), FAILED) == Ack()
    (request,) = endpoint.requests
    sent = json.loads(request.body)
    place, name = ("content", "text") if kind == "feishu" else ("text", "content")
    text = sent[place][name]
    assert text == "Recording task in room 7, application 1400000001 failed: InternalError: x"
    assert sent == {**expected, place: {name: text}}
    assert request.headers["content-type"] == "application/json"


async def test_a_recording_stopped_after_a_long_pause_is_told(
    monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint
) -> None:
    endpoint.body = WELL
    assert await run_consumer(notify_chat(monkeypatch, endpoint.url), FORCE_STOPPED) == Ack()
    (request,) = endpoint.requests
    assert "had been paused for too long" in json.loads(request.body)["text"]["content"]


async def test_a_recording_that_went_well_is_not_told(monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint) -> None:
    assert await run_consumer(notify_chat(monkeypatch, endpoint.url), FINISHED) == Ack()
    assert endpoint.requests == []


async def test_a_long_or_hostile_error_neither_breaks_the_limit_nor_calls_everybody(
    monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint
) -> None:
    endpoint.body = WELL
    hostile = RecordingError(code="c", message='<at user_id="all">' + "\N{SNOWMAN}\U0001f3a5" * 5000)
    event = OnlineRecordFinished(task_id="task", timestamp=1, error=hostile)
    assert await run_consumer(notify_chat(monkeypatch, endpoint.url), event) == Ack()
    text = json.loads(endpoint.requests[0].body)["text"]["content"]
    assert len(text.encode()) <= 2048
    assert "<" not in text


@pytest.mark.parametrize(
    ("kind", "status", "body", "after_s"),
    [
        ("wecom", 200, b'{"errcode":45009,"errmsg":"api freq out of limit"}', 60),
        ("wecom", 200, b'{"errcode":-1,"errmsg":"system busy"}', 60),
        ("feishu", 200, b'{"code":11232,"msg":"frequency limited psm"}', 60),
        ("feishu", 400, b'{"code":11232,"msg":"frequency limited psm"}', 60),
        ("dingtalk", 200, b'{"errcode":130101,"errmsg":"send too fast, exceed 20 times per minute"}', 600),
        ("wecom", 429, b"", 60),
        ("wecom", 500, b"<html>", 60),
        ("wecom", 503, b'{"errcode":0}', 60),
    ],
)
async def test_a_busy_robot_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint, *, kind: str, status: int, body: bytes, after_s: float
) -> None:
    endpoint.status, endpoint.body = status, body
    outcome = await run_consumer(notify_chat(monkeypatch, endpoint.url, kind), FAILED)
    assert isinstance(outcome, Retry)
    assert outcome.after_s == after_s
    assert outcome.reason


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, b'{"errcode":93000,"errmsg":"invalid webhook url"}', "answered 200, code 93000"),
        (200, b'{"code":19024,"msg":"Key Words Not Found"}', "answered 200, code 19024"),
        (200, b"<html>a portal</html>", "answered 200, code None"),
        (200, b"[]", "answered 200, code None"),
        (200, b'{"errcode":"0"}', "answered 200, code None"),
        (204, b"", "answered 204"),
        (302, b"", "answered 302"),
        (404, b"", "answered 404"),
    ],
)
async def test_what_the_robot_refuses_is_a_dead_letter_that_says_its_code(
    monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint, status: int, body: bytes, said: str
) -> None:
    endpoint.status, endpoint.body = status, body
    outcome = await run_consumer(notify_chat(monkeypatch, endpoint.url), FAILED)
    assert isinstance(outcome, DeadLetter)
    assert said in outcome.reason


async def test_a_robot_that_is_not_reached_is_asked_again_and_its_address_stays_secret(
    monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint
) -> None:
    endpoint.hangs_up = True
    structlog.reset_defaults()
    with capture_logs() as logs:
        outcome: Outcome = await run_consumer(notify_chat(monkeypatch, endpoint.url), FAILED)
    assert isinstance(outcome, Retry)
    assert outcome.reason == "the robot was not reached: ServerDisconnectedError"
    assert "very-secret" not in repr(logs)


@pytest.mark.parametrize("url", ["", "qyapi.weixin.qq.com/hook", "ftp://very-secret/x", "https://"])
def test_a_missing_or_wrong_address_is_said_at_the_start(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    with pytest.raises(LoadError, match="CHAT_WEBHOOK_URL must be the robot's address") as refused:
        notify_chat(monkeypatch, url)
    assert "very-secret" not in str(refused.value)


def test_the_address_tells_the_kind_or_the_kind_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for host in ("qyapi.weixin.qq.com", "open.feishu.cn", "open.larksuite.com", "oapi.dingtalk.com"):
        notify_chat(monkeypatch, f"https://{host}/hook", kind="")
    with pytest.raises(LoadError, match="CHAT_KIND must be wecom, feishu or dingtalk"):
        notify_chat(monkeypatch, "https://proxy.example/hook", kind="")
