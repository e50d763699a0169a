"""What a handler's end means: an outcome for each of its events."""

import asyncio
from collections.abc import Sequence
from typing import Any

import structlog
from msgspec import Struct

from workers.consumer import Consumer
from workers.context import Context
from workers.lanes import Ending, Interruption
from workers.outcomes import Ack, DeadLetter, Drop, Outcome, Retry
from workers.store_watch import AWAY_ERRORS

_MAX_REASON_CHARACTERS = 500

_log = structlog.get_logger()


class GroupFailure(Struct, frozen=True):
    """A call for several events that failed as a whole: each is to be run again alone."""

    reason: str


def judge(consumer: Consumer, contexts: Sequence[Context], ending: Ending) -> Sequence[Outcome] | GroupFailure:
    """Return the outcome of each event of a call that was not stopped, in their order, and log what is unusual.

    Raises one of `AWAY_ERRORS` if that is what the handler raised: the events are fine and their store is away.
    """
    log = contexts[0].log if len(contexts) == 1 else _log.bind(consumer=consumer.name, events=len(contexts))
    if ending.is_left_behind:
        log.warning("handler_left_behind", timeout_s=consumer.timeout_s)
    judged: Sequence[Outcome] | Outcome
    if ending.interruption is Interruption.TIMED_OUT:
        judged = Retry(reason=f"no answer within {consumer.timeout_s:g} s")
    elif ending.error is not None:
        judged = _of_error(ending.error, log)
    elif consumer.batch is None:
        judged = _of_result(ending.result)
    else:
        judged = _of_results(ending.result, len(contexts))
    if isinstance(judged, Sequence):
        return judged
    if len(contexts) == 1:
        return [judged]
    reason = "" if isinstance(judged, Ack) else judged.reason
    log.info("group_failed", reason=reason, then="each event is run alone")
    return GroupFailure(reason)


def describe(error: BaseException) -> str:
    """Return an error as one line that a person can act on: its type and its message."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message}"[:_MAX_REASON_CHARACTERS] if message else type(error).__name__


def _of_error(error: BaseException, log: Any) -> Outcome:
    if isinstance(error, Retry | Drop | DeadLetter):
        return error
    if isinstance(error, AWAY_ERRORS):
        raise error
    if isinstance(error, asyncio.CancelledError):
        return Retry(reason="the handler cancelled itself")
    log.warning("handler_failed", exc_info=error)
    return Retry(reason=describe(error))


def _of_result(result: Any) -> Outcome:
    if result is None:
        return Ack()
    if isinstance(result, Ack | Retry | Drop | DeadLetter):
        return result
    # A mistake in the code, which another attempt would repeat.
    return DeadLetter(f"the handler returned {type(result).__name__}: return nothing, or an outcome")


def _of_results(result: Any, count: int) -> Sequence[Outcome] | DeadLetter:
    if result is None:
        return [Ack()] * count
    if not isinstance(result, list | tuple):
        return DeadLetter(f"the handler returned {type(result).__name__}: return None, or a list of outcomes")
    for outcome in result:
        if not isinstance(outcome, Ack | Retry | Drop | DeadLetter):
            return DeadLetter(
                f"the handler returned a list with {type(outcome).__name__} in it: "
                "return an outcome for each event, such as Ack()"
            )
    if len(result) != count:
        return DeadLetter(
            f"the handler returned {len(result)} outcomes for a group of {count}: return one for each, in their order"
        )
    return result
