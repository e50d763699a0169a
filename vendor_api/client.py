"""Asks the vendor's API: a coroutine per question, each bounded in time and size, none of them asked twice."""

import asyncio
import ipaddress
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, Self
from urllib.parse import urlsplit

from msgspec import Struct

from vendor_api import listings
from vendor_api.answers import (
    MAX_ANSWER_BYTES,
    Again,
    Answer,
    AppPaused,
    ClockOff,
    Failed,
    NotFound,
    VendorError,
    judge,
    read_response,
)
from vendor_api.listings import BucketConfig, CallbackConfig, RoomUsage, RunningTask, SearchedRecord, SeenRoom

if TYPE_CHECKING:
    from vendor_api.sdk import Sdk

#: An answer that takes longer is worth less than the next question.
REQUEST_TIMEOUT_S = 10.0

#: How many questions may wait for their answers at the same moment.
_THREADS = 4

#: Beside the request: the name's resolving has no time-out of its own.
_GRACE_S = 5.0

#: The vendor takes up to 500: https://cloud.tencent.com/document/product/1137/84432
_TASKS_A_PAGE = 500
_RECORDS_A_PAGE = 100
_ROOMS_A_PAGE = 100
_MAX_ROOMS_SEEN = 1000

_MAX_REASON_CHARACTERS = 500

#: No list goes on for ever: an application has at most 100 recordings at a time.
_MAX_PAGES = 100

#: The minutes of real-time recording, among the sub-products of usage.
_RECORDING = "sp_tiw_ric"


#: The calls that the international site has in this region alone.
_FROM_GUANGZHOU = frozenset({"DescribeRoomList", "DescribeTIWRoomDailyUsage"})


class VendorSite(StrEnum):
    """The vendor's two sites; their accounts, calls and SDKs differ."""

    CHINA = "china"
    INTERNATIONAL = "international"

    @property
    def host(self) -> str:
        """Where its API is."""
        return "tiw.tencentcloudapi.com" if self is VendorSite.CHINA else "tiw.intl.tencentcloudapi.com"

    def region_of(self, action: str) -> str:
        """Return the region that a request names: abroad each call has one alone, of China's any will do.

        Sources: https://www.tencentcloud.com/document/product/1176/55181, .../1176/55163.
        """
        return "ap-guangzhou" if self is VendorSite.CHINA or action in _FROM_GUANGZHOU else "ap-singapore"

    @property
    def lists_running_tasks(self) -> bool:
        """Whether it has `DescribeRunningTasks`."""
        return self is VendorSite.CHINA

    @property
    def searches_records(self) -> bool:
        """Whether it has `DescribeRecordSearch`."""
        return self is VendorSite.INTERNATIONAL


class Credentials(Struct, frozen=True, kw_only=True):
    """A pair from the vendor's console. Raises `ValueError`, which shows neither, for what cannot be one."""

    secret_id: str
    secret_key: str

    def __post_init__(self) -> None:
        for name, text in (("id", self.secret_id), ("key", self.secret_key)):
            # They become a header; what cannot stand there would end up in an error's text.
            if not re.fullmatch(r"[\x21-\x7e]{1,256}", text):
                raise ValueError(f"the secret {name} is not 1 to 256 characters without spaces: copy it anew")

    def __repr__(self) -> str:
        """Hide the pair."""
        return "Credentials(***)"


class Endpoint(Struct, frozen=True, kw_only=True):
    """Where the API is asked; `host` has its port, if any."""

    scheme: str
    host: str


def parse_endpoint(text: str) -> Endpoint:
    """Read `https://HOST`, `https://HOST:PORT`, or `http://HOST:PORT` of this machine. Raises `ValueError`."""
    try:
        split = urlsplit(text)
        port = split.port
    except ValueError:
        raise ValueError(_ENDPOINT) from None
    if split.scheme not in ("http", "https") or not split.hostname or split.username is not None:
        raise ValueError(_ENDPOINT)
    if split.path not in ("", "/") or split.query or split.fragment:
        raise ValueError(_ENDPOINT)
    if split.scheme == "http" and not _is_loopback(split.hostname):
        raise ValueError(
            "must be https://HOST: without TLS, answers could be anybody's, and http:// is only taken for this machine"
        )
    name = f"[{split.hostname}]" if ":" in split.hostname else split.hostname
    return Endpoint(scheme=split.scheme, host=name if port is None else f"{name}:{port}")


_ENDPOINT = (
    "must be https://HOST or https://HOST:PORT (http://HOST:PORT for a loopback address), with nothing behind it"
)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Limiter(Protocol):
    """Holds back requests, so that all processes together stay below the vendor's 20 a second."""

    async def wait(self) -> None:
        """Return when the next request may be sent."""


class NoLimiter:
    """For a command that asks a few questions."""

    async def wait(self) -> None:
        """Return at once."""


class VendorClient:
    """Asks the API of one site with one pair of credentials, while it is entered.

    A question is one request: nothing is repeated here. `describe_online_record` answers for errors too; all others
    raise `VendorError`, whose refusal says what to do. Arguments that cannot be asked for raise `ValueError`.
    Environment variables for proxies are not looked at. `now_s` is the clock that answers are held against.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        site: VendorSite = VendorSite.CHINA,
        endpoint: Endpoint | None = None,
        limiter: Limiter | None = None,
        timeout_s: float = REQUEST_TIMEOUT_S,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self.site = site
        self._credentials = credentials
        self._endpoint = endpoint or Endpoint(scheme="https", host=site.host)
        self._limiter = limiter or NoLimiter()
        self._timeout_s = timeout_s
        self._now_s = now_s
        self._threads: ThreadPoolExecutor
        self._sdk: Sdk

    async def __aenter__(self) -> Self:
        # It brings requests along, 15 MB: for those who ask.
        from vendor_api.sdk import Sdk  # noqa: PLC0415

        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="vendor")
        self._sdk = Sdk(
            secret_id=self._credentials.secret_id,
            secret_key=self._credentials.secret_key,
            scheme=self._endpoint.scheme,
            host=self._endpoint.host,
            timeout_s=self._timeout_s,
            max_bytes=MAX_ANSWER_BYTES,
        )
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        # What is on its way ends by its own time-out.
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._sdk.close()

    async def describe_online_record(self, sdk_app_id: int, task_id: str) -> Answer:
        """Ask what has become of a recording."""
        if not re.fullmatch(r"[^\x00\ud800-\udfff]{1,255}", task_id):
            raise ValueError("a TaskId has 1 to 255 characters, without U+0000 and halves of others")
        action = "DescribeOnlineRecord"
        try:
            content = await self._ask(action, {"SdkAppId": sdk_app_id, "TaskId": task_id})
        except VendorError as error:
            return error.refusal
        answer = judge(content, sdk_app_id=sdk_app_id, task_id=task_id, now_s=self._now_s())
        _count(action, answer)
        return answer

    async def describe_running_tasks(self, sdk_app_id: int) -> list[RunningTask]:
        """List the recordings that go on: those created in the last 3 days. All pages, each task once."""
        found: dict[str, RunningTask] = {}
        params = {"SdkAppID": sdk_app_id, "TaskType": "OnlineRecord"}
        async for page in self._pages("DescribeRunningTasks", params, "Tasks", _TASKS_A_PAGE):
            found |= {task.task_id: task for task in listings.running_tasks(page, sdk_app_id)}
        return list(found.values())

    async def search_records(self, sdk_app_id: int, room_id: int) -> list[SearchedRecord]:
        """List the recordings of a room, as long as the vendor remembers them. All pages, each recording once."""
        found: dict[str, SearchedRecord] = {}
        async for page in self._pages("DescribeRecordSearch", {"RoomId": room_id}, "RecordTaskSet", _RECORDS_A_PAGE):
            found |= {record.task_id: record for record in listings.searched_records(page, sdk_app_id)}
        return list(found.values())

    async def rooms_seen(self, sdk_app_id: int, *, since_s: float, until_s: float) -> list[SeenRoom]:
        """List the rooms in which somebody was, at most 1,000."""
        time_range = [int(since_s * 1000), int(until_s * 1000)]
        params = {"SdkAppId": sdk_app_id, "Query": "*", "TimeRange": time_range, "MaxSize": _MAX_ROOMS_SEEN}
        return listings.seen_rooms(await self._list("DescribeRoomList", params, "RoomList"))

    async def daily_usage(self, sdk_app_id: int, day: date) -> list[RoomUsage]:
        """List the rooms recorded on `day` and for how long. The vendor knows a day from 07:00 of the next."""
        when = day.isoformat()
        params = {"SdkAppId": sdk_app_id, "SubProduct": _RECORDING, "StartTime": when, "EndTime": when}
        minutes: dict[int, int] = {}
        async for page in self._pages("DescribeTIWRoomDailyUsage", params, "Usages", _ROOMS_A_PAGE):
            for usage in listings.room_usages(page, sdk_app_id, _RECORDING):
                minutes[usage.room_id] = minutes.get(usage.room_id, 0) + usage.minutes
        return [RoomUsage(room_id=room_id, minutes=value) for room_id, value in minutes.items()]

    async def bucket_config(self, sdk_app_id: int) -> BucketConfig:
        """Ask which bucket recordings are uploaded to."""
        params = {"SdkAppId": sdk_app_id, "TaskTypes": ["recording"]}
        return listings.bucket_config(await self._list("DescribeWhiteboardApplicationConfig", params, "Configs"))

    async def describe_callback(self, sdk_app_id: int) -> CallbackConfig:
        """Ask where recording callbacks are sent, and with which key."""
        config = listings.callback_config(
            await self._response("DescribeOnlineRecordCallback", {"SdkAppId": sdk_app_id})
        )
        if config is None:
            raise VendorError(Again(reason="the answer to DescribeOnlineRecordCallback is not what is documented"))
        return config

    async def set_callback(self, sdk_app_id: int, url: str) -> None:
        """Let recording callbacks be sent to `url`; an empty one ends them."""
        await self._response("SetOnlineRecordCallback", {"SdkAppId": sdk_app_id, "Callback": url}, holds_secret=True)

    async def set_callback_key(self, sdk_app_id: int, key: str) -> None:
        """Let recording callbacks be signed with `key`; an empty one ends that."""
        await self._response(
            "SetOnlineRecordCallbackKey", {"SdkAppId": sdk_app_id, "CallbackKey": key}, holds_secret=True
        )

    async def _pages(
        self, action: str, params: Mapping[str, object], items: str, limit: int
    ) -> AsyncIterator[dict[str, Any]]:
        """Ask for page after page until the last. A list that changes meanwhile may repeat an item, or lack one."""
        offset = 0
        for _ in range(_MAX_PAGES):
            page = await self._list(action, {**params, "Offset": offset, "Limit": limit}, items)
            yield page
            length, total = listings.page_length(page, items) or 0, listings.total(page)
            offset += length
            if not length or (offset >= total if total is not None else length < limit):
                return

    async def _list(self, action: str, params: Mapping[str, object], items: str) -> dict[str, Any]:
        """Return the members of an answer that has a list of `items`: none at all is not an empty one."""
        response = await self._response(action, params)
        if listings.page_length(response, items) is None:
            raise VendorError(Again(reason=f"the answer to {action} is not what is documented: it has no {items}"))
        return response

    async def _response(
        self, action: str, params: Mapping[str, object], *, holds_secret: bool = False
    ) -> dict[str, Any]:
        """Return the members of the answer. `holds_secret`: of an error, its code alone is told."""
        content = await self._ask(action, params)
        response = read_response(content, with_messages=not holds_secret)
        if isinstance(response, Failed | NotFound):
            response = Again(reason=f"{action} was answered as if it were a question about one recording")
        _count(action, response)
        if isinstance(response, dict):
            return response
        raise VendorError(response)

    async def _ask(self, action: str, params: Mapping[str, object]) -> bytes:
        """Send one request and return the body of its answer."""
        from telemetry import metrics  # noqa: PLC0415 - see _count
        from vendor_api.sdk import SdkError  # noqa: PLC0415 - see __aenter__

        await self._limiter.wait()
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        try:
            async with asyncio.timeout(self._timeout_s + _GRACE_S):
                region = self.site.region_of(action)
                content = await loop.run_in_executor(self._threads, self._sdk.call, action, params, region)
                return self._without_secrets(content)
        except SdkError as error:
            refusal = Again(reason=self._without_secrets(str(error).encode()).decode()[:_MAX_REASON_CHARACTERS])
        except TimeoutError:
            refusal = Again(reason=f"{action} was not answered within {self._timeout_s:g} s")
        finally:
            metrics.VENDOR_SECONDS.observe(loop.time() - begun_s)
        _count(action, refusal)
        raise VendorError(refusal)

    def _without_secrets(self, content: bytes) -> bytes:
        for secret in (self._credentials.secret_key, self._credentials.secret_id):
            content = content.replace(secret.encode(), b"***")
        return content


_OUTCOMES: dict[type, str] = {AppPaused: "paused", ClockOff: "clock_off", Again: "again"}


def _count(action: str, answer: object) -> None:
    # Where metrics live is chosen before they are imported, and after settings are read, which import this file.
    from telemetry import metrics  # noqa: PLC0415

    metrics.VENDOR_REQUESTS.labels(action, _OUTCOMES.get(type(answer), "answered")).inc()
