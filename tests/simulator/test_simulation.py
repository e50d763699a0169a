import asyncio
import json
from collections import Counter
from typing import Any

import msgspec
import pytest

from simulator import DEFAULT_KINDS, ClassKind, SimulationConfig, SimulationProgress, schedule, simulate
from tests.simulator.fake_clock import FakeClock
from tests.simulator.receiver import KEY, answer, hang, is_signed, receiving

APP = 1_400_000_001


def config(url: str, **changes: Any) -> SimulationConfig:
    values: dict[str, Any] = {"url": url, "sdk_app_id": APP, "key": KEY, "retry_delay_s": 0.0}
    return SimulationConfig(**values | changes)


async def test_everything_is_sent_signed_and_accounted_for() -> None:
    async with receiving() as receiver:
        report = await simulate(config(receiver.url, classes=30, duplicates=0.5, seed=3))

    assert all(is_signed(members) for members in receiver.members)
    assert len(receiver.bodies) == report.sent + report.duplicates
    assert report.sent == report.accepted == len(report.accepted_ids)
    assert report.gave_up == report.retries == 0
    assert report.duplicates > 0
    assert report.p50_ms is not None
    assert report.p99_ms is not None
    assert 0 < report.p50_ms <= report.p99_ms
    planned = schedule(classes=30, kinds=DEFAULT_KINDS, sdk_app_id=APP, seed=3, duplicates=0, disorder=0)
    assert report.accepted_ids == {send.callback.event_id for send in planned}


async def test_a_refused_callback_is_given_up_and_named() -> None:
    async with receiving(*[answer(401)] * 6) as receiver:
        report = await simulate(
            config(receiver.url, classes=1, kinds=(ClassKind.NORMAL,), concurrency=1, duplicates=0.0)
        )

    assert (report.sent, report.accepted, report.gave_up, report.retries) == (3, 2, 1, 5)
    assert report.failures == {"HTTP 401": 6}
    assert not report.given_up_ids & report.accepted_ids
    assert len(report.given_up_ids) == 1


async def test_a_report_holds_no_secret() -> None:
    async with receiving(answer(500)) as receiver:
        report = await simulate(config(receiver.url, classes=3))

    shown = repr(report)
    assert KEY not in shown
    assert receiver.url not in shown
    assert not any(members["Sign"] in shown for members in receiver.members)


async def test_the_counts_alone_are_what_the_command_prints() -> None:
    async with receiving() as receiver:
        report = await simulate(config(receiver.url, classes=1))

    assert list(json.loads(msgspec.json.encode(report.counts))) == [
        "sent",
        "accepted",
        "gave_up",
        "retries",
        "p50_ms",
        "p99_ms",
    ]


async def test_one_sender_at_a_time_keeps_the_order_of_the_seed() -> None:
    contents = []
    for _ in range(2):
        async with receiving() as receiver:
            await simulate(config(receiver.url, concurrency=1, duplicates=0.3, disorder=0.5, seed=5))
        contents.append([(m["EventType"], m["Timestamp"], m["EventData"]) for m in receiver.members])

    assert contents[0] == contents[1]


async def test_no_more_than_the_concurrency_is_under_way() -> None:
    under_way, most = 0, 0
    behave = answer(200)

    async def slow(request: Any) -> Any:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        for _ in range(20):
            await asyncio.sleep(0)
        under_way -= 1
        return await behave(request)

    async with receiving(*[slow] * 200) as receiver:
        await simulate(config(receiver.url, classes=20, concurrency=4))

    assert 2 <= most <= 4


async def test_with_a_rate_each_send_begins_when_it_is_due() -> None:
    time = FakeClock()
    began_s = time.now_s
    async with receiving() as receiver:
        report = await simulate(config(receiver.url, classes=20, rate=10), clock=time.clock)

    sends = report.sent + report.duplicates
    assert time.now_s - began_s == pytest.approx((sends - 1) / 10, abs=0.001)


async def test_with_a_rate_one_that_hangs_holds_up_nobody() -> None:
    hung = asyncio.Event()
    others_accepted = asyncio.Event()

    async def hang_until_the_others_are_through(request: Any) -> Any:
        hung.set()
        await others_accepted.wait()
        return await answer(200)(request)

    def watch(progress: SimulationProgress) -> None:
        if hung.is_set() and progress.accepted == 2:
            others_accepted.set()

    async with receiving(hang_until_the_others_are_through) as receiver, asyncio.timeout(10):
        report = await simulate(
            config(
                receiver.url, classes=1, kinds=(ClassKind.NORMAL,), rate=1_000, concurrency=1, duplicates=0.0, retries=0
            ),
            on_progress=watch,
        )

    assert report.accepted == 3


async def test_progress_ends_where_the_report_does() -> None:
    seen: list[SimulationProgress] = []
    async with receiving(answer(503)) as receiver:
        report = await simulate(config(receiver.url, classes=12), on_progress=seen.append)

    last = seen[-1]
    assert len(seen) == report.sent + report.duplicates
    assert last.classes_done == last.classes == 12
    assert (last.sent, last.accepted, last.retries) == (report.sent, report.accepted, 1)


async def test_cancelling_ends_all_sends() -> None:
    async with receiving(*[hang] * 16) as receiver:
        task = asyncio.create_task(simulate(config(receiver.url)))
        async with asyncio.timeout(10):
            await receiver.reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        leftovers = Counter(type(other) for other in asyncio.all_tasks() if "send_" in repr(other.get_coro()))

    assert not leftovers


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"url": "127.0.0.1:8080"}, "whole http:// or https:// URL"),
        ({"url": "ftp://host/"}, "whole http:// or https:// URL"),
        ({"url": "http://[broken/"}, "whole http:// or https:// URL"),
        ({"key": ""}, "key must not be empty"),
        ({"kinds": ()}, "at least one kind"),
        ({"classes": 0}, "at least 1 class"),
        ({"rate": 0.0}, "rate must be above 0"),
        ({"concurrency": 0}, "at least 1"),
        ({"duplicates": 1.5}, "duplicates must be from 0 to 1"),
        ({"disorder": -0.1}, "disorder must be from 0 to 1"),
        ({"timeout_s": 0.0}, "time-out must be above 0"),
        ({"retries": -1}, "must not be negative"),
        ({"retry_delay_s": -1.0}, "must not be negative"),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        config(**{"url": "http://127.0.0.1:9/"} | changes)


def test_a_configuration_shows_neither_key_nor_address() -> None:
    shown = repr(config("http://127.0.0.1:9/callbacks/tiw/secret-token"))

    assert KEY not in shown
    assert "secret-token" not in shown
