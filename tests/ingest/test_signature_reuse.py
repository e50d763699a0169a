"""One pair of ExpireTime and Sign under several callbacks is counted, and refused never."""

import pytest

import ingest.callbacks
from ingest.callbacks import LATE_S, SignatureReuse
from telemetry import render_metrics
from tests.ingest.callback_bodies import callback, soon
from tests.ingest.conftest import Serve
from tests.ingest.raw_http import post
from tests.ingest.recording_transport import RecordingTransport

PAIR = (1400000001, b"1800000000")
OTHER_PAIR = (1400000001, b"1800000001")
LATE_US = LATE_S * 1_000_000


def test_the_tries_of_one_callback_are_none() -> None:
    reuse = SignatureReuse()
    for second in range(200):
        reuse.note(PAIR, "one", second * 1_000_000)
    assert (reuse.soon, reuse.late) == (0, 0)


def test_what_is_signed_in_the_same_second_is_told_from_what_comes_later() -> None:
    reuse = SignatureReuse()
    reuse.note(PAIR, "one", 0)
    reuse.note(PAIR, "two", LATE_US)
    assert (reuse.soon, reuse.late) == (1, 0)
    reuse.note(PAIR, "three", LATE_US + 1)
    reuse.note(OTHER_PAIR, "four", LATE_US + 1)
    assert (reuse.soon, reuse.late) == (1, 1)


def test_it_takes_no_more_memory_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest.callbacks, "REMEMBERED", 10)
    reuse = SignatureReuse()
    for number in range(1000):
        reuse.note((1, b"%d" % number), "one", 0)
        assert len(reuse._now) + len(reuse._before) <= 20
    for number in range(990, 1000):
        reuse.note((1, b"%d" % number), "another", 0)
    assert reuse.soon == 10


async def test_a_pair_that_signs_other_bodies_shows_in_the_metrics_and_all_are_kept(
    serve: Serve, transport: RecordingTransport
) -> None:
    def counted() -> float:
        series = '\ntiw_callbacks_pair_reused_total{when="soon"} '
        return float(render_metrics().decode().partition(series)[2].partition("\n")[0])

    server = await serve()
    await post(server.port, callback())
    before = counted()
    expire_time = soon() + 100
    bodies = [callback(expire_time=expire_time, Timestamp=number) for number in (1, 1, 2, 3)]
    # However a Sign is spelled, it is the same pair.
    bodies.append(callback(expire_time=expire_time, Timestamp=4).replace(b'"Sign"', b'"\\u0053ign"'))
    assert [(await post(server.port, body)).status for body in bodies] == [200] * 5
    await server.drain()
    assert counted() == before + 3
    assert len(transport.published) == 6
