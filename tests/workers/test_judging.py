"""Every end of a handler has an outcome for each of its events, whatever it returned or raised."""

import asyncio
from typing import Any

import structlog
from hypothesis import given
from hypothesis import strategies as st

from schemas import OnlineRecordStarted
from store import SchemaMismatchError, StoreUnavailableError
from workers import Ack, Consumer, Context, DeadLetter, Drop, Retry
from workers.execution import EachAlone, StoreAway, judge
from workers.slots import Ending, Interruption


class Unspeakable(Exception):  # noqa: N818 - it is what a user might write
    """An error whose text cannot be made."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


RESULTS = st.sampled_from(
    [None, Ack(), Retry(), Drop("d"), DeadLetter("l"), 5, "text", [], [Ack()], [None, Ack()], (Ack(),) * 2]
)
ERRORS = st.sampled_from(
    [
        *(Retry(reason="r"), Drop("d"), DeadLetter("l"), ValueError("v"), Unspeakable(), RuntimeError("x" * 10**6)),
        *(asyncio.CancelledError(), SystemExit(1), KeyboardInterrupt(), GeneratorExit(), StopIteration()),
        *(ExceptionGroup("g", [Retry()]), StoreUnavailableError("away"), SchemaMismatchError("other tables")),
        *(ExceptionGroup("g", [StoreUnavailableError("away")]), BaseExceptionGroup("g", [SystemExit(1), Drop("d")])),
    ]
)
ENDINGS = st.one_of(
    st.builds(lambda result: Ending(0.1, result=result), RESULTS),
    st.builds(lambda error: Ending(0.1, error=error), ERRORS),
    st.builds(
        lambda error, left: Ending(0.1, error=error, interruption=Interruption.TIMED_OUT, is_left_behind=left),
        st.none() | ERRORS,
        st.booleans(),
    ),
)


async def handler(*_: Any) -> None: ...


def contexts(count: int) -> list[Context]:
    return [
        Context(consumer="archive", event_id=f"{number:032}", attempt=1, received_at_us=1, body=b"{}", store=None)
        for number in range(count)
    ]


@given(ending=ENDINGS, count=st.integers(1, 3), batch=st.booleans())
def test_every_end_has_an_outcome_for_each_event(ending: Ending, count: int, batch: bool) -> None:
    count = count if batch else 1
    consumer = Consumer(
        name="archive", function=handler, event_types=(OnlineRecordStarted,), batch=3 if batch else None
    )
    with structlog.testing.capture_logs():
        judged = judge(consumer, contexts(count), ending)
    if isinstance(judged, StoreAway):
        assert ending.error is judged.error
    elif isinstance(judged, EachAlone):
        assert count > 1
    else:
        assert len(judged) == count
        assert all(isinstance(outcome, Ack | Retry | Drop | DeadLetter) for outcome in judged)
