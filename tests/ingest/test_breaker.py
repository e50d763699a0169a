"""The breaker saves callbacks the wait for a broker that will not answer, and finds out when it does again."""

import pytest

from ingest import durability as module
from ingest.durability import Breaker
from tests.ingest.recording_transport import RecordingTransport


class Clock:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        """Return the time."""
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


async def test_three_failures_in_a_row_open_it_and_a_confirm_closes_it(clock: Clock) -> None:
    breaker = Breaker(RecordingTransport())
    for _ in range(2):
        breaker.failed()
    breaker.confirmed()
    for _ in range(2):
        breaker.failed()
    assert breaker.allows()
    breaker.failed()
    assert breaker.is_open
    breaker.confirmed()
    assert breaker.allows()


async def test_an_open_one_lets_one_callback_a_second_try(clock: Clock) -> None:
    breaker = Breaker(RecordingTransport())
    for _ in range(3):
        breaker.failed()
    allowed = 0
    for _ in range(100):
        clock.now_s += 0.1
        allowed += breaker.allows()
    assert 9 <= allowed <= 11


async def test_a_broker_that_is_away_for_a_moment_is_waited_for_and_then_not(clock: Clock) -> None:
    transport = RecordingTransport()
    breaker = Breaker(transport)
    transport.is_ready = False
    assert breaker.allows()
    clock.now_s += module.AWAY_S / 2
    assert breaker.allows()
    clock.now_s += module.AWAY_S
    assert not breaker.allows()
    assert breaker.is_open
    transport.is_ready = True
    assert breaker.allows()
    transport.is_ready = False
    assert breaker.allows(), "the time away begins anew"
