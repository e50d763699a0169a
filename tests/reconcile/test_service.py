"""The process as a whole, by the real clock: it keeps going, alone and beside others of its kind."""

import asyncio
import inspect
import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import structlog

from broker import EmbeddedTransport
from reconcile import ReconcileConfig, Reconciler, SharedLimiter, service
from simulator import SimulatedClass, VendorApi
from store import (
    Question,
    Store,
    StoreUnavailableError,
    ask,
    claim_questions,
    find_recordings,
    list_recordings,
    migrate,
    sweep,
)
from telemetry import metrics
from tests.broker.consumers import ARCHIVE
from tests.broker.inbox import Inbox
from tests.reconcile.world import APP, OwnTransport, a_class, client_of

DEADLINE_S = 30.0

CONFIG = ReconcileConfig(list_every_s=0.5, ask_after_s=1.0)


async def eventually(condition: Callable[[], object]) -> None:
    """Return once it is true, whether it has to be awaited or not."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            answer = condition()
            if await answer if inspect.isawaitable(answer) else answer:
                return
            await asyncio.sleep(0.02)


async def count_recordings(store: Store) -> int:
    return len(await list_recordings(store, limit=0))


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_SWEEP_EVERY_S", "_LOOK_FOR_A_TURN_EVERY_S", "_LOOK_FOR_QUESTIONS_EVERY_S", "_AGAIN_S"):
        monkeypatch.setattr(service, name, 0.1)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with Store(f"sqlite+aiosqlite:///{tmp_path}/store.db") as store:
        yield store


def begun_ago(seconds: int, *, length_s: int = 3600, seed: int = 1) -> SimulatedClass:
    return a_class(seed=seed, started_at=int(time.time()) - seconds, length_s=length_s)


async def test_it_waits_for_the_tables_finds_and_follows_and_hands_it_to_the_consumers(
    store: Store, tmp_path: Path
) -> None:
    running, ended = begun_ago(100), begun_ago(7200, seed=2)
    inbox = Inbox()
    async with VendorApi([running, ended], sdk_app_ids=[APP]) as api, client_of(api) as client:
        async with (
            EmbeddedTransport(tmp_path, consumers=[ARCHIVE]) as transport,
            Reconciler(
                CONFIG, store=store, transport=transport, vendor=client, named_apps=lambda: frozenset({APP})
            ) as reconciler,
            transport.subscribe(ARCHIVE, inbox, prefetch=10),
        ):
            assert reconciler.ready().not_ready
            await asyncio.sleep(0.2)
            await migrate(store)
            question = Question(sdk_app_id=APP, task_id=ended.task_id, why="it was registered", found_by="registration")
            await ask(store, [question])
            (delivery,) = await inbox.wait(1)
            assert (delivery.message.routing_key, delivery.message.source) == ("OnlineRecordFinished", "reconcile")
            await eventually(lambda: not reconciler.ready().not_ready)

            async def both_are_known() -> bool:
                return await count_recordings(store) == 2

            await eventually(both_are_known)
        statuses = {one.task_id: one.status.value for one in await list_recordings(store)}
        assert statuses == {running.task_id: "RECORDING", ended.task_id: "FINISHED"}
        assert metrics.QUESTIONS_DUE._value.get() >= 0


async def test_without_a_name_the_applications_are_those_of_which_something_is_known(store: Store) -> None:
    ended = begun_ago(7200)
    await migrate(store)
    async with VendorApi([ended], sdk_app_ids=[APP]) as api, client_of(api) as client:
        reconciler = Reconciler(CONFIG, store=store, transport=OwnTransport(), vendor=client)
        with structlog.testing.capture_logs() as logs:
            assert await reconciler.apps() == frozenset()
            await reconciler.apps()
        assert [log["event"] for log in logs] == ["no_applications"]
        await ask(store, [Question(sdk_app_id=APP, task_id=ended.task_id, why="it was registered")])
        assert await reconciler.apps() == {APP}


async def test_one_round_does_all_that_is_due_and_names_what_failed(store: Store) -> None:
    ended = begun_ago(7200)
    await migrate(store)
    async with VendorApi([ended], sdk_app_ids=[APP]) as api, client_of(api) as client:
        await ask(store, [Question(sdk_app_id=APP, task_id=ended.task_id, why="it was registered")])
        transport = OwnTransport()
        reconciler = Reconciler(CONFIG, store=store, transport=transport, vendor=client)
        report = await reconciler.run_once()
        assert (report.asked, report.failed) == (1, ())
        assert transport.types() == ["OnlineRecordFinished"]
        api.faults.is_revoked = True
        report = await reconciler.run_once()
        assert report.failed[0] == f"the recordings of {APP} could not be listed"
        assert report.failed[-1].startswith(f"{APP} is paused: the vendor does not know TIW_VENDOR_SECRET_ID")


async def test_while_the_database_is_away_it_is_not_ready_and_goes_on_by_itself(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrate(store)
    is_away = False

    async def sweep_unless_away(store: Store, *, apps: Collection[int], ask_after_s: float) -> int:
        if is_away:
            raise StoreUnavailableError("away")
        return await sweep(store, apps=apps, ask_after_s=ask_after_s)

    monkeypatch.setattr(service, "sweep", sweep_unless_away)
    async with VendorApi(sdk_app_ids=[APP]) as api, client_of(api) as client:
        reconciler = Reconciler(
            CONFIG, store=store, transport=OwnTransport(), vendor=client, named_apps=lambda: frozenset({APP})
        )
        with structlog.testing.capture_logs() as logs:
            async with reconciler:
                await eventually(lambda: not reconciler.ready().not_ready)
                is_away = True
                await eventually(lambda: reconciler.ready().not_ready)
                is_away = False
                await eventually(lambda: not reconciler.ready().not_ready)
        assert [log["event"] for log in logs if log["log_level"] == "warning"] == ["store_awaited"]


async def test_three_replicas_ask_each_question_once_and_never_twenty_times_a_second(postgres_url: str) -> None:
    classes = [begun_ago(7200, seed=seed) for seed in range(40)]
    running = [begun_ago(100, seed=100 + seed) for seed in range(10)]
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(VendorApi([*classes, *running], sdk_app_ids=[APP], per_second=20))
        transports = [OwnTransport() for _ in range(3)]
        stores = [await stack.enter_async_context(Store(postgres_url)) for _ in range(3)]
        await migrate(stores[0])
        await ask(
            stores[0],
            [Question(sdk_app_id=APP, task_id=cls.task_id, why="it was registered") for cls in classes],
        )
        for store, transport in zip(stores, transports, strict=True):
            client = await stack.enter_async_context(client_of(api, limiter=SharedLimiter(store)))
            config = ReconcileConfig(list_every_s=60.0, ask_after_s=900.0)
            await stack.enter_async_context(
                Reconciler(config, store=store, transport=transport, vendor=client, named_apps=lambda: frozenset({APP}))
            )
        await eventually(lambda: sum(len(one.published) for one in transports) >= len(classes) + len(running))

        async def all_are_known() -> bool:
            return await count_recordings(stores[0]) == len(classes) + len(running)

        await eventually(all_are_known)
        times = sorted(request.at_s for request in api.requests.all)
        busiest = max(bisect_left(times, since + 1.0) - number for number, since in enumerate(times))
        assert busiest < 20
        assert not [request for request in api.requests.all if request.answer == "RequestLimitExceeded"]
        asked = [request.task_id for request in api.requests.of("DescribeOnlineRecord")]
        assert sorted(asked) == sorted(cls.task_id for cls in classes)
        assert len(api.requests.of("DescribeRunningTasks")) == 1
        assert all(transport.published for transport in transports), "they share the work"
        ids = [message.event_id for transport in transports for message in transport.published]
        assert len(ids) == len({*ids})
        for cls in classes:
            (recording,) = await find_recordings(stores[0], cls.task_id)
            assert recording.verified


async def test_a_replica_that_dies_with_a_question_leaves_it_to_the_others(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reconcile.asking.LEASE_S", 1.0)
    cls = begun_ago(7200)
    async with Store(postgres_url) as store:
        await migrate(store)
        await ask(store, [Question(sdk_app_id=APP, task_id=cls.task_id, why="it was registered")])
        # Claimed by one that is never heard of again.
        assert await claim_questions(store, apps=[APP], lease_holder="dead", lease_s=1.0, limit=1)
        async with VendorApi([cls], sdk_app_ids=[APP]) as api, client_of(api) as client:
            transport = OwnTransport()
            async with Reconciler(
                CONFIG, store=store, transport=transport, vendor=client, named_apps=lambda: frozenset({APP})
            ):
                await eventually(lambda: transport.types() == ["OnlineRecordFinished"])
