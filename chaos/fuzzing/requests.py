"""HTTP as no client should write it: well-formed requests, hostile ones, and seeded mutations of both."""

import random
import time

from chaos.fuzzing.serving import MAX_BODY_BYTES
from chaos.fuzzing.signing import KEYS, SDK_APP_ID, signature

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
