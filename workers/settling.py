"""Make an outcome durable, then acknowledge: never the other way round."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import AsyncExitStack
from typing import Any, Self

import structlog
from msgspec import structs

from broker import (
    LEASE_WAIT_S,
    Message,
    NotPublishedError,
    Transport,
    delay_for_retry,
    delay_not_longer,
    delay_not_shorter,
)
from schemas import UNRECOGNIZED
from workers.api import Ack, Consumer, DeadLetter, Drop, Outcome, Retry
from workers.job import Disposition, Group, Job, Jobs, JobTelemetry

#: How long to wait for the broker's confirm of an outcome. What is published again because its confirm was only late is
#: in the queue twice, and copies of an event that is being handled are published again and again until it is done.
CONFIRM_TIMEOUT_S = 30.0

#: But a worker that ends does not wait so long.
_REQUEUE_WITHIN_S = 2.5

#: Between two tries to publish an outcome that the broker did not confirm.
_PUBLISH_AGAIN_S = 0.5

_log = structlog.get_logger()


class Settler:
    """Settles the jobs of one consumer; an async context manager.

    What settles a delivery begins with the call; what has to be published for it is published beside all else.
    Where the broker does not confirm, publishing is tried again until it does: the outcome is known and the delivery
    cannot be let go of before it is kept. Only `requeue_all` tries once: its deliveries return with the subscription's
    end.
    """

    def __init__(
        self,
        consumer: Consumer,
        *,
        transport: Transport,
        jobs: Jobs,
        telemetry: JobTelemetry,
        retry_delays_s: tuple[float, ...],
    ) -> None:
        self._consumer = consumer
        self._transport = transport
        self._jobs = jobs
        self._telemetry = telemetry
        self._retry_delays_s = retry_delays_s
        self._lease_wait_s = delay_not_shorter(retry_delays_s, LEASE_WAIT_S)
        self._tasks: set[asyncio.Task[None]] = set()
        self._acks = Group(self._await_acks, name=f"acks of {consumer.name}")
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._acks)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()
        await self._stack.aclose()

    async def settled(self, *, but: Job | None = None) -> None:
        """Return once every job is settled, `but` apart, and every acknowledgement is made."""
        await self._jobs.until(lambda: self._jobs.are_settled(but=but) and self._acks.is_idle)

    async def stop(self) -> None:
        """Publish nothing more: what is not settled stays so."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def settle(self, job: Job, outcome: Outcome) -> None:
        """Let the outcome of a handler take effect."""
        match outcome:
            case Ack():
                self._acknowledge(job)
                self._telemetry.settled(job, Disposition.ACK)
            case Drop():
                self.ack(job, Disposition.DROP, reason=outcome.reason)
            case DeadLetter():
                self._dead_letter(job, outcome.reason)
            case Retry():
                self._retry(job, outcome)

    def ack(self, job: Job, disposition: Disposition, **details: str) -> None:
        """Acknowledge a delivery that needs nothing more; `disposition` says why."""
        self._acknowledge(job)
        self._telemetry.settled(job, disposition, **details)

    def wait_for_lease(self, job: Job, *, crashes: int) -> None:
        """Look again later: somebody else handles the event, or died with it. It counts as no attempt."""
        again = structs.replace(job.message, crashes=crashes)
        self._publish(job, lambda: self._publish_retry(again, self._lease_wait_s), Disposition.LEASED)

    def wait_for_verdict(self, job: Job, *, since_us: int, waited_s: float) -> None:
        """Look again later: the vendor has not confirmed the event yet. It counts as no attempt.

        It waits for about as long as it has waited already, `waited_s`, since `since_us`: so that what is confirmed
        soon comes soon, and what takes hours is not looked up thousands of times.
        """
        delay_s = delay_not_longer(self._retry_delays_s, waited_s)
        again = structs.replace(job.message, crashes=job.crashes, waiting_since_us=since_us)
        self._publish(job, lambda: self._publish_retry(again, delay_s), Disposition.UNVERIFIED, delay_s=delay_s)

    def pass_on(self, job: Job) -> None:
        """Keep as unrecognized what a newer ingest node understood and this worker does not."""
        foreign = structs.replace(job.message, routing_key=UNRECOGNIZED, attempt=1, crashes=0)
        self._publish(job, lambda: self._transport.publish(foreign), Disposition.PASSED_ON)

    def requeue(self, job: Job) -> None:
        """Put the event back into the queue as it was. A return by the broker would count as a crash."""
        self._publish(job, lambda: self._send_again(job), None)

    async def requeue_all(self, jobs: Iterable[Job]) -> None:
        """Requeue what is left when the subscription is about to end, and return when that was tried."""
        await asyncio.gather(*(self._requeue_or_leave(job) for job in jobs))
        await self.settled()

    def _retry(self, job: Job, outcome: Retry) -> None:
        """Let the event wait for its next attempt, or dead-letter it if this was its last."""
        message = job.message
        reason = outcome.reason or "the handler asked for another attempt"
        if message.attempt >= self._consumer.attempts:
            self._dead_letter(job, reason)
            return
        if outcome.after_s is None:
            delay_s = delay_for_retry(self._retry_delays_s, message.attempt)
        else:
            delay_s = delay_not_shorter(self._retry_delays_s, outcome.after_s)
        again = structs.replace(_failed(job, reason), attempt=message.attempt + 1, crashes=0)
        self._publish(
            job, lambda: self._publish_retry(again, delay_s), Disposition.RETRY, delay_s=delay_s, reason=reason
        )

    def _dead_letter(self, job: Job, reason: str) -> None:
        letter = structs.replace(_failed(job, reason), crashes=0)
        self._publish(
            job,
            lambda: self._transport.dead_letter(self._consumer.name, letter),
            Disposition.DEAD_LETTER,
            reason=reason,
        )

    async def _requeue_or_leave(self, job: Job) -> None:
        try:
            async with asyncio.timeout(_REQUEUE_WITHIN_S):
                await self._send_again(job)
        except (NotPublishedError, TimeoutError):
            self._jobs.settled(job)  # once the subscription has ended, the broker delivers it again
        else:
            self._acknowledge(job)

    async def _send_again(self, job: Job) -> None:
        same = structs.replace(job.message, crashes=job.crashes)
        await self._transport.send(self._consumer.name, same)

    def _publish_retry(self, message: Message, delay_s: float) -> Awaitable[None]:
        return self._transport.retry(self._consumer.name, message, delay_s=delay_s)

    def _publish(
        self, job: Job, publish: Callable[[], Awaitable[None]], disposition: Disposition | None, **details: float | str
    ) -> None:
        self._spawn(self._publish_and_acknowledge(job, publish, disposition, details))

    async def _publish_and_acknowledge(
        self,
        job: Job,
        publish: Callable[[], Awaitable[None]],
        disposition: Disposition | None,
        details: dict[str, float | str],
    ) -> None:
        while True:
            try:
                await publish()
            except NotPublishedError as error:
                _log.warning("outcome_not_published", consumer=self._consumer.name, error=str(error))
                await asyncio.sleep(_PUBLISH_AGAIN_S)
                await self._transport.wait_ready()
                continue
            break
        self._acknowledge(job)
        if disposition is not None:
            self._telemetry.settled(job, disposition, **details)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # The delivery stays unsettled and comes back, counted as a crash: never silent, never lost.
            _log.error("runner_failed", consumer=self._consumer.name, exc_info=error)

    def _acknowledge(self, job: Job) -> None:
        self._acks.add(job.delivery.ack())
        self._jobs.settled(job)

    async def _await_acks(self, acks: list[Awaitable[bool]]) -> None:
        # False: the connection was lost, and the event is delivered again.
        for ack in acks:
            await ack
        self._jobs.look_again()


def _failed(job: Job, reason: str) -> Message:
    now_us = time.time_ns() // 1000
    return structs.replace(
        job.message,
        first_failed_at_us=job.message.first_failed_at_us or now_us,
        last_failed_at_us=now_us,
        reason=reason,
        # What an earlier attempt left says nothing of this failure.
        traceback=job.traceback,
    )
