"""What `@consumer` makes of a function, and what it says when it cannot."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from schemas import (
    Event,
    OnlineRecordFinished,
    OnlineRecordStarted,
    OnlineRecordStopped,
    RecordingEvent,
    Unrecognized,
)
from workers import Ack, Context, DefinitionError, Outcome, consumer


def test_the_name_names_the_queue_and_the_annotation_chooses_the_events() -> None:
    @consumer(attempts=3, timeout_s=5)
    async def archive(event: OnlineRecordFinished, ctx: Context) -> None: ...

    assert archive.queues.consumer == "archive"
    assert archive.routing_keys == ("OnlineRecordFinished",)
    assert (archive.attempts, archive.timeout_s, archive.concurrency, archive.remember) == (3, 5, 10, True)


def test_without_options_the_defaults_hold() -> None:
    @consumer
    def report(event: OnlineRecordStarted, ctx: Context) -> None: ...

    assert (report.attempts, report.timeout_s) == (8, 60)
    assert not report.is_async


def test_a_union_takes_several_events() -> None:
    @consumer
    async def both(event: OnlineRecordStopped | OnlineRecordStarted, ctx: Context) -> None: ...

    assert both.routing_keys == ("OnlineRecordStarted", "OnlineRecordStopped")


def test_recording_event_takes_the_five_and_event_takes_the_rest_too() -> None:
    @consumer
    async def five(event: RecordingEvent, ctx: Context) -> None: ...

    @consumer
    async def everything(event: Event, ctx: Context) -> None: ...

    @consumer
    async def rest(event: Unrecognized, ctx: Context) -> None: ...

    assert len(five.routing_keys) == 5
    assert set(everything.routing_keys) == {*five.routing_keys, "RecordingArchived", "unrecognized"}
    assert rest.routing_keys == ("unrecognized",)


def _no_annotation(event, ctx): ...  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 - that is the mistake


def _wrong_annotation(event: int, ctx: Context) -> None: ...


def _one_parameter(event: OnlineRecordStarted) -> None: ...


def events(event: OnlineRecordStarted, ctx: Context) -> None: ...


def Shout(event: OnlineRecordStarted, ctx: Context) -> None: ...  # noqa: N802 - that is the mistake


def _generator(event: OnlineRecordStarted, ctx: Context) -> Iterator[None]:
    yield


async def _async_generator(event: OnlineRecordStarted, ctx: Context) -> AsyncIterator[None]:
    yield


def _missing_name(event: "Nothing", ctx: Context) -> None: ...  # type: ignore[name-defined]  # noqa: F821 - that is the mistake


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (_no_annotation, "lower-case"),
        (events, "taken"),
        (Shout, "lower-case"),
    ],
)
def test_a_name_that_cannot_be_a_queue_is_refused(function: Callable[..., Any], sentence: str) -> None:
    with pytest.raises(DefinitionError, match=sentence):
        consumer(function)


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (_no_annotation, "annotate 'event'"),
        (_wrong_annotation, "is not an event"),
        (_one_parameter, "two parameters"),
        (_missing_name, "cannot be read"),
        (_generator, "has a yield in it"),
        (_async_generator, "has a yield in it"),
    ],
)
def test_a_function_that_cannot_be_a_consumer_is_refused_with_its_place(
    function: Callable[..., Any], sentence: str
) -> None:
    function.__name__ = function.__name__.strip("_")

    with pytest.raises(DefinitionError, match=sentence) as refusal:
        consumer(function)

    assert f"{__file__}:" in str(refusal.value)


@pytest.mark.parametrize(
    "options",
    [
        *({"attempts": 0}, {"attempts": True}, {"timeout_s": 1501}, {"timeout_s": 0}),
        *({"concurrency": 0}, {"concurrency": 1.5}, {"batch": 0}, {"batch": 10_001}, {"batch": 2.5}, {"batch": True}),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    def archive(event: OnlineRecordFinished, ctx: Context) -> None: ...

    define: Callable[..., Any] = consumer
    with pytest.raises(DefinitionError, match=next(iter(options))):
        define(**options)(archive)


@pytest.mark.parametrize("batch", [None, 10])
def test_only_what_the_vendor_can_be_asked_about_is_verified(batch: int | None) -> None:
    def one(event: OnlineRecordStarted | Unrecognized, ctx: Context) -> None: ...

    def many(batch: list[tuple[OnlineRecordStarted, Context]]) -> None: ...

    def all_kinds(event: Event, ctx: Context) -> None: ...

    define: Callable[..., Any] = consumer
    options = {} if batch is None else {"batch": batch}
    with pytest.raises(DefinitionError, match="verified=True is about OnlineRecordFinished, which it does not take"):
        define(verified=True, **options)(one if batch is None else many)
    assert define(verified=True)(all_kinds).verified
    assert not define(all_kinds).verified


def test_with_batch_a_consumer_takes_a_list() -> None:
    @consumer(batch=100, concurrency=2)
    async def archive(batch: list[tuple[OnlineRecordFinished, Context]]) -> None: ...

    assert archive.routing_keys == ("OnlineRecordFinished",)
    assert (archive.batch, archive.concurrency, archive.remember) == (100, 2, True)


def test_a_list_can_be_of_several_kinds_of_events() -> None:
    @consumer(batch=1)
    def both(batch: list[tuple[OnlineRecordStopped | OnlineRecordStarted, Context]]) -> list[Outcome] | None: ...

    @consumer(batch=10_000)
    async def five(batch: list[tuple[RecordingEvent, Context]]) -> None: ...

    @consumer(batch=2)
    async def everything(batch: list[tuple[Event, Context]]) -> None: ...

    @consumer(batch=2)
    async def rest(batch: list[tuple[Unrecognized, Context]]) -> list[Ack]:
        return [Ack() for _ in batch]

    assert both.routing_keys == ("OnlineRecordStarted", "OnlineRecordStopped")
    assert len(five.routing_keys) == 5
    assert set(everything.routing_keys) == {*five.routing_keys, "RecordingArchived", "unrecognized"}
    assert rest.routing_keys == ("unrecognized",)


def _one_event(event: OnlineRecordStarted, ctx: Context) -> None: ...


def _no_list(batch: OnlineRecordStarted) -> None: ...


def _no_pairs(batch: list[OnlineRecordStarted]) -> None: ...


def _no_context(batch: list[tuple[OnlineRecordStarted, int]]) -> None: ...


def _no_event(batch: list[tuple[int, Context]]) -> None: ...


def _named_only(*, batch: list[tuple[OnlineRecordStarted, Context]]) -> None: ...


def _not_annotated(batch): ...  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 - that is the mistake


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (_one_event, r"one parameter: \(batch: list\[tuple\[SomeEvent, Context\]\]\)"),
        (_named_only, "one parameter"),
        (_no_list, r"must be \(batch: list\[tuple\[SomeEvent, Context\]\]\), not"),
        (_no_pairs, "must be"),
        (_no_context, "must be"),
        (_no_event, "<class 'int'> is not an event"),
        (_not_annotated, "annotate 'batch'"),
    ],
)
def test_with_batch_another_signature_is_refused(function: Callable[..., Any], sentence: str) -> None:
    function.__name__ = function.__name__.strip("_")

    with pytest.raises(DefinitionError, match=sentence):
        consumer(batch=10)(function)


def test_a_list_without_batch_is_refused() -> None:
    def one(batch: list[tuple[OnlineRecordStarted, Context]]) -> None: ...

    def two(events: list[OnlineRecordStarted], ctx: Context) -> None: ...

    define: Callable[..., Any] = consumer
    for function in (one, two):
        with pytest.raises(DefinitionError, match=r"@consumer\(batch=100\)"):
            define(function)
