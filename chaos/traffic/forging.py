"""Callbacks that nobody may accept, each for another reason."""

import time
from random import Random

from msgspec import Struct

from schemas import decode
from simulator import Callback, sign
from simulator.classes import render

#: The ways, by the names that the ledger has.
WAYS = ("no Sign", "another key", "expired", "another application")


class Forgery(Struct, frozen=True, kw_only=True):
    """A request that must be refused, in which way it is forged, and the event_id that must appear nowhere."""

    way: str
    event_id: str
    body: bytes


def forge(callback: Callback, rng: Random, *, key: str, other_app: int) -> Forgery:
    """Make a forgery of a callback that is never sent otherwise."""
    way = rng.choice(WAYS)
    now_s = int(time.time())
    if way == "no Sign":
        body = render(callback)
    elif way == "another key":
        body = render(callback, sign(key[::-1] + "0", now_s + 3_600))
    elif way == "expired":
        body = render(callback, sign(key, now_s - 86_400))
    else:
        genuine = render(callback, sign(key, now_s + 3_600))
        body = genuine.replace(b'"SdkAppId": %d' % (callback.sdk_app_id or 0), b'"SdkAppId": %d' % other_app)
    decoded = decode(body, received_at_us=now_s * 1_000_000)
    return Forgery(way=way, event_id=decoded.event_id, body=body)
