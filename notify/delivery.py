"""How the notices of one channel are told: claimed in order, within its pace, intent before and result after.

Any number of processes deliver the notices of one channel: the store gives each notice to one of them, and its pace to
all together. What waits while the pace allows no more is told in one message, a digest.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import structlog

from notify.channels import PACES, Answer, RefusedForGood, Sender, Sent, TryLater
from notify.config import Channel
from notify.messages import Content, Wording, compose
from notify.rules import RULES
from store import (
    ClaimedNotice,
    NoticeResult,
    Store,
    StoreError,
    begin_notices,
    claim_notices,
    end_notices,
    next_notice_in_s,
    postpone_notices,
    reserve,
)
from telemetry import Throttle, metrics

#: How long a notice is a process's own: it has to be told within. After a crash it waits this long at most.
LEASE_S = 60.0

#: How long a turn is waited for with notices in hand; meanwhile more may come, and be told along with them.
MAX_WAIT_S = 10.0

#: After this long with notices in hand no further message is begun: it might outlast the lease.
_LAST_BEGIN_S = LEASE_S / 2

#: As many notices at most have a message each, while the pace allows it; more are told in one.
ALONE = 3

#: The notices of one message.
MAX_DIGEST = 200

#: How often it is looked for notices that other processes have added.
LOOK_EVERY_S = 5.0

_LONGEST_PAUSE_S = 600.0
_STORE_AGAIN_S = 5.0
_UNKNOWN_AGAIN_S = 60.0
_SHORTLY_S = 0.05
_TELL_EVERY_S = 60.0

_log = structlog.get_logger()

#: Says whether what a notice tells is over, so that nobody needs to know it any more.
IsOver = Callable[[ClaimedNotice], Awaitable[bool]]


class ChannelDelivery:
    """Tells the notices of one channel, one message at a time, until it is stopped.

    Nothing ends it but `stop`: a store that is away and a channel that refuses are told in the log, and waited for.
    """

    def __init__(
        self,
        channel: Channel,
        *,
        store: Store,
        sender: Sender,
        wording: Wording,
        lease_holder: str,
        is_over: IsOver,
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        self._channel = channel
        self._store = store
        self._sender = sender
        self._wording = wording
        self._lease_holder = lease_holder
        self._is_over = is_over
        self._clock_s = clock_s
        self._awake = asyncio.Event()
        self._stopping = asyncio.Event()
        #: The channel has said that it takes nothing until then.
        self._busy_until_s = 0.0
        self._refusals = Throttle(_TELL_EVERY_S)
        self._store_away = Throttle(_TELL_EVERY_S)
        for result in NoticeResult:
            metrics.NOTICES.labels(channel.name, result.value)

    def wake(self) -> None:
        """Look for notices now: this process has added some."""
        self._awake.set()

    def stop(self) -> None:
        """End after the message that is being sent."""
        self._stopping.set()
        self._awake.set()

    async def run(self) -> None:
        """Tell notices until `stop`."""
        while not self._stopping.is_set():
            self._awake.clear()
            try:
                pause_s = await self._round()
            except StoreError as error:
                if self._store_away.passes():
                    _log.warning("notices_await_store", channel=self._channel.name, reason=str(error))
                pause_s = _STORE_AGAIN_S
            except Exception:  # noqa: BLE001 - logged, and tried again: one odd notice must not end all others
                _log.exception("notify_failed", channel=self._channel.name, again_in_s=_STORE_AGAIN_S)
                pause_s = _STORE_AGAIN_S
            await wait_at_most(self._awake, pause_s)

    async def _round(self) -> float:
        """Tell what is due now, in one message or a few; return how long there is nothing more to do."""
        busy_s = self._busy_until_s - self._clock_s()
        if busy_s > 0:
            return min(busy_s, LOOK_EVERY_S)
        in_s = await next_notice_in_s(self._store, self._channel.name)
        if in_s is None or in_s > 0:
            return LOOK_EVERY_S if in_s is None else min(in_s, LOOK_EVERY_S)
        began_s = time.monotonic()
        held = await self._claim(MAX_DIGEST)
        if not held:
            # Another process has them, or all were dropped.
            return _SHORTLY_S
        wait_s = await self._turn(MAX_WAIT_S)
        if wait_s is None:
            await self._postpone(held, after_s=MAX_WAIT_S / 2)
            return MAX_WAIT_S / 2
        if wait_s > 0:
            await wait_at_most(self._stopping, wait_s)
            held = await self._worth_telling(held)
            if len(held) < MAX_DIGEST:
                held += await self._claim(MAX_DIGEST - len(held))
        for group in await self._messages(held):
            is_late = time.monotonic() - began_s > _LAST_BEGIN_S
            if is_late or self._stopping.is_set() or self._clock_s() < self._busy_until_s:
                await self._postpone(group, after_s=0.0)
            else:
                await self._tell(group)
        return 0.0

    async def _claim(self, limit: int) -> list[ClaimedNotice]:
        claimed = await claim_notices(
            self._store, channel=self._channel.name, lease_holder=self._lease_holder, lease_s=LEASE_S, limit=limit
        )
        for notice in claimed:
            if notice.begun_at_us is not None and not notice.is_past:
                _log.warning(
                    "notice_may_repeat",
                    channel=self._channel.name,
                    notice_id=notice.notice_id,
                    reason="who sent it has not said what came of it",
                )
        # Another version's, in the middle of an upgrade.
        unknown = [notice for notice in claimed if notice.rule not in RULES]
        await self._postpone(unknown, after_s=_UNKNOWN_AGAIN_S)
        return await self._worth_telling([notice for notice in claimed if notice.rule in RULES])

    async def _worth_telling(self, notices: Sequence[ClaimedNotice]) -> list[ClaimedNotice]:
        """Return the notices whose time is not past and which are not over; the others are ended."""
        now_us = self._clock_s() * 1_000_000
        past = [notice for notice in notices if notice.is_past or notice.deadline_at_us <= now_us]
        rest = [notice for notice in notices if notice not in past]
        over = [notice for notice in rest if await self._is_over(notice)]
        await self._end(past, NoticeResult.EXPIRED, "its time was past")
        await self._end(over, NoticeResult.OVER, "it was over before it was told")
        return [notice for notice in rest if notice not in over]

    async def _turn(self, at_most_wait_s: float) -> float | None:
        """Reserve a message of the channel's pace; return how long to wait for it, None if too long."""
        pace = PACES[self._channel.kind]
        return await reserve(
            self._store,
            f"notify {self._channel.address_id}",
            every_s=pace.every_s,
            burst=pace.burst,
            at_most_wait_s=at_most_wait_s,
        )

    async def _messages(self, notices: Sequence[ClaimedNotice]) -> list[Sequence[ClaimedNotice]]:
        """Cut notices, for which one turn is reserved, into messages: the first few alone while there are turns."""
        alone = 0
        if len(notices) <= ALONE:
            while alone < len(notices) - 1 and await self._turn(0.0) is not None:
                alone += 1
        groups: list[Sequence[ClaimedNotice]] = [[notice] for notice in notices[:alone]]
        return [*groups, notices[alone:]] if alone < len(notices) else groups

    async def _tell(self, notices: Sequence[ClaimedNotice]) -> None:
        """Send one message: write that it is begun, send it, write what came of it."""
        begun = await begin_notices(
            self._store, [notice.notice_id for notice in notices], lease_holder=self._lease_holder
        )
        notices = [notice for notice in notices if notice.notice_id in begun]
        if not notices:
            return
        contents = [
            Content(
                notice_id=notice.notice_id,
                rule=notice.rule,
                data=notice.data,
                created_at_s=notice.created_at_us / 1_000_000,
            )
            for notice in notices
        ]
        message = compose(contents, self._channel.kind, self._wording, now_s=self._clock_s())
        answer = await self._sender.send(self._channel, message)
        await self._conclude(notices, answer)

    async def _conclude(self, notices: Sequence[ClaimedNotice], answer: Answer) -> None:
        name = self._channel.name
        if isinstance(answer, Sent):
            result = NoticeResult.SENT if len(notices) == 1 else NoticeResult.DIGESTED
            detail = answer.note or ("" if len(notices) == 1 else f"one of {len(notices)} in a message")
            await self._end(notices, result, detail)
            told = _log.warning if answer.note else _log.info
            rules = sorted({notice.rule for notice in notices})
            told("notice_sent", channel=name, notices=len(notices), rules=rules, note=answer.note or None)
        elif isinstance(answer, RefusedForGood):
            await self._end(notices, NoticeResult.REFUSED, f"{answer.code}: {answer.remedy}")
            if self._refusals.passes():
                _log.error("notice_refused", channel=name, notices=len(notices), code=answer.code, advice=answer.remedy)
        else:
            await self._try_later(notices, answer)

    async def _try_later(self, notices: Sequence[ClaimedNotice], answer: TryLater) -> None:
        """Let the notices wait; those whose time is past by then are given up."""
        now_s = self._clock_s()
        # Doubled each time, as what has not answered for minutes need not be asked each minute.
        growing_s = answer.after_s * 2 ** min(max(notice.attempts for notice in notices) - 1, 10)
        after_s = max(answer.after_s, min(growing_s, _LONGEST_PAUSE_S))
        if answer.is_busy:
            self._busy_until_s = now_s + answer.after_s
        last_us = (now_s + after_s) * 1_000_000
        given_up = [notice for notice in notices if notice.deadline_at_us <= last_us]
        waiting = [notice for notice in notices if notice.deadline_at_us > last_us]
        await self._end(given_up, NoticeResult.GAVE_UP, answer.reason)
        await self._postpone(waiting, after_s=after_s, detail=answer.reason)
        _log.warning(
            "notice_not_sent",
            channel=self._channel.name,
            notices=len(waiting),
            given_up=len(given_up),
            reason=answer.reason,
            again_in_s=round(after_s),
        )

    async def _postpone(self, notices: Sequence[ClaimedNotice], *, after_s: float, detail: str = "") -> None:
        if notices:
            await postpone_notices(
                self._store,
                [notice.notice_id for notice in notices],
                lease_holder=self._lease_holder,
                after_s=after_s,
                detail=detail,
            )

    async def _end(self, notices: Sequence[ClaimedNotice], result: NoticeResult, detail: str) -> None:
        if not notices:
            return
        ended = await end_notices(
            self._store,
            [notice.notice_id for notice in notices],
            lease_holder=self._lease_holder,
            result=result,
            detail=detail,
        )
        metrics.NOTICES.labels(self._channel.name, result.value).inc(len(ended))
        if result in (NoticeResult.EXPIRED, NoticeResult.OVER):
            rules = sorted({notice.rule for notice in notices})
            _log.info("notice_dropped", channel=self._channel.name, notices=len(ended), rules=rules, reason=detail)


async def wait_at_most(event: asyncio.Event, at_most_s: float) -> None:
    """Wait until an event is set, or for so long."""
    with suppress(TimeoutError):
        async with asyncio.timeout(at_most_s):
            await event.wait()
