"""What the console asks of other processes: their metrics, and of ingest nodes the callbacks that were refused.

It has neither their memory nor their folders and keys. Each has an admin listener, which is asked over plain HTTP
inside one's own network; only what needs the console's token gets it.
"""

import asyncio
import math
import os
import re
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Self, TypeVar

import aiohttp
import msgspec
from msgspec import Struct

from console.requests import Unknown
from schemas import RejectedRow, Reverified
from store import microseconds

T = TypeVar("T")

#: Who takes longer to answer is not waited for: a page waits for all.
TIMEOUT_S = 2.0

#: Letting callbacks in takes as long as publishing them does. Longer than the page itself gives it.
REVERIFY_TIMEOUT_S = 65.0

#: A process tells some hundred lines of metrics, 100 KB at most.
MAX_METRICS_BYTES = 4 * 1024 * 1024
_MOST_SAMPLES = 50_000
_MAX_LINE_CHARACTERS = 8192

#: A thousand refused callbacks, each with texts of the greatest length.
MAX_REJECTED_BYTES = 4 * 1024 * 1024
_MOST_REASONS = 100

#: Replicas of one name.
MAX_REPLICAS = 32

#: A name that was not known is looked up again after so long: where no name server answers, each time takes seconds.
ABSENT_FOR_S = 30.0

_SAMPLE = re.compile(
    r"([a-zA-Z_:][a-zA-Z0-9_:]*)"
    r"(?:\{((?:[^\"}]|\"(?:[^\"\\]|\\.)*\")*)\})?"
    r"[ \t]+(\S+)(?:[ \t]+-?\d+)?[ \t]*"
)
_LABEL = re.compile(r"([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*\"((?:[^\"\\]|\\.)*)\"[ \t]*,?[ \t]*")
_ESCAPED = re.compile(r"\\(.)")


class Sample(Struct, frozen=True, kw_only=True):
    """One value of a metric, and the labels that tell it from others of its name."""

    labels: dict[str, str]
    value: float


class PeerMetrics(Struct, frozen=True, kw_only=True):
    """What one process tells of itself; `reason` says why it tells nothing.

    `is_absent`: it need not run, and does not.
    """

    address: str
    ok: bool
    is_absent: bool = False
    reason: str = ""
    samples: dict[str, list[Sample]] = {}


class PeerSilence(Struct, frozen=True, kw_only=True):
    """A process that did not answer what it was asked."""

    address: str
    reason: str


class PeerRejectedRow(RejectedRow, frozen=True, kw_only=True):
    """A refused callback, and which process keeps it."""

    peer: str


class PeersRejected(Struct, frozen=True, kw_only=True):
    """What all processes that answered keep, newest first; `silent` are the others, which may keep more."""

    rows: list[PeerRejectedRow]
    silent: list[PeerSilence] = []


class PeersReverified(Reverified, frozen=True, kw_only=True):
    """What all processes that answered came to, together; `silent` are the others."""

    silent: list[PeerSilence]


class _Told(Struct, frozen=True, kw_only=True):
    error: str = ""


class _Place(Struct, frozen=True, kw_only=True):
    """One process: what it is called, where it is, and the name by which it was looked up."""

    address: str
    url: str
    host: str


class _Absent(Struct, frozen=True, kw_only=True):
    """A process that need not run, and whose name nobody knows."""

    address: str


class _SilentError(Exception):
    """Raised when a process does not answer; the text says why."""


class _NoSuchPageError(Exception):
    """Raised when a process has no such page: it keeps none."""


class Peers:
    """Asks the processes at `addresses`, each `http://HOST:PORT`; an async context manager.

    A name that stands for several addresses, as that of a service with replicas does, is asked at each. An address with
    a `?` behind it is of a process that need not run: it is absent while its name is not known, as in compose that of a
    service of another profile is.
    """

    def __init__(self, addresses: Sequence[str], token: str) -> None:
        self._addresses = tuple(addresses)
        self._authorization: Mapping[str, str] = {aiohttp.hdrs.AUTHORIZATION: f"Bearer {token}"}
        self._session: aiohttp.ClientSession | None = None
        self._absent_until_s: dict[str, float] = {}

    async def __aenter__(self) -> Self:
        # A replica that went must not be asked through a connection of its successor, and few are asked often.
        connector = aiohttp.TCPConnector(limit=64, use_dns_cache=False)
        self._session = aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, trust_env=False
        )
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def metrics(self) -> list[PeerMetrics]:
        """Return what each process tells of itself, all asked at once: within a few seconds, whatever they do."""
        places = await self._places()
        return list(await asyncio.gather(*(self._metrics_of(place) for place in places)))

    async def _metrics_of(self, place: "_Place | PeerSilence | _Absent") -> PeerMetrics:
        if isinstance(place, _Absent):
            return PeerMetrics(address=place.address, ok=False, is_absent=True)
        if isinstance(place, PeerSilence):
            return PeerMetrics(address=place.address, ok=False, reason=place.reason)
        try:
            content = await self._ask(place, "GET", "/metrics", at_most=MAX_METRICS_BYTES)
            # In a thread: hundreds of lines of each of dozens of processes.
            samples = await asyncio.to_thread(parse_metrics, content)
        except (_SilentError, _NoSuchPageError) as error:
            return PeerMetrics(address=place.address, ok=False, reason=str(error))
        return PeerMetrics(address=place.address, ok=True, samples=samples)

    async def rejected(self, limit: int = 1000) -> PeersRejected | Unknown:
        """Return what the ingest nodes have refused and kept; `Unknown` where none of them tells."""
        found = await self._ask_keepers("GET", f"/rejected?limit={limit}", _read_rows, timeout_s=TIMEOUT_S)
        if isinstance(found, Unknown):
            return found
        answers, silent = found
        rows = [
            PeerRejectedRow(**msgspec.structs.asdict(row), peer=address)
            for address, rows in answers
            for row in rows[:limit]
        ]
        rows.sort(key=lambda row: (row.received_at, row.id), reverse=True)
        return PeersRejected(rows=rows[:limit], silent=silent)

    async def reverify(self, *, dry_run: bool) -> PeersReverified | Unknown:
        """Have each ingest node let in what is authentic with its keys of now, or only say what that would be."""
        path = f"/rejected/reverify{'?dry_run=1' if dry_run else ''}"
        found = await self._ask_keepers("POST", path, _read_reverified, timeout_s=REVERIFY_TIMEOUT_S)
        if isinstance(found, Unknown):
            return found
        answers, silent = found
        refused: dict[str, int] = {}
        for _, one in answers:
            for reason, count in one.refused.items():
                refused[reason] = refused.get(reason, 0) + count
        return PeersReverified(
            authentic=sum(one.authentic for _, one in answers),
            let_in=sum(one.let_in for _, one in answers),
            remaining=sum(one.remaining for _, one in answers),
            refused=refused,
            silent=silent,
        )

    async def _ask_keepers(
        self, method: str, path: str, read: Callable[[bytes], T], *, timeout_s: float
    ) -> tuple[list[tuple[str, T]], list[PeerSilence]] | Unknown:
        """Ask all at once; those without such a page keep nothing. `Unknown` where none of the others answers."""
        if not self._addresses:
            return Unknown(reason="no process is named that could be asked: set TIW_CONSOLE_PEERS")
        places = await self._places()
        silent = [place for place in places if isinstance(place, PeerSilence)]
        answers: list[tuple[str, T]] = []
        asked = [place for place in places if isinstance(place, _Place)]
        told = await asyncio.gather(
            *(self._understood(place, method, path, read, timeout_s=timeout_s) for place in asked),
            return_exceptions=True,
        )
        for place, answer in zip(asked, told, strict=True):
            if isinstance(answer, _SilentError):
                silent.append(PeerSilence(address=place.address, reason=str(answer)))
            elif isinstance(answer, BaseException):
                if not isinstance(answer, _NoSuchPageError):
                    raise answer
            else:
                answers.append((place.address, answer))
        if answers:
            return answers, silent
        if silent:
            return Unknown(reason="; ".join(f"{one.address}: {one.reason}" for one in silent))
        return Unknown(reason="none of the processes of TIW_CONSOLE_PEERS keeps refused callbacks, or knows the token")

    async def _understood(
        self, place: _Place, method: str, path: str, read: Callable[[bytes], T], *, timeout_s: float
    ) -> T:
        content = await self._ask(
            place, method, path, at_most=MAX_REJECTED_BYTES, timeout_s=timeout_s, headers=self._authorization
        )
        try:
            # In a thread: megabytes of each of dozens of processes, and none of them is to be trusted.
            return await asyncio.to_thread(read, content)
        except (ValueError, RecursionError):
            raise _SilentError("it answered something else than it was asked for") from None

    async def _places(self) -> "list[_Place | PeerSilence | _Absent]":
        found = await asyncio.gather(*(self._places_of(address) for address in self._addresses))
        return [place for places in found for place in places]

    async def _places_of(self, address: str) -> "Sequence[_Place | PeerSilence | _Absent]":
        if not address.endswith("?"):
            return await _resolve(address)
        address = address.removesuffix("?")
        absent = [_Absent(address=address)]
        if time.monotonic() < self._absent_until_s.get(address, 0.0):
            return absent
        places = await _resolve(address)
        if any(isinstance(place, PeerSilence) for place in places):
            self._absent_until_s[address] = time.monotonic() + ABSENT_FOR_S
            return absent
        return places

    async def _ask(
        self,
        place: _Place,
        method: str,
        path: str,
        *,
        at_most: int,
        timeout_s: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """Return the body of an answer 200. Raises `_SilentError`, or `_NoSuchPageError` for a 404."""
        assert self._session is not None, "enter it first"  # noqa: S101
        total_s = timeout_s or TIMEOUT_S
        try:
            async with self._session.request(
                method,
                f"{place.url}{path}",
                headers={aiohttp.hdrs.HOST: place.host, **(headers or {})},
                # Where somebody redirects to, nobody of ours need be; the token would go there.
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=total_s, sock_connect=TIMEOUT_S),
            ) as answer:
                content = await _read(answer, at_most)
                status = answer.status
        except TimeoutError:
            raise _SilentError(f"no answer within {total_s:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _SilentError(_said_by(error)) from None
        if status == 404:  # noqa: PLR2004
            raise _NoSuchPageError("there is no such page")
        if status != 200:  # noqa: PLR2004
            raise _SilentError(f"it answered {status}{_told_by(content)}")
        return content


async def _resolve(address: str) -> "list[_Place | PeerSilence]":
    """Return the processes behind `http://HOST:PORT`: one for each address of the name."""
    host, _, port = address.removeprefix("http://").rpartition(":")
    name = host.removeprefix("[").removesuffix("]")
    try:
        async with asyncio.timeout(TIMEOUT_S):
            found = await asyncio.get_running_loop().getaddrinfo(name, int(port), type=socket.SOCK_STREAM)
    except TimeoutError:
        return [PeerSilence(address=address, reason=f"its name is not resolved within {TIMEOUT_S:g} s")]
    except OSError as error:
        return [PeerSilence(address=address, reason=f"its name cannot be resolved: {error.strerror}")]
    ips = list(dict.fromkeys(str(place[0]) for *_, place in found))
    if name == "localhost":
        # One process of this machine, which listens at one of both; the IPv4 one is what it is told to by default.
        ips = [ip for ip in ips if ":" not in ip] or ips
    urls = [f"http://{f'[{ip}]' if ':' in ip else ip}:{port}" for ip in ips[:MAX_REPLICAS]]
    return [
        _Place(
            address=address if len(urls) == 1 else f"{address} ({url.removeprefix('http://')})",
            url=url,
            host=f"{host}:{port}",
        )
        for url in urls
    ]


async def _read(answer: aiohttp.ClientResponse, at_most: int) -> bytes:
    content = bytearray()
    async for chunk in answer.content.iter_any():
        content += chunk
        if len(content) > at_most:
            raise _SilentError(f"its answer has more than {at_most} bytes")
    return bytes(content)


def _said_by(error: Exception) -> str:
    # aiohttp's own words, and those of asyncio in its errors, repeat the address.
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return f"it does not speak HTTP: {type(error).__name__}"


def _told_by(content: bytes) -> str:
    """Return the sentence of an answer of ours that says why not, as an addition to its status."""
    try:
        told = msgspec.json.decode(content, type=_Told).error
    except (ValueError, RecursionError):
        return ""
    return f": {told[:300]}" if told else ""


def _read_rows(content: bytes) -> list[RejectedRow]:
    """Return refused callbacks. Raises `ValueError` for what is none, as a time that is no time."""
    rows = msgspec.json.decode(content, type=list[RejectedRow])
    for row in rows:
        microseconds(row.received_at)
    return rows


def _read_reverified(content: bytes) -> Reverified:
    done = msgspec.json.decode(content, type=Reverified)
    if len(done.refused) > _MOST_REASONS:
        raise ValueError
    return done


def parse_metrics(content: bytes) -> dict[str, list[Sample]]:
    """Return the samples of Prometheus' text format by their name; what cannot be read is left out.

    https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
    """
    samples: dict[str, list[Sample]] = {}
    count = 0
    for line in content.decode("utf-8", "replace").split("\n"):
        if not line or line.startswith("#") or len(line) > _MAX_LINE_CHARACTERS:
            continue
        match = _SAMPLE.fullmatch(line)
        if match is None:
            continue
        name, labels, text = match.groups()
        try:
            value = float(text)
        except ValueError:
            continue
        if math.isnan(value):
            continue
        if (count := count + 1) > _MOST_SAMPLES:
            break
        samples.setdefault(name, []).append(Sample(labels=_labels(labels or ""), value=value))
    return samples


def _labels(text: str) -> dict[str, str]:
    """Return the labels up to what is none; a search behind that would take quadratic time."""
    found: dict[str, str] = {}
    place = 0
    while match := _LABEL.match(text, place):
        found[match[1]] = _unescaped(match[2])
        place = match.end()
    return found


def _unescaped(value: str) -> str:
    if "\\" not in value:
        return value
    return _ESCAPED.sub(lambda match: "\n" if match[1] == "n" else match[1], value)
