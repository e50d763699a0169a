"""Registering recordings: whoever starts one tells its TaskId, so that no lost callback can hide it.

The vendor describes a recording only to who knows its TaskId, which `StartOnlineRecord` has answered to the customer's
own program: https://www.tencentcloud.com/document/product/1176/55181
"""

import asyncio
import hmac
import socket
from enum import Enum
from http import HTTPStatus
from typing import Annotated, Any, Final, Self

import msgspec
import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from msgspec import Meta, Struct

from store import Question, Store, StoreError, ask, reserve
from telemetry import Throttle, give_every_request_a_target, metrics

#: Where recordings are registered.
REGISTER_PATH: Final = "/recordings"

#: How long the vendor's callbacks get to tell of a recording first: who is told need not ask.
TOLD_WITHIN_S: Final = 60.0

#: A registration has three members.
MAX_BODY_BYTES: Final = 4096

_BODY_TIMEOUT_S = 5.0

#: All processes together, on average; as many at once as an application may record at a time, twice.
_EVERY_S = 0.1
_BURST = 200

_REFUSAL_TOLD_EVERY_S = 60.0

#: What found a recording that only its registration told of, and why it is asked about.
REGISTERED: Final = "registration"
WHY_REGISTERED: Final = "it was registered"

_log = structlog.get_logger()


class Registration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A recording that was started. A member that is not here is refused: it may be a misspelt one."""

    sdk_app_id: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    task_id: Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f\ud800-\udfff]*$")]
    room_id: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None


_registration = msgspec.json.Decoder(Registration)


def parse_registration(body: bytes) -> Registration:
    """Read the body of a request. Raises `ValueError` that says what is wrong with it."""
    try:
        return _registration.decode(body)
    except UnicodeDecodeError:
        raise ValueError("the body is not UTF-8") from None
    except RecursionError:
        raise ValueError("the body is nested too deeply") from None


async def register(store: Store, registration: Registration, *, after_s: float = TOLD_WITHIN_S) -> None:
    """Let the vendor be asked about a recording in `after_s` seconds, unless its events are here by then.

    Durable on return. One that is known to be finished is not asked about again. Raises `StoreUnavailableError` and
    `SchemaMismatchError`.
    """
    question = Question(
        sdk_app_id=registration.sdk_app_id,
        task_id=registration.task_id,
        room_id=registration.room_id,
        why=WHY_REGISTERED,
        found_by=REGISTERED,
        after_s=after_s,
    )
    await ask(store, [question])


class RegisterRefusal(Enum):
    """Why a registration is refused: the status, a name for metrics, and the sentence that the caller gets."""

    UNAUTHORIZED = (401, "unauthorized", "the header Authorization is not `Bearer` and the token")
    WRONG_PATH = (404, "wrong_path", "nothing is served at this address")
    WRONG_METHOD = (405, "wrong_method", "recordings are registered with POST")
    TOO_SLOW = (408, "too_slow", "the body did not arrive in time")
    TOO_LARGE = (413, "too_large", "the body is too large")
    ENCODED = (415, "encoded", "the body must come without Content-Encoding")
    NOT_A_REGISTRATION = (400, "not_a_registration", "the body is not a registration")
    UNKNOWN_APP = (422, "unknown_app", "this SdkAppId is not one of TIW_RECONCILE_APPS")
    TOO_MANY = (429, "too_many", "too many registrations: send it again")
    NOT_KEPT = (503, "not_kept", "it could not be kept: send it again")

    def __init__(self, status: int, label: str, sentence: str) -> None:
        self.status = status
        self.label = label
        self.sentence = sentence


class _RefusedError(Exception):
    def __init__(self, refusal: RegisterRefusal, detail: str = "") -> None:
        super().__init__(refusal.sentence)
        self.refusal = refusal
        self.detail = detail


class RegisterListener:
    """Serves `POST /recordings` while it is entered; `port` 0 takes a free one, and the attribute tells which.

    `token` is what callers must present; None: nobody needs one, for an address that only this machine reaches. `apps`
    are those that may be registered, None: any. `listening` is a socket to accept from instead of `host` and `port`.
    Entering raises OSError if the address cannot be had.
    """

    def __init__(
        self,
        *,
        store: Store,
        token: str | None,
        apps: frozenset[int] | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        listening: socket.socket | None = None,
        after_s: float = TOLD_WITHIN_S,
    ) -> None:
        self._store = store
        self._expected = None if token is None else f"Bearer {token}".encode()
        self._apps = apps
        self._host = host
        self._listening = listening
        self._after_s = after_s
        self._runner: web.AppRunner | None = None
        self._throttle = Throttle(_REFUSAL_TOLD_EVERY_S)
        self.port = port

    async def __aenter__(self) -> Self:
        app = web.Application(middlewares=[self._answer], client_max_size=MAX_BODY_BYTES)
        app.router.add_post(REGISTER_PATH, self._register)
        self._runner = web.AppRunner(
            app, access_log=None, keepalive_timeout=15.0, shutdown_timeout=1.0, auto_decompress=False
        )
        await self._runner.setup()
        give_every_request_a_target(self._runner)
        site: web.BaseSite
        if self._listening is not None:
            site = web.SockSite(self._runner, self._listening)
        else:
            site = tcp = web.TCPSite(self._runner, self._host, self.port)
        try:
            await site.start()
        except BaseException:
            await self._runner.cleanup()
            raise
        if self._listening is None:
            self.port = tcp.port
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    @web.middleware
    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            # First: who may not register learns nothing else.
            self._authorize(request)
            answer = await handler(request)
        except _RefusedError as error:
            return self._refuse(error.refusal, error.detail)
        except web.HTTPRequestEntityTooLarge:
            return self._refuse(RegisterRefusal.TOO_LARGE)
        except web.HTTPMethodNotAllowed:
            return self._refuse(RegisterRefusal.WRONG_METHOD)
        except web.HTTPNotFound:
            return self._refuse(RegisterRefusal.WRONG_PATH)
        metrics.REGISTRATIONS.labels("accepted").inc()
        return answer

    def _authorize(self, request: web.Request) -> None:
        given = request.headers.get(hdrs.AUTHORIZATION, "").encode("utf-8", "surrogateescape")
        # Takes as long wherever it differs.
        if self._expected is not None and not hmac.compare_digest(given, self._expected):
            raise _RefusedError(RegisterRefusal.UNAUTHORIZED)

    def _refuse(self, refusal: RegisterRefusal, detail: str = "") -> web.Response:
        metrics.REGISTRATIONS.labels(refusal.label).inc()
        if self._throttle.passes():
            _log.warning("registration_refused", reason=refusal.label, detail=detail or None)
        answer = _json(refusal.status, {"error": detail or refusal.sentence})
        match refusal:
            case RegisterRefusal.UNAUTHORIZED:
                answer.headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
            case RegisterRefusal.WRONG_METHOD:
                answer.headers[hdrs.ALLOW] = "POST"
            case RegisterRefusal.TOO_MANY | RegisterRefusal.NOT_KEPT:
                answer.headers[hdrs.RETRY_AFTER] = "1"
            case RegisterRefusal.TOO_LARGE | RegisterRefusal.TOO_SLOW:
                # The rest of the body may still be on its way.
                answer.force_close()
        return answer

    async def _register(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get(hdrs.CONTENT_ENCODING, "identity").strip().lower() != "identity":
            raise _RefusedError(RegisterRefusal.ENCODED)
        try:
            async with asyncio.timeout(_BODY_TIMEOUT_S):
                body = await request.read()
        except TimeoutError:
            raise _RefusedError(RegisterRefusal.TOO_SLOW) from None
        try:
            registration = parse_registration(body)
        except ValueError as error:
            raise _RefusedError(RegisterRefusal.NOT_A_REGISTRATION, str(error)) from None
        if self._apps is not None and registration.sdk_app_id not in self._apps:
            raise _RefusedError(RegisterRefusal.UNKNOWN_APP)
        try:
            turn_s = await reserve(self._store, "registrations", every_s=_EVERY_S, burst=_BURST, at_most_wait_s=0.0)
            if turn_s is None:
                raise _RefusedError(RegisterRefusal.TOO_MANY)
            await register(self._store, registration, after_s=self._after_s)
        except StoreError as error:
            _log.warning("registration_not_kept", reason=str(error))
            raise _RefusedError(RegisterRefusal.NOT_KEPT) from None
        return _json(HTTPStatus.ACCEPTED, {"accepted": True})


def _json(status: int, content: dict[str, Any]) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(content), content_type="application/json")
