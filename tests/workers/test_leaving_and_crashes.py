"""What becomes of deliveries when a worker leaves, or dies with them."""

import asyncio

from msgspec import structs

from schemas import OnlineRecordStarted
from store import list_dead_letters
from tests.workers.house import House, eventually, has_letters, is_settled, recording, started
from workers import Context, consumer


async def test_leaving_lets_running_handlers_finish(house: House) -> None:
    entered, ended = asyncio.Event(), asyncio.Event()

    @consumer
    async def archive(event: OnlineRecordStarted, ctx: Context) -> None:
        entered.set()
        await asyncio.sleep(0.3)
        ended.set()

    async with house.working(archive) as transport:
        await transport.publish(started())
        await entered.wait()

    assert ended.is_set()
    assert await is_settled(house, "archive")


async def test_what_does_not_finish_in_time_is_handed_back_as_it_was(house: House) -> None:
    entered = asyncio.Event()

    @consumer
    async def archive(event: OnlineRecordStarted, ctx: Context) -> None:
        entered.set()
        await asyncio.Event().wait()

    async with house.working(archive, drain_grace_s=0.1) as transport:
        await transport.publish(started())
        await entered.wait()

    assert (await house.queue("archive")).ready == 1
    attempts: list[int] = []
    async with house.working(recording(attempts)):
        await eventually(lambda: len(attempts) == 1)
    assert attempts == [1]


async def test_what_had_not_begun_is_handed_back_without_a_crash(house: House) -> None:
    entered = asyncio.Event()

    @consumer(concurrency=1)
    async def archive(event: OnlineRecordStarted, ctx: Context) -> None:
        entered.set()
        await asyncio.Event().wait()

    async with house.working(archive, drain_grace_s=0.1) as transport:
        for number in range(5):
            await transport.publish(started(f"task-{number}"))
        await entered.wait()

    crashes: list[int] = []
    async with house.transport() as transport:
        queues = archive.queues
        async with transport.subscribe(queues, lambda delivery: crashes.append(delivery.crashes), prefetch=10):
            await eventually(lambda: len(crashes) == 5)
    assert crashes == [0] * 5


async def test_a_suspect_that_waits_for_its_turn_is_handed_back_with_its_crashes_and_no_more(house: House) -> None:
    entered = asyncio.Event()

    @consumer
    async def archive(event: OnlineRecordStarted, ctx: Context) -> None:
        entered.set()
        await asyncio.Event().wait()

    async with house.working(archive, drain_grace_s=0.3) as transport:
        await transport.publish(started("harmless"))
        await entered.wait()
        await transport.send("archive", structs.replace(started("suspect"), crashes=4))

    crashes: list[int] = []
    async with house.transport() as transport:
        queues = archive.queues
        async with transport.subscribe(queues, lambda delivery: crashes.append(delivery.crashes), prefetch=10):
            await eventually(lambda: len(crashes) == 2)
    assert sorted(crashes) == [0, 4]


async def test_a_delivery_that_crashed_often_runs_with_nothing_beside_it(house: House) -> None:
    beside: dict[str, int] = {}
    running = 0

    @consumer
    async def archive(event: OnlineRecordStarted, ctx: Context) -> None:
        nonlocal running
        running += 1
        await asyncio.sleep(0.05)
        beside[event.task_id] = running
        await asyncio.sleep(0.05)
        running -= 1

    async with house.transport([archive]) as transport:
        for number in range(6):
            await transport.send("archive", started(f"harmless-{number}"))
        for number in range(3):
            await transport.send("archive", structs.replace(started(f"suspect-{number}"), crashes=3))
    async with house.working(archive):
        await eventually(lambda: len(beside) == 9)

    assert {task_id: count for task_id, count in beside.items() if "suspect" in task_id} == {
        f"suspect-{number}": 1 for number in range(3)
    }


async def test_a_delivery_that_crashed_six_times_is_a_dead_letter_and_is_not_run(house: House) -> None:
    attempts: list[int] = []
    archive = recording(attempts)

    async with house.transport([archive]) as transport:
        await transport.send("archive", structs.replace(started(), crashes=6, reason="r", traceback="earlier"))
    async with house.working(archive):
        await eventually(lambda: has_letters(house, 1))

    assert attempts == []
    (letter,) = await list_dead_letters(house.store)
    assert (letter.reason, letter.traceback) == ("worker crashed", "")


async def test_an_event_that_comes_again_while_its_handler_runs_here_has_killed_nobody(house: House) -> None:
    entered, may_end = asyncio.Event(), asyncio.Event()
    attempts: list[int] = []

    @consumer(remember=False)
    async def archive(event: OnlineRecordStarted, ctx: Context) -> None:
        attempts.append(ctx.attempt)
        entered.set()
        await may_end.wait()

    async with house.working(archive) as transport:
        await transport.send("archive", started())
        await entered.wait()
        # The connection was lost so often; this process was not.
        await transport.send("archive", structs.replace(started(), crashes=7))
        await transport.send("archive", started("behind"))
        await eventually(lambda: len(attempts) == 2)
        may_end.set()
        await eventually(lambda: len(attempts) == 3)
        await eventually(lambda: is_settled(house, "archive"))

    assert attempts == [1, 1, 1]
    assert await list_dead_letters(house.store) == []
