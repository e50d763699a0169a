"""A consumer on an event, without a broker."""

import asyncio
import threading
import time

import pytest

from schemas import OnlineRecordFinished, OnlineRecordStarted
from store import StoreUnavailableError
from workers import Ack, Context, DeadLetter, Drop, Outcome, Retry, consumer, run_consumer

EVENT = OnlineRecordStarted(task_id="task", timestamp=1)


async def test_returning_is_an_ack() -> None:
    @consumer
    async def quiet(event: OnlineRecordStarted, ctx: Context) -> None:
        assert event.task_id == "task"
        assert ctx.attempt == 3

    assert await run_consumer(quiet, EVENT, attempt=3) == Ack()


@pytest.mark.parametrize("outcome", [Retry(after_s=120), Drop("old"), DeadLetter("broken"), Ack()])
async def test_an_outcome_can_be_returned(outcome: Outcome) -> None:
    @consumer
    async def answers(event: OnlineRecordStarted, ctx: Context) -> Outcome:
        return outcome

    assert await run_consumer(answers, EVENT) == outcome


@pytest.mark.parametrize("outcome", [Retry(after_s=120), Drop("old"), DeadLetter("broken")])
async def test_an_outcome_can_be_raised(outcome: Retry | Drop | DeadLetter) -> None:
    @consumer
    def raises(event: OnlineRecordStarted, ctx: Context) -> None:
        raise outcome

    assert await run_consumer(raises, EVENT) == outcome


async def test_any_other_exception_is_a_retry_with_its_words() -> None:
    @consumer
    async def fails(event: OnlineRecordStarted, ctx: Context) -> None:
        raise ValueError("no\nbucket")

    assert await run_consumer(fails, EVENT) == Retry(reason="ValueError: no bucket")


async def test_another_result_is_a_mistake_that_shows() -> None:
    @consumer
    async def returns_text(event: OnlineRecordStarted, ctx: Context):  # type: ignore[no-untyped-def]  # noqa: ANN202 - that is the mistake
        return "done"

    assert await run_consumer(returns_text, EVENT) == DeadLetter(
        "the handler returned str: return nothing, or an outcome"
    )


async def test_a_handler_that_hangs_is_cancelled_at_its_time_out() -> None:
    was_cancelled = asyncio.Event()

    @consumer(timeout_s=0.05)
    async def hangs(event: OnlineRecordStarted, ctx: Context) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            was_cancelled.set()
            raise

    assert await run_consumer(hangs, EVENT) == Retry(reason="no answer within 0.05 s")
    assert was_cancelled.is_set()


async def test_a_handler_that_ignores_its_cancellation_is_left_behind() -> None:
    released = asyncio.Event()
    ended = asyncio.Event()

    @consumer(timeout_s=0.05)
    async def stubborn(event: OnlineRecordStarted, ctx: Context) -> None:
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                continue
        ended.set()

    assert await run_consumer(stubborn, EVENT) == Retry(reason="no answer within 0.05 s")
    released.set()
    async with asyncio.timeout(5):
        await ended.wait()


async def test_a_plain_function_runs_in_a_thread_and_does_not_block_the_loop() -> None:
    turned = threading.Event()

    @consumer
    def waits(event: OnlineRecordStarted, ctx: Context) -> None:
        assert turned.wait(5)

    async def turn() -> None:
        turned.set()

    outcome, _ = await asyncio.gather(run_consumer(waits, EVENT), turn())
    assert outcome == Ack()


async def test_a_plain_function_that_hangs_is_left_to_itself() -> None:
    release = threading.Event()

    @consumer(timeout_s=0.05)
    def hangs(event: OnlineRecordStarted, ctx: Context) -> None:
        release.wait(10)

    before_s = time.monotonic()
    assert await run_consumer(hangs, EVENT) == Retry(reason="no answer within 0.05 s")
    release.set()
    assert time.monotonic() - before_s < 5


async def test_stop_iteration_from_a_thread_is_a_retry_like_any_other() -> None:
    @consumer
    def stops(event: OnlineRecordStarted, ctx: Context) -> None:
        next(iter(()))

    assert await run_consumer(stops, EVENT) == Retry(reason="RuntimeError: the handler raised StopIteration")


async def test_a_store_that_is_away_is_no_outcome() -> None:
    @consumer
    async def reads(event: OnlineRecordStarted, ctx: Context) -> None:
        raise StoreUnavailableError("away")

    with pytest.raises(StoreUnavailableError):
        await run_consumer(reads, EVENT)


async def test_the_example_of_the_readme_works() -> None:
    copied: list[str | None] = []

    @consumer(attempts=8, timeout_s=60)
    async def archive(event: OnlineRecordFinished, ctx: Context) -> None:
        if not event.video_infos:
            raise Retry(after_s=120)
        copied.extend(video.video_url for video in event.video_infos)

    assert await run_consumer(archive, OnlineRecordFinished(task_id="t", timestamp=1)) == Retry(after_s=120)
    assert not copied
