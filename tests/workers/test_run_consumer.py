"""A consumer on an event, without a broker."""

import asyncio
import functools
import sys
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog

from schemas import Event, OnlineRecordFinished, OnlineRecordStarted
from store import StoreUnavailableError
from workers import Ack, Context, DeadLetter, Drop, Outcome, Retry, consumer, run_batch, run_consumer

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


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (SystemExit(3), Retry(reason="the handler would have ended the program: SystemExit: 3")),
        (KeyboardInterrupt(), Retry(reason="the handler would have ended the program: KeyboardInterrupt")),
        (GeneratorExit(), Retry(reason="GeneratorExit")),
        (asyncio.CancelledError(), Retry(reason="the handler cancelled itself")),
        (ExceptionGroup("both", [Drop("a"), Retry(after_s=5), Drop("b")]), Retry(after_s=5)),
        (ExceptionGroup("both", [Retry(), DeadLetter("no")]), DeadLetter("no")),
        (
            ExceptionGroup("one of two", [Retry(after_s=5), ValueError("v")]),
            Retry(reason="ExceptionGroup: one of two (2 sub-exceptions)"),
        ),
    ],
    ids=repr,
)
async def test_whatever_is_raised_has_an_outcome(error: BaseException, outcome: Outcome) -> None:
    @consumer
    async def raises(event: OnlineRecordStarted, ctx: Context) -> None:
        raise error

    assert await run_consumer(raises, EVENT) == outcome


async def test_an_outcome_counts_where_it_is_the_cause_of_another_error() -> None:
    @consumer
    async def wraps(event: OnlineRecordStarted, ctx: Context) -> None:
        raise RuntimeError("the library's own error") from Drop("not ours")

    assert await run_consumer(wraps, EVENT) == Drop("not ours")


async def test_a_plain_decorator_may_stand_on_a_coroutine_function() -> None:
    handled: list[str] = []

    def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(event: OnlineRecordStarted, ctx: Context) -> Any:
            return function(event, ctx)

        return wrapper

    @consumer
    @decorated
    async def archive(event: OnlineRecordStarted, ctx: Context) -> Outcome:
        await asyncio.sleep(0)
        handled.append(event.task_id)
        return Drop("handled")

    assert await run_consumer(archive, EVENT) == Drop("handled")
    assert handled == [EVENT.task_id]


async def test_what_is_no_text_becomes_one_that_a_header_and_a_table_can_hold() -> None:
    reasons: list[Any] = [5, None, b"bytes", "two\nlines \0 and \ud800", "x" * 10_000]
    kept = [DeadLetter(reason).reason for reason in reasons]
    assert kept == ["5", "None", "b'bytes'", "two lines and ?", "x" * 500]


@pytest.mark.parametrize("after_s", ["5", float("nan"), -1, object()])
def test_a_pause_that_is_no_number_of_seconds_is_refused(after_s: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="after_s"):
        Retry(after_s=after_s)


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

    assert await run_consumer(stops, EVENT) == Retry(reason="StopIteration")


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


async def test_a_variable_that_a_handler_sets_stays_in_it() -> None:
    variable: ContextVar[str] = ContextVar("variable", default="clean")

    @consumer
    async def sets(event: OnlineRecordStarted, ctx: Context) -> None:
        variable.set("set")

    assert await run_consumer(sets, EVENT) == Ack()
    assert variable.get() == "clean"


async def test_a_handler_left_behind_is_logged_with_its_event() -> None:
    release = threading.Event()

    @consumer(timeout_s=0.05)
    def hangs(event: OnlineRecordStarted, ctx: Context) -> None:
        release.wait(10)

    with structlog.testing.capture_logs() as logs:
        await run_consumer(hangs, EVENT, event_id="e" * 32)
    release.set()

    (line,) = logs
    assert (line["event"], line["event_id"], line["timeout_s"]) == ("handler_left_behind", "e" * 32, 0.05)


async def test_a_thread_that_exits_is_a_retry_and_ends_nothing_else() -> None:
    @consumer
    def exits(event: OnlineRecordStarted, ctx: Context) -> None:
        sys.exit(3)

    assert await run_consumer(exits, EVENT) == Retry(reason="the handler would have ended the program: SystemExit: 3")


async def test_a_handler_may_log_values_of_any_name() -> None:
    @consumer
    async def archive(event: OnlineRecordStarted, ctx: Context) -> None:
        ctx.log.info("archived", event=event.task_id, level=3, self=1, message=2, attempt="own", videos=0)
        ctx.log.bind(trace="own").warning("%s of %s", 1, 2)
        await ctx.log.ainfo("later", event="own")

    with structlog.testing.capture_logs() as lines:
        assert await run_consumer(archive, EVENT) == Ack()
    assert [line["event"] for line in lines] == ["archived", "1 of 2", "later"]
    own = {name: lines[0][name] for name in ("event_", "level_", "self_", "message", "attempt_", "attempt", "videos")}
    assert own == {
        "event_": "task",
        "level_": 3,
        "self_": 1,
        "message": 2,
        "attempt_": "own",
        "attempt": 1,
        "videos": 0,
    }
    assert (lines[1]["trace_"], lines[1]["log_level"]) == ("own", "warning")
    assert lines[2]["event_"] == "own"


async def test_the_context_tells_when_the_callback_came_in() -> None:
    moments: list[tuple[datetime, int]] = []

    @consumer
    async def notes(event: OnlineRecordStarted, ctx: Context) -> None:
        moments.append((ctx.received_at, ctx.received_at_us))

    received_at = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
    await run_consumer(notes, EVENT, received_at=received_at)

    assert moments == [(received_at, 1_767_323_045_000_678)]


Batch = list[tuple[OnlineRecordStarted, Context]]
EVENTS = [OnlineRecordStarted(task_id=task_id, timestamp=1) for task_id in ("a", "b", "c")]


async def test_one_with_batch_gets_a_single_event_as_a_group_of_its_own() -> None:
    sizes: list[int] = []

    @consumer(batch=10)
    async def archive(batch: Batch) -> list[Outcome]:
        sizes.append(len(batch))
        return [Drop(event.task_id) for event, _ in batch]

    assert await run_consumer(archive, EVENT) == Drop("task")
    assert sizes == [1]


@pytest.mark.parametrize(
    ("result", "sentence"),
    [
        ("done", "the handler returned str: return None, or a list of outcomes"),
        ([], "the handler returned 0 outcomes for a group of 1: return one for each, in their order"),
        ([Ack(), Ack()], "the handler returned 2 outcomes for a group of 1: return one for each, in their order"),
        (
            [None],
            "the handler returned a list with NoneType in it: return an outcome for each event, such as Ack()",
        ),
    ],
)
async def test_another_result_for_a_group_is_a_mistake_that_shows(result: Any, sentence: str) -> None:
    @consumer(batch=10)
    async def archive(batch: Batch) -> Any:
        return result

    assert await run_consumer(archive, EVENT) == DeadLetter(sentence)


async def test_a_group_can_be_tried_as_a_whole() -> None:
    @consumer(batch=10)
    async def archive(batch: Batch) -> list[Outcome]:
        return [Drop(event.task_id) if event.task_id == "b" else Ack() for event, _ in batch]

    assert await run_batch(archive, EVENTS) == [Ack(), Drop("b"), Ack()]


async def test_a_group_that_fails_is_tried_one_by_one() -> None:
    groups: list[list[str]] = []

    @consumer(batch=10)
    def archive(batch: Batch) -> None:
        groups.append([event.task_id for event, _ in batch])
        if any(event.task_id == "b" for event, _ in batch):
            raise ValueError("no bucket")

    with structlog.testing.capture_logs() as logs:
        assert await run_batch(archive, EVENTS) == [Ack(), Retry(reason="ValueError: no bucket"), Ack()]

    assert groups == [["a", "b", "c"], ["a"], ["b"], ["c"]]
    failed = next(line for line in logs if line["event"] == "group_failed")
    assert (failed["events"], failed["reason"]) == (3, "ValueError: no bucket")


async def test_each_event_of_a_group_has_an_id_of_its_own() -> None:
    ids: list[str] = []

    @consumer(batch=3)
    async def archive(batch: Batch) -> None:
        ids.extend(ctx.event_id for _, ctx in batch)

    await run_batch(archive, EVENTS)

    assert ids == [f"{number:032}" for number in range(3)]


@pytest.mark.parametrize("events", [[], EVENTS])
async def test_a_group_that_could_not_be_is_refused(events: list[OnlineRecordStarted]) -> None:
    @consumer(batch=2)
    async def archive(batch: Batch) -> None: ...

    with pytest.raises(ValueError, match="archive takes 2 events in a group, not"):
        await run_batch(archive, events)


async def test_one_that_is_verified_gets_what_the_vendor_confirmed_and_never_what_it_contradicts() -> None:
    handled: list[str] = []

    @consumer(verified=True)
    async def archive(event: OnlineRecordFinished | OnlineRecordStarted, ctx: Context) -> None:
        handled.append(type(event).__name__)

    finished = OnlineRecordFinished(task_id="t", timestamp=1)
    assert await run_consumer(archive, finished) == Ack()
    contradicted = DeadLetter("the vendor contradicts it: it gives no such result")
    assert await run_consumer(archive, finished, verified=False) == contradicted
    assert await run_consumer(archive, EVENT, verified=False) == Ack()
    nameless = DeadLetter("it cannot be verified: it has no TaskId to ask the vendor about")
    assert await run_consumer(archive, OnlineRecordFinished(timestamp=1)) == nameless
    assert handled == ["OnlineRecordFinished", "OnlineRecordStarted"]


async def test_of_a_group_only_what_is_contradicted_is_left_out() -> None:
    groups: list[list[str]] = []

    @consumer(verified=True, batch=3)
    async def archive(batch: list[tuple[OnlineRecordFinished | OnlineRecordStarted, Context]]) -> list[Outcome]:
        groups.append([event.task_id for event, _ in batch])
        return [Drop(event.task_id) for event, _ in batch]

    events: list[Event] = [EVENT, OnlineRecordFinished(task_id="f", timestamp=1), EVENT]
    first, refused, last = await run_batch(archive, events, verified=False)
    assert (first, last) == (Drop("task"), Drop("task"))
    assert isinstance(refused, DeadLetter)
    assert await run_batch(archive, events[1:2], verified=False) == [refused]
    assert await run_batch(archive, events) == [Drop("task"), Drop("f"), Drop("task")]
    assert groups == [["task", "task"], ["task", "f", "task"]]


async def test_the_example_of_the_readme_for_many_events_works() -> None:
    rows: list[tuple[str, str]] = []

    async def insert_rows(new: list[tuple[str, str]]) -> None:
        rows.extend(new)

    @consumer(batch=100)
    async def archive(batch: list[tuple[OnlineRecordFinished, Context]]) -> None:
        await insert_rows([(ctx.event_id, event.task_id) for event, ctx in batch])

    first, second = (OnlineRecordFinished(task_id=task_id, timestamp=1) for task_id in "ab")
    assert await run_batch(archive, [first, second]) == [Ack(), Ack()]
    assert [task_id for _, task_id in rows] == ["a", "b"]
