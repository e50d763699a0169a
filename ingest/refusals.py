"""Why a callback is not answered 200: a fixed set, which is also that of the metrics' labels."""

import asyncio
from enum import Enum

import structlog


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


#: These say that the receiver could not keep the callback, and ask for it again; they are counted apart.
NOT_KEPT = frozenset({Refusal.NO_ROOM, Refusal.NOT_CONFIRMED, Refusal.BROKEN})

#: What other keys, or another TIW_ALLOW_UNSIGNED, could make authentic. Not the other reasons: no key gives a Sign that
#: is not 32 hexadecimal digits, and who arrived after the ExpireTime arrived late under any key.
MENDABLE = frozenset({Refusal.UNKNOWN_APP, Refusal.MISSING_SIGN, Refusal.WRONG_SIGN})


class RefusedError(Exception):
    """Raised when a callback is refused. `sdk_app_id` is what it claims to be from, None where that is unknown."""

    def __init__(self, refusal: Refusal, *, sdk_app_id: int | None = None) -> None:
        super().__init__(refusal.sentence)
        self.refusal = refusal
        self.sdk_app_id = sdk_app_id


#: At most one line per reason in this time; the lines say how many refusals they stand for.
INTERVAL_S = 1.0


class RefusalLog:
    """Logs `callback_refused` and counts what it holds back, until it is closed."""

    def __init__(self) -> None:
        self._log = structlog.get_logger()
        self._held_back: dict[Refusal, int] = {}
        self._timers: dict[Refusal, asyncio.TimerHandle] = {}

    def note(self, refusal: Refusal, *, sdk_app_id: int | None) -> None:
        """Log a refusal now, or count it for the next line of its reason. Needs a running event loop."""
        if refusal in self._timers:
            self._held_back[refusal] = self._held_back.get(refusal, 0) + 1
        else:
            self._write(refusal, sdk_app_id=sdk_app_id, count=1)

    def close(self) -> None:
        """Write what is held back."""
        for timer in self._timers.values():
            timer.cancel()
        for refusal, count in self._held_back.items():
            self._line(refusal, count=count)
        self._timers.clear()
        self._held_back.clear()

    def _write(self, refusal: Refusal, *, sdk_app_id: int | None, count: int) -> None:
        self._line(refusal, sdk_app_id=sdk_app_id, count=count)
        self._timers[refusal] = asyncio.get_running_loop().call_later(INTERVAL_S, self._interval_passed, refusal)

    def _interval_passed(self, refusal: Refusal) -> None:
        del self._timers[refusal]
        count = self._held_back.pop(refusal, 0)
        if count:
            self._write(refusal, sdk_app_id=None, count=count)

    def _line(self, refusal: Refusal, *, count: int, sdk_app_id: int | None = None) -> None:
        app = {} if sdk_app_id is None else {"sdk_app_id": sdk_app_id}
        self._log.warning("callback_refused", reason=refusal.label, status=refusal.status, count=count, **app)
