"""One attempt: run a handler on an event within its time-out and name the outcome."""

import asyncio
from typing import Any

from schemas import Event
from store import StoreUnavailableError
from workers.consumer import Consumer
from workers.context import Context
from workers.outcomes import Ack, DeadLetter, Drop, Outcome, Retry
from workers.threads import run_in_thread

#: How long a handler may take to end once its time-out has cancelled it, before it is left to itself.
CANCELLATION_GRACE_S = 1.0

_MAX_REASON_CHARACTERS = 500


async def attempt(consumer: Consumer, event: Event, context: Context) -> Outcome:
    """Run the handler once. Never raises for what the handler does, with one exception.

    `StoreUnavailableError` passes through: the event is fine and its store is away. A handler that exceeds its
    time-out is cancelled; one that does not end then, or runs in a thread, is left behind and logged.
    """
    running: asyncio.Future[Any]
    if consumer.is_async:
        running = asyncio.ensure_future(consumer.function(event, context))
    else:
        running = run_in_thread(consumer.function, event, context, name=f"tiw-{consumer.name}")
    try:
        done, _ = await asyncio.wait({running}, timeout=consumer.timeout_s)
    except asyncio.CancelledError:
        await _cancel(running, consumer, context)
        raise
    if not done:
        await _cancel(running, consumer, context)
        return Retry(reason=f"no answer within {consumer.timeout_s:g} s")
    return _outcome(running, context)


def _outcome(handled: "asyncio.Future[Any]", context: Context) -> Outcome:
    if handled.cancelled():
        return Retry(reason="the handler cancelled itself")
    error = handled.exception()
    return _of_result(handled.result()) if error is None else _of_error(error, context)


def _of_result(result: Any) -> Outcome:
    if result is None:
        return Ack()
    if isinstance(result, Ack | Retry | Drop | DeadLetter):
        return result
    return DeadLetter(f"the handler returned {type(result).__name__}: return nothing, or an outcome")


def _of_error(error: BaseException, context: Context) -> Outcome:
    if isinstance(error, Retry | Drop | DeadLetter):
        return error
    if isinstance(error, StoreUnavailableError):
        raise error
    context.log.warning("handler_failed", exc_info=error)
    return Retry(reason=_describe(error))


def _describe(error: BaseException) -> str:
    """Return an error as one line that a person can act on: its type and its message."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message}"[:_MAX_REASON_CHARACTERS] if message else type(error).__name__


async def _cancel(running: "asyncio.Future[Any]", consumer: Consumer, context: Context) -> None:
    running.cancel()
    _, pending = await asyncio.wait({running}, timeout=CANCELLATION_GRACE_S)
    if pending or not consumer.is_async:
        context.log.warning("handler_left_behind", timeout_s=consumer.timeout_s)
        running.add_done_callback(_forget)
    else:
        _forget(running)


def _forget(running: "asyncio.Future[Any]") -> None:
    """Read the result of a handler nobody waits for, or the loop complains that nobody did."""
    if not running.cancelled():
        running.exception()
