"""What a process runs to tell people: a consumer that reads events, looks at the store, a delivery for each channel."""

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Self

import structlog

from broker import ConsumerQueues
from notify.channels import Sender
from notify.config import Channel
from notify.delivery import ChannelDelivery, wait_at_most
from notify.messages import Wording
from notify.rules import RULES, Alert, alerts_of
from notify.watching import Look, is_over, store_looks
from schemas import EVENT_TYPES, RecordingEvent
from store import (
    ClaimedNotice,
    Notice,
    NoticeResult,
    Store,
    StoreError,
    add_notices,
    check_schema,
    expire_notices,
    prune_notices,
)
from telemetry import Throttle, metrics
from workers import Consumer, Context, consumer

#: How often the store is looked at for what no event tells.
LOOK_EVERY_S = 30.0

#: How often old notices are cleared away, and for how long they can be looked at.
_CLEAR_EVERY_S = 3600.0
_KEPT_FOR_S = 90 * 86_400.0

#: A notice of a channel that nobody delivers is ended when its time has been past for this long.
_ORPHANED_AFTER_S = 3600.0

#: What a message that is being sent gets when the process is to stop: its time-out, and a moment to write the result.
STOP_GRACE_S = 20.0

#: The queues of the consumer that reads what events tell.
CONSUMER_QUEUES = ConsumerQueues(consumer="notify", routing_keys=tuple(EVENT_TYPES))

_AGAIN_S = 1.0
_TELL_EVERY_S = 30.0

_log = structlog.get_logger()


def notices_of(alerts: Iterable[Alert], channels: Sequence[Channel], *, now_s: float) -> list[Notice]:
    """Return a notice of every alert for every channel, as the store keeps them."""
    return [
        Notice(
            notice_id=alert.notice_id(channel.name),
            channel=channel.name,
            rule=alert.rule,
            severity=RULES[alert.rule].severity,
            sdk_app_id=None if alert.recording is None else alert.recording[0],
            task_id=None if alert.recording is None else alert.recording[1],
            data=dict(alert.data),
            after_s=max(0.0, alert.due_at_s - now_s),
            expires_after_s=alert.deadline_s - now_s,
        )
        for alert in alerts
        for channel in channels
    ]


class Notifier:
    """Tells people over `channels` what they should know, until it is left; an async context manager.

    `consumer` is what reads the events: whoever runs a `Worker` gives it this one too. `looks` are what else is looked
    at. Any number of processes may do the same with one store: each notice is told by one of them, once, unless that
    one dies between sending it and writing that it did.

    Entering needs no store and no channel that answers. Leaving lets a message end that is being sent.
    """

    def __init__(
        self,
        channels: Sequence[Channel],
        *,
        store: Store,
        wording: Wording,
        looks: Sequence[Look] = (),
        look_every_s: float = LOOK_EVERY_S,
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        self._channels = tuple(channels)
        self._store = store
        self._looks = (*store_looks(), *looks)
        self._look_every_s = look_every_s
        self._clock_s = clock_s
        self._sender = Sender(clock_s=clock_s)
        lease_holder = f"notify/{secrets.token_hex(8)}"
        self._deliveries = [
            ChannelDelivery(
                channel,
                store=store,
                sender=self._sender,
                wording=wording,
                lease_holder=lease_holder,
                is_over=self._is_over,
                clock_s=clock_s,
            )
            for channel in channels
        ]
        self._known: set[str] = set()
        self._stopping = asyncio.Event()
        self._awaited = Throttle(_TELL_EVERY_S)
        self._tasks: list[asyncio.Task[None]] = []
        self.consumer = self._make_consumer()

    async def tell(self, alerts: Sequence[Alert]) -> int:
        """Keep a notice of each alert for each channel, durable on return; return how many are new.

        Raises `store.StoreUnavailableError` and `store.SchemaMismatchError`.
        """
        notices = notices_of(alerts, self._channels, now_s=self._clock_s())
        added = await add_notices(self._store, notices)
        if added:
            for delivery in self._deliveries:
                delivery.wake()
        return added

    async def __aenter__(self) -> Self:
        await self._sender.__aenter__()
        self._tasks = [
            asyncio.create_task(self._deliver(delivery), name=f"notices of {channel.name}")
            for channel, delivery in zip(self._channels, self._deliveries, strict=True)
        ]
        for name, chore in (
            ("looks for notices", self._look_until_stopped),
            ("old notices", self._clear_until_stopped),
        ):
            self._tasks.append(asyncio.create_task(chore(), name=name))
        _log.info("notifier_started", channels=[channel.name for channel in self._channels])
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._stopping.set()
        for delivery in self._deliveries:
            delivery.stop()
        # Not cancelled but as a last resort: aiosqlite may wait for ever for what was cancelled in the middle.
        _, running = await asyncio.wait(self._tasks, timeout=STOP_GRACE_S)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        await self._sender.__aexit__(*exc_info)

    def _make_consumer(self) -> Consumer:
        # Not remembered: the store takes each notice once by itself.
        @consumer(batch=500, concurrency=2, remember=False)
        async def notify(batch: list[tuple[RecordingEvent, Context]]) -> None:
            """Make notices of what events tell."""
            alerts = [
                alert
                for event, ctx in batch
                for alert in alerts_of(
                    event,
                    event_id=ctx.event_id,
                    source=ctx.source,
                    received_at_s=ctx.received_at_us / 1_000_000,
                    now_s=self._clock_s(),
                )
            ]
            if alerts:
                await self.tell(alerts)

        return notify

    async def _is_over(self, notice: ClaimedNotice) -> bool:
        return await is_over(self._store, notice)

    async def _has_schema(self) -> bool:
        """Return once the store has its tables, however long it is away; False if this is to stop before."""
        while not self._stopping.is_set():
            try:
                await check_schema(self._store)
            except StoreError as error:
                if self._awaited.passes():
                    _log.warning("notifier_awaits_store", reason=str(error))
                await wait_at_most(self._stopping, _AGAIN_S)
            else:
                return True
        return False

    async def _deliver(self, delivery: ChannelDelivery) -> None:
        if await self._has_schema():
            await delivery.run()

    async def _look_until_stopped(self) -> None:
        if not await self._has_schema():
            return
        while not self._stopping.is_set():
            for look in self._looks:
                await self._look(look)
            await wait_at_most(self._stopping, self._look_every_s)

    async def _look(self, look: Look) -> None:
        """Look once; whatever goes wrong, the others look too."""
        try:
            found = await look(self._store, self._clock_s())
            # What was told of is found again with each look, for as long as it lasts.
            new = [alert for alert in found if alert.notice_id("") not in self._known]
            if new:
                await self.tell(new)
                self._known.update(alert.notice_id("") for alert in new)
        except StoreError as error:
            _log.info("look_failed", reason=str(error), again_in_s=self._look_every_s)
        except Exception:  # noqa: BLE001 - logged, and tried again
            _log.exception("look_failed", again_in_s=self._look_every_s)

    async def _clear_until_stopped(self) -> None:
        if not await self._has_schema():
            return
        while not self._stopping.is_set():
            self._known.clear()
            try:
                expired = await expire_notices(self._store, past_for_s=_ORPHANED_AFTER_S)
                await prune_notices(self._store, older_than_s=_KEPT_FOR_S)
            except StoreError as error:
                _log.info("notices_not_cleared", reason=str(error), again_in_s=_CLEAR_EVERY_S)
            else:
                for channel, count in expired.items():
                    metrics.NOTICES.labels(channel, NoticeResult.EXPIRED.value).inc(count)
                    _log.warning("notices_without_channel", channel=channel, expired=count, advice="see TIW_NOTIFY")
            await wait_at_most(self._stopping, _CLEAR_EVERY_S)
