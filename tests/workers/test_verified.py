"""`@consumer(verified=True)`: a Finished event is handed over once the vendor has confirmed it, and never before."""

import argparse
import asyncio
import json
from collections.abc import Callable, Collection
from typing import Any, TypeAlias

import pytest
import structlog
from msgspec import structs

from broker import Message, Transport
from broker.amqp.transport import AmqpTransport
from schemas import OnlineRecordFinished, OnlineRecordStarted, decode
from store import (
    DeadLetterRow,
    KeptEvent,
    Question,
    Store,
    StoreUnavailableError,
    Verdict,
    apply_events,
    ask,
    claim_questions,
    find_recordings,
    finish_question,
    list_dead_letters,
    list_events,
    mark_verified,
)
from telemetry import metrics
from tests.workers.house import (
    LADDER,
    House,
    as_message,
    eventually,
    finished,
    has_events,
    has_letters,
    is_settled,
    started,
)
from tiw.commands.dead_letters import replay
from tiw.settings import Settings
from workers import Consumer, Context, Retry, consumer
from workers.builtin import finished as built_in
from workers.verification import NOT_VERIFIED, SILENT_S, VERIFIED_WITHIN_S

FORGED = "http://forged.example/1.mp4"
REAL = "http://real.example/1.mp4"


class Vendor:
    """What the store knows the vendor to say; `asked` are the groups of events that were looked up."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.error: Exception | None = None
        self.refused: str | None = None
        self.verdicts: dict[str, Verdict] = {}

    def confirm(self, message: Message, *urls: str) -> None:
        answer = with_videos(*urls).body if urls else None
        self.verdicts[message.event_id] = Verdict(verified=True, answer=answer)

    def contradict(self, message: Message, answer: bytes | None = None) -> None:
        self.verdicts[message.event_id] = Verdict(verified=False, answer=answer)

    async def find(self, _: Store, event_ids: Collection[str]) -> dict[str, Verdict]:
        self.asked.append(list(event_ids))
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        if self.refused in event_ids:
            raise ValueError("no database takes it")
        return {event_id: self.verdicts.get(event_id, Verdict()) for event_id in event_ids}


class Clock:
    """A wall clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 1_700_000_000.0

    def __call__(self) -> int:
        return round(self.now_s * 1_000_000)


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch) -> Vendor:
    vendor = Vendor()
    monkeypatch.setattr("workers.verification.find_verdicts", vendor.find)
    return vendor


def with_videos(*urls: str, task_id: str = "task") -> Message:
    return finished(task_id, VideoInfos=[{"VideoUrl": url} for url in urls])


class Handled:
    """What a consumer was called with."""

    def __init__(self) -> None:
        self.urls: list[list[str | None]] = []
        self.contexts: list[Context] = []
        self.task_ids: list[str] = []

    def note(self, event: OnlineRecordFinished, ctx: Context) -> None:
        self.urls.append([video.video_url for video in event.video_infos])
        self.contexts.append(ctx)
        self.task_ids.append(event.task_id)

    def consumer(self, **options: Any) -> Consumer:
        async def archive(event: OnlineRecordFinished, ctx: Context) -> None:
            self.note(event, ctx)

        define: Callable[..., Any] = consumer
        archived: Consumer = define(verified=True, **options)(archive)
        return archived


@pytest.fixture
def handled() -> Handled:
    return Handled()


MakeTransport: TypeAlias = Callable[..., Transport]


@pytest.fixture(params=["embedded", "amqp"])
def make_transport(request: pytest.FixtureRequest, house: House) -> MakeTransport:
    if request.param == "amqp":
        url: str = request.getfixturevalue("amqp_url")
        return lambda *consumers: AmqpTransport(
            [url], consumers=[one.queues for one in consumers], retry_delays_s=LADDER
        )
    return lambda *consumers: house.transport(consumers)


async def only_letter(house: House) -> DeadLetterRow:
    await eventually(lambda: has_letters(house, 1))
    (letter,) = await list_dead_letters(house.store)
    return letter


def looked_up(vendor: Vendor, message: Message) -> int:
    return sum(message.event_id in asked for asked in vendor.asked)


async def test_of_a_forged_event_and_what_the_vendor_answers_only_the_answer_is_handed_over(
    house: House, handled: Handled, make_transport: MakeTransport
) -> None:
    archive = handled.consumer()
    forged, real = with_videos(FORGED), structs.replace(with_videos(REAL), source="reconcile")
    consumers = (archive, built_in)
    async with house.working(*consumers, transport=make_transport(*consumers)) as transport:
        await transport.publish(forged)
        await eventually(lambda: has_events(house, 1))
        await reconcile(house.store, transport, real, contradicted=[forged])
        await eventually(lambda: handled.urls == [[REAL]])
        letter = await only_letter(house)
        await eventually(lambda: is_settled(house, "finished"))
    (ctx,) = handled.contexts
    assert (ctx.event_id, ctx.source, ctx.attempt) == (real.event_id, "reconcile", 1)
    assert letter.event_id == forged.event_id
    assert letter.reason.startswith("the vendor contradicts it: ")
    kept = {event.event_id: (event.source, event.verified) for event in await list_events(house.store)}
    assert kept == {forged.event_id: ("", False), real.event_id: ("reconcile", True)}
    (recording,) = await find_recordings(house.store, "task")
    assert [video.video_url for video in recording.videos] == [REAL]


async def reconcile(store: Store, transport: Transport, answer: Message, *, contradicted: list[Message]) -> None:
    """Do with a final answer of the vendor's what `tiw reconcile` does, in its order."""
    event = decode(answer.body, received_at_us=answer.received_at_us).event
    await ask(store, [Question(sdk_app_id=event.sdk_app_id, task_id="task", why="a test asks")])
    (question,) = await claim_questions(store, apps=[event.sdk_app_id], lease_holder="test", lease_s=30, limit=1)
    kept = KeptEvent(
        event=event,
        event_id=answer.event_id,
        received_at_us=answer.received_at_us,
        body=answer.body,
        source=answer.source,
        verified=True,
    )
    await apply_events(store, [kept])
    for message in contradicted:
        await mark_verified(store, message.event_id, verified=False)
    await transport.publish(answer)
    await finish_question(store, question, lease_holder="test", answer_status="FINISHED", answer=answer.body)


async def test_a_forged_event_never_reaches_it_and_is_a_dead_letter_with_that_reason(
    house: House, vendor: Vendor, handled: Handled, make_transport: MakeTransport
) -> None:
    archive = handled.consumer()
    forged = with_videos(FORGED)
    vendor.contradict(forged, with_videos(REAL).body)
    async with house.working(archive, transport=make_transport(archive)) as transport:
        await transport.publish(forged)
        letter = await only_letter(house)
    assert letter.reason == "the vendor contradicts it: its answer differs in VideoInfos"
    assert letter.event_id == forged.event_id
    assert handled.urls == []


async def test_it_waits_without_a_verdict_and_comes_with_the_vendors_videos_as_its_first_attempt(
    house: House, vendor: Vendor, handled: Handled, make_transport: MakeTransport
) -> None:
    archive = handled.consumer()
    message = structs.replace(with_videos(FORGED), source="reconcile")
    async with house.working(archive, transport=make_transport(archive)) as transport:
        await transport.publish(message)
        await eventually(lambda: looked_up(vendor, message) == 4)
        assert handled.urls == []
        vendor.confirm(message, REAL)
        await eventually(lambda: handled.urls == [[REAL]])
    (ctx,) = handled.contexts
    assert (ctx.attempt, ctx.source, ctx.event_id, ctx.body) == (1, "reconcile", message.event_id, message.body)
    assert await list_dead_letters(house.store) == []


async def test_24_hours_without_a_verdict_make_a_dead_letter_that_can_be_replayed_once_there_is_one(
    house: House,
    vendor: Vendor,
    handled: Handled,
    make_transport: MakeTransport,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    archive, clock = handled.consumer(), Clock()
    message = structs.replace(with_videos(REAL), source="reconcile")
    async with house.working(archive, transport=make_transport(archive), now_us=clock) as transport:
        await transport.publish(message)
        await eventually(lambda: looked_up(vendor, message) == 1)
        clock.now_s += VERIFIED_WITHIN_S - 1
        seen = looked_up(vendor, message)
        await eventually(lambda: looked_up(vendor, message) >= seen + 2)
        assert await list_dead_letters(house.store) == []
        clock.now_s += 1
        letter = await only_letter(house)
        assert (letter.reason, letter.attempts) == (NOT_VERIFIED, 1)

        # It waits anew: what comes back a day later is not given up at once.
        monkeypatch.setattr("tiw.commands.dead_letters.open_transport", lambda *_, **__: make_transport(archive))
        settings = Settings(database_url=house.store.url, data_dir=house.folder)
        args = argparse.Namespace(consumer="archive", event_id=None, reason=None, dry_run=False, json=False)
        await replay(settings, args)
        seen = looked_up(vendor, message)
        await eventually(lambda: looked_up(vendor, message) >= seen + 2)
        vendor.confirm(message, REAL)
        await eventually(lambda: handled.urls == [[REAL]])
    assert handled.contexts[0].source == "reconcile"
    assert await list_dead_letters(house.store) == []


async def test_other_events_come_as_they_are_and_nobody_is_asked(house: House, vendor: Vendor) -> None:
    came: list[str] = []

    @consumer(verified=True)
    async def archive(event: OnlineRecordStarted | OnlineRecordFinished, ctx: Context) -> None:
        came.append(type(event).__name__)

    async with house.working(archive) as transport:
        await transport.publish(with_videos(FORGED))
        await transport.publish(started())
        await eventually(lambda: came == ["OnlineRecordStarted"])
    assert all(len(asked) == 1 for asked in vendor.asked)


async def test_a_consumer_that_does_not_ask_for_it_looks_nothing_up(house: House, vendor: Vendor) -> None:
    urls: list[str | None] = []

    @consumer
    async def archive(event: OnlineRecordFinished, ctx: Context) -> None:
        urls.extend(video.video_url for video in event.video_infos)

    async with house.working(archive) as transport:
        await transport.publish(with_videos(FORGED))
        await eventually(lambda: urls == [FORGED])
    assert vendor.asked == []


@pytest.mark.parametrize("remember", [True, False])
async def test_a_store_that_is_away_counts_no_attempt(
    house: House, vendor: Vendor, handled: Handled, monkeypatch: pytest.MonkeyPatch, *, remember: bool
) -> None:
    monkeypatch.setattr("workers.store_watch._PROBE_EVERY_S", 0.05)
    archive = handled.consumer(remember=remember)
    message = with_videos(REAL)
    vendor.confirm(message, REAL)
    vendor.error = StoreUnavailableError("away")
    with structlog.testing.capture_logs() as logs:
        async with house.working(archive) as transport:
            await transport.publish(message)
            await eventually(lambda: handled.urls == [[REAL]])
            await eventually(lambda: is_settled(house, "archive"))
    assert [ctx.attempt for ctx in handled.contexts] == [1]
    assert [line["event"] for line in logs if line["event"].startswith("store_")] == ["store_away", "store_back"]
    assert await list_dead_letters(house.store) == []


async def test_what_waits_anyway_is_looked_up_together_and_goes_on_in_its_order(house: House, vendor: Vendor) -> None:
    groups: list[list[str]] = []
    messages = [with_videos(REAL, task_id=f"task-{number:02}") for number in range(40)]
    forged, late = messages[7], messages[21]
    for message in messages:
        vendor.confirm(message, REAL)
    vendor.contradict(forged)
    del vendor.verdicts[late.event_id]

    @consumer(verified=True, batch=100, concurrency=1)
    async def archive(batch: list[tuple[OnlineRecordFinished, Context]]) -> None:
        groups.append([event.task_id for event, _ in batch])
        assert all(video.video_url == REAL for event, _ in batch for video in event.video_infos)

    async with house.transport([archive]) as transport:
        for message in messages:
            await transport.publish(message)
    async with house.working(archive):
        await eventually(lambda: sum(map(len, groups)) == 38)
        letter = await only_letter(house)
        vendor.confirm(late, REAL)
        await eventually(lambda: sum(map(len, groups)) == 39)
    came = [task_id for group in groups for task_id in group]
    assert came == [f"task-{number:02}" for number in range(40) if number not in (7, 21)] + ["task-21"]
    assert max(map(len, vendor.asked)) > 1
    assert len(vendor.asked) - looked_up(vendor, late) < 20
    assert (letter.event_id, letter.reason) == (forged.event_id, "the vendor contradicts it: it gives no such result")


async def test_one_that_cannot_be_looked_up_fails_alone(house: House, vendor: Vendor, handled: Handled) -> None:
    archive = handled.consumer(attempts=2)
    messages = [with_videos(REAL, task_id=f"task-{number}") for number in range(10)]
    for message in messages:
        vendor.confirm(message, REAL)
    vendor.refused = messages[4].event_id
    async with house.transport([archive]) as transport:
        for message in messages:
            await transport.publish(message)
    async with house.working(archive):
        await eventually(lambda: len(handled.task_ids) == 9)
        letter = await only_letter(house)
    assert (letter.event_id, letter.attempts) == (messages[4].event_id, 2)
    assert letter.reason == "ValueError: no database takes it"


async def test_what_is_said_of_the_content_counts_whatever_id_stands_beside_it(
    house: House, vendor: Vendor, handled: Handled
) -> None:
    real, forged = with_videos(REAL), with_videos(FORGED)
    vendor.confirm(real, REAL)
    vendor.contradict(forged)
    async with house.working(handled.consumer()) as transport:
        await transport.publish(structs.replace(forged, event_id=real.event_id))
        await only_letter(house)
    assert handled.urls == []


async def test_an_event_without_a_task_id_can_never_be_verified(house: House, vendor: Vendor, handled: Handled) -> None:
    body = json.dumps(
        {"EventType": "OnlineRecordFinished", "Timestamp": 1, "EventData": {"Error": {"Code": "c", "Message": "m"}}}
    )
    async with house.working(handled.consumer()) as transport:
        await transport.publish(as_message(body.encode()))
        letter = await only_letter(house)
    assert letter.reason == "it cannot be verified: it has no TaskId to ask the vendor about"


async def test_a_moment_in_the_future_makes_nothing_wait_longer(house: House, vendor: Vendor, handled: Handled) -> None:
    clock = Clock()
    message = structs.replace(with_videos(REAL), waiting_since_us=clock() + 10**15)
    async with house.working(handled.consumer(), now_us=clock) as transport:
        await transport.publish(message)
        await eventually(lambda: looked_up(vendor, message) == 2)
        clock.now_s += VERIFIED_WITHIN_S
        assert (await only_letter(house)).reason == NOT_VERIFIED


async def test_a_verified_event_is_retried_as_any_other_with_the_same_videos(
    house: House, vendor: Vendor, handled: Handled
) -> None:
    message = with_videos(FORGED)

    @consumer(verified=True)
    async def archive(event: OnlineRecordFinished, ctx: Context) -> None:
        handled.note(event, ctx)
        if ctx.attempt < 3:
            raise Retry

    vendor.confirm(message, REAL)
    async with house.working(archive) as transport:
        await transport.publish(message)
        await eventually(lambda: len(handled.urls) == 3)
    assert handled.urls == [[REAL]] * 3
    assert [ctx.attempt for ctx in handled.contexts] == [1, 2, 3]


async def test_without_a_kept_answer_the_videos_are_those_that_agreed_with_it(
    house: House, vendor: Vendor, handled: Handled
) -> None:
    message = with_videos(REAL)
    vendor.confirm(message)
    async with house.working(handled.consumer()) as transport:
        await transport.publish(message)
        await eventually(lambda: handled.urls == [[REAL]])


async def test_nothing_ever_verified_is_told_once_with_what_to_do_and_again_after_a_verdict(
    house: House, vendor: Vendor, handled: Handled
) -> None:
    clock = Clock()
    first, second = with_videos(REAL, task_id="first"), with_videos(REAL, task_id="second")

    def warnings() -> list[Any]:
        return [line for line in logs if line["event"] == "nothing_is_verified"]

    async def wait_for_looks(count: int) -> None:
        seen = looked_up(vendor, first)
        await eventually(lambda: looked_up(vendor, first) >= seen + count)

    with structlog.testing.capture_logs() as logs:
        async with house.working(handled.consumer(), now_us=clock) as transport:
            await transport.publish(first)
            await wait_for_looks(3)
            clock.now_s += SILENT_S - 1
            await wait_for_looks(2)
            assert warnings() == []
            clock.now_s += 1
            await wait_for_looks(3)
            (line,) = warnings()
            assert (line["consumer"], line["silent_s"], line["log_level"]) == ("archive", 300, "warning")
            assert "`tiw reconcile`" in line["advice"]
            vendor.confirm(second, REAL)
            await transport.publish(second)
            await eventually(lambda: handled.task_ids == ["second"])
            clock.now_s += SILENT_S
            await wait_for_looks(3)
            assert len(warnings()) == 2
    assert [line["event_id"] for line in logs if line["event"] == "verification_awaited"] == [first.event_id]


async def test_the_longer_an_event_has_waited_the_longer_it_waits_until_it_is_looked_up_again(
    house: House, vendor: Vendor, handled: Handled
) -> None:
    clock = Clock()
    message = with_videos(REAL)
    counted = metrics.DELIVERIES.labels("archive", "unverified")
    before = counted._value.get()

    def delays_s() -> list[float]:
        return [line["delay_s"] for line in logs if line["event"] == "delivery_unverified"]

    async def wait_for_delays(count: int) -> None:
        await eventually(lambda: len(delays_s()) >= count)

    with structlog.testing.capture_logs() as logs:
        async with house.working(handled.consumer(), now_us=clock) as transport:
            await transport.publish(message)
            for age_s in (0.0, 0.11, 0.25, 3600.0):
                clock.now_s = 1_700_000_000.0 + age_s
                await wait_for_delays(len(delays_s()) + 2)
    chosen_s = delays_s()
    assert chosen_s == sorted(chosen_s)
    assert set(chosen_s) == set(LADDER)
    metrics.flush()
    assert counted._value.get() - before == len(chosen_s)


async def test_an_event_that_was_handled_is_a_duplicate_when_it_comes_again(
    house: House, vendor: Vendor, handled: Handled
) -> None:
    message, other = with_videos(REAL), with_videos(REAL, task_id="other")
    vendor.confirm(message, REAL)
    vendor.confirm(other, REAL)
    async with house.working(handled.consumer()) as transport:
        await transport.publish(message)
        await eventually(lambda: handled.task_ids == ["task"])
        await transport.publish(message)
        await transport.publish(other)
        await eventually(lambda: handled.task_ids == ["task", "other"])


async def test_leaving_lets_nothing_be_lost_that_is_being_looked_up(
    house: House, vendor: Vendor, handled: Handled, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs = asyncio.Event()

    async def never(store: Store, event_ids: Collection[str]) -> dict[str, Verdict]:
        hangs.set()
        await asyncio.Event().wait()
        return {}

    archive, message = handled.consumer(), with_videos(REAL)
    vendor.confirm(message, REAL)
    with monkeypatch.context() as patch:
        patch.setattr("workers.verification.find_verdicts", never)
        async with house.working(archive, drain_grace_s=0.1) as transport:
            await transport.publish(message)
            await hangs.wait()
    assert (await house.queue("archive")).ready == 1
    async with house.working(archive):
        await eventually(lambda: handled.urls == [[REAL]])


async def test_a_test_is_not_handed_over_and_waits_for_nobody(house: House, vendor: Vendor, handled: Handled) -> None:
    of_a_test = structs.replace(with_videos(FORGED, task_id="of a test"), source="test")
    confirmed = with_videos(REAL)
    vendor.confirm(confirmed)
    async with house.working(handled.consumer()) as transport:
        await transport.publish(of_a_test)
        await transport.publish(confirmed)
        await eventually(lambda: handled.task_ids == ["task"])
        await eventually(lambda: is_settled(house, "archive"))
    assert vendor.asked == [[confirmed.event_id]]
    assert await list_dead_letters(house.store) == []
