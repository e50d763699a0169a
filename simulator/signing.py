"""The vendor's signature.

Source: https://www.tencentcloud.com/document/product/1176/55569
"""

import hashlib

from msgspec import Struct


class Signature(Struct, frozen=True, kw_only=True):
    """What a signed callback carries beside its content. `expire_time` is in Unix seconds."""

    expire_time: int
    sign: str

    def __repr__(self) -> str:
        """Hide the Sign: with its ExpireTime it is a token that signs any body."""
        return f"Signature(expire_time={self.expire_time}, sign=***)"


def sign(key: str, expire_time: int) -> Signature:
    """Sign with `key` until `expire_time`: MD5 over the key and the decimal ExpireTime, as lower-case hex.

    Neither the body nor anything else of the callback enters it.
    """
    # MD5 is the vendor's choice; the flag lets it run where a policy forbids MD5 for security.
    digest = hashlib.md5(f"{key}{expire_time}".encode(), usedforsecurity=False)
    return Signature(expire_time=expire_time, sign=digest.hexdigest())
