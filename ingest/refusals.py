"""Why a callback is not answered 200: a fixed set, which is also that of the metrics' labels."""

from enum import Enum

from msgspec import Struct


class Refusal(Enum):
    """A reason: its status, its name in logs and metrics, and the sentence the sender gets."""

    WRONG_PATH = (404, "wrong_path", "nothing is served at this address")
    WRONG_METHOD = (405, "wrong_method", "callbacks are sent with POST")
    ENCODED = (415, "encoded", "the body must come without Content-Encoding")
    TOO_LARGE = (413, "too_large", "the body is too large")
    TOO_SLOW = (408, "too_slow", "the body did not arrive in time")
    HUNG_UP = (400, "hung_up", "the body ended early")
    MALFORMED_HTTP = (400, "malformed_http", "this is not a valid HTTP request")
    NOT_AN_OBJECT = (400, "not_an_object", "the body is not a JSON object")
    AMBIGUOUS = (400, "ambiguous", "SdkAppId, ExpireTime or Sign stands more than once in the body")
    UNKNOWN_APP = (401, "unknown_app", "no callback of this SdkAppId is expected")
    MISSING_SIGN = (401, "missing_sign", "Sign or ExpireTime is missing")
    MALFORMED_SIGN = (401, "malformed_sign", "Sign is not 32 lower-case hexadecimal digits")
    MALFORMED_EXPIRE_TIME = (401, "malformed_expire_time", "ExpireTime is not a JSON integer of seconds")
    WRONG_SIGN = (401, "wrong_sign", "Sign is wrong")
    EXPIRED = (401, "expired", "ExpireTime has passed")
    NO_ROOM = (503, "no_room", "too many callbacks at once: send it again")
    NOT_CONFIRMED = (503, "not_confirmed", "the callback could not be kept: send it again")
    BROKEN = (500, "broken", "an error of the receiver: send it again")

    def __init__(self, status: int, label: str, sentence: str) -> None:
        self.status = status
        self.label = label
        self.sentence = sentence


class RefusedError(Exception):
    """Raised when a callback is refused. `sdk_app_id` is what it claims to be from, None where that is unknown."""

    def __init__(self, refusal: Refusal, *, sdk_app_id: int | None = None) -> None:
        super().__init__(refusal.sentence)
        self.refusal = refusal
        self.sdk_app_id = sdk_app_id


class Credentials(Struct, frozen=True, kw_only=True):
    """The three members that decide about authenticity, as the JSON that was sent; None where one is absent."""

    sdk_app_id: bytes | None
    expire_time: bytes | None
    sign: bytes | None
