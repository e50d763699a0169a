"""Asking a server for an address, and for where it leads to: each hop is checked, and so is each connection."""

import asyncio
import re
from typing import Final, Self

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from archive.addresses import AddressRules, CheckedConnector, FetchError, ForbiddenAddressError, check_url

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS: Final = 3

#: What aiohttp reads ahead of us, twice: large enough that nobody waits, small enough for many files.
_READ_AHEAD_BYTES: Final = 256 * 1024


class CheckedSession:
    """A session of aiohttp that keeps to AddressRules; an async context manager.

    An address has `connect_within_s` for each connection and `answer_within_s` until the head of its answer is there;
    a body of which nothing comes for `stalled_after_s` ends with an error.
    """

    def __init__(
        self,
        rules: AddressRules,
        *,
        connect_within_s: float,
        answer_within_s: float,
        stalled_after_s: float,
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._rules = rules
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_within_s, sock_read=stalled_after_s)
        self._answer_within_s = answer_within_s
        self._resolver = resolver
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=CheckedConnector(self._rules.networks, resolver=self._resolver),
            # Nothing of the environment: neither a proxy, which would connect in our stead, nor passwords of a .netrc.
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            # A few bytes may unfold to a full disk, and digests are of the bytes as they lie at the vendor's.
            auto_decompress=False,
            read_bufsize=_READ_AHEAD_BYTES,
            timeout=self._timeout,
            headers={"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "tiw-callbacks"},
        )
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def may_ask(self, url: str, *, is_vendors: bool) -> bool:
        """Say whether the rules let an address be asked, as far as it can be told without looking its host up."""
        try:
            check_url(url, self._rules, is_vendors=is_vendors)
        except ForbiddenAddressError:
            return False
        return True

    async def ask(self, method: str, url: str, *, is_vendors: bool, headers: dict[str, str]) -> aiohttp.ClientResponse:
        """Ask for an address and where it leads to; return the answer to the last, of which only the head was read."""
        checked = check_url(url, self._rules, is_vendors=is_vendors)
        for _ in range(_MAX_REDIRECTS + 1):
            response = await self._ask_one(method, checked, headers)
            if response.status not in _REDIRECTS:
                return response
            response.close()
            location = response.headers.get("Location")
            if location is None:
                raise FetchError(f"{checked.host} answered {response.status} without saying where to")
            checked = self._redirected(checked, location, is_vendors=is_vendors)
        raise FetchError(f"it was redirected more than {_MAX_REDIRECTS} times, last to {checked.host}")

    def _redirected(self, origin: URL, location: str, *, is_vendors: bool) -> URL:
        """Return where a redirect leads to: the vendor's word is for its own host, not for whatever that names."""
        target = location
        if not re.match(r"[a-z][a-z0-9+.-]*:", location, re.IGNORECASE):
            try:
                target = str(origin.join(URL(location, encoded=True)))
            except ValueError:
                raise ForbiddenAddressError(f"{origin.host} redirects to what cannot be read") from None
        checked = check_url(target, self._rules, is_vendors=True)
        is_same = checked.host == origin.host and checked.port in (origin.port, 443)
        if not (is_vendors and is_same):
            checked = check_url(target, self._rules, is_vendors=False)
        if origin.scheme == "https" and checked.scheme == "http":
            raise ForbiddenAddressError(f"{origin.host} redirects from https to http")
        return checked

    async def _ask_one(self, method: str, url: URL, headers: dict[str, str]) -> aiohttp.ClientResponse:
        if self._session is None:
            raise RuntimeError("enter the session before it is used")
        try:
            async with asyncio.timeout(self._answer_within_s):
                return await self._session.request(method, url, headers=headers, allow_redirects=False)
        # Only the kind of an error is told: its text may hold the address.
        except aiohttp.ClientConnectorCertificateError:
            raise FetchError(f"the certificate of {url.host} is not good") from None
        except TimeoutError:
            raise FetchError(f"{url.host} does not answer") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise FetchError(f"{url.host} was not reached: {kind_of(error)}") from None


def kind_of(error: BaseException) -> str:
    """Return what happened in a word or two, without an error's own text, which may hold the address."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name is not known"
    if isinstance(error, OSError) and error.strerror and not isinstance(error, aiohttp.ClientError):
        return error.strerror
    return type(error).__name__
