"""Whether a callback is authentic: `Sign` is `md5(key + ExpireTime)` as lower-case hex, and not expired.

Sign does not cover the body: who has seen one pair of Sign and ExpireTime can sign anything until it expires.
Source: https://www.tencentcloud.com/document/product/1176/55569
"""

import hashlib
import hmac
import re
from collections.abc import Set as AbstractSet

import msgspec

from ingest.keys import CallbackKeys
from ingest.refusals import Credentials, Refusal, RefusedError

#: Clocks differ: a Sign is accepted this long after its ExpireTime.
SKEW_TOLERANCE_S = 300

_MAX_DIGITS = 19
_ZERO = ord("0")
_SIGN = re.compile(rb'"[0-9a-f]{32}"')
_text = msgspec.json.Decoder(str)


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
    if b"\\" in given:
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
