"""A handler that blocks the loop is named."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import structlog
import uvloop

from schemas import OnlineRecordStarted
from tests.workers.house import eventually
from workers import Context, consumer, run_consumer
from workers.worker import StallWatch


@consumer
async def blocking(event: OnlineRecordStarted, ctx: Context) -> None:
    time.sleep(1.5)  # noqa: ASYNC251 - that is the mistake


async def test_a_blocked_loop_is_logged_with_the_consumer_and_its_length() -> None:
    event = OnlineRecordStarted(task_id="t", timestamp=1)
    with structlog.testing.capture_logs() as logs:
        async with StallWatch({blocking.function.__code__: "blocking"}, stall_s=0.7):
            await asyncio.sleep(0.3)
            await run_consumer(blocking, event)
            await eventually(lambda: any(entry["event"] == "loop_resumed" for entry in logs))

    stalled = next(entry for entry in logs if entry["event"] == "loop_stalled" and entry["consumer"])
    resumed = next(entry for entry in logs if entry["event"] == "loop_resumed" and entry["consumer"])
    assert (stalled["consumer"], resumed["consumer"]) == ("blocking", "blocking")
    assert stalled["at"].startswith(f"{__file__}:")
    assert resumed["stalled_s"] >= 1.0


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_loop_that_waits_is_told_from_one_that_is_stuck(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    """So that one that waits need not be woken to see that it turns."""

    def seen(watch: StallWatch, stop: threading.Event) -> bool:
        while not watch.is_resting and not stop.is_set():
            time.sleep(0.001)
        return watch.is_resting

    async def watched() -> None:
        async with StallWatch({}) as watch:
            never = threading.Event()
            async with asyncio.timeout(10):
                assert await asyncio.to_thread(seen, watch, never)
            looked = threading.Event()
            with ThreadPoolExecutor() as pool:
                looking = pool.submit(seen, watch, looked)
                time.sleep(0.05)  # noqa: ASYNC251 - that is the mistake
                looked.set()
                assert not looking.result()

    run(watched())


async def test_a_loop_that_turns_is_not_logged() -> None:
    with structlog.testing.capture_logs() as logs:
        async with StallWatch({}, stall_s=2.0):
            await asyncio.sleep(0.6)

    assert logs == []
