"""The vendor's SDK, as far as it is used: it signs requests. It has no types, and this file is the only one to meet it.

What it does beyond that is replaced (https://github.com/TencentCloud/tencentcloud-sdk-python, common 3.1.195):
- its retryer throws a later success away and raises the first error: none is set;
- it reads an answer of any size, for as long as something comes: `_Connection` has bounds for both;
- it takes proxies from the environment, and requests takes passwords from ~/.netrc: neither is looked at;
- it looks for an Error under two Content-Types only: `vendor_api.answers` looks itself.
"""

import logging
import time
import warnings
from collections.abc import Mapping
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
from msgspec import Struct
from tencentcloud.common.common_client import CommonClient
from tencentcloud.common.credential import Credential
from tencentcloud.common.exception.tencent_cloud_sdk_exception import TencentCloudSDKException
from tencentcloud.common.profile.client_profile import ClientProfile
from tencentcloud.common.profile.http_profile import HttpProfile

_VERSION = "2019-09-19"
_PIECE_BYTES = 65_536


class SdkError(Exception):
    """Raised when there is no answer to read: `str()` says why. It may hold what was sent, but for the secret."""


class Sdk:
    """Signs and sends requests, from any thread. `scheme` and `host` say where to."""

    def __init__(
        self, *, secret_id: str, secret_key: str, scheme: str, host: str, timeout_s: float, max_bytes: int
    ) -> None:
        # It would log answers, and so callback keys, wherever somebody lets a root logger show everything.
        logging.getLogger("tencentcloud_sdk_common").setLevel(logging.WARNING)
        # Python 3.12 and later warn of it; it is right until they take it away.
        warnings.filterwarnings("ignore", message=r"datetime\.datetime\.utcfromtimestamp", category=DeprecationWarning)
        http = HttpProfile(protocol=scheme, endpoint=host, reqTimeout=timeout_s)
        self._profile = ClientProfile(httpProfile=http, language="en-US")
        self._credential = Credential(secret_id, secret_key)
        self._connection = _Connection(timeout_s, max_bytes)
        self._clients: dict[str, Any] = {}

    def call(self, action: str, params: Mapping[str, object], region: str) -> bytes:
        """Return the body of the answer to `action`, if its status is 200. Raises `SdkError`. Blocks."""
        try:
            content: bytes = self._client_of(region).call(action, dict(params))
        except TencentCloudSDKException as error:
            message = error.message
            text = message.decode(errors="replace") if isinstance(message, bytes) else str(message)
            raise SdkError(f"{error.code}: {text}") from None
        return content

    def _client_of(self, region: str) -> Any:
        if region not in self._clients:
            client = CommonClient("tiw", _VERSION, self._credential, region, self._profile)
            client.request.conn = self._connection
            self._clients[region] = client
        return self._clients[region]

    def close(self) -> None:
        """Close what is open and unused."""
        self._connection.session.close()


class _Answer(Struct, frozen=True, kw_only=True):
    """What the SDK looks at of an answer. Without headers, so that it leaves the content alone."""

    status_code: int
    content: bytes
    headers: Mapping[str, str] = {}


class _Connection:
    """Takes the place of the SDK's ProxyConnection."""

    request_length = 0

    def __init__(self, timeout_s: float, max_bytes: int) -> None:
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))

    def request(
        self, method: str, url: str, body: str | None = None, headers: Mapping[str, str] | None = None
    ) -> _Answer:
        deadline_s = time.monotonic() + self._timeout_s
        with self.session.request(
            method=method,
            url=url,
            data=body,
            # Compressed, a small answer could become a large one.
            headers={**(headers or {}), "Accept-Encoding": "identity"},
            timeout=self._timeout_s,
            allow_redirects=False,
            stream=True,
        ) as response:
            if response.status_code != 200:  # noqa: PLR2004
                # The SDK makes the error's message of it. What the page says is nobody's business.
                return _Answer(status_code=response.status_code, content=b"HTTP status %d" % response.status_code)
            content = bytearray()
            while piece := response.raw.read1(_PIECE_BYTES, decode_content=False):
                content += piece
                if len(content) > self._max_bytes:
                    raise ValueError(f"the answer is larger than {self._max_bytes} bytes")
                if time.monotonic() > deadline_s:
                    raise TimeoutError(f"the answer was not complete after {self._timeout_s:g} s")
            return _Answer(status_code=200, content=bytes(content))
