"""The apps, keys and clock of the targets. All of it is fixed: a saved input means the same for ever."""

import hashlib

SDK_APP_ID = 1400000001
KEYS = {SDK_APP_ID: ("a key that only fuzzing uses", "the key that comes next"), 1: ("k",)}

#: 0: callbacks without SdkAppId. 1 has keys by now: they count.
ALLOW_UNSIGNED = frozenset({0, 1, 2})

NOW_US = 1_600_000_000_000_000
EXPIRE_TIME = 1_600_000_600


def sign(key: str, expire_time: bytes) -> bytes:
    """Return the right Sign, worked out anew: what is fuzzed does not testify for itself."""
    return hashlib.md5(key.encode() + expire_time, usedforsecurity=False).hexdigest().encode()


def signature(key: str, expire_time: int) -> bytes:
    """Return the three members that make the callback around them authentic."""
    expiry = b"%d" % expire_time
    return b'"SdkAppId":%d,"ExpireTime":%b,"Sign":"%b"' % (SDK_APP_ID, expiry, sign(key, expiry))
