"""Refused callbacks that a mended key would let in: what is kept of them, and which ones.

The sender gives a refused callback up after six tries. If its key was right and ours was wrong, a class would be lost:
so what came is kept for a day, the Sign in it included, for that is what is checked once the key is mended.
"""

from msgspec import Struct

from ingest.refusals import Refusal

#: What other keys, or another TIW_ALLOW_UNSIGNED, could make authentic. Not the other reasons: no key gives a Sign that
#: is not 32 hexadecimal digits, and who arrived after the ExpireTime arrived late under any key.
MENDABLE = frozenset({Refusal.UNKNOWN_APP, Refusal.MISSING_SIGN, Refusal.WRONG_SIGN})

#: All of them together, of all processes that share a folder.
MAX_KEPT = 1000
MAX_KEPT_BYTES = 16 * 1024 * 1024
MAX_AGE_S = 86_400

#: A larger body is not kept. The vendor's are some kilobytes.
MAX_BODY_BYTES = 1024 * 1024


class Rejected(Struct, frozen=True, kw_only=True):
    """A callback that was refused. `body` is what came, Sign and ExpireTime included: for no log and no listing.

    `received_at_us` is its first arrival, in microseconds since the Unix epoch; `reason` one of the labels of
    `MENDABLE`; `tries` counts how often the same body came.
    """

    received_at_us: int
    reason: str
    sdk_app_id: int
    body: bytes
    tries: int = 1


class KeptRejected(Struct, frozen=True, kw_only=True):
    """A `Rejected` in its file. `id` is never used twice in one file."""

    id: int
    rejected: Rejected


def is_mendable(refusal: Refusal, sdk_app_id: int | None, size_bytes: int) -> bool:
    """Say whether a refused callback is worth keeping; `sdk_app_id` is None if it has none that can be read."""
    return refusal in MENDABLE and sdk_app_id is not None and size_bytes <= MAX_BODY_BYTES
