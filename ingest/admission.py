"""From the bytes of a request's body to an authentic callback that may travel.

Strict about who sent it, lenient about what it says. The cheap questions come first: only a body that is authentic
is worth a thorough look.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

import msgspec
from msgspec import Struct

from ingest.authenticity import authenticate
from ingest.dropping import DROPPED, cut, without_dropped
from ingest.keys import CallbackKeys
from ingest.lenient import find_members
from ingest.refusals import Credentials
from schemas import Decoded, NotStrictError, decode, decode_object, read_object

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Admitted(Struct, frozen=True, kw_only=True):
    """An authentic callback. `body` has neither Sign nor ExpireTime.

    `pair` stands for the two that were dropped: SdkAppId and ExpireTime, which make the Sign; None if it was unsigned.
    """

    sdk_app_id: int
    pair: tuple[int, bytes] | None
    body: bytes
    decoded: Decoded


def admit(body: bytes, *, keys: CallbackKeys, allow_unsigned: AbstractSet[int], received_at_us: int) -> Admitted:
    """Return the callback in `body`, or raise `RefusedError`.

    An authentic callback is admitted whatever else it contains: what strict parsing refuses becomes
    `Unrecognized`, as long as SdkAppId, ExpireTime and Sign stand in it once at most, at the top level.
    `received_at_us` is now, in microseconds since the Unix epoch.
    """
    now_s = received_at_us / 1_000_000
    try:
        hasty = _members.decode(body)
    except (ValueError, RecursionError):  # not UTF-8, malformed, or nested too deep
        hasty = None
    if hasty is not None:
        # Of names that stand twice this sees the last; the thorough look that follows does not pass over that.
        credentials = _credentials(hasty)
        sdk_app_id = authenticate(credentials, keys=keys, allow_unsigned=allow_unsigned, now_s=now_s)
        try:
            found = read_object(body, members=hasty)
        except NotStrictError:
            pass
        else:
            kept = msgspec.json.encode(without_dropped(found.members))
            return Admitted(
                sdk_app_id=sdk_app_id,
                pair=_pair(sdk_app_id, credentials),
                body=kept,
                decoded=decode_object(found, kept, received_at_us=received_at_us),
            )
    spans = find_members(body)
    values = {name: body[span.value_start : span.end] for name, span in spans.items()}
    credentials = _credentials(values)
    sdk_app_id = authenticate(credentials, keys=keys, allow_unsigned=allow_unsigned, now_s=now_s)
    kept = cut(body, [span for name, span in spans.items() if name in DROPPED])
    return Admitted(
        sdk_app_id=sdk_app_id,
        pair=_pair(sdk_app_id, credentials),
        body=kept,
        decoded=decode(kept, received_at_us=received_at_us),
    )


def _pair(sdk_app_id: int, credentials: Credentials) -> tuple[int, bytes] | None:
    return None if credentials.expire_time is None else (sdk_app_id, credentials.expire_time)


def _credentials(members: Mapping[str, bytes | msgspec.Raw]) -> Credentials:
    sdk_app_id, expire_time, sign = members.get("SdkAppId"), members.get("ExpireTime"), members.get("Sign")
    return Credentials(
        sdk_app_id=None if sdk_app_id is None else bytes(sdk_app_id),
        expire_time=None if expire_time is None else bytes(expire_time),
        sign=None if sign is None else bytes(sign),
    )
