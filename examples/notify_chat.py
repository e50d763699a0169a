"""Tell a chat when a recording fails, or is stopped because it was paused for too long.

Make a robot in a group of WeCom, Feishu (Lark) or DingTalk. Where it asks for a security setting, choose the keyword
`Recording`: every message begins with it. Then:

    CHAT_WEBHOOK_URL='https://...' TIW_CONSUMERS=examples/notify_chat.py ./dev up

CHAT_WEBHOOK_URL   the robot's address, which is its password: keep it secret
CHAT_KIND          wecom, feishu or dingtalk, if the address is a proxy's and does not tell

A crash between sending and remembering sends a message twice, but for DingTalk, which knows it by its msgUuid.

https://developer.work.weixin.qq.com/document/path/91770
https://open.feishu.cn/document/client-docs/bot-v3/add-custom-bot
https://open.dingtalk.com/document/orgapp/custom-robots-send-group-messages
"""

import json
import os
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from schemas import OnlineRecordFinished, OnlineRecordLongPauseForceStopped
from workers import Context, DeadLetter, Retry, consumer

HOSTS = {
    "qyapi.weixin.qq.com": "wecom",
    "open.feishu.cn": "feishu",
    "open.larksuite.com": "feishu",
    "oapi.dingtalk.com": "dingtalk",
    "oapi.dingtalk.io": "dingtalk",
}

URL = os.environ.get("CHAT_WEBHOOK_URL", "")
if urlsplit(URL).scheme not in ("http", "https") or not urlsplit(URL).hostname:
    raise ValueError("CHAT_WEBHOOK_URL must be the robot's address, https://...")
KIND = os.environ.get("CHAT_KIND") or HOSTS.get(urlsplit(URL).hostname or "", "")
if KIND not in HOSTS.values():
    raise ValueError("CHAT_KIND must be wecom, feishu or dingtalk: the address does not tell which")

# The robots take 20 messages a minute (Feishu 100). DingTalk then refuses all for 10 minutes.
TOO_FAST = {45009: 60, 11232: 60, 130101: 600}
BUSY = -1

# WeCom takes 2,048 bytes of text; a character has up to 4.
MAX_CHARACTERS = 500


@consumer(attempts=10, timeout_s=30, concurrency=1)
async def notify_chat(event: OnlineRecordFinished | OnlineRecordLongPauseForceStopped, ctx: Context) -> None:
    """Post one message to the robot."""
    text = describe(event)
    if text is None:
        return
    try:
        timeout = aiohttp.ClientTimeout(total=20)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(URL, json=message(text, ctx.event_id), allow_redirects=False) as answer,
        ):
            status, body = answer.status, await answer.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        # Only its type: its text may hold the address.
        raise Retry(reason=f"the robot was not reached: {type(error).__name__}") from None
    judge(status, body)


def describe(event: OnlineRecordFinished | OnlineRecordLongPauseForceStopped) -> str | None:
    """Return what to say of an event; None if there is nothing to say."""
    where = f"{event.task_id or '(without TaskId)'} in room {event.room_id}, application {event.sdk_app_id}"
    if isinstance(event, OnlineRecordLongPauseForceStopped):
        text = f"Recording {where} was stopped: it had been paused for too long."
    elif event.error is not None:
        text = f"Recording {where} failed: {event.error.code}: {event.error.message}"
    else:
        return None
    # Feishu and WeCom understand tags such as <at user_id="all">.
    return text[:MAX_CHARACTERS].replace("<", "\N{FULLWIDTH LESS-THAN SIGN}")


def message(text: str, event_id: str) -> dict[str, Any]:
    """Return a text message as the robot wants it."""
    if KIND == "feishu":
        return {"msg_type": "text", "content": {"text": text}}
    plain: dict[str, Any] = {"msgtype": "text", "text": {"content": text}}
    return plain | {"msgUuid": event_id} if KIND == "dingtalk" else plain


def judge(status: int, body: bytes) -> None:
    """Return if the message was sent. The robots answer most failures with 200 and a code in the body."""
    code = code_of(body)
    if code in TOO_FAST:
        raise Retry(after_s=TOO_FAST[code], reason=f"too many messages: code {code}")
    if status == 429 or status >= 500 or code == BUSY:  # noqa: PLR2004 - too many requests, or their fault
        raise Retry(after_s=60, reason=f"the robot answered {status}, code {code}")
    if status != 200 or code != 0:  # noqa: PLR2004 - the robots know no other success
        raise DeadLetter(f"the robot answered {status}, code {code}: see its documentation, then replay")


def code_of(body: bytes) -> int | None:
    """Return the robot's code, 0 if it is well; None where an answer is not a robot's."""
    try:
        answer = json.loads(body)
    except ValueError:
        return None
    if not isinstance(answer, dict):
        return None
    # `errcode` is WeCom's and DingTalk's, `code` Feishu's, `StatusCode` that of older ones of Feishu.
    code = answer.get("errcode", answer.get("code", answer.get("StatusCode")))
    return code if isinstance(code, int) else None
