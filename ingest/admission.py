"""From the bytes of a request's body to an authentic callback that may travel.

Strict about who sent it, lenient about what it says. The cheap questions come first: only a body that is authentic
is worth a thorough look.

Sign does not cover the body: who has seen one pair of Sign and ExpireTime can sign anything until it expires.
Source: https://www.tencentcloud.com/document/product/1176/55569

Sign and ExpireTime are dropped. Every other member goes on, those that nobody knows included, with the bytes of its
value as they came.
"""

import codecs
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Literal

import msgspec
from msgspec import Raw, Struct

from ingest.keys import CallbackKeys
from ingest.lenient import Span, find_members
from ingest.refusals import Refusal, RefusedError
from schemas import (
    UNRECOGNIZED,
    Decoded,
    NotStrictError,
    Unrecognized,
    decode,
    decode_object,
    may_be_plain,
    read_object,
    read_plain,
)

#: Clocks differ: a Sign is accepted this long after its ExpireTime.
SKEW_TOLERANCE_S = 300

_MAX_DIGITS = 19
_ZERO = ord("0")
_BACKSLASH = ord("\\")
_SIGN = re.compile(rb'"[0-9a-f]{32}"')
_text = msgspec.json.Decoder(str)


class Credentials(Struct, frozen=True, kw_only=True):
    """The three members that decide about authenticity, as the JSON that was sent; None where one is absent."""

    sdk_app_id: bytes | None
    expire_time: bytes | None
    sign: bytes | None


def authenticate(
    credentials: Credentials, *, keys: CallbackKeys, allow_unsigned: AbstractSet[int], now_s: float
) -> int:
    """Return the SdkAppId of an authentic callback, 0 if it has none; raise `RefusedError` for any other.

    Accepted is a callback with the right Sign of any of its app's keys and an ExpireTime not more than 300 s ago,
    and one with neither, if its SdkAppId is in `allow_unsigned` and has no keys. `now_s` is in seconds since the Unix
    epoch.
    """
    app, expire_time, given = credentials.sdk_app_id, credentials.expire_time, credentials.sign
    sdk_app_id = 0 if app is None else _integer(app)
    if sdk_app_id is None:
        raise RefusedError(Refusal.UNKNOWN_APP)
    accepted = keys.get(sdk_app_id)
    if not accepted:
        # A rotation can give keys to an app that was unsigned when the process started: from then on it signs.
        if accepted is None and given is None and expire_time is None and sdk_app_id in allow_unsigned:
            return sdk_app_id
        raise RefusedError(Refusal.UNKNOWN_APP, sdk_app_id=sdk_app_id)
    if given is None or expire_time is None:
        raise RefusedError(Refusal.MISSING_SIGN, sdk_app_id=sdk_app_id)
    expires_s = _integer(expire_time)
    if expires_s is None:
        raise RefusedError(Refusal.MALFORMED_EXPIRE_TIME, sdk_app_id=sdk_app_id)
    if _BACKSLASH in given:
        given = _spelled_plainly(given)
    right = False
    for key in accepted:  # all of them: the time taken tells nothing about which one
        right |= hmac.compare_digest(f'"{_sign(key, expire_time)}"'.encode(), given)
    if not right:
        refusal = Refusal.WRONG_SIGN if _SIGN.fullmatch(given) else Refusal.MALFORMED_SIGN
        raise RefusedError(refusal, sdk_app_id=sdk_app_id)
    if expires_s < now_s - SKEW_TOLERANCE_S:
        raise RefusedError(Refusal.EXPIRED, sdk_app_id=sdk_app_id)
    return sdk_app_id


def sign(key: str, expire_time: int) -> str:
    """Return what the vendor sends as Sign."""
    return _sign(key, b"%d" % expire_time)


def _sign(key: str, expire_time: bytes) -> str:
    return hashlib.md5(key.encode() + expire_time, usedforsecurity=False).hexdigest()


def _integer(raw: bytes) -> int | None:
    """Read what every reader takes for the same integer: 1.0, 1e9, true and "1" are none to some; md5 is over this."""
    if raw.isdigit() and len(raw) <= _MAX_DIGITS and (raw[0] != _ZERO or len(raw) == 1):
        return int(raw)
    return None


def _spelled_plainly(raw: bytes) -> bytes:
    """Return the JSON string `raw` without escapes, where it can do without; as it is if it is no string."""
    try:
        return msgspec.json.encode(_text.decode(raw))
    except ValueError:  # msgspec.DecodeError, or UnicodeDecodeError
        return raw


#: What never travels further than this package.
DROPPED = frozenset({"Sign", "ExpireTime"})

_SPACE = b" \t\r\n"
_COMMA = re.compile(rb"[ \t\r\n]*+,")


def without_dropped(members: dict[str, Raw]) -> dict[str, Raw]:
    """Return the members of a strict body that travel, in their order. `msgspec.json.encode` makes a body of them."""
    travelling = members.copy()
    for name in DROPPED:
        travelling.pop(name, None)
    return travelling


def cut(body: bytes, spans: Iterable[Span]) -> bytes:
    """Return `body` without the members at `spans` and one comma for each. All other members stay byte for byte."""
    for span in sorted(spans, key=lambda span: span.start, reverse=True):
        before, after = body[: span.start].rstrip(_SPACE), body[span.end :]
        # The last member of several has a comma in front; the first one of an object has not.
        body = before[:-1] + after if before.endswith(b",") else before + _COMMA.sub(b"", after, count=1)
    return body


_members = msgspec.json.Decoder(dict[str, Raw])


class Admitted(Struct, frozen=True, kw_only=True):
    """An authentic callback, as it travels. `body` has neither Sign nor ExpireTime.

    `pair` stands for the two that were dropped: SdkAppId and ExpireTime, which make the Sign; None if it was unsigned.
    `routing_key`, `event_id` and `odd_members` are those of the event that `schemas.decode` makes of `body`.
    """

    sdk_app_id: int
    pair: tuple[int, bytes] | None
    body: bytes
    routing_key: str
    event_id: str
    odd_members: tuple[str, ...] = ()


#: Of a byte order mark, in UTF-8 and in UTF-16.
_FOREIGN_BEGINNINGS = (b"\xef", b"\xff", b"\xfe")


def _as_utf8(body: bytes) -> bytes:
    """Return a body that begins with a byte order mark as UTF-8 without it, if it can be read so."""
    if body.startswith(codecs.BOM_UTF8):
        return body[len(codecs.BOM_UTF8) :]
    if body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            return body.decode("utf-16").encode()
        except UnicodeError:
            return body
    return body


def admit(body: bytes, *, keys: CallbackKeys, allow_unsigned: AbstractSet[int], received_at_us: int) -> Admitted:
    """Return the callback in `body`, or raise `RefusedError`.

    An authentic callback is admitted whatever else it contains: what strict parsing refuses becomes
    `Unrecognized`, as long as SdkAppId, ExpireTime and Sign stand in it once at most, at the top level.
    `received_at_us` is now, in microseconds since the Unix epoch.
    """
    admitted = admit_plain(body, keys=keys, allow_unsigned=allow_unsigned, received_at_us=received_at_us)
    if admitted is not None:
        return admitted
    return admit_anything(body, keys=keys, allow_unsigned=allow_unsigned, received_at_us=received_at_us)


_plain_members: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
    dict[Literal["SdkAppId", "EventType", "Timestamp", "EventData", "ExpireTime", "Sign"], Raw]
)


def admit_plain(
    body: bytes, *, keys: CallbackKeys, allow_unsigned: AbstractSet[int], received_at_us: int
) -> Admitted | None:
    """Do as `admit` for nearly every callback, in a fraction of the time; return None if it takes `admit_anything`.

    It takes the time of two plain decodes, whatever `body` contains. Raises what `admit_anything` would raise.
    """
    try:
        members: dict[str, Raw] = _plain_members.decode(body)
    except (ValueError, RecursionError):
        return None
    if not may_be_plain(members):
        return None
    credentials = _credentials(members)
    sdk_app_id = authenticate(credentials, keys=keys, allow_unsigned=allow_unsigned, now_s=received_at_us / 1_000_000)
    plain = read_plain(members, body, sdk_app_id=sdk_app_id, received_at_us=received_at_us)
    if plain is None:
        return None
    return Admitted(
        sdk_app_id=sdk_app_id,
        pair=_pair(sdk_app_id, credentials),
        body=msgspec.json.encode(without_dropped(members)),
        routing_key=plain.event_type,
        event_id=plain.event_id,
    )


def admit_anything(
    body: bytes, *, keys: CallbackKeys, allow_unsigned: AbstractSet[int], received_at_us: int
) -> Admitted:
    """Do as `admit`, with a thorough look at whatever `body` contains."""
    if body[:1] in _FOREIGN_BEGINNINGS:
        body = _as_utf8(body)
    now_s = received_at_us / 1_000_000
    try:
        at_first_sight = _members.decode(body)
    except (ValueError, RecursionError):  # not UTF-8, malformed, or nested too deep
        at_first_sight = None
    if at_first_sight is not None:
        # Of names that stand twice this sees the last; the thorough look that follows does not pass over that.
        credentials = _credentials(at_first_sight)
        sdk_app_id = authenticate(credentials, keys=keys, allow_unsigned=allow_unsigned, now_s=now_s)
        try:
            found = read_object(body, members=at_first_sight)
        except NotStrictError:
            pass
        else:
            kept = msgspec.json.encode(without_dropped(found.members))
            decoded = decode_object(found, kept, received_at_us=received_at_us)
            return _admitted(sdk_app_id, credentials, kept, decoded)
    spans = find_members(body)
    values = {name: body[span.value_start : span.end] for name, span in spans.items()}
    credentials = _credentials(values)
    sdk_app_id = authenticate(credentials, keys=keys, allow_unsigned=allow_unsigned, now_s=now_s)
    kept = cut(body, [span for name, span in spans.items() if name in DROPPED])
    return _admitted(sdk_app_id, credentials, kept, decode(kept, received_at_us=received_at_us))


def _admitted(sdk_app_id: int, credentials: Credentials, kept: bytes, decoded: Decoded) -> Admitted:
    return Admitted(
        sdk_app_id=sdk_app_id,
        pair=_pair(sdk_app_id, credentials),
        body=kept,
        routing_key=UNRECOGNIZED if isinstance(decoded.event, Unrecognized) else type(decoded.event).__name__,
        event_id=decoded.event_id,
        odd_members=decoded.odd_members,
    )


def _pair(sdk_app_id: int, credentials: Credentials) -> tuple[int, bytes] | None:
    return None if credentials.expire_time is None else (sdk_app_id, credentials.expire_time)


def _credentials(members: Mapping[str, bytes | Raw]) -> Credentials:
    sdk_app_id, expire_time, sign = members.get("SdkAppId"), members.get("ExpireTime"), members.get("Sign")
    return Credentials(
        sdk_app_id=None if sdk_app_id is None else bytes(sdk_app_id),
        expire_time=None if expire_time is None else bytes(expire_time),
        sign=None if sign is None else bytes(sign),
    )
