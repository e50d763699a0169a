"""How each kind of channel is spoken to: payloads, signatures, limits, and what its answers mean.

The robots of WeCom, DingTalk and Feishu answer refusals with HTTP 200 and a code in the body; what they take is counted
in bytes. The formats are the vendors':

- WeCom: https://developer.work.weixin.qq.com/document/path/91770
- DingTalk: https://open.dingtalk.com/document/orgapp/custom-robots-send-group-messages
- Feishu, Lark: https://open.feishu.cn/document/client-docs/bot-v3/add-custom-bot
- Slack: https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks
- Webhooks: https://github.com/standard-webhooks/standard-webhooks
"""

import asyncio
import base64
import hashlib
import hmac
import re
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import format_datetime, parsedate_to_datetime
from typing import TYPE_CHECKING, Self, TypeAlias
from urllib.parse import parse_qsl, quote, quote_plus, urlsplit

import msgspec
from msgspec import Struct

from notify.config import Channel, Kind, MailServer
from notify.texts import Message, cut, fit, one_line, utf8_size

if TYPE_CHECKING:
    import aiohttp


class Sent(Struct, frozen=True, kw_only=True):
    """The channel has taken it."""

    note: str = ""


class RefusedForGood(Struct, frozen=True, kw_only=True):
    """The channel will not take it, however often it is asked. `code` is its own; `remedy` says what to do."""

    code: str
    remedy: str


class TryLater(Struct, frozen=True, kw_only=True):
    """The channel did not take it, or did not say that it did; it may later. `is_busy`: it takes nothing until then."""

    after_s: float
    reason: str
    is_busy: bool = False


Answer: TypeAlias = Sent | RefusedForGood | TryLater


class Pace(Struct, frozen=True, kw_only=True):
    """How often a channel is spoken to: `burst` at once, and one more each `every_s`."""

    every_s: float
    burst: int


#: Robots take 20 a minute (WeCom, DingTalk, which then refuses all for 10 minutes), 100 (Feishu), Slack one a second.
#: Something is left for whoever else uses the robot.
PACES: dict[Kind, Pace] = {
    "wecom": Pace(every_s=4.5, burst=5),
    "dingtalk": Pace(every_s=4.5, burst=5),
    "feishu": Pace(every_s=1.0, burst=5),
    "slack": Pace(every_s=1.1, burst=1),
    "webhook": Pace(every_s=0.2, burst=50),
    "email": Pace(every_s=6.0, burst=10),
}

#: From the connection to the last byte of the answer.
TIMEOUT_S = 15.0

_MAX_ANSWER_BYTES = 16 * 1024

_WECOM_BYTES = 2048
#: Of the whole body: 20,000 bytes with DingTalk, 20 KB with Feishu.
_BODY_BYTES = 19_000
#: Of one block of text: https://docs.slack.dev/reference/block-kit/blocks/section-block
_SLACK_CHARACTERS = 2900
_WEBHOOK_BYTES = 64 * 1024
_MAIL_BYTES = 256 * 1024
_SUBJECT_BYTES = 200

_AGAIN_S = 30.0


class Request(Struct, frozen=True, kw_only=True):
    """An HTTP request that sends a message."""

    url: str
    body: bytes
    headers: Mapping[str, str]


def request_of(channel: Channel, message: Message, *, now_s: float) -> Request:
    """Return the request that sends `message` now. Not for e-mail."""
    return _REQUESTS[channel.kind](channel, message, now_s)


def _wecom(channel: Channel, message: Message, now_s: float) -> Request:
    del now_s
    mentioned = _mentioned(channel, message)
    mobiles = [one for one in mentioned if re.fullmatch(r"\+?[0-9]{6,}", one)]
    others = ["@all" if one == "all" else one for one in mentioned if one not in mobiles]
    text: dict[str, object] = {"content": _text(channel, message, _WECOM_BYTES, utf8_size)}
    if mentioned:
        text |= {"mentioned_list": others, "mentioned_mobile_list": mobiles}
    return _json(channel.url, {"msgtype": "text", "text": text})


def _dingtalk(channel: Channel, message: Message, now_s: float) -> Request:
    mentioned = _mentioned(channel, message)
    mobiles = [one for one in mentioned if re.fullmatch(r"\+?[0-9-]{6,}", one)]
    users = [one for one in mentioned if one not in mobiles and one != "all"]
    calls = "".join(f" @{one}" for one in mobiles + users)
    content = _text(channel, message, _BODY_BYTES - utf8_size(calls), _json_size)
    url = channel.url
    if channel.secret:
        timestamp_ms = round(now_s * 1000)
        signed = f"{timestamp_ms}\n{channel.secret}".encode()
        sign = base64.b64encode(hmac.digest(channel.secret.encode(), signed, hashlib.sha256)).decode()
        url += f"{'&' if urlsplit(url).query else '?'}timestamp={timestamp_ms}&sign={quote_plus(sign)}"
    return _json(
        url,
        {
            "msgtype": "text",
            "text": {"content": content + calls},
            "at": {"atMobiles": mobiles, "atUserIds": users, "isAtAll": "all" in mentioned},
            # What it has had already it does not show again.
            "msgUuid": message.message_id,
        },
    )


def _feishu(channel: Channel, message: Message, now_s: float) -> Request:
    calls = "".join(f'<at user_id="{one}"></at> ' for one in _mentioned(channel, message))
    text = _text(channel, message, _BODY_BYTES - _json_size(calls), _json_size)
    payload: dict[str, object] = {"msg_type": "text", "content": {"text": f"{text}\n{calls}".rstrip()}}
    if channel.secret:
        timestamp = str(int(now_s))
        # The key is what others sign, and nothing is signed.
        sign = hmac.digest(f"{timestamp}\n{channel.secret}".encode(), b"", hashlib.sha256)
        payload |= {"timestamp": timestamp, "sign": base64.b64encode(sign).decode()}
    return _json(channel.url, payload)


def _slack(channel: Channel, message: Message, now_s: float) -> Request:
    del now_s
    text = _text(channel, message, _SLACK_CHARACTERS, _utf16_size)
    calls = " ".join(_slack_call(one) for one in _mentioned(channel, message))
    # As plain text nothing in it is a format or a call. A notification on a telephone shows `text`.
    blocks: list[object] = [{"type": "section", "text": {"type": "plain_text", "text": text, "emoji": False}}]
    if calls:
        blocks.append({"type": "section", "text": {"type": "mrkdwn", "text": calls}})
    title = cut(f"{channel.keyword} {message.title}".strip(), 300, len)
    escaped = title.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _json(channel.url, {"text": escaped, "blocks": blocks})


def _slack_call(mention: str) -> str:
    if mention in ("all", "channel"):
        return "<!channel>"
    if mention in ("here", "everyone"):
        return f"<!{mention}>"
    return f"<!subteam^{mention}>" if mention.startswith("S") else f"<@{mention}>"


def _webhook(channel: Channel, message: Message, now_s: float) -> Request:
    payload = {
        "type": f"tiw.{message.kind_of_notice}",
        "timestamp": datetime.fromtimestamp(message.created_at_s, UTC).isoformat(timespec="seconds"),
        "data": {
            "severity": message.severity,
            "title": message.title,
            "text": fit(message.parts, _WEBHOOK_BYTES),
            "notices": list(message.facts),
        },
    }
    request = _json(channel.url, payload)
    headers = {"webhook-id": message.message_id, "webhook-timestamp": str(int(now_s))}
    if channel.secret:
        # Imported here: who sends no webhooks needs it not.
        from standardwebhooks import Webhook  # noqa: PLC0415

        signed_at = datetime.fromtimestamp(int(now_s), UTC)
        headers["webhook-signature"] = Webhook(channel.secret).sign(
            message.message_id, signed_at, request.body.decode()
        )
    return Request(url=request.url, body=request.body, headers={**request.headers, **headers})


_REQUESTS: dict[Kind, Callable[[Channel, Message, float], Request]] = {
    "wecom": _wecom,
    "dingtalk": _dingtalk,
    "feishu": _feishu,
    "slack": _slack,
    "webhook": _webhook,
}


def _text(channel: Channel, message: Message, at_most: int, size: Callable[[str], int]) -> str:
    prefix = f"{channel.keyword} " if channel.keyword else ""
    return prefix + fit(message.parts, at_most - size(prefix), size)


def _mentioned(channel: Channel, message: Message) -> tuple[str, ...]:
    """Return whom to call: somebody only when it cannot wait."""
    return channel.mentions if message.severity == "critical" else ()


def _json(url: str, payload: Mapping[str, object]) -> Request:
    return Request(url=url, body=msgspec.json.encode(payload), headers={"content-type": "application/json"})


def _json_size(text: str) -> int:
    """Return how many bytes a text has within JSON, without its quotes."""
    return len(msgspec.json.encode(text)) - 2


def _utf16_size(text: str) -> int:
    """Return how many characters a text has for who counts as JavaScript does."""
    return len(text.encode("utf-16-le")) // 2


def mail_of(channel: Channel, message: Message, *, now_s: float) -> EmailMessage:
    """Return the e-mail that sends `message`. Its Message-ID is the same for every try."""
    server = _server(channel)
    mail = EmailMessage(policy=SMTP_POLICY)
    # One line: a header that could hold two would be two.
    title = one_line(f"{channel.keyword} {message.title}".strip())
    mail["Subject"] = cut(title, _SUBJECT_BYTES)
    mail["From"] = server.sender
    mail["To"] = ", ".join(server.recipients)
    mail["Date"] = format_datetime(datetime.fromtimestamp(int(now_s), UTC))
    mail["Message-ID"] = f"<{message.message_id}@{server.sender.rpartition('@')[2]}>"
    # No holiday notice answers it: https://www.rfc-editor.org/rfc/rfc3834#section-5
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(fit(message.parts, _MAIL_BYTES), charset="utf-8")
    return mail


def _server(channel: Channel) -> MailServer:
    if channel.mail is None:
        raise ValueError(f"{channel!r} sends no e-mail")
    return channel.mail


_ADDRESS_WRONG = "its address leads to no robot: copy it again from the robot's settings into TIW_NOTIFY"
_SECURITY_SETTINGS = (
    "the robot's security settings refuse it: set #secret= to the robot's signing secret, keyword= to its keyword, "
    "or allow this host's address"
)
_OURS = "it is not in a form that the channel takes: report it as a defect"

#: Codes that mean for good, and what to do. What is in neither table may be either, and is tried again.
#: 40058: https://github.com/RayWangQvQ/BiliBiliToolPro/issues/702; 93000: https://github.com/qd-today/qd/issues/586;
#: 300001, 300005: https://github.com/timonwong/prometheus-webhook-dingtalk/issues/226; 460101: .../issues/30 there;
#: 90030: https://github.com/opsre/WatchAlert/issues/91; 400402: https://github.com/blinkbean/dingtalk/issues/4;
#: 19001: https://github.com/sansan0/TrendRadar/issues/278; 19021: https://github.com/feiyu563/PrometheusAlert/issues/422.
REFUSALS: dict[Kind, dict[int, str]] = {
    "wecom": {93000: _ADDRESS_WRONG, 40058: _OURS},
    "dingtalk": {
        300001: _ADDRESS_WRONG,
        300005: _ADDRESS_WRONG,
        310000: _SECURITY_SETTINGS,
        460101: _OURS,
        400402: _OURS,
        90030: "the organisation's monthly quota of robot messages is used up: raise it, or use another channel",
    },
    "feishu": {
        19001: _ADDRESS_WRONG,
        19021: "the signature is wrong or the clock is off by an hour: set #secret= to the robot's signing secret",
        19022: "the robot allows certain addresses alone: add this host's to its settings",
        19024: "the robot asks for a keyword: set #keyword= to it",
    },
}

#: Codes that mean later, and when. DingTalk refuses everything for 10 minutes after the 21st message of a minute:
#: https://github.com/ccfos/nightingale/issues/369. 9499, also with HTTP 400: https://github.com/ccfos/nightingale/issues/1437
_LATER_S: dict[Kind, dict[int, float]] = {
    "wecom": {45009: 60.0, -1: 60.0},
    "dingtalk": {130101: 600.0, -1: 60.0},
    "feishu": {11232: 60.0, 9499: 60.0},
}

#: Slack's words, as plain text: https://api.slack.com/changelog/2016-05-17-changes-to-errors-for-incoming-webhooks
_SLACK_REFUSALS = {
    "action_prohibited": "an administrator does not allow it: ask who manages the workspace",
    "channel_is_archived": "its channel is archived: make a webhook for another channel",
    "channel_not_found": "its channel is gone: make a webhook for another channel",
}

_OK = 200
_TOO_MANY = 429
_GONE = 410


def judge(channel: Channel, status: int, headers: Mapping[str, str], body: bytes, *, now_s: float) -> Answer:
    """Return what an HTTP answer means."""
    if channel.kind == "webhook":
        return _judge_webhook(status, headers, now_s)
    if channel.kind == "slack":
        return _judge_slack(status, headers, body, now_s)
    return _judge_robot(channel, status, headers, body, now_s)


def _judge_robot(channel: Channel, status: int, headers: Mapping[str, str], body: bytes, now_s: float) -> Answer:
    """Judge by the code in the body: robots answer refusals with HTTP 200."""
    code, said = _code_of(body)
    if status == _OK and code == 0:
        return Sent()
    if code is None or code == 0:
        return _by_status(status, headers, now_s)
    what = _quoted(channel, said)
    if code in REFUSALS[channel.kind]:
        return RefusedForGood(code=str(code), remedy=f"{REFUSALS[channel.kind][code]}{what}")
    after_s = _LATER_S[channel.kind].get(code)
    if after_s is not None:
        return TryLater(after_s=after_s, reason=f"it answered code {code}{what}", is_busy=True)
    return TryLater(after_s=_AGAIN_S, reason=f"it answered {status}, code {code}{what}")


def _code_of(body: bytes) -> tuple[int | None, str]:
    """Return a robot's code, 0 if it is well, and its words; None for what is no robot's answer."""
    try:
        answer = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None, ""
    if not isinstance(answer, dict):
        return None, ""
    # `errcode` is WeCom's and DingTalk's, `code` Feishu's, `StatusCode` that of older ones of Feishu.
    code = answer.get("errcode", answer.get("code", answer.get("StatusCode")))
    said = answer.get("errmsg", answer.get("msg", answer.get("StatusMessage")))
    is_code = isinstance(code, int) and not isinstance(code, bool)
    return (code if is_code else None), (said if isinstance(said, str) else "")


def _judge_slack(status: int, headers: Mapping[str, str], body: bytes, now_s: float) -> Answer:
    said = body[:200].decode("utf-8", "replace").strip()
    # Others that speak Slack's language answer in JSON.
    if status == _OK and (said == "ok" or re.fullmatch(r'\{\s*"(ok|success)"\s*:\s*true\s*[,}].*', said, re.DOTALL)):
        return Sent()
    if status in (400, 403, 404, 410):
        word = said if re.fullmatch(r"[a-z_]{2,40}", said) else str(status)
        default = _ADDRESS_WRONG if status in (403, 404) else _OURS
        return RefusedForGood(code=word, remedy=_SLACK_REFUSALS.get(word, default))
    return _by_status(status, headers, now_s)


def _judge_webhook(status: int, headers: Mapping[str, str], now_s: float) -> Answer:
    if 200 <= status < 300:  # noqa: PLR2004 - success
        return Sent()
    if status == _GONE:
        return RefusedForGood(code=str(status), remedy="it wants no more: take it out of TIW_NOTIFY")
    return _by_status(status, headers, now_s)


def _by_status(status: int, headers: Mapping[str, str], now_s: float) -> Answer:
    """Judge an answer by its status alone: not of a robot, or not by what it says."""
    if 300 <= status < 400:  # noqa: PLR2004 - redirects
        return RefusedForGood(
            code=str(status), remedy="it answers with a redirect, which is not followed: name its goal"
        )
    if 400 <= status < 500 and status not in (408, 425, _TOO_MANY):  # noqa: PLR2004 - the client's errors
        return RefusedForGood(code=str(status), remedy=f"it answered {status}: correct its address in TIW_NOTIFY")
    after_s = _retry_after_s(headers, now_s)
    is_busy = status == _TOO_MANY
    reason = f"it answered {status}" if status != _OK else "it answered 200 with something that is no robot's answer"
    return TryLater(after_s=_AGAIN_S if after_s is None else after_s, reason=reason, is_busy=is_busy)


#: Longer than this nobody is believed who asks for patience.
_LONGEST_WAIT_S = 3600.0


def _retry_after_s(headers: Mapping[str, str], now_s: float) -> float | None:
    value = next((value for name, value in headers.items() if name.lower() == "retry-after"), "")
    if re.fullmatch(r"[0-9]{1,9}", value):
        return min(float(value), _LONGEST_WAIT_S)
    try:
        return min(max(0.0, parsedate_to_datetime(value).timestamp() - now_s), _LONGEST_WAIT_S)
    except (ValueError, OverflowError):
        return None


def _quoted(channel: Channel, said: str) -> str:
    """Return a robot's own words, behind a colon, without anything of its address or secret."""
    words = one_line(said)[:160]
    split = urlsplit(channel.url)
    parts = [*split.path.split("/"), *(value for _, value in parse_qsl(split.query)), split.query, channel.secret]
    for part in sorted(parts, key=len, reverse=True):
        if len(part) >= 6:  # noqa: PLR2004 - shorter ones are words such as `hook`
            words = words.replace(part, "***").replace(quote(part, safe=""), "***")
    return f' ("{words}")' if words else ""


class Sender:
    """Sends messages over channels; an async context manager. No proxy, no redirect, no cookie, no endless answer."""

    def __init__(self, *, timeout_s: float = TIMEOUT_S, clock_s: Callable[[], float] = time.time) -> None:
        self._timeout_s = timeout_s
        self._clock_s = clock_s
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def send(self, channel: Channel, message: Message) -> Answer:
        """Send, and return what became of it. Raises nothing but what is a fault of ours."""
        try:
            async with asyncio.timeout(self._timeout_s):
                if channel.kind == "email":
                    return await self._mail(channel, message)
                return await self._post(channel, message)
        except TimeoutError:
            return TryLater(after_s=_AGAIN_S, reason=f"it did not answer within {self._timeout_s:.0f} s")

    async def _post(self, channel: Channel, message: Message) -> Answer:
        # Imported here, as is aiosmtplib below: only who sends needs it.
        import aiohttp  # noqa: PLC0415
        from yarl import URL  # noqa: PLC0415

        if self._session is None:
            # Not of the environment: neither a proxy nor passwords of a .netrc.
            self._session = aiohttp.ClientSession(
                # A connection that was idle may be closed as a message is sent over it, and nobody knows if it arrived.
                connector=aiohttp.TCPConnector(force_close=True),
                trust_env=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
        request = request_of(channel, message, now_s=self._clock_s())
        try:
            async with self._session.post(
                URL(request.url, encoded=True),
                data=request.body,
                headers={**request.headers, "accept-encoding": "identity", "user-agent": "tiw-callbacks"},
                allow_redirects=False,
            ) as response:
                body = await _beginning(response)
                return judge(channel, response.status, response.headers, body, now_s=self._clock_s())
        except aiohttp.ClientConnectorCertificateError as error:
            return TryLater(after_s=_AGAIN_S, reason=f"its certificate is not good: {_reason(error.certificate_error)}")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # Only its type: its text may hold the address.
            return TryLater(after_s=_AGAIN_S, reason=f"it was not reached: {_reason(error)}")

    async def _mail(self, channel: Channel, message: Message) -> Answer:
        import aiosmtplib  # noqa: PLC0415 - see above

        server = _server(channel)
        mail = mail_of(channel, message, now_s=self._clock_s())
        client = aiosmtplib.SMTP(
            hostname=server.host,
            port=server.port,
            local_hostname=_local_hostname(),
            use_tls=server.security == "smtps",
            start_tls={"smtp": None, "smtps": False, "starttls": True}[server.security],
            username=server.user or None,
            password=server.password or None,
            timeout=self._timeout_s,
        )
        try:
            async with client:
                refused, _ = await client.send_message(mail, sender=server.sender, recipients=server.recipients)
        except (aiosmtplib.SMTPException, OSError) as error:
            return _judge_smtp(error)
        if refused:
            return Sent(note=f"{len(refused)} of {len(server.recipients)} recipients were refused: correct to=")
        return Sent()


async def _beginning(response: "aiohttp.ClientResponse") -> bytes:
    """Return what an answer begins with; nobody reads the rest of one that has no end."""
    body = b""
    while len(body) < _MAX_ANSWER_BYTES:
        piece = await response.content.read(_MAX_ANSWER_BYTES - len(body))
        if not piece:
            return body
        body += piece
    response.close()
    return body


def _judge_smtp(error: Exception) -> Answer:
    """Return what it means that an e-mail was not taken."""
    import aiosmtplib  # noqa: PLC0415 - see above

    # What the server does not offer has no type of its own.
    if type(error) is aiosmtplib.SMTPException and "extension" in error.message:
        remedy = "it offers no encryption, or no login without it: try smtps://, starttls:// or smtp:// in TIW_NOTIFY"
        return RefusedForGood(code="unsupported", remedy=remedy)
    code = getattr(error, "code", None)
    remedy = "it does not take the message: see its log"
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        code = max((one.code for one in error.recipients), default=None)
        remedy = "it takes none of the recipients: correct to= in TIW_NOTIFY"
    elif isinstance(error, aiosmtplib.SMTPAuthenticationError):
        remedy = "it does not take the user and password: correct them in TIW_NOTIFY"
    elif isinstance(error, aiosmtplib.SMTPSenderRefused):
        remedy = "it does not take the sender: set from= in TIW_NOTIFY to an address of yours"
    if not isinstance(code, int):
        return TryLater(after_s=_AGAIN_S, reason=f"it was not reached: {_reason(error)}")
    # What is permanent: https://www.rfc-editor.org/rfc/rfc5321#section-4.2.1
    if 500 <= code < 600:  # noqa: PLR2004
        return RefusedForGood(code=str(code), remedy=remedy)
    return TryLater(after_s=_AGAIN_S, reason=f"it answered {code}")


def _reason(error: BaseException) -> str:
    """Return what an error is, without its words: they may hold an address or a password."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message or "it cannot be verified"
    return type(error).__name__


def _local_hostname() -> str:
    """Return what to call this host in a greeting; what `socket.getfqdn` says may take seconds."""
    name = socket.gethostname()
    return name if re.fullmatch(r"[A-Za-z0-9.-]{1,255}", name) else "localhost"
