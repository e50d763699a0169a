"""A connection of plain requests is one of aiohttp's in all but its cost: the same answers, publishes and counts."""

import asyncio
import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker import Message, NotPublishedError, OnPublished
from chaos.fuzzing import http
from chaos.fuzzing.both_ways import CONFIG, BothWays, Cable, Confirming, NothingIsPlain, Way, without_dates
from chaos.fuzzing.libfuzzer import CORPUS
from ingest import Refusal
from ingest.plain import Heads
from tests.ingest.raw_http import plain_head
from tests.profiles import examples

PATH = CONFIG.path.encode()

#: Longer ones are cut at some places only.
SHORT_BYTES = 250


def streams() -> list[bytes]:
    """Return what the fuzzers begin with, as it would be sent to the address that is compared."""
    heads = [path.read_bytes() for path in sorted((CORPUS / "heads").iterdir())]
    return heads + [one.replace(http.PATH, PATH) for one in http.originals()]


def bodies() -> list[bytes]:
    return [path.read_bytes() for path in sorted((CORPUS / "bodies").iterdir())]


def cuts(stream: bytes) -> list[int]:
    if len(stream) <= SHORT_BYTES:
        return list(range(1, len(stream)))
    return sorted(random.Random(len(stream)).sample(range(1, len(stream)), 15))


@pytest.mark.parametrize("stream", streams(), ids=range(len(streams())))
async def test_whatever_comes_is_answered_as_aiohttp_does_wherever_it_is_cut(stream: bytes) -> None:
    ways = BothWays()
    await ways.compare([stream])
    for at in cuts(stream):
        await ways.compare([stream[:at], stream[at:]], turns=at % 3)


async def test_every_body_is_answered_as_on_a_connection_of_aiohttps_in_its_turn_and_alone() -> None:
    ways = BothWays(fails=lambda number: number % 7 == 0)
    sent = [plain_head(b"Host: h", b"Content-Length: %d" % len(body), path=PATH) + body for body in bodies()]
    for one in sent:
        await ways.compare([one])
    served = await ways.compare(sent, turns=30)
    assert served.written.count(b"HTTP/1.1 ") == len(sent)
    for turns in range(6):
        await ways.compare(sent[:20], turns=turns)


ORIGINALS = streams()
BODIES = bodies()
HEADERS = [
    *(b"Host: h", b"host:h", b"Host: a\r\nHost: b", b"Connection: close", b"Connection: keep-alive", b"Connection: x"),
    *(b"Content-Type: application/json", b"Content-Encoding: identity", b"Content-Encoding: gzip", b"Trailer: x"),
    *(b"Expect: 100-continue", b"Upgrade: websocket", b"Connection: Upgrade", b"Transfer-Encoding: chunked"),
    *(b"Transfer-Encoding: identity", b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    *(b"traceparent: x", b"traceparent: x\r\ntraceparent: y", b"X: \xff", b"X: " + b"y" * 2000, b"X:", b" folded: x"),
    *(b"Sec-WebSocket-Key1: x", b"Content-Length: 2", b"content-length:  02 ", b"Content-Length: 1_0", b"X : y", b"\0"),
]
LINES = [*[b"POST %b HTTP/1.1"] * 6, b"GET %b HTTP/1.1", b"POST %b HTTP/1.0", b"POST %b?a HTTP/1.1"]


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Draw a request that is plain, or nearly so."""
    body = draw(st.sampled_from([b"{}", b"", b'{"SdkAppId":2}', *BODIES]) | st.binary(max_size=20))
    line = draw(st.sampled_from(LINES))
    lines = [b"Host: h", *draw(st.lists(st.sampled_from(HEADERS), max_size=3))]
    at = draw(st.integers(0, len(lines)))
    lines.insert(at, b"Content-Length: %d" % max(0, len(body) + draw(st.sampled_from([0] * 8 + [-1, 1]))))
    end = draw(st.sampled_from([b"\r\n"] * 8 + [b"\n"]))
    return end.join([line % PATH, *lines]) + 2 * end + body


@given(
    st.lists(st.one_of(requests(), st.sampled_from(ORIGINALS)), min_size=1, max_size=4),
    st.lists(st.integers(0, 10_000), max_size=3),
    st.integers(0, 12),
    st.booleans(),
    st.integers(1, 5),
)
@examples(quick=40, thorough=5000)
@example([plain_head(b"Host: h", b"Content-Length: 2", path=PATH) + b"{}"] * 3, [], 0, True, 2)
def test_whatever_is_sent_in_whatever_pieces_is_answered_as_aiohttp_does(
    sent: list[bytes], cuts: list[int], turns: int, is_whole: bool, failing: int
) -> None:
    stream = b"".join(sent)
    places = sorted(cut % (len(stream) + 1) for cut in cuts)
    pieces = sent if is_whole else [stream[a:b] for a, b in zip([0, *places], [*places, len(stream)], strict=True)]

    async def compare() -> None:
        await BothWays(fails=lambda number: number % 5 >= failing).compare([*filter(None, pieces)], turns=turns)

    asyncio.run(compare())


def authentic() -> bytes:
    body = b'{"SdkAppId":%d}' % min(CONFIG.allow_unsigned)
    return plain_head(b"Host: h", b"Content-Length: %d" % len(body), path=PATH) + body


# What happens meanwhile ---------------------------------------------------------------------------------------------

#: In so many turns of the loop all has happened that will.
TURNS = 25


class Publisher(Confirming):
    """Ends publishes when the test says so, in their order."""

    def __init__(self) -> None:
        super().__init__(lambda _: False)
        self.waiting: list[OnPublished] = []

    async def publish(self, message: Message) -> None:
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.begin_publish(message, lambda error: ended.set_exception(error) if error else ended.set_result(None))
        await ended

    def begin_publish(self, message: Message, on_done: OnPublished) -> bool:
        self._note(message)
        self.waiting.append(on_done)
        return True


async def what_was_seen(heads: Heads, steps: list[bytes | str]) -> list[object]:
    """Return what could be seen of a connection after each step: bytes come, or something else happens."""
    publisher = Publisher()
    way = Way(heads, publisher)
    cable = Cable()
    cable.protocol = way.protocols()
    cable.protocol.connection_made(cable)
    is_unread = False
    seen: list[object] = []
    for step in [*steps, "hang up", *["confirm"] * len(steps)]:
        if isinstance(step, bytes):
            cable.give(step)
        elif step == "stop":
            way.callbacks.answers.closing = True
        elif step == "hang up":
            cable.hang_up()
        elif step in {"confirm", "fail"}:
            if publisher.waiting:
                publisher.waiting.pop(0)(NotPublishedError("it fails") if step == "fail" else None)
        elif step == "read on" and is_unread and not cable.is_closing():
            is_unread = False
            cable.get_protocol().resume_writing()
        # Where the buffer fills with the answer itself, what came behind that request is begun, not only held.
        elif step == "leave unread" and not is_unread and not cable.is_closing() and not way.callbacks.running:
            is_unread = True
            cable.get_protocol().pause_writing()
        for _ in range(TURNS):
            await asyncio.sleep(0)
        published = [(message.event_id, message.body) for message in publisher.messages]
        room = way.callbacks.running, way.callbacks.in_flight.taken, way.callbacks.in_flight.taken_bytes
        seen.append((step, without_dates(cable.written), cable.is_closing(), published, room, way.connections.count))
    return seen


MEANWHILE = [*["confirm"] * 3, "fail", "stop", "hang up", "leave unread", "read on"]


@given(st.lists(st.one_of(requests(), st.just(authentic()), st.sampled_from(MEANWHILE)), max_size=8))
@examples(quick=40, thorough=5000)
@example([authentic(), authentic(), "stop", "confirm"])
@example([authentic(), "hang up", "confirm"])
@example([authentic(), authentic(), "fail", "stop", "fail"])
@example([authentic(), "confirm", "leave unread", authentic(), "confirm", authentic(), "read on", "confirm"])
def test_whatever_happens_meanwhile_a_connection_does_as_aiohttps(steps: list[bytes | str]) -> None:
    plain = asyncio.run(what_was_seen(Heads(path=CONFIG.path), steps))
    careful = asyncio.run(what_was_seen(NothingIsPlain(path=CONFIG.path), steps))
    assert plain == careful


# Defects of ours ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["callbacks.message_of", "callbacks.Callbacks._kept", "durability.NoSpool.put"])
async def test_a_defect_of_ours_is_answered_and_counted_in_both_ways(
    monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    # The corpus takes neither way to it: before anything is published, after that, and in the spool.
    def broken(*_: object, **__: object) -> None:
        raise KeyError

    monkeypatch.setattr(f"ingest.{where}", broken)
    statuses = []
    ways = BothWays(fails=lambda _: where.startswith("durability"))
    for way in (ways.plain, ways.careful):
        way.connections.on_error = lambda _status, _error, way=way: way.callbacks.refuse(Refusal.BROKEN)  # type: ignore[misc]
        served = await way.serve([authentic()], turns=0)
        statuses.append((served.written, served.is_closed, served.counted))
    assert statuses[0] == statuses[1]
    assert statuses[0][0].startswith(b"HTTP/1.1 500 ")


async def test_what_could_not_begin_holds_no_room_and_is_kept_with_care(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError

    monkeypatch.setattr("ingest.durability.Durability.begin", fail)
    served = await BothWays().compare([authentic()])
    assert served.written.startswith(b"HTTP/1.1 200 ")
