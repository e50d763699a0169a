"""Raw bytes to a real server over the loopback interface: HTTP as no client should write it, and the answers to it."""

import asyncio
import gc
import hashlib
import random
import re
import time
from pathlib import Path

from msgspec import Struct

from chaos.fuzzing.api import Conformance
from chaos.fuzzing.outcome import BrokenPromiseError, Outcome, promise
from chaos.fuzzing.serving import KEYS, MAX_BODY_BYTES, SDK_APP_ID, Served, serving, signature

_STATUS_LINE = re.compile(rb"HTTP/(?:0\.9|1\.[01]|2\.0) ([1-5]\d\d) [^\r\n]*")
_HEADER = re.compile(rb"([A-Za-z0-9-]+): ([^\r\n]*)")
_CONTINUE = 100


class Answer(Struct, frozen=True, kw_only=True):
    """An answer, whole. The names of its headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


def read_answers(sent: bytes, *, without_body: bool = False) -> list[Answer]:
    """Return the answers in `sent` but for interim ones, `without_body` if they are to a HEAD.

    Raises `BrokenPromiseError` if they are not whole, or no HTTP.
    """
    answers: list[Answer] = []
    while sent:
        head, ending, rest = sent.partition(b"\r\n\r\n")
        promise(ending, "the headers of an answer end")
        first, *lines = head.split(b"\r\n")
        status_line = _STATUS_LINE.fullmatch(first)
        fields = [_HEADER.fullmatch(line) for line in lines]
        promise(status_line and all(fields), "an answer is HTTP")
        headers = {field[1].decode().lower(): field[2].decode() for field in fields if field}
        status = int(status_line[1]) if status_line else 0
        if status == _CONTINUE:
            sent = rest
            continue
        promise("content-length" in headers, "an answer says how long it is")
        size = 0 if without_body else int(headers["content-length"])
        promise(len(rest) >= size, "an answer is whole")
        answers.append(Answer(status=status, headers=headers, body=rest[:size]))
        sent = rest[size:]
    return answers


PATH = b"/callbacks/tiw"

#: A Sign of a run lasts longer than the run.
_VALID_S = 3600

_TOKENS = (
    *(b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b"\r\n\r\n", b"0\r\n\r\n", b"ffffffffffffffff\r\n", b"-1"),
    *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity, chunked\r\n", b"Content-Length: 0\r\n"),
    *(b"Content-Length: +5\r\n", b"Content-Length: 99999999999999999999\r\n", b"Host: a\r\n", b"Connection: close\r\n"),
    *(b"Content-Encoding: gzip\r\n", b"Expect: 100-continue\r\n", b"Upgrade: websocket\r\nConnection: Upgrade\r\n"),
    *(b"POST", b"GET", b"PRI * HTTP/2.0", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/9.9", b"\xff", b"\xc3\x28"),
    *(b"traceparent: x\r\n", b"x: " + b"y" * 5000 + b"\r\n", b"a: b\r\n" * 70, b" folded\r\n", b"%00", b"/../", b"//"),
)

_MOST_MUTATIONS = 4
_PIECES = 3


def callback() -> bytes:
    """Return a body that is answered 200."""
    members = signature(KEYS[SDK_APP_ID][0], int(time.time()) + _VALID_S)
    return b'{%b,"EventType":"OnlineRecordStarted","Timestamp":1575545412,"EventData":{"TaskId":"t"}}' % members


def post(body: bytes, *, headers: bytes = b"", path: bytes = PATH) -> bytes:
    """Return a request of a known length."""
    return b"POST %b HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n%b\r\n%b" % (path, len(body), headers, body)


def originals() -> list[bytes]:
    """Return the requests that mutations are made of."""
    good = callback()
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(good), good)
    head = b"POST %b HTTP/1.1\r\nHost: h\r\n" % PATH
    encoded = head + b"Transfer-Encoding: chunked\r\n\r\n"
    return [
        post(good),
        post(good, headers=b"Connection: close\r\n"),
        post(good, headers=b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"),
        post(good, path=PATH + b"?a=b"),
        post(good, path=b"http://elsewhere" + PATH),
        post(good, path=PATH + b"/../tiw"),
        post(good, headers=b"Content-Encoding: gzip\r\n"),
        post(good, headers=b"Content-Type: text/html; charset=utf-7\r\n"),
        post(good, headers=b"Expect: 100-continue\r\n"),
        post(good, headers=b"Upgrade: websocket\r\nConnection: Upgrade\r\n"),
        post(good, headers=b"Transfer-Encoding: chunked\r\n"),
        post(chunked, headers=b"Transfer-Encoding: chunked\r\n"),
        post(good, headers=b"Content-Length: 3\r\n"),
        post(good) * 3,
        post(good) + b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        post(b"{}") + post(good),
        post(b"x" * (MAX_BODY_BYTES + 1)),
        post(b""),
        encoded + chunked,
        encoded + chunked + post(good),
        encoded + b"1\r\n{\r\n" * 20 + b"0\r\n\r\n",
        encoded + b"5;name=value\r\n{}   \r\n0\r\nTrailer: x\r\n\r\n",
        encoded + b"zz\r\n{}\r\n0\r\n\r\n",
        encoded + b"7fffffffffffffff\r\n{}\r\n0\r\n\r\n",
        encoded + b"2\r\n{}0\r\n\r\n",
        head + b"Content-Length: -1\r\n\r\n{}",
        head + b"Content-Length: 2, 2\r\n\r\n{}",
        head + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        head + b" folded: x\r\nContent-Length: 2\r\n\r\n{}",
        head + b"x" * 9000 + b": y\r\n\r\n",
        head + b"a: b\r\n" * 200 + b"\r\n",
        head + b"nul: \0\r\n\r\n",
        head + b"Content-Length : 2\r\n\r\n{}",
        head.replace(b"\r\n", b"\n") + b"Content-Length: 2\n\n{}",
        b"GET " + PATH + b" HTTP/1.1\r\nHost: h\r\n\r\n",
        b"HEAD " + PATH + b" HTTP/1.1\r\nHost: h\r\n\r\n",
        b"CONNECT \r\n\r\n",
        post(good) + b"CONNECT \r\n\r\n",
        b"CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
        b"POST /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: h\r\n\r\n",
        b"POST " + PATH + b" HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b" % (len(good), good),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(200),
        b"\r\n" * 50,
        b"\0" * 50,
    ]


def mutated(request: bytes, rng: random.Random) -> bytes:
    """Return `request` with a few changes."""
    data = bytearray(request)
    for _ in range(rng.randint(0, _MOST_MUTATIONS)):
        at = rng.randint(0, min(len(data), 300))
        change = rng.randrange(4)
        if change == 0:
            data[at:at] = rng.choice(_TOKENS)
        elif change == 1:
            del data[at : at + rng.randint(1, 20)]
        elif change == 2:  # noqa: PLR2004 - the third of four
            data[at:at] = data[at : at + rng.randint(1, 60)]
        elif data:
            data[at % len(data)] = rng.randrange(256)
    return bytes(data)


def pieces(request: bytes, rng: random.Random) -> list[bytes]:
    """Return `request` cut into a few pieces."""
    cuts = sorted(rng.randint(0, len(request)) for _ in range(rng.randint(0, _PIECES - 1)))
    return [request[start:end] for start, end in zip([0, *cuts], [*cuts, len(request)], strict=True)]


NAME = "http"

#: So many connections at once, each with a request of its own; after each such round a good callback is sent.
_AT_ONCE = 200

#: A server that has nothing to say for so long waits for more.
_SILENCE_S = 0.3

#: The deadline of the good callback, on a machine with much else to do.
_PATIENCE_S = 20.0

_OK = 200

_UNHANDLED = "no exception ends the task of a connection"


def fuzz(*, requests: int, seed: int, folder: Path) -> Outcome:
    """Send so many requests; of all promises the first that is broken is the finding, and its bytes go to `folder`."""
    began_s = time.monotonic()
    sent, finding, reason = asyncio.run(_fuzz(requests, random.Random(seed), folder))
    return Outcome(target=NAME, executions=sent, seconds=time.monotonic() - began_s, finding=finding, reason=reason)


def replay(request: bytes) -> None:
    """Send one request, whole. Raises `BrokenPromiseError` if that breaks a promise."""
    reason = asyncio.run(_replay(request))
    promise(reason is None, reason or "")


async def _replay(request: bytes) -> str | None:
    unhandled: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context["message"]))
    async with serving() as served:
        reason = await _one(served, Conformance(), request, [request])
        if reason is None and await _raises(served, request, unhandled):
            return _UNHANDLED
        return reason


async def _fuzz(count: int, rng: random.Random, folder: Path) -> tuple[int, Path | None, str | None]:
    conformance = Conformance()
    made = originals()
    unhandled: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context["message"]))
    sent = 0
    async with serving() as served:
        while sent < count:
            fresh = made[sent:] if sent < len(made) else []
            size = min(_AT_ONCE, count - sent)
            batch = (fresh + [mutated(rng.choice(made), rng) for _ in range(size)])[:size]
            verdicts = await asyncio.gather(
                *(_one(served, conformance, request, pieces(request, rng)) for request in batch)
            )
            sent += size
            for request, reason in zip(batch, verdicts, strict=True):
                if reason is not None:
                    return sent, _saved(request, folder), reason
            if unhandled:
                guilty = [request for request in batch if await _raises(served, request, unhandled)]
                return sent, _saved(guilty[0], folder) if guilty else None, _UNHANDLED
            if not await _answers_a_good_one(served):
                return sent, None, "after hostile requests, a good callback is answered 200"
    return sent, None, None


async def _one(served: Served, conformance: Conformance, request: bytes, parts: list[bytes]) -> str | None:
    kept_before = served.transport.kept
    try:
        answers = _read(await _exchange(served.ingest, parts), is_head=request.startswith(b"HEAD "))
        for answer in answers:
            _check(conformance, answer)
    except BrokenPromiseError as error:
        return str(error)
    if any(answer.status == _OK for answer in answers) and served.transport.kept == kept_before:
        return "what is answered 200 was kept"
    return None


def _read(received: bytes, *, is_head: bool) -> list[Answer]:
    try:
        return read_answers(received)
    except BrokenPromiseError:
        if not is_head:
            raise
        return read_answers(received, without_body=True)


def _check(conformance: Conformance, answer: Answer) -> None:
    promise(answer.status < 500 or answer.status == 503, f"{answer.status} is no answer")  # noqa: PLR2004 - HTTP's
    if answer.body:
        conformance.check(PATH.decode(), "post", status=answer.status, headers=answer.headers, body=answer.body)


async def _exchange(port: int, parts: list[bytes]) -> bytes:
    """Send `parts`, and return what comes back until the server hangs up or falls silent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = b""
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
        while True:
            async with asyncio.timeout(_SILENCE_S):
                chunk = await reader.read(65536)
            if not chunk:
                break
            received += chunk
    except (TimeoutError, ConnectionError):
        pass  # a refusal can be followed by a reset, when the rest of a request is not read
    finally:
        writer.transport.abort()
    return received


async def _raises(served: Served, request: bytes, unhandled: list[object]) -> bool:
    unhandled.clear()
    await _exchange(served.ingest, [request])
    await asyncio.sleep(_SILENCE_S)
    gc.collect()  # a task tells of its exception when it is thrown away
    return bool(unhandled)


async def _answers_a_good_one(served: Served) -> bool:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.ingest)
    try:
        async with asyncio.timeout(_PATIENCE_S):
            writer.write(post(callback(), headers=b"Connection: close\r\n"))
            answers = read_answers(await reader.read(-1))
        return [answer.status for answer in answers] == [_OK]
    finally:
        writer.transport.abort()


def _saved(request: bytes, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"http-{hashlib.sha256(request).hexdigest()[:16]}"
    path.write_bytes(request)
    return path
