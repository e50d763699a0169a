"""What each kind of channel is sent, within its limits, and what its answers are taken for."""

import asyncio
import json
import socket
import time
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from notify import Answer, Channel, RefusedForGood, Sender, Sent, TryLater, parse_channels
from notify.channels import REFUSALS, judge, mail_of, request_of
from notify.config import KINDS, Kind
from notify.messages import Content, Wording, compose
from notify.rules import RULES, TEMPLATE_FIELDS
from notify.texts import LANGUAGES, load_templates
from tests.notify.sinks import MailSink, WebSink

SECRET = "very-secret-1234"
WHSEC = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
#: 2026-11-23 10:45 UTC.
NOW_S = 1_795_430_700.0
TEMPLATES = load_templates(TEMPLATE_FIELDS).templates
BOTH = Wording(languages=LANGUAGES["both"], templates=TEMPLATES)
ENGLISH = Wording(languages=LANGUAGES["en"], templates=TEMPLATES)

#: Made by openssl, as the tests say.
DINGTALK_SIGN = "8MmL5rYLLrwoZfzUBfivONWNHeICSeWb%2FnCJr20pfOw%3D"
FEISHU_SIGN = "yR28eOVYkOcx9kGde1JdSj5+XxyQj98VmHZpjDxe6+M="

ADDRESSES: dict[Kind, str] = {
    "wecom": "/wecom/send?key=very-secret-1234#keyword=K&mention=all&mention=ann&mention=13800000000",
    "dingtalk": "/dingtalk/send?access_token=very-secret-1234#secret=SEC-dingtalk&mention=all&mention=13800000000",
    "feishu": "/feishu/hook/very-secret-1234#secret=SEC-feishu&mention=all&mention=ou_1",
    "slack": "/slack/very-secret-1234#mention=here&mention=U1&mention=S2",
    "webhook": f"/hook/very-secret-1234#secret={WHSEC}",
}


def channel_of(kind: Kind, url: str = "http://127.0.0.1:1") -> Channel:
    address = "smtp://ops:secret@127.0.0.1:1/?to=a@example.com#keyword=K" if kind == "email" else url + ADDRESSES[kind]
    (channel,) = parse_channels(f"{kind}={address}")
    return channel


def failed(number: int = 1, message: str = "im login failed with code 6206", **data: Any) -> Content:
    return Content(
        notice_id=f"{number:032}",
        rule="failed",
        data={
            "task_id": f"task-{number}",
            "room_id": 880528,
            "sdk_app_id": 1400000001,
            "error_code": "40004",
            "error_message": message,
            **data,
        },
        created_at_s=NOW_S - 60,
    )


def payload(kind: Kind, notices: list[Content], wording: Wording = BOTH) -> Any:
    channel = channel_of(kind)
    return json.loads(request_of(channel, compose(notices, kind, wording, now_s=NOW_S), now_s=NOW_S).body)


def text_of(kind: Kind, sent: Any) -> str:
    """Return what a person reads of a payload."""
    if kind == "slack":
        return str(sent["blocks"][0]["text"]["text"])
    if kind == "webhook":
        return str(sent["data"]["text"])
    return str(sent["content"]["text"] if kind == "feishu" else sent["text"]["content"])


HTTP_KINDS: list[Kind] = [kind for kind in KINDS if kind != "email"]


def test_wecom_is_sent_text_with_the_keyword_first_and_whom_to_call_beside_it() -> None:
    sent = payload("wecom", [failed()], ENGLISH)
    assert sent["msgtype"] == "text"
    assert sent["text"]["content"].startswith("K Room 880528: recording failed\n")
    assert "40004 im login failed with code 6206" in sent["text"]["content"]
    assert sent["text"]["mentioned_list"] == ["@all", "ann"]
    assert sent["text"]["mentioned_mobile_list"] == ["13800000000"]


def test_dingtalk_is_signed_in_the_address_as_its_documentation_says() -> None:
    request = request_of(channel_of("dingtalk"), compose([failed()], "dingtalk", BOTH, now_s=NOW_S), now_s=NOW_S)
    # echo -en '1795430700000\nSEC-dingtalk' | openssl dgst -sha256 -hmac SEC-dingtalk -binary | base64
    assert request.url.endswith("access_token=very-secret-1234&timestamp=1795430700000&sign=" + DINGTALK_SIGN)
    sent = json.loads(request.body)
    assert sent["at"] == {"atMobiles": ["13800000000"], "atUserIds": [], "isAtAll": True}
    assert sent["text"]["content"].endswith(" @13800000000")
    assert sent["msgUuid"] == f"{1:032}"


def test_feishu_is_signed_in_the_body_as_its_documentation_says() -> None:
    sent = payload("feishu", [failed()])
    # printf '' | openssl dgst -sha256 -hmac $'1795430700\nSEC-feishu' -binary | base64
    assert (sent["timestamp"], sent["sign"]) == ("1795430700", FEISHU_SIGN)
    assert sent["msg_type"] == "text"
    assert sent["content"]["text"].endswith('\n<at user_id="all"></at> <at user_id="ou_1"></at>')


def test_slack_is_sent_plain_text_and_calls_apart() -> None:
    sent = payload("slack", [failed(message="a < b & <!channel>")], ENGLISH)
    section, calls = sent["blocks"]
    assert section["text"]["type"] == "plain_text"
    assert calls == {"type": "section", "text": {"type": "mrkdwn", "text": "<!here> <@U1> <!subteam^S2>"}}
    assert sent["text"] == "Room 880528: recording failed"


def test_a_webhook_is_signed_as_standard_webhooks_are_and_has_the_facts() -> None:
    channel = channel_of("webhook")
    message = compose([failed(message="<raw> @all")], "webhook", BOTH, now_s=NOW_S)
    request = request_of(channel, message, now_s=time.time())
    verified = Webhook(WHSEC).verify(request.body, dict(request.headers))
    assert verified["type"] == "tiw.failed"
    assert verified["timestamp"] == "2026-11-23T10:44:00+00:00"
    (fact,) = verified["data"]["notices"]
    assert fact["error_message"] == "<raw> @all"
    assert (fact["rule"], fact["room_id"], fact["task_id"]) == ("failed", 880528, "task-1")
    assert request.headers["webhook-id"] == f"{1:032}"


def test_nobody_is_called_for_what_can_wait() -> None:
    notice = Content(
        notice_id="1", rule="dead_letters", data={"consumer": "a", "count": 1, "reason": "x"}, created_at_s=NOW_S
    )
    assert "mentioned_list" not in payload("wecom", [notice])["text"]
    assert payload("dingtalk", [notice])["at"] == {"atMobiles": [], "atUserIds": [], "isAtAll": False}
    assert "<at" not in payload("feishu", [notice])["content"]["text"]
    assert len(payload("slack", [notice])["blocks"]) == 1


@pytest.mark.parametrize("kind", HTTP_KINDS)
@pytest.mark.parametrize("count", [1, 2, 200])
def test_no_message_is_larger_than_its_robot_takes(kind: Kind, count: int) -> None:
    hostile = '录制失败"\\\U0001f3a5' * 500
    notices = [failed(number, message=hostile, room_id=2**63 - 1, task_id=hostile[:250]) for number in range(count)]
    channel = channel_of(kind)
    body = request_of(channel, compose(notices, kind, BOTH, now_s=NOW_S), now_s=NOW_S).body
    text = text_of(kind, json.loads(body))
    if kind == "wecom":
        assert len(text.encode()) <= 2048
    elif kind == "slack":
        assert len(text.encode("utf-16-le")) / 2 <= 3000
    elif kind != "webhook":
        assert len(body) <= 20_000
    assert "录制失败" in text
    assert "recording failed" in text


@given(value=st.text(st.characters(exclude_categories=["Cs"])), kind=st.sampled_from(HTTP_KINDS))
def test_no_text_of_an_event_calls_anybody_in_any_payload(value: str, kind: Kind) -> None:
    hostile = f'{value}<at user_id="all"></at><!channel><@U1>@all[x](https://y)\u202e\n\n'
    given_notices = [failed(1, message=hostile, task_id=hostile[:250]), failed(2, error_code=hostile)]
    for notices in (given_notices, given_notices[:1]):
        sent = payload(kind, notices, ENGLISH)
        shown = text_of(kind, sent)
        if kind == "webhook":
            assert all(line.isprintable() for line in shown.splitlines())
            continue
        own = {"feishu": '<at user_id="all"></at> <at user_id="ou_1"></at>', "dingtalk": " @13800000000"}.get(kind, "")
        assert shown.endswith(own)
        rest = shown.removesuffix(own)
        assert not set(rest) & set("<>[]@*~")
        assert "://" not in rest
        assert "\u202e" not in rest
        assert len(rest.splitlines()) <= 6 * len(notices)


VALUES = st.none() | st.integers(-(2**63), 2**63 - 1) | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(data=st.data(), rule=st.sampled_from(sorted(RULES)), kind=st.sampled_from(KINDS))
def test_whatever_a_notice_holds_it_can_be_told(data: st.DataObject, rule: str, kind: Kind) -> None:
    names = [*RULES[rule].fields, "late_s", "error_message"]
    contents = [
        Content(
            notice_id=str(number),
            rule=rule,
            data=data.draw(st.fixed_dictionaries({}, optional=dict.fromkeys(names, VALUES))),
            created_at_s=NOW_S,
        )
        for number in range(data.draw(st.integers(1, 3)))
    ]
    message = compose(contents, kind, BOTH, now_s=NOW_S)
    channel = channel_of(kind)
    sent = (
        mail_of(channel, message, now_s=NOW_S).as_bytes()
        if kind == "email"
        else request_of(channel, message, now_s=NOW_S).body
    )
    assert sent


def test_an_e_mail_has_one_subject_and_an_id_that_stays() -> None:
    channel = channel_of("email")
    message = compose([failed(message="x\r\nBcc: evil@example.com")], "email", BOTH, now_s=NOW_S)
    mail = mail_of(channel, message, now_s=NOW_S)
    again = mail_of(channel, message, now_s=NOW_S + 60)
    assert mail["Subject"] == "K 房间 880528：录制失败 / Room 880528: recording failed"
    assert mail["Message-ID"] == again["Message-ID"] == f"<{1:032}@127.0.0.1>"
    assert (mail["From"], mail["To"], mail["Bcc"]) == ("ops@127.0.0.1", "a@example.com", None)
    assert "x Bcc: evil@example.com" in mail.get_content()
    assert mail["Auto-Submitted"] == "auto-generated"


@given(value=st.text(st.characters(exclude_categories=["Cs"]), max_size=400))
def test_no_text_of_an_event_makes_a_header_of_an_e_mail(value: str) -> None:
    notice = Content(
        notice_id="1",
        rule="dead_letters",
        data={"consumer": f"a\r\nBcc: b@c.d\n\n{value}", "count": 1, "reason": value},
        created_at_s=NOW_S,
    )
    mail = mail_of(channel_of("email"), compose([notice], "email", ENGLISH, now_s=NOW_S), now_s=NOW_S)
    head, _, _ = mail.as_bytes().partition(b"\r\n\r\n")
    names = [line.partition(b":")[0] for line in head.split(b"\r\n") if not line.startswith((b" ", b"\t"))]
    assert sorted(names) == [
        b"Auto-Submitted",
        b"Content-Transfer-Encoding",
        b"Content-Type",
        b"Date",
        b"From",
        b"MIME-Version",
        b"Message-ID",
        b"Subject",
        b"To",
    ]


def judged(kind: Kind, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> Answer:
    return judge(channel_of(kind), status, headers or {}, body, now_s=NOW_S)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("wecom", b'{"errcode":0,"errmsg":"ok"}'),
        ("dingtalk", b'{"errcode":0,"errmsg":"ok"}'),
        ("feishu", b'{"code":0,"msg":"success","data":{}}'),
        ("feishu", b'{"StatusCode":0,"StatusMessage":"success"}'),
        ("slack", b"ok"),
        ("slack", b'{"success":true}'),
        ("webhook", b""),
    ],
)
def test_success_is_what_the_vendor_calls_success(kind: Kind, body: bytes) -> None:
    assert judged(kind, 200, body) == Sent()


@pytest.mark.parametrize(
    ("kind", "status", "body"),
    [
        ("wecom", 200, b'{"errcode":40058,"errmsg":"too long"}'),
        ("wecom", 200, b'{"errcode":93000,"errmsg":"invalid webhook url"}'),
        ("dingtalk", 200, b'{"errcode":310000,"errmsg":"keywords not in content"}'),
        ("dingtalk", 200, b'{"errcode":460101,"errmsg":"message too long"}'),
        ("dingtalk", 200, b'{"errcode":90030,"errmsg":"quota"}'),
        ("feishu", 200, b'{"code":19021,"msg":"sign match fail"}'),
        ("feishu", 200, b'{"code":19024,"msg":"Key Words Not Found"}'),
        ("feishu", 400, b'{"code":19001,"msg":"param invalid"}'),
        ("slack", 400, b"invalid_payload"),
        ("slack", 403, b"action_prohibited"),
        ("slack", 404, b"no_service"),
        ("slack", 410, b"channel_is_archived"),
        ("webhook", 410, b""),
        ("webhook", 401, b""),
        ("webhook", 302, b""),
        ("wecom", 404, b"<html>"),
    ],
)
def test_what_is_refused_for_good_is_not_tried_again_and_says_what_to_do(kind: Kind, status: int, body: bytes) -> None:
    answer = judged(kind, status, body)
    assert isinstance(answer, RefusedForGood)
    assert answer.code
    assert len(answer.remedy) > 20


@pytest.mark.parametrize(
    ("kind", "status", "body", "after_s"),
    [
        ("wecom", 200, b'{"errcode":45009,"errmsg":"api freq out of limit"}', 60),
        ("wecom", 200, b'{"errcode":-1,"errmsg":"system busy"}', 60),
        ("dingtalk", 200, b'{"errcode":130101,"errmsg":"send too fast"}', 600),
        ("feishu", 200, b'{"code":11232,"msg":"frequency limited psm"}', 60),
        ("feishu", 400, b'{"code":9499,"msg":"too many request"}', 60),
        ("wecom", 200, b'{"errcode":123456,"errmsg":"nobody knows"}', 30),
        ("wecom", 200, b"<html>a portal</html>", 30),
        ("wecom", 200, b'{"errcode":"0"}', 30),
        ("wecom", 200, b'{"errcode":false}', 30),
        ("dingtalk", 200, b"[]", 30),
        ("slack", 200, b"sorry", 30),
        ("slack", 500, b"rollup_error", 30),
        ("webhook", 503, b"", 30),
    ],
)
def test_what_may_be_taken_later_is_tried_again(kind: Kind, status: int, body: bytes, after_s: float) -> None:
    answer = judged(kind, status, body)
    assert isinstance(answer, TryLater)
    assert answer.after_s == after_s


@pytest.mark.parametrize(
    ("value", "after_s"),
    [
        ("7", 7),
        ("999999", 3600),
        ("Mon, 23 Nov 2026 10:46:00 GMT", 60),
        ("Mon, 23 Nov 2020 10:46:00 GMT", 0),
        ("soon", 30),
        ("-1", 30),
    ],
)
def test_a_channel_may_say_when(value: str, after_s: float) -> None:
    answer = judged("slack", 429, b"rate_limited", {"Retry-After": value})
    assert isinstance(answer, TryLater)
    assert (answer.after_s, answer.is_busy) == (after_s, True)


def test_a_robots_own_words_are_passed_on_without_its_address() -> None:
    body = json.dumps({"errcode": 310000, "errmsg": f"sign not match for {SECRET}\n<x>"}).encode()
    answer = judged("dingtalk", 200, body)
    assert isinstance(answer, RefusedForGood)
    assert '("sign not match for *** <x>")' in answer.remedy
    assert SECRET not in answer.remedy


@given(kind=st.sampled_from(HTTP_KINDS), status=st.integers(100, 599), body=st.binary(max_size=200))
def test_no_answer_is_too_strange(kind: Kind, status: int, body: bytes) -> None:
    answer = judged(kind, status, body)
    assert isinstance(answer, Sent | RefusedForGood | TryLater)
    if kind != "webhook" and status != 200:
        assert not isinstance(answer, Sent)


def test_every_refusal_in_the_table_is_of_a_kind_that_answers_so() -> None:
    assert REFUSALS.keys() == {"wecom", "dingtalk", "feishu"}


async def send(channel: Channel, timeout_s: float = 5.0, notices: list[Content] | None = None) -> Answer:
    async with Sender(timeout_s=timeout_s) as sender:
        return await sender.send(channel, compose(notices or [failed()], channel.kind, BOTH, now_s=time.time()))


@pytest.mark.parametrize("kind", ["wecom", "dingtalk", "feishu"])
async def test_a_robot_takes_what_it_is_sent(web_sink: WebSink, kind: Kind) -> None:
    assert await send(channel_of(kind, web_sink.url)) == Sent()
    (text,) = web_sink.texts()
    assert "录制失败" in text
    (request,) = web_sink.requests
    assert request.headers["content-type"] == "application/json"


@pytest.mark.parametrize("kind", ["dingtalk", "feishu"])
async def test_a_robot_that_wants_another_signature_refuses_for_good(web_sink: WebSink, kind: Kind) -> None:
    address = ADDRESSES[kind].replace("#secret=SEC-", "#secret=WRONG-")
    (channel,) = parse_channels(f"{kind}={web_sink.url}{address}")
    answer = await send(channel)
    assert isinstance(answer, RefusedForGood)
    assert "#secret=" in answer.remedy
    assert web_sink.texts() == []


async def test_a_robot_that_answers_200_with_an_error_code_is_not_counted_as_sent(web_sink: WebSink) -> None:
    web_sink.body = b'{"errcode":93000,"errmsg":"invalid webhook url"}'
    (channel,) = parse_channels(f"wecom={web_sink.url}/other/very-secret-1234")
    assert isinstance(await send(channel), RefusedForGood)


async def test_a_redirect_is_not_followed(web_sink: WebSink) -> None:
    web_sink.status, web_sink.headers = 307, {"location": f"{web_sink.url}/elsewhere"}
    assert isinstance(await send(channel_of("webhook", web_sink.url)), RefusedForGood)
    assert len(web_sink.requests) == 1


async def test_no_proxy_of_the_environment_is_asked(web_sink: WebSink, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert await send(channel_of("webhook", web_sink.url)) == Sent()


async def test_an_answer_without_an_end_is_not_read_to_its_end(web_sink: WebSink) -> None:
    web_sink.body = b"x" * 50_000_000
    (channel,) = parse_channels(f"wecom={web_sink.url}/endless")
    answer = await send(channel)
    assert isinstance(answer, TryLater)
    assert "no robot's answer" in answer.reason


async def test_who_does_not_answer_in_time_is_tried_later(web_sink: WebSink) -> None:
    web_sink.before = lambda _: asyncio.sleep(60)
    answer = await send(channel_of("webhook", web_sink.url), timeout_s=0.3)
    assert answer == TryLater(after_s=30, reason="it did not answer within 0 s")


async def test_who_is_not_reached_is_tried_later_and_its_address_stays_secret() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    for address in (f"webhook=http://127.0.0.1:{port}/{SECRET}", f"email=smtp://u:{SECRET}@127.0.0.1:{port}?to=a@b.c"):
        (channel,) = parse_channels(address)
        answer = await send(channel)
        assert isinstance(answer, TryLater)
        assert SECRET not in answer.reason
        assert answer.reason.startswith("it was not reached: ")


def mail_channel(sink: MailSink, user: str = "ops:secret@", to: str = "to=a@example.com") -> Channel:
    (channel,) = parse_channels(f"email=smtp://{user}127.0.0.1:{sink.port}/?{to}&from=tiw@example.com")
    return channel


async def test_an_e_mail_arrives_in_chinese(mail_sink: MailSink) -> None:
    assert await send(mail_channel(mail_sink)) == Sent()
    (mail,) = mail_sink.mails
    assert "录制失败" in mail["Subject"]
    assert "录制任务 task-1" in mail.get_content()
    assert mail["Message-ID"] == f"<{1:032}@example.com>"
    (envelope,) = mail_sink.envelopes
    assert (envelope.mail_from, envelope.rcpt_tos) == ("tiw@example.com", ["a@example.com"])


@pytest.mark.parametrize(
    ("user", "rcpt", "data", "code", "said"),
    [
        ("ops:wrong@", "250", "250", "535", "user and password"),
        ("ops:secret@", "550 unknown", "250", "550", "correct to="),
        ("ops:secret@", "250", "554 spam", "554", "does not take the message"),
    ],
)
async def test_a_mail_server_that_refuses_for_good_is_believed(
    mail_sink: MailSink, *, user: str, rcpt: str, data: str, code: str, said: str
) -> None:
    mail_sink.rcpt, mail_sink.data = rcpt, data
    answer = await send(mail_channel(mail_sink, user))
    assert isinstance(answer, RefusedForGood)
    assert answer.code == code
    assert said in answer.remedy


@pytest.mark.parametrize(("rcpt", "data"), [("450 greylisted", "250"), ("250", "421 later")])
async def test_a_mail_server_that_says_later_is_asked_later(mail_sink: MailSink, rcpt: str, data: str) -> None:
    mail_sink.rcpt, mail_sink.data = rcpt, data
    assert isinstance(await send(mail_channel(mail_sink)), TryLater)


async def test_a_recipient_that_is_refused_takes_nothing_from_the_others(mail_sink: MailSink) -> None:
    mail_sink.rcpt = "!b@example.com 550 unknown"
    answer = await send(mail_channel(mail_sink, to="to=a@example.com&to=b@example.com"))
    assert answer == Sent(note="1 of 2 recipients were refused: correct to=")
    assert len(mail_sink.mails) == 1


async def test_a_mail_server_without_encryption_is_refused_where_it_is_asked_for(mail_sink: MailSink) -> None:
    (channel,) = parse_channels(f"email=starttls://ops:secret@127.0.0.1:{mail_sink.port}/?to=a@example.com")
    answer = await send(channel)
    assert isinstance(answer, RefusedForGood)
    assert mail_sink.mails == []
