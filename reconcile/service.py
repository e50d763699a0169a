"""The process that reconciles: what it does at the same time, and what keeps it going whatever fails."""

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Final, Self

import structlog
from msgspec import Struct

from reconcile.asking import Asker
from reconcile.audit import Audit
from reconcile.entering import Publisher
from reconcile.listing import Listing
from reconcile.pauses import Pauses
from store import (
    Store,
    StoreError,
    count_due,
    find_reconciled_apps,
    find_unaccounted,
    known_apps,
    next_question_in_s,
    recording_questions,
    reserve,
    sweep,
    wait_for_schema,
)
from telemetry import Readiness, metrics
from vendor_api import VendorClient

#: Requests of all processes together: well below the 20 a second at which the vendor begins to refuse, as nobody says
#: whether an account or a key may: https://cloud.tencent.com/document/product/1137/40049
REQUEST_EVERY_S: Final = 1 / 15
_BURST: Final = 3

_SWEEP_EVERY_S = 5.0
_LOOK_FOR_A_TURN_EVERY_S = 5.0
_LOOK_FOR_QUESTIONS_EVERY_S = 2.0
_AUDIT_EVERY_S = 300.0

#: Rooms of which nothing is known are told for so long: their files are gone after 3 days.
_ROOMS_TOLD_DAYS = 7

#: After what nobody foresaw, and while the store is away.
_AGAIN_S = 2.0

_log = structlog.get_logger()


class SharedLimiter:
    """Holds back the requests of all processes with one store, so that together they are `every_s` apart on average."""

    def __init__(self, store: Store, *, every_s: float = REQUEST_EVERY_S, burst: int = _BURST) -> None:
        self._store = store
        self._every_s = every_s
        self._burst = burst

    async def wait(self) -> None:
        """Return when the next request may be sent. Raises `StoreError`."""
        while True:
            wait_s = await reserve(
                self._store, "requests to the vendor", every_s=self._every_s, burst=self._burst, at_most_wait_s=30.0
            )
            if wait_s is not None:
                await asyncio.sleep(wait_s)
                return
            await asyncio.sleep(1.0)


class ReconcileConfig(Struct, frozen=True, kw_only=True):
    """How often what runs is listed, and the shortest gap between two questions about one recording."""

    list_every_s: float = 60.0
    ask_after_s: float = 900.0


class Report(Struct, frozen=True, kw_only=True):
    """What one round came to. `failed` names what could not be done."""

    asked: int
    failed: tuple[str, ...]


class Reconciler:
    """Finds what no callback told of while it is entered. `now_s` is the time in Unix seconds.

    `named_apps` says which applications are asked about; if none, it is those of which the store knows something.

    Entering returns at once: it waits by itself for the store's tables. The store, the transport and `vendor`, which
    should have a `SharedLimiter`, are entered and left by the caller. `run_once` does one round instead.
    """

    def __init__(
        self,
        config: ReconcileConfig,
        *,
        store: Store,
        transport: Publisher,
        vendor: VendorClient,
        named_apps: Callable[[], frozenset[int]] = frozenset,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._named_apps = named_apps
        self._store = store
        self._now_s = now_s
        self._pauses = Pauses(store)
        self._listing = Listing(store, transport, vendor, self._pauses, every_s=config.list_every_s, now_s=now_s)
        self._asker = Asker(
            store,
            transport,
            vendor,
            self._pauses,
            ask_after_s=config.ask_after_s,
            lease_holder=f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(4)}",
            now_s=now_s,
        )
        self._audit = Audit(store, vendor, self._pauses, now_s=now_s)
        self._tasks: list[asyncio.Task[None]] = []
        self._not_ready = "it has not looked into the database yet"
        self._has_told_no_apps = False

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._run(), name="reconciling")]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def ready(self) -> Readiness:
        """Say what keeps it from its work, if anything does: the store. The vendor may be away as long as it likes."""
        return Readiness(not_ready=(self._not_ready,) if self._not_ready else ())

    async def apps(self) -> frozenset[int]:
        """Return the applications that are reconciled now. Raises `StoreError`."""
        apps = self._named_apps() or await known_apps(self._store)
        if not apps and not self._has_told_no_apps:
            self._has_told_no_apps = True
            _log.warning(
                "no_applications", advice="no callback has told of one: set TIW_RECONCILE_APPS to your SdkAppIds"
            )
        return apps

    async def run_once(self) -> Report:
        """Sweep, list, ask all that is due, and audit; return what came of it. Raises `StoreError`."""
        apps = await self.apps()
        may_be_asked = sorted(await self._pauses.look(apps))
        await sweep(self._store, apps=apps, ask_after_s=self._config.ask_after_s)
        failed = [
            f"the recordings of {app} could not be listed"
            for app in may_be_asked
            if not await self._listing.list_now(app)
        ]
        asked = await self._asker.ask_due(apps)
        if asked.unanswered:
            failed.append(f"{asked.unanswered} of {asked.asked} questions were not answered")
        may_be_asked = sorted(await self._pauses.look(apps))
        failed += [f"{app} could not be audited" for app in may_be_asked if not await self._audit.audit_due(app)]
        found = await find_reconciled_apps(self._store)
        failed += [
            f"{app} is paused: {found[app].pause_reason}"
            for app in sorted(apps & found.keys())
            if found[app].pause_reason is not None
        ]
        return Report(asked=asked.asked, failed=tuple(failed))

    async def _run(self) -> None:
        await wait_for_schema(self._store)
        _log.info(
            "reconciling_started",
            apps=sorted(self._named_apps()) or None,
            list_every_s=self._config.list_every_s,
            ask_after_s=self._config.ask_after_s,
        )
        async with AsyncExitStack() as stack:
            for name, work, every_s in (
                ("sweep", self._sweep, _SWEEP_EVERY_S),
                ("listing", self._list, min(_LOOK_FOR_A_TURN_EVERY_S, self._config.list_every_s / 4)),
                ("asking", self._ask, 0.0),
                ("audit", self._audit_all, _AUDIT_EVERY_S),
            ):
                task = asyncio.create_task(self._again_and_again(work, name, every_s), name=name)
                stack.push_async_callback(_end, task)
            await asyncio.Event().wait()

    async def _again_and_again(self, work: Callable[[], Awaitable[None]], name: str, every_s: float) -> None:
        """Do `work` every so often: nothing that fails ends it."""
        is_told = False
        while True:
            pause_s = every_s
            try:
                await work()
                is_told = False
                if name == "sweep":
                    self._not_ready = ""
            except StoreError as error:
                self._not_ready = "the database cannot be used now"
                if not is_told:
                    is_told = True
                    _log.warning("store_awaited", task=name, reason=str(error))
                pause_s = max(every_s, _AGAIN_S)
            except Exception:  # noqa: BLE001 - logged, and tried again
                _log.exception("reconciling_failed", task=name)
                pause_s = max(every_s, _AGAIN_S)
            await asyncio.sleep(pause_s)

    async def _sweep(self) -> None:
        apps = await self.apps()
        await self._pauses.look(apps)
        await sweep(self._store, apps=apps, ask_after_s=self._config.ask_after_s)
        counts = await count_due(self._store, recording_questions)
        metrics.QUESTIONS_DUE.set(counts.due)
        metrics.QUESTIONS_OVERDUE_SECONDS.set(counts.overdue_s)
        found = await find_reconciled_apps(self._store)
        ages_s = [one.listed_ago_s for app, one in found.items() if app in apps and one.listed_ago_s is not None]
        metrics.LISTING_AGE_SECONDS.set(max(ages_s, default=0.0))

    async def _list(self) -> None:
        apps = await self._pauses.look(await self.apps())
        # One that fails keeps no other from being listed; each is bounded by time-outs.
        ended = await asyncio.gather(*(self._listing.list_in_turn(app) for app in sorted(apps)), return_exceptions=True)
        for one in ended:
            if isinstance(one, BaseException):
                raise one

    async def _ask(self) -> None:
        apps = await self.apps()
        await self._asker.ask_due(apps)
        next_s = await next_question_in_s(self._store, apps=apps)
        await asyncio.sleep(min(_LOOK_FOR_QUESTIONS_EVERY_S, max(0.1, next_s or _LOOK_FOR_QUESTIONS_EVERY_S)))

    async def _audit_all(self) -> None:
        for app in sorted(await self._pauses.look(await self.apps())):
            await self._audit.audit_due(app)
        since = datetime.fromtimestamp(self._now_s(), UTC).date() - timedelta(days=_ROOMS_TOLD_DAYS)
        metrics.ROOMS_UNACCOUNTED_NOW.set(len(await find_unaccounted(self._store, since=since)))


async def _end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait({task})
