"""A store, a transport and the vendor's API of which the test owns the clock; everything in between is real.

The SDK asks over HTTP; the store is a SQLite file whose `julianday('now')` is the test's.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any, Protocol

import msgspec
from msgspec import Struct
from sqlalchemy import event

from broker import Message, NotPublishedError
from reconcile.asking import Asked, Asker
from reconcile.audit import Audit
from reconcile.listing import Listing
from reconcile.pauses import Pauses
from schemas import decode
from simulator import ApiFaults, Callback, ClassKind, SimulatedClass, Site, VendorApi, make_class, render
from store import KeptEvent, Recording, Store, apply_events, find_recordings, list_recordings, sweep
from tests.servers.migrated import copy_migrated_sqlite
from vendor_api import Credentials, NoLimiter, VendorClient, VendorSite, parse_endpoint

APP = 1400000001

#: 09:00 in China on a Monday.
MORNING_S = 1_767_574_800

ASK_AFTER_S = 900.0
LIST_EVERY_S = 60.0


class OwnClock:
    """The time of a test, in Unix seconds."""

    def __init__(self, now_s: float = MORNING_S) -> None:
        self.now_s = float(now_s)

    def __call__(self) -> float:
        return self.now_s

    def pass_by(self, seconds: float) -> None:
        """Let some time pass."""
        self.now_s += seconds

    async def sleep(self, seconds: float) -> None:
        """Let some time pass, and nothing else happen meanwhile."""
        self.pass_by(seconds)

    def rule(self, store: Store) -> Store:
        """Let a SQLite store have this time; before its first connection."""

        def replace(connection: Any, _: object) -> None:
            # The only function of time that the store uses; as SQLite's own, it counts days since 4714 BC.
            connection.create_function(
                "julianday",
                1,
                lambda _: 2_440_587.5 + self.now_s / 86_400,
            )

            # Nothing here crashes, and the disk is slow.
            connection.execute("PRAGMA synchronous = OFF")

        event.listen(store._engine.sync_engine, "connect", replace)
        return store


class OwnTransport:
    """Keeps what is published. While `is_away`, nothing can be."""

    def __init__(self) -> None:
        self.published: list[Message] = []
        self.is_away = False

    async def publish(self, message: Message) -> None:
        if self.is_away:
            raise NotPublishedError("the broker is away")
        self.published.append(message)

    def types(self) -> list[str]:
        """Return the types of what was published, in order."""
        return [message.routing_key for message in self.published]


class AWorld(Protocol):
    """Makes a world with these classes; see `a_world`."""

    def __call__(self, *classes: SimulatedClass, **options: Any) -> AbstractAsyncContextManager["World"]: ...


class World(Struct, kw_only=True):
    """All of it; `settle` does what is due now."""

    clock: OwnClock
    store: Store
    transport: OwnTransport
    api: VendorApi
    client: VendorClient
    pauses: Pauses
    listing: Listing
    asker: Asker
    audit: Audit
    apps: frozenset[int] = frozenset({APP})

    async def settle(self, *, lists: bool = True) -> Asked:
        """Do one round of what the service does all the time."""
        await sweep(self.store, apps=self.apps, ask_after_s=ASK_AFTER_S)
        if lists:
            for app in sorted(await self.pauses.look(self.apps)):
                await self.listing.list_in_turn(app)
        return await self.asker.ask_due(self.apps)

    async def pass_by(self, seconds: float, *, step_s: float = 30.0, lists: bool = True) -> None:
        """Let time pass in steps, and do in each what is due."""
        end_s = self.clock.now_s + seconds
        while self.clock.now_s < end_s:
            self.clock.pass_by(min(step_s, end_s - self.clock.now_s))
            await self.settle(lists=lists)

    async def deliver(self, *callbacks: Callback | dict[str, Any] | bytes) -> list[str]:
        """Let callbacks be accepted and handled now; return their event_ids."""
        kept = [self._kept(one) for one in callbacks]
        await apply_events(self.store, kept)
        return [one.event_id for one in kept]

    def _kept(self, callback: Callback | dict[str, Any] | bytes) -> KeptEvent:
        if isinstance(callback, Callback):
            body = render(callback)
        else:
            body = callback if isinstance(callback, bytes) else msgspec.json.encode(callback)
        received_at_us = int(self.clock.now_s * 1_000_000)
        decoded = decode(body, received_at_us=received_at_us)
        return KeptEvent(event=decoded.event, event_id=decoded.event_id, received_at_us=received_at_us, body=body)

    async def recording(self, task_id: str) -> Recording:
        """Return what is known of a recording; fail if nothing is."""
        (found,) = await find_recordings(self.store, task_id, app=APP)
        return found

    def questions(self) -> int:
        """Return how many questions about recordings the API was asked."""
        return len(self.api.requests.of("DescribeOnlineRecord"))

    async def statuses(self) -> dict[str, str]:
        """Return the status of every recording."""
        return {one.task_id: one.status.value for one in await list_recordings(self.store, limit=0)}


@asynccontextmanager
async def a_world(
    folder: Path,
    classes: Iterable[SimulatedClass] = (),
    *,
    site: str = "china",
    now_s: float = MORNING_S,
    faults: ApiFaults | None = None,
    **api_options: Any,
) -> AsyncIterator[World]:
    """Yield a world with these classes, in which nothing was sent yet."""
    clock = OwnClock(now_s)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(clock.rule(Store(copy_migrated_sqlite(folder / "store.db"))))
        api = await stack.enter_async_context(
            VendorApi(
                classes,
                clock=clock,
                site=Site(site),
                sdk_app_ids=[APP],
                per_second=10_000,
                faults=faults,
                **api_options,
            )
        )
        client = await stack.enter_async_context(client_of(api, now_s=clock))
        transport = OwnTransport()
        pauses = Pauses(store, monotonic_s=clock)
        yield World(
            clock=clock,
            store=store,
            transport=transport,
            api=api,
            client=client,
            pauses=pauses,
            listing=Listing(store, transport, client, pauses, every_s=LIST_EVERY_S, now_s=clock, sleep=clock.sleep),
            asker=Asker(
                store, transport, client, pauses, ask_after_s=ASK_AFTER_S, lease_holder="this/1/a", now_s=clock
            ),
            audit=Audit(store, client, pauses, now_s=clock),
        )


def client_of(api: VendorApi, *, limiter: Any = None, timeout_s: float = 5.0, **options: Any) -> VendorClient:
    """Return a client with the API's own secrets."""
    return VendorClient(
        Credentials(secret_id=api.secret_id, secret_key=api.secret_key),
        site=VendorSite(api.vendor.site.value),
        endpoint=parse_endpoint(api.url),
        limiter=limiter or NoLimiter(),
        timeout_s=timeout_s,
        **options,
    )


def callback_of(cls: SimulatedClass, event_type: str) -> Callback:
    """Return the callback of this type that a class sends."""
    return next(one for one in cls.callbacks if one.event_type == event_type)


def forged(callback: Callback, **event_data: Any) -> dict[str, Any]:
    """Return the content of a callback with other members of EventData, as somebody might who has seen a Sign."""
    content: dict[str, Any] = msgspec.json.decode(render(callback))
    content["EventData"] |= event_data
    return content


def a_class(
    kind: ClassKind = ClassKind.NORMAL, *, seed: int = 1, started_at: int = int(MORNING_S) + 60, length_s: int = 1800
) -> SimulatedClass:
    """Return a class that begins a minute after nine and lasts for half an hour."""
    return make_class(kind, Random(seed), sdk_app_id=APP, room_id=1000 + seed, started_at=started_at, length_s=length_s)
