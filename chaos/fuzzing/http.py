"""Raw bytes to a real server, over the loopback interface."""

import asyncio
import gc
import hashlib
import random
import time
from pathlib import Path

from chaos.fuzzing.answers import Answer, read_answers
from chaos.fuzzing.conformance import Conformance
from chaos.fuzzing.outcome import Outcome
from chaos.fuzzing.promises import BrokenPromiseError, promise
from chaos.fuzzing.requests import PATH, callback, mutated, originals, pieces, post
from chaos.fuzzing.serving import Served, serving

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
