"""A fake of the vendor's API, with the same wire format, for demonstrations, tests and load.

Signature: https://www.tencentcloud.com/document/product/1176/55187 (TC3-HMAC-SHA256, signature v3).
Common errors: https://cloud.tencent.com/document/product/1137/40052. It listens where it is told, loopback by default,
and is no part of what a user runs in production.
"""

import asyncio
import hashlib
import hmac
import re
import secrets
import struct
import time
import uuid
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from socket import SO_LINGER, SOL_SOCKET
from typing import Any, Self

import msgspec
from aiohttp import web
from msgspec import Struct, field

from simulator.classes import DEFAULT_BUCKET, Bucket, SimulatedClass
from simulator.faults import Faults
from simulator.sending import SYSTEM_CLOCK, Clock
from simulator.serving import HttpServer
from simulator.vendor_answers import ApiError, Site, Vendor

VERSION = "2019-09-19"

_SERVICE = "tiw"
#: How far a request's time may lie from the vendor's.
_CLOCK_TOLERANCE_S = 300
#: More than the vendor takes: 10 MB.
_LARGEST_REQUEST = 10 * 1024 * 1024
#: No page of the product lists China's; these are the ones that Tencent Cloud has there.
_REGIONS_OF_CHINA = re.compile(r"ap-(beijing|chengdu|chongqing|guangzhou|nanjing|shanghai|shenzhen)(-[a-z0-9]+)?")
#: The pages of usage and rooms name ap-guangzhou on the international site, all others ap-singapore.
_REGIONS_ABROAD = re.compile(r"ap-(singapore|guangzhou)")
_JSON = {"Content-Type": "application/json"}
_AUTHORIZATION = re.compile(
    r"TC3-HMAC-SHA256 Credential=(?P<id>[^/,]+)/(?P<date>[0-9-]{10})/(?P<service>[a-z0-9]+)/tc3_request, ?"
    r"SignedHeaders=(?P<headers>[a-z0-9;-]+), ?Signature=(?P<signature>[0-9a-f]{64})"
)


class ApiRequest(Struct, kw_only=True):
    """A request that came in. `answer` is "ok", the code of an error, or what else became of it.

    `at_s` is by the monotonic clock; `sdk_app_id` and `task_id` are 0 and empty where there is none.
    """

    at_s: float
    action: str
    region: str
    sdk_app_id: int
    task_id: str
    params: dict[str, Any]
    answer: str = ""


class RequestLog:
    """All requests since the start, in order: what a test counts."""

    def __init__(self) -> None:
        self.all: list[ApiRequest] = []

    def of(self, action: str) -> list[ApiRequest]:
        """Return the requests of one action."""
        return [request for request in self.all if request.action == action]

    def most_per_second(self, action: str | None = None) -> int:
        """Return how many came at most within any one second: of one action, or of the busiest."""
        times: dict[str, list[float]] = defaultdict(list)
        for request in self.all:
            if action in (None, request.action):
                times[request.action].append(request.at_s)
        # Sorted as they came. Of each, those from it until just before a second later.
        return max((bisect_left(at, since + 1) - i for at in times.values() for i, since in enumerate(at)), default=0)


class Failure(StrEnum):
    """What can become of a request other than an answer or an error of the API."""

    #: Answered as ever, but only after `slow_s`.
    SLOW = "slow"
    HTTP_500 = "http 500"
    HTTP_502 = "http 502"
    #: The connection is reset before anything is done.
    RESET = "reset"
    #: What was asked for is done; then the connection is reset.
    LOST_ANSWER = "lost answer"
    #: Every member is null.
    NULLS = "nulls"
    #: Half of the JSON, as if it were all.
    TRUNCATED = "truncated"
    #: Half of the JSON, then the connection ends.
    CUT_OFF = "cut off"
    #: The right answer with a charset in its Content-Type: the vendor's SDK then looks for no Error in it.
    CHARSET = "charset"
    #: The right answer, and `huge_bytes` of nothing.
    HUGE = "huge"


#: Errors by what they mean to a client: try again; see to your credentials or your bill; or nothing it can change.
#: Sources: the list of errors of each call, and https://cloud.tencent.com/document/product/1137/40052
PASSING_ERRORS = {
    "RequestLimitExceeded": "The number of requests exceeds the frequency limit.",
    "RequestLimitExceeded.UinLimitExceeded": "The number of requests of this account exceeds the frequency limit.",
    "InternalError": "An internal error has occurred. Retry your request, but if the problem persists, contact us.",
}
PAUSING_ERRORS = {
    "AuthFailure": "CAM signature/authentication error.",
    "AuthFailure.SecretIdNotFound": "The SecretId is not found, please ensure that your SecretId is correct.",
    "AuthFailure.SignatureFailure": (
        "The provided credentials could not be validated. Please check your signature is correct."
    ),
    "AuthFailure.UnauthorizedOperation": "You are not authorized to perform this operation.",
    "UnauthorizedOperation": "Unauthorized operation.",
    "UnauthorizedOperation.SdkAppId": "SdkAppId unauthorized",
    "ResourceUnavailable.NotRegistered": "The service is not registered.",
    "ResourceUnavailable.ServiceExpired": "The service has expired: it is in arrears.",
}
MISLEADING_ERRORS = {
    "AuthFailure.SignatureExpire": "The signature is expired, please request again.",
    "InvalidParameter.BodyParameterTypeUnmatched": "The value type of a parameter is not valid.",
    "InvalidParameter.TaskNotFound": "Task not found.",
}
_MESSAGES = PASSING_ERRORS | PAUSING_ERRORS | MISLEADING_ERRORS

#: All that passes by itself: trying again is enough.
PASSING_FAILURES: tuple[str, ...] = (*Failure, *PASSING_ERRORS)
#: All but FailedOperation.Record, which is the truth of some recordings: a rule can give it too.
EVERY_FAILURE: tuple[str, ...] = (*Failure, *_MESSAGES)


class ApiFaults(Faults[ApiRequest], kw_only=True):
    """What goes wrong with the API; see Faults. A failure is a Failure or the code of an error.

    `is_revoked` takes the credentials away, `in_arrears` names applications whose bill is not paid, and the API's clock
    is `clock_ahead_s` ahead of the true time.
    """

    failures: Sequence[str] = PASSING_FAILURES
    slow_s: float = 2.0
    huge_bytes: int = 32 * 1024 * 1024
    is_revoked: bool = False
    in_arrears: set[int] = field(default_factory=set)
    clock_ahead_s: float = 0.0


class VendorApi:
    """The API as a server; an async context manager. It answers by `clock`, which may run as fast as one likes.

    `url` is `http://HOST:PORT`, `endpoint` the same without `http://`, as the vendor's SDK takes it. Signatures are
    checked against the `system_clock`, as clients sign by theirs; by it more than `per_second` requests of one action
    within a second are refused. `vendor`, what is known, and `faults`, what goes wrong, can be changed while it runs;
    `requests` has all that came in.
    """

    def __init__(
        self,
        classes: Iterable[SimulatedClass] = (),
        *,
        clock: Callable[[], float] = time.time,
        site: Site | str = Site.CHINA,
        sdk_app_ids: Iterable[int] = (),
        host: str = "127.0.0.1",
        port: int = 0,
        secret_id: str | None = None,
        secret_key: str | None = None,
        per_second: int = 20,
        lists_stopped: bool = False,
        forgets_after_s: float | None = None,
        bucket: Bucket = DEFAULT_BUCKET,
        faults: ApiFaults | None = None,
        system_clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.secret_id = secret_id or f"AKID{secrets.token_hex(16)}"
        self.secret_key = secret_key or secrets.token_hex(16)
        self.vendor = Vendor(
            classes,
            site=Site(site),
            sdk_app_ids=sdk_app_ids,
            lists_stopped=lists_stopped,
            forgets_after_s=forgets_after_s,
            bucket=bucket,
        )
        self.per_second = per_second
        self.faults = faults or ApiFaults()
        self.requests = RequestLog()
        self._clock = clock
        self._system_clock = system_clock
        application = web.Application(client_max_size=_LARGEST_REQUEST)
        application.router.add_post("/", self._handle)
        self._server = HttpServer(application, host=host, port=port)
        self._accepted: dict[str, list[float]] = defaultdict(list)

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._server.__aexit__(*exc_info)

    @property
    def endpoint(self) -> str:
        """HOST:PORT."""
        return self._server.endpoint

    @property
    def url(self) -> str:
        """The whole address."""
        return self._server.url

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        noted = _noted(request, body, self._system_clock.monotonic_s())
        self.requests.all.append(noted)
        failure = self.faults.choose(noted)
        noted.answer = failure or ""
        match failure:
            case Failure.HTTP_500 | Failure.HTTP_502:
                return web.Response(status=int(failure[-3:]), text="<html>error</html>", content_type="text/html")
            case Failure.RESET:
                return _reset(request)
            case Failure.SLOW:
                await asyncio.sleep(self.faults.slow_s)
        try:
            answer = self._answer(request, body, noted)
            noted.answer = noted.answer or "ok"
        except ApiError as error:
            answer = {"Error": {"Code": error.code, "Message": error.message}}
            noted.answer = noted.answer or error.code
        if failure == Failure.NULLS:
            answer = {} if "Error" in answer else dict.fromkeys(answer)
        content = msgspec.json.encode({"Response": {**answer, "RequestId": str(uuid.uuid4())}})
        return await self._send(request, content, failure)

    async def _send(self, request: web.Request, content: bytes, failure: str | None) -> web.StreamResponse:
        match failure:
            case Failure.LOST_ANSWER:
                return _reset(request)
            case Failure.TRUNCATED:
                content = content[: len(content) // 2]
            case Failure.CUT_OFF:
                return await _cut_off(request, content)
            case Failure.CHARSET:
                return web.Response(body=content, content_type="application/json", charset="utf-8")
            case Failure.HUGE:
                return await _padded(request, content, self.faults.huge_bytes)
        # Without a charset: the vendor's SDK looks for an Error only then.
        # https://github.com/TencentCloud/tencentcloud-sdk-python/blob/master/tencentcloud/common/abstract_client.py
        return web.Response(body=content, headers=_JSON)

    def _answer(self, request: web.Request, body: bytes, noted: ApiRequest) -> dict[str, Any]:
        """Return the members of the answer; raise ApiError for an answer that is an error, told to or true."""
        if noted.answer and noted.answer not in set(Failure):
            raise ApiError(noted.answer, _MESSAGES.get(noted.answer, "An error has occurred."))
        check_signature(
            request.headers,
            body,
            secret_id="" if self.faults.is_revoked else self.secret_id,
            secret_key=self.secret_key,
            now=self._system_clock.unix_s() + self.faults.clock_ahead_s,
        )
        if request.headers.get("X-TC-Version") != VERSION:
            raise ApiError("NoSuchVersion", "The request `Version` does not exist.")
        if not self.vendor.knows(noted.action):
            raise ApiError("InvalidAction", "The request `Action` is invalid or not found.")
        self._check_region(noted.region)
        self._count(noted.action)
        if noted.sdk_app_id in self.faults.in_arrears:
            code = "ResourceUnavailable.ServiceExpired"
            raise ApiError(code, PAUSING_ERRORS[code])
        try:
            params = msgspec.json.decode(body, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise ApiError("InvalidParameter", "The request body is not a JSON object.") from error
        return self.vendor.answer(noted.action, params, self._clock())

    def _check_region(self, region: str) -> None:
        if not region:
            raise ApiError("MissingParameter", "The request is missing a required parameter `Region`.")
        regions = _REGIONS_OF_CHINA if self.vendor.site is Site.CHINA else _REGIONS_ABROAD
        if not regions.fullmatch(region):
            raise ApiError("UnsupportedRegion", "The request region is not supported.")

    def _count(self, action: str) -> None:
        now_s = self._system_clock.monotonic_s()
        accepted = self._accepted[action]
        accepted[:] = [at_s for at_s in accepted if at_s > now_s - 1]
        if len(accepted) >= self.per_second:
            raise ApiError(
                "RequestLimitExceeded",
                f"Your current request times equals to `{len(accepted) + 1}` in a second, which exceeds the frequency "
                f"limit `{self.per_second}` for a second. Please reduce the frequency of calls.",
            )
        accepted.append(now_s)


def check_signature(headers: Mapping[str, str], body: bytes, *, secret_id: str, secret_key: str, now: float) -> None:
    """Raise ApiError unless a POST of `body` to `/` is signed with this key within five minutes of `now`."""
    authorization = _AUTHORIZATION.fullmatch(headers.get("Authorization", ""))
    timestamp = headers.get("X-TC-Timestamp", "")
    if authorization is None or not timestamp.isdecimal():
        raise ApiError("AuthFailure.InvalidAuthorization", "The request header `Authorization` is invalid.")
    if abs(now - int(timestamp)) > _CLOCK_TOLERANCE_S:
        raise ApiError("AuthFailure.SignatureExpire", "The signature is expired, please request again.")
    if authorization["id"] != secret_id:
        message = "The SecretId is not found, please ensure that your SecretId is correct."
        raise ApiError("AuthFailure.SecretIdNotFound", message)
    names = authorization["headers"].split(";")
    date = datetime.fromtimestamp(int(timestamp), UTC).strftime("%Y-%m-%d")
    canonical_request = "\n".join(
        [
            "POST",
            "/",
            "",
            *(f"{name}:{headers.get(name, '').strip().lower()}" for name in names),
            "",
            authorization["headers"],
            hashlib.sha256(body).hexdigest(),
        ]
    )
    scope = f"{date}/{_SERVICE}/tc3_request"
    digest = hashlib.sha256(canonical_request.encode()).hexdigest()
    key = f"TC3{secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.new(key, f"TC3-HMAC-SHA256\n{timestamp}\n{scope}\n{digest}".encode(), "sha256").hexdigest()
    if (
        not {"content-type", "host"} <= set(names)
        or names != sorted(names)
        or authorization["date"] != date
        or authorization["service"] != _SERVICE
        or not hmac.compare_digest(signature, authorization["signature"])
    ):
        message = "The provided credentials could not be validated. Please check your signature is correct."
        raise ApiError("AuthFailure.SignatureFailure", message)


def _noted(request: web.Request, body: bytes, at_s: float) -> ApiRequest:
    try:
        params = msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.DecodeError:
        params = {}
    app, task_id = params.get("SdkAppId", params.get("SdkAppID")), params.get("TaskId")
    return ApiRequest(
        at_s=at_s,
        action=request.headers.get("X-TC-Action", ""),
        region=request.headers.get("X-TC-Region", ""),
        sdk_app_id=app if isinstance(app, int) else 0,
        task_id=task_id if isinstance(task_id, str) else "",
        params=params,
    )


def _reset(request: web.Request) -> web.Response:
    """End the connection with a reset, whatever is under way."""
    if request.transport is not None:
        request.transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
    return web.Response()


async def _cut_off(request: web.Request, content: bytes) -> web.StreamResponse:
    response = web.StreamResponse(headers={**_JSON, "Content-Length": str(len(content))})
    await response.prepare(request)
    await response.write(content[: len(content) // 2])
    if request.transport is not None:
        request.transport.close()
    return response


async def _padded(request: web.Request, content: bytes, padding: int) -> web.StreamResponse:
    """Answer `content`, an object, with a member of so many bytes beside its own; little of it is in memory."""
    head, tail = content[:-1] + b',"Padding":"', b'"}'
    response = web.StreamResponse(headers={**_JSON, "Content-Length": str(len(head) + padding + len(tail))})
    await response.prepare(request)
    await response.write(head)
    block = b"0" * 65_536
    for begin in range(0, padding, len(block)):
        await response.write(block[: padding - begin])
    await response.write(tail)
    return response
