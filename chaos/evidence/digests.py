"""The digest of a callback's content: the same for what was sent and for what was kept, if nothing was changed."""

import hashlib

import msgspec

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])

_NOT_KEPT = ("Sign", "ExpireTime")


def content_digest(body: bytes) -> str:
    """Return SHA-256, as hex, over the members of a JSON body in their order, the bytes of each value as they came.

    Sign and ExpireTime do not count: they are never kept. White space between members does not count either.
    Raises `ValueError` for what is no JSON object.
    """
    digest = hashlib.sha256()
    for name, value in _members.decode(body).items():
        if name not in _NOT_KEPT:
            digest.update(b"%b\0%b\n" % (name.encode(), bytes(value)))
    return digest.hexdigest()
