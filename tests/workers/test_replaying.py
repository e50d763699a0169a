"""What is given to consumers again: what was chosen, once, as far as the broker takes it."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from msgspec import Struct, structs

from broker import (
    BUILT_IN_CONSUMERS,
    ConsumerQueues,
    EmbeddedTransport,
    Message,
    NotPublishedError,
    QueueState,
    Transport,
)
from schemas import decode
from store import (
    Claim,
    DeadLetter,
    KeptEvent,
    Store,
    apply_events,
    claim,
    complete,
    keep_dead_letters,
    list_dead_letters,
)
from tests.broker.inbox import AckingInbox
from tests.servers.migrated import copy_migrated_sqlite
from workers import (
    EventSelection,
    LetterSelection,
    Replayed,
    count_events,
    preview_event,
    preview_letters,
    purge_letters,
    replay_events,
    replay_letters,
)

STARTED = next(queues for queues in BUILT_IN_CONSUMERS if queues.consumer == "started")
LETTER = DeadLetter(
    consumer="started",
    event_id="a" * 32,
    event_type="OnlineRecordStarted",
    sdk_app_id=1400000001,
    attempts=8,
    reason="ValueError: no bucket",
    first_failed_at_us=1,
    last_failed_at_us=2,
    body=b"{}",
    routing_key="OnlineRecordStarted",
    received_at_us=1,
    trace="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    source="reconcile",
    traceback="Traceback",
)


def letters(count: int, **changes: object) -> list[DeadLetter]:
    return [structs.replace(LETTER, event_id=f"{number:032}", **changes) for number in range(count)]


class Place(Struct, frozen=True, kw_only=True):
    """Where letters lie and where they go."""

    store: Store
    transport: EmbeddedTransport


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    consumers: list[ConsumerQueues] = [*BUILT_IN_CONSUMERS]
    async with (
        Store(copy_migrated_sqlite(tmp_path / "store.db")) as store,
        EmbeddedTransport(tmp_path, consumers=consumers) as transport,
    ):
        yield Place(store=store, transport=transport)


class Failing:
    """A transport that takes so many, then nothing more."""

    def __init__(self, transport: Transport, takes: int) -> None:
        self._transport = transport
        self._left = takes
        self.is_ready = True

    async def send(self, consumer: str, message: Message) -> None:
        if not self._left:
            raise NotPublishedError("the broker is gone")
        self._left -= 1
        await self._transport.send(consumer, message)

    async def inspect(self, consumers: list[str]) -> list[QueueState]:
        return await self._transport.inspect(consumers)


async def left(place: Place) -> list[str]:
    return sorted(letter.event_id for letter in await list_dead_letters(place.store, limit=0))


async def test_they_come_as_first_attempts_with_all_that_they_were(place: Place) -> None:
    await keep_dead_letters(place.store, [LETTER])
    inbox = AckingInbox()
    assert await replay_letters(place.store, place.transport, LetterSelection()) == Replayed(count=1)
    async with place.transport.subscribe(STARTED, inbox, prefetch=5):
        (delivery,) = await inbox.wait(1)
    assert delivery.message == Message(
        body=b"{}",
        event_id=LETTER.event_id,
        routing_key="OnlineRecordStarted",
        received_at_us=1,
        trace=LETTER.trace,
        source="reconcile",
    )
    assert await left(place) == []
    assert await replay_letters(place.store, place.transport, LetterSelection()) == Replayed(count=0)


async def test_its_consumer_handles_again_what_it_had_completed(place: Place) -> None:
    await keep_dead_letters(place.store, [LETTER])
    ids = [LETTER.event_id]
    await claim(place.store, consumer="started", event_ids=ids, lease_holder="h", lease_s=30)
    await complete(place.store, consumer="started", event_ids=ids, lease_holder="h")
    await replay_letters(place.store, place.transport, LetterSelection())
    assert (await claim(place.store, consumer="started", event_ids=ids, lease_holder="h", lease_s=30))[
        LETTER.event_id
    ] is Claim.CLAIMED


async def test_they_are_chosen_by_consumer_reason_event_and_by_when_they_were_seen(place: Place) -> None:
    await keep_dead_letters(
        place.store,
        [
            structs.replace(LETTER, event_id="a", consumer="stopped"),
            structs.replace(LETTER, event_id="b", reason="KeyError: 'b'"),
            structs.replace(LETTER, event_id="c", reason="KeyError: 'b' and more"),
            structs.replace(LETTER, event_id="d", reason="KEYERROR: 'B'"),
            structs.replace(LETTER, event_id="e", reason="%"),
            structs.replace(LETTER, event_id="f", reason="x" * 300),
            structs.replace(LETTER, event_id="g", last_failed_at_us=9),
        ],
    )

    async def chosen(**members: object) -> list[str]:
        selection = msgspec.convert(members, LetterSelection)
        found = await preview_letters(place.store, place.transport, selection)
        before = await left(place)
        count = await purge_letters(place.store, selection)
        gone = [one for one in before if one not in await left(place)]
        assert count == len(gone) == sum(one.count for one in found)
        return gone

    assert await chosen(reason="KeyError: 'b'") == ["b"]
    assert await chosen(reason="KeyError") == []
    assert await chosen(reason="%") == ["e"]
    assert await chosen(reason="x" * 200) == ["f"]
    assert await chosen(consumer="stopped", event_id="c") == []
    assert await chosen(consumer="stopped") == ["a"]
    assert await chosen(event_id="\0") == []
    assert await chosen(until_us=8) == ["c", "d"]
    assert await chosen() == ["g"]


async def test_what_fails_anew_meanwhile_stays(place: Place) -> None:
    await keep_dead_letters(place.store, [LETTER])

    class FailingAnew(Failing):
        async def send(self, consumer: str, message: Message) -> None:
            await super().send(consumer, message)
            await keep_dead_letters(place.store, [structs.replace(LETTER, last_failed_at_us=3)])

    await replay_letters(place.store, FailingAnew(place.transport, 1), LetterSelection())  # type: ignore[arg-type]
    assert await left(place) == [LETTER.event_id]


async def test_when_the_broker_fails_what_went_is_marked_and_the_rest_stays(place: Place) -> None:
    await keep_dead_letters(place.store, letters(250))
    told: list[int] = []
    failing: Transport = Failing(place.transport, 130)  # type: ignore[assignment]
    done = await replay_letters(place.store, failing, LetterSelection(), on_each=told.append)
    assert (done.count, done.stopped) == (130, "the broker is gone")
    assert told == [100, 130]
    assert len(await left(place)) == 120

    done = await replay_letters(place.store, place.transport, LetterSelection())
    assert done == Replayed(count=120)
    (state,) = await place.transport.inspect(["started"])
    assert state.ready == 250


async def test_none_is_begun_when_the_time_is_up(place: Place) -> None:
    await keep_dead_letters(place.store, letters(150))
    done = await replay_letters(place.store, place.transport, LetterSelection(), within_s=-1)
    assert done == Replayed(count=0, is_more=True)


async def test_a_consumer_without_a_queue_is_left_and_named_and_nobody_waits_for_it(place: Place) -> None:
    gone = letters(120, consumer="gone")
    await keep_dead_letters(place.store, [*gone, LETTER])
    found = await preview_letters(place.store, place.transport, LetterSelection())
    assert [(one.consumer, one.count, one.has_queue, one.connected) for one in found] == [
        ("gone", 120, False, 0),
        ("started", 1, True, 0),
    ]
    done = await replay_letters(place.store, place.transport, LetterSelection())
    assert done == Replayed(count=1, without_queue=("gone",))
    assert len(await left(place)) == 120


async def test_a_preview_tells_what_it_can_while_the_broker_is_away(place: Place) -> None:
    await keep_dead_letters(place.store, [LETTER])
    away: Transport = Failing(place.transport, 0)  # type: ignore[assignment]
    away.is_ready = False  # type: ignore[misc]
    (one,) = await preview_letters(place.store, away, LetterSelection())
    assert (one.count, one.has_queue, one.connected) == (1, None, None)
    assert (await preview_event(away, "started")).has_queue is None
    assert (await preview_event(place.transport, "started")).has_queue is True


def kept(number: int) -> KeptEvent:
    body = b'{"EventType":"OnlineRecordStarted","Timestamp":%d,"SdkAppId":1,"EventData":{"TaskId":"t"}}' % (number + 1)
    decoded = decode(body, received_at_us=number + 1)
    return KeptEvent(event=decoded.event, event_id=decoded.event_id, received_at_us=number + 1, body=body)


async def test_kept_events_are_chosen_one_by_one_or_by_their_task(place: Place) -> None:
    events = [kept(number) for number in range(3)]
    await apply_events(place.store, events)
    keys = ("OnlineRecordStarted",)
    assert await count_events(place.store, EventSelection(routing_keys=keys)) == 3
    assert await count_events(place.store, EventSelection(routing_keys=keys, task_id="other")) == 0
    assert await count_events(place.store, EventSelection(routing_keys=keys, event_id="\0")) == 0
    assert await count_events(place.store, EventSelection(routing_keys=("OnlineRecordStopped",))) == 0
    one = EventSelection(routing_keys=keys, event_id=events[1].event_id)
    assert await replay_events(place.store, place.transport, "started", one) == Replayed(count=1)
    inbox = AckingInbox()
    async with place.transport.subscribe(STARTED, inbox, prefetch=5):
        (delivery,) = await inbox.wait(1)
    assert delivery.message.event_id == events[1].event_id


async def test_a_replay_of_events_stops_with_the_broker_and_says_how_far_it_came(place: Place) -> None:
    await apply_events(place.store, [kept(number) for number in range(3)])
    failing: Transport = Failing(place.transport, 2)  # type: ignore[assignment]
    told: list[int] = []
    selection = EventSelection(routing_keys=("OnlineRecordStarted",))
    done = await replay_events(place.store, failing, "started", selection, rate=1e6, on_each=told.append)
    assert (done.count, done.stopped) == (2, "the broker is gone")
    assert told == [1, 2]
