"""One callback, as the vendor sends it: tried, tried again on anything but 200, and given up.

Source: https://www.tencentcloud.com/document/product/1176/55569
"""

from types import TracebackType
from typing import Self

import aiohttp
from msgspec import Struct

from simulator.callback import Callback, render
from simulator.clock import SYSTEM_CLOCK, Clock
from simulator.signing import sign

#: How long a signature holds. The vendor does not say; an hour outlasts all tries by far.
SIGNATURE_LIFETIME_S = 3_600

_ACCEPTED = 200
_HEADERS = {"Content-Type": "application/json", "User-Agent": "tiw-simulator"}


class Patience(Struct, frozen=True, kw_only=True):
    """How long a try may take and when the next one follows; the defaults are the vendor's."""

    timeout_s: float = 10.0
    retry_delay_s: float = 5.0
    retries: int = 5


class Outcome(Struct, frozen=True, kw_only=True):
    """What became of one callback.

    `failures` says in a word why each try but an accepted one failed: `HTTP 503`, `time-out`, `not connected`,
    `connection lost`. `answer_ms` is how long the accepted try took, None if all failed.
    """

    accepted: bool
    retries: int
    failures: tuple[str, ...] = ()
    answer_ms: float | None = None


class Sender:
    """Sends callbacks to one address over connections that it owns; an async context manager.

    Any number of sends may run at the same time: it sets no bound of its own.
    """

    def __init__(
        self, url: str, *, key: str | None, patience: Patience | None = None, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._url = url
        self._key = key
        self._patience = patience or Patience()
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=_HEADERS,
            timeout=aiohttp.ClientTimeout(total=self._patience.timeout_s),
            # A proxy of the environment would answer in the receiver's place.
            trust_env=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def send(self, callback: Callback, *, copy: int = 0) -> Outcome:
        """Send until a try is answered 200 in time, or the last one failed; raise nothing for what receivers do.

        Every try is signed anew, and `copy` makes the signature of a repeated callback differ from the first one's.
        """
        failures: list[str] = []
        while True:
            body = self._signed_body(callback, copy)
            began_s = self._clock.monotonic_s()
            failure = await self._try(body)
            if failure is None:
                answer_ms = (self._clock.monotonic_s() - began_s) * 1_000
                return Outcome(accepted=True, retries=len(failures), failures=tuple(failures), answer_ms=answer_ms)
            failures.append(failure)
            if len(failures) > self._patience.retries:
                return Outcome(accepted=False, retries=len(failures) - 1, failures=tuple(failures))
            await self._clock.sleep(self._patience.retry_delay_s)

    def _signed_body(self, callback: Callback, copy: int) -> bytes:
        if self._key is None or callback.sdk_app_id is None:
            return render(callback)
        return render(callback, sign(self._key, int(self._clock.unix_s()) + SIGNATURE_LIFETIME_S + copy))

    async def _try(self, body: bytes) -> str | None:
        """Return why the try failed; None if it was accepted."""
        if self._session is None:
            raise RuntimeError("a Sender sends only inside its `async with` block")
        try:
            # A redirect is an answer other than 200, not an invitation.
            async with self._session.post(self._url, data=body, allow_redirects=False) as response:
                await response.read()
        except TimeoutError:
            return "time-out"
        except aiohttp.ClientConnectorError:
            return "not connected"
        except (aiohttp.ClientError, OSError):
            return "connection lost"
        return None if response.status == _ACCEPTED else f"HTTP {response.status}"
