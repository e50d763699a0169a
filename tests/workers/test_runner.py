"""What becomes of deliveries: outcomes, attempts, memory, limits, and the end of a worker."""

import asyncio
import threading
from collections import Counter

from msgspec import structs

from schemas import OnlineRecordFinished, OnlineRecordStarted, Unrecognized
from store import Claim, claim, list_dead_letters
from telemetry import metrics
from tests.workers.house import (
    House,
    as_message,
    eventually,
    finished,
    has_events,
    has_letters,
    is_settled,
    recording,
    started,
)
from workers import BUILT_IN, Context, DeadLetter, Drop, Retry, consumer


async def test_a_consumer_that_fails_three_times_is_attempted_exactly_four_times(house: House) -> None:
    attempts: list[int] = []
    archive = recording(attempts, fail=3)

    async with house.working(archive) as transport:
        await transport.publish(started())
        await eventually(lambda: len(attempts) == 4)
        await eventually(lambda: is_settled(house, "archive"))

    assert attempts == [1, 2, 3, 4]
    assert await list_dead_letters(house.store) == []


async def test_one_that_always_fails_is_a_dead_letter_with_its_reason(house: House) -> None:
    @consumer(attempts=3)
    async def archive(event: OnlineRecordStarted, ctx: Context) -> None:
        raise ValueError("no bucket")

    async with house.working(archive) as transport:
        await transport.publish(started())
        await eventually(lambda: has_letters(house, 1))

    (letter,) = await list_dead_letters(house.store)
    assert (letter.consumer, letter.event_type) == ("archive", "OnlineRecordStarted")
    assert (letter.attempts, letter.reason) == (3, "ValueError: no bucket")
    assert letter.first_failed_at < letter.last_failed_at


async def test_its_dead_letter_says_where_the_last_attempt_failed(house: House) -> None:
    failures: list[Exception] = [KeyError("the first"), ValueError("the last")]

    @consumer(attempts=2)
    async def archive(event: OnlineRecordStarted, ctx: Context) -> None:
        raise failures[ctx.attempt - 1]

    async with house.working(archive) as transport:
        await transport.publish(started())
        await eventually(lambda: has_letters(house, 1))

    (letter,) = await list_dead_letters(house.store)
    assert '\n  File "tests/workers/test_runner.py", line ' in letter.traceback
    assert letter.traceback.endswith("\n    raise failures[ctx.attempt - 1]\nValueError: the last")
    assert "the first" not in letter.traceback


async def test_an_outcome_that_was_raised_says_where_and_from_what(house: House) -> None:
    @consumer
    def archive(event: OnlineRecordStarted, ctx: Context) -> None:
        try:
            raise KeyError("bucket")  # noqa: TRY301 - that is the point
        except KeyError as error:
            raise DeadLetter("there is none") from error

    async with house.working(archive) as transport:
        await transport.publish(started())
        await eventually(lambda: has_letters(house, 1))

    (letter,) = await list_dead_letters(house.store)
    assert "KeyError: 'bucket'\n\nThe above exception was the direct cause" in letter.traceback
    assert letter.traceback.endswith("DeadLetter: there is none")


async def test_what_was_not_raised_leaves_no_traceback_of_an_earlier_attempt(house: House) -> None:
    @consumer(attempts=2)
    async def archive(event: OnlineRecordStarted, ctx: Context) -> Retry:
        if ctx.attempt == 1:
            raise ValueError("raised")
        return Retry(reason="returned")

    async with house.working(archive) as transport:
        await transport.publish(started())
        await eventually(lambda: has_letters(house, 1))

    (letter,) = await list_dead_letters(house.store)
    assert (letter.reason, letter.traceback) == ("returned", "")


async def test_its_neighbours_get_the_same_event_and_are_not_held_up(house: House) -> None:
    handled: list[str] = []

    @consumer(attempts=2)
    async def broken(event: OnlineRecordStarted, ctx: Context) -> None:
        raise ValueError("broken")

    @consumer(concurrency=1)
    async def hanging(event: OnlineRecordStarted, ctx: Context) -> None:
        await asyncio.Event().wait()

    @consumer
    async def fine(event: OnlineRecordStarted, ctx: Context) -> None:
        handled.append(event.task_id)

    async with house.working(broken, hanging, fine, *BUILT_IN, drain_grace_s=0.1) as transport:
        for number in range(20):
            await transport.publish(started(f"task-{number}"))
        await eventually(lambda: len(handled) == 20)
        await eventually(lambda: has_events(house, 20))


async def test_dead_letter_gives_up_at_once(house: House) -> None:
    attempts: list[int] = []

    @consumer
    async def archive(event: OnlineRecordStarted, ctx: Context) -> None:
        attempts.append(ctx.attempt)
        raise DeadLetter("unknown room")

    async with house.working(archive) as transport:
        await transport.publish(started())
        await eventually(lambda: has_letters(house, 1))

    assert attempts == [1]
    assert (await list_dead_letters(house.store))[0].reason == "unknown room"


async def test_drop_forgets_the_event(house: House) -> None:
    attempts: list[int] = []

    @consumer
    async def archive(event: OnlineRecordStarted, ctx: Context) -> None:
        attempts.append(ctx.attempt)
        raise Drop("a test room")

    async with house.working(archive) as transport:
        message = started()
        await transport.publish(message)
        await transport.publish(message)
        await eventually(lambda: len(attempts) == 1)
        await eventually(lambda: is_settled(house, "archive"))

    assert attempts == [1]
    assert await list_dead_letters(house.store) == []


async def test_retry_waits_on_the_shortest_delay_that_is_long_enough(house: House) -> None:
    times: list[float] = []

    @consumer
    async def archive(event: OnlineRecordStarted, ctx: Context) -> None:
        times.append(asyncio.get_running_loop().time())
        if len(times) == 1:
            raise Retry(after_s=0.15)

    async with house.working(archive) as transport:
        await transport.publish(started())
        await eventually(lambda: len(times) == 2)

    # The delays are 0.05, 0.1 and 0.2 s.
    assert times[1] - times[0] >= 0.19


async def test_a_completed_event_is_not_handled_again(house: House) -> None:
    attempts: list[int] = []
    archive = recording(attempts)
    message = started()

    async with house.working(archive) as transport:
        await transport.publish(message)
        await eventually(lambda: len(attempts) == 1)
        await eventually(lambda: is_settled(house, "archive"))
        await transport.publish(message)
        await transport.publish(started("another"))
        await eventually(lambda: len(attempts) == 2)
        await eventually(lambda: is_settled(house, "archive"))

    assert len(attempts) == 2


async def test_one_that_does_not_remember_is_handled_again(house: House) -> None:
    seen: Counter[str] = Counter()

    @consumer(remember=False)
    async def archive(event: OnlineRecordStarted, ctx: Context) -> None:
        seen[ctx.event_id] += 1

    message = started()
    async with house.working(archive) as transport:
        await transport.publish(message)
        await transport.publish(message)
        await eventually(lambda: seen[message.event_id] == 2)


async def test_the_same_event_twice_at_once_is_handled_once(house: House) -> None:
    running, most, handled = 0, 0, 0

    @consumer
    async def archive(event: OnlineRecordStarted, ctx: Context) -> None:
        nonlocal running, most, handled
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.2)
        running -= 1
        handled += 1

    message = started()
    duplicates = metrics.DELIVERIES.labels("archive", "duplicate")
    before = duplicates._value.get()
    async with house.working(archive) as transport:
        await asyncio.gather(*(transport.publish(message) for _ in range(5)))
        await eventually(lambda: handled == 1)
        # Those that found a lease wait for a retry; they come back, and find the completion.
        await eventually(lambda: duplicates._value.get() == before + 4)

    assert (most, handled) == (1, 1)


async def test_a_lease_of_another_worker_is_waited_for_without_counting(house: House) -> None:
    attempts: list[int] = []
    archive = recording(attempts)
    message = started()
    ids = [message.event_id]
    claims = await claim(house.store, consumer="archive", event_ids=ids, lease_holder="elsewhere/ns/1/ab", lease_s=1.0)
    assert claims == {message.event_id: Claim.CLAIMED}

    async with house.working(archive) as transport:
        await transport.publish(message)
        await eventually(lambda: len(attempts) == 1)

    assert attempts == [1]


async def test_at_most_so_many_handlers_run_at_once(house: House) -> None:
    running, most, handled = 0, 0, 0

    @consumer(concurrency=3)
    async def archive(event: OnlineRecordStarted, ctx: Context) -> None:
        nonlocal running, most, handled
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1
        handled += 1

    async with house.working(archive) as transport:
        for number in range(30):
            await transport.publish(started(f"task-{number}"))
        await eventually(lambda: handled == 30)

    assert most == 3


async def test_a_plain_function_is_a_consumer_too(house: House) -> None:
    threads: set[str] = set()

    @consumer
    def archive(event: OnlineRecordStarted, ctx: Context) -> None:
        threads.add(threading.current_thread().name)

    async with house.working(archive) as transport:
        await transport.publish(started())
        await eventually(lambda: bool(threads))

    assert threads == {"tiw-archive"}


async def test_content_that_a_worker_does_not_understand_is_passed_on_as_unrecognized(house: House) -> None:
    kept: list[str] = []

    @consumer
    async def rest(event: Unrecognized, ctx: Context) -> None:
        kept.append(event.reason)

    @consumer
    async def archive(event: OnlineRecordFinished, ctx: Context) -> None:
        raise AssertionError("not understood, so not handled")

    strange = structs.replace(as_message(b'{"EventType": "FromTheFuture"}'), routing_key="OnlineRecordFinished")
    async with house.working(rest, archive) as transport:
        await transport.publish(strange)
        await eventually(lambda: len(kept) == 1)


async def test_an_event_the_consumer_no_longer_takes_is_let_go(house: House) -> None:
    attempts: list[int] = []
    archive = recording(attempts)

    async with house.working(archive) as transport:
        await transport.send("archive", finished())
        await transport.send("archive", started())
        await eventually(lambda: len(attempts) == 1)
        await eventually(lambda: is_settled(house, "archive"))

    assert len(attempts) == 1


async def test_the_body_comes_as_it_was_sent(house: House) -> None:
    bodies: list[bytes] = []
    body = b'{ "EventType":"WhiteboardPushStopped", "Timestamp": 1,"EventData": {"a":  1}, "Extra":null}'

    @consumer
    async def rest(event: Unrecognized, ctx: Context) -> None:
        bodies.append(ctx.body)

    async with house.working(rest) as transport:
        await transport.publish(as_message(body))
        await eventually(lambda: len(bodies) == 1)

    assert bodies == [body]


async def test_tasks_do_not_grow_with_the_events_that_were_handled(house: House) -> None:
    handled = 0

    @consumer(concurrency=3)
    async def archive(event: OnlineRecordStarted, ctx: Context) -> None:
        nonlocal handled
        handled += 1
        if handled % 3 == 0:
            await asyncio.sleep(0)
        if ctx.attempt == 1 and handled % 5 == 0:
            raise Retry

    async with house.working(archive) as transport:
        before = len(asyncio.all_tasks())
        for _ in range(3):
            await asyncio.gather(*(transport.publish(started(f"task-{handled}-{number}")) for number in range(100)))
            await eventually(lambda: is_settled(house, "archive"))
        # No more than the slots were added.
        await eventually(lambda: len(asyncio.all_tasks()) <= before + 3)

    assert handled >= 300
