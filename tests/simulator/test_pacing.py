from itertools import count

from simulator.sending import paced
from tests.simulator.fake_clock import FakeClock


async def test_as_many_items_come_as_the_rate_says() -> None:
    time = FakeClock()
    began_s = time.now_s

    due_s = [time.now_s - began_s async for _ in paced(range(101), rate=50, clock=time.clock)]

    assert due_s[0] == 0
    assert abs(due_s[-1] - 2.0) < 0.001
    assert abs(due_s[50] - 1.0) < 0.001


async def test_what_is_late_follows_at_once() -> None:
    time = FakeClock()
    began_s = time.now_s
    due_s = []

    async for index in paced(count(), rate=10, clock=time.clock):
        due_s.append(time.now_s - began_s)
        if index == 4:
            time.now_s += 1.0  # a stall
        if index == 20:
            break

    assert [round(moment, 3) for moment in due_s[5:15]] == [1.4] * 10
    assert abs(due_s[20] - 2.0) < 0.001
