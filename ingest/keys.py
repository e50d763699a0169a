"""The callback keys: which ones are accepted for which SdkAppId."""

import re
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import TypeAlias

import msgspec
import structlog
from msgspec import Struct

from schemas import NotStrictError, read_members

#: Accepted keys by SdkAppId; 0 stands for callbacks without SdkAppId.
CallbackKeys: TypeAlias = Mapping[int, tuple[str, ...]]

#: What the vendor's console takes: https://www.tencentcloud.com/document/product/1176/55569
MAX_CHARACTERS = 64

#: A shorter key can be found by trying: its MD5 is in every callback.
SAFE_CHARACTERS = 16

#: So is one that repeats itself.
SAFE_DISTINCT_CHARACTERS = 6

_DIGITS_AT_END = re.compile(r"[0-9]+\Z")
_SDK_APP_ID = re.compile(r"0|[1-9][0-9]{0,18}")
_keys_decoder = msgspec.json.Decoder(list[str])
_log = structlog.get_logger()


class KeysError(ValueError):
    """Raised when callback keys cannot be used. Its text names the SdkAppId and the remedy, never a key."""


def parse_keys(text: str | bytes) -> CallbackKeys:
    """Read `{"1400000001": ["current", "next"]}`: for each SdkAppId the keys that are accepted.

    Raises `KeysError` unless `text` is a JSON object of decimal SdkAppIds, none twice, each with a list of one or
    more keys of 1 to 64 characters. A weak one, see `weak_keys`, is accepted and warned about.
    """
    try:
        members = read_members(text if isinstance(text, bytes) else text.encode())
    except (NotStrictError, UnicodeEncodeError) as error:
        raise KeysError(f'the callback keys are not JSON like {{"1400000001": ["key"]}}: {error}') from None
    if not members:
        raise KeysError('the callback keys name no SdkAppId: give at least one, like {"1400000001": ["key"]}')
    keys = {_sdk_app_id(name): _app_keys(name, raw) for name, raw in members.items()}
    for weak in weak_keys(keys):
        _log.warning("callback_key_weak", sdk_app_id=weak.sdk_app_id, number=weak.number, reason=weak.reason)
    return keys


class WeakKey(Struct, frozen=True, kw_only=True):
    """A key that is accepted and should not be: the `number`th of its application, counted from 1, and why."""

    sdk_app_id: int
    number: int
    reason: str


def weak_keys(keys: CallbackKeys) -> list[WeakKey]:
    """Return the keys that are short or regular enough to be found by trying, or that lengthen another by digits.

    Sign is the MD5 of key and ExpireTime put together. Where "abc7" and "abc" are both accepted, the Sign of "abc7" for
    1588040109 is that of "abc" for 71588040109, in the year 4238: a callback seen once could be sent for ever.
    """
    known = {key for accepted in keys.values() for key in accepted}
    return [
        WeakKey(sdk_app_id=sdk_app_id, number=number, reason=reason)
        for sdk_app_id, accepted in keys.items()
        for number, key in enumerate(accepted, start=1)
        for reason in _weaknesses(key, known)
    ]


def _weaknesses(key: str, known: AbstractSet[str]) -> Iterator[str]:
    if len(key) < SAFE_CHARACTERS:
        yield f"shorter than {SAFE_CHARACTERS} characters"
    elif len(set(key)) < SAFE_DISTINCT_CHARACTERS:
        yield f"of fewer than {SAFE_DISTINCT_CHARACTERS} different characters"
    lengthened = _DIGITS_AT_END.search(key)
    if lengthened and any(key[:end] in known for end in range(max(lengthened.start(), 1), len(key))):
        yield "another key and digits behind it"


def _sdk_app_id(name: str) -> int:
    if not _SDK_APP_ID.fullmatch(name):
        raise KeysError("the callback keys name an SdkAppId that is not a decimal number: correct it")
    return int(name)


def _app_keys(app: str, raw: msgspec.Raw) -> tuple[str, ...]:
    try:
        keys = _keys_decoder.decode(raw)
    except msgspec.DecodeError:
        # Not chained: the decoder's error can hold a part of a key.
        raise KeysError(f'the callback keys of {app} are not a list of texts: write ["key"]') from None
    if not keys:
        raise KeysError(f"the list of callback keys of {app} is empty: give a key, or leave {app} out")
    for number, key in enumerate(keys, start=1):
        if not 1 <= len(key) <= MAX_CHARACTERS:
            raise KeysError(f"callback key {number} of {app} has {len(key)} characters: give it 1 to {MAX_CHARACTERS}")
    return tuple(keys)
