"""Forward every event to an HTTP endpoint, signed as Standard Webhooks are.

    export FORWARD_SECRETS="whsec_$(openssl rand -base64 32)"
    FORWARD_URL='https://example.com/hook' TIW_CONSUMERS=examples/forward_webhook.py ./dev up

FORWARD_URL       where to
FORWARD_SECRETS   what to sign with, `whsec_` and 24 to 64 bytes as base64; to change it, several with spaces between,
                  and the receiver accepts any

The payload is the one that the specification recommends: {"type": EventType, "timestamp": when it happened, "data":
the callback, byte for byte, without Sign and ExpireTime}. What is not strict JSON comes as {"body_base64": "..."}.
The webhook-id is the event_id: an event can arrive more than once, and has the same one each time. Libraries that
verify: https://github.com/standard-webhooks/standard-webhooks
"""

import base64
import hashlib
import hmac
import os
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import aiohttp
import msgspec

from schemas import Event, NotStrictError, Unrecognized, read_members
from workers import Context, DeadLetter, Retry, consumer

URL = os.environ.get("FORWARD_URL", "")
if urlsplit(URL).scheme not in ("http", "https") or not urlsplit(URL).hostname:
    raise ValueError("FORWARD_URL must be the address to forward to, https://...")


def secret_bytes(secret: str) -> bytes:
    """Return the bytes of a secret. Raises ValueError, which does not quote it."""
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except ValueError:
        key = b""
    if not 24 <= len(key) <= 64:  # noqa: PLR2004 - the specification's sizes
        raise ValueError("FORWARD_SECRETS must be whsec_ and 24 to 64 bytes as base64, or several with spaces between")
    return key


SECRETS = [secret_bytes(secret) for secret in os.environ.get("FORWARD_SECRETS", "").split() or [""]]


# 30 attempts on the default ladder: about a day.
@consumer(attempts=30, timeout_s=30)
async def forward_webhook(event: Event, ctx: Context) -> None:
    """Post an event. Only an answer of 2xx means that it arrived."""
    body = payload(event, ctx)
    timestamp = int(time.time())
    headers = {
        "content-type": "application/json",
        "webhook-id": ctx.event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signatures(ctx.event_id, timestamp, body),
    }
    try:
        timeout = aiohttp.ClientTimeout(total=20)
        # A session for each event costs a connection and leaves nothing open when the worker stops.
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(URL, data=body, headers=headers, allow_redirects=False) as answer,
        ):
            status, retry_after = answer.status, answer.headers.get("retry-after")
    except (aiohttp.ClientError, TimeoutError) as error:
        # Only its type: its text may hold the address.
        raise Retry(reason=f"the endpoint was not reached: {type(error).__name__}") from None
    if 200 <= status < 300:  # noqa: PLR2004 - success
        return
    if status == 410:  # noqa: PLR2004 - gone
        raise DeadLetter("the endpoint answered 410: it wants no more events; correct FORWARD_URL, then replay")
    raise Retry(after_s=delay_s(retry_after), reason=f"the endpoint answered {status}")


def payload(event: Event, ctx: Context) -> bytes:
    """Return the body to send: the same for every attempt."""
    kind = event.event_type or "unrecognized" if isinstance(event, Unrecognized) else type(event).__name__
    moment = ctx.received_at if event.timestamp is None else happened(event.timestamp, ctx)
    data: object = msgspec.Raw(ctx.body)
    try:
        read_members(ctx.body)
    except NotStrictError:
        data = {"body_base64": base64.b64encode(ctx.body).decode()}
    return msgspec.json.encode({"type": kind, "timestamp": moment, "data": data})


def happened(timestamp: int, ctx: Context) -> datetime:
    """Return when the vendor says that it happened; when it came in where that is no date."""
    try:
        return datetime.fromtimestamp(timestamp, UTC)
    except (ValueError, OverflowError, OSError):
        return ctx.received_at


def signatures(event_id: str, timestamp: int, body: bytes) -> str:
    """Return a signature per secret, with spaces between."""
    signed = b"%s.%d.%s" % (event_id.encode(), timestamp, body)
    digests = [hmac.digest(secret, signed, hashlib.sha256) for secret in SECRETS]
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)


def delay_s(retry_after: str | None) -> float | None:
    """Return the seconds that a Retry-After asks for, which may be a date; None if it asks for nothing."""
    if retry_after is None:
        return None
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after)
    try:
        moment = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    return max(0.0, moment.timestamp() - time.time())
