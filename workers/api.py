"""What a consumer is made of: the decorator, what a handler is told, how it ends, and which events it takes.

WorkersError
├── DefinitionError        a consumer is not written as it must be
├── LoadError              a user's module cannot be loaded
└── UnknownConsumerError   a consumer is named that never ran; see `workers.inspecting`

A handler returns (`Ack`), raises one of the others, or returns one of them; any other exception counts as `Retry()`.
They are exceptions so that they can be raised from deep inside a handler, and values so that tests can compare them.
"""

import inspect
import re
import types
import typing
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias, TypeVar, Union, get_args, get_origin, overload

import structlog
from msgspec import Struct

from broker import RESERVED_NAMES, ConsumerQueues
from schemas import (
    EVENT_TYPES,
    RECORDING_ARCHIVED,
    UNRECOGNIZED,
    Event,
    OnlineRecordFinished,
    RecordingArchived,
    RecordingEvent,
    Unrecognized,
)
from store import Store


class WorkersError(Exception):
    """Root of this package's errors; the text says what to change."""


class DefinitionError(WorkersError, TypeError):
    """Raised when `@consumer` stands on a function, or has options, that cannot work."""


class LoadError(WorkersError):
    """Raised when what TIW_CONSUMERS names cannot be loaded."""


_MAX_REASON_CHARACTERS = 500


def text_of(value: object) -> str:
    """Return what a user's code gave for a text as one line that headers, tables and logs can hold. Never raises.

    It has at most 500 characters, and neither NUL nor unpaired surrogates.
    """
    try:
        text = str(value)[: 2 * _MAX_REASON_CHARACTERS]
        text = str.encode(text, "utf-8", "replace").decode()
    except BaseException:  # noqa: BLE001 - it is made by a user's code, which may raise anything
        return "its text cannot be made"
    return " ".join(text.replace("\0", " ").split())[:_MAX_REASON_CHARACTERS]


class Ack:
    """The event is handled."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ack)

    def __hash__(self) -> int:
        return hash(Ack)

    def __repr__(self) -> str:
        return "Ack()"


class Retry(Exception):  # noqa: N818 - an outcome that a handler raises, not an error
    """Try again later: after the shortest retry delay not under `after_s`, by default on the attempt's own.

    It counts as an attempt. `reason` is what the dead letter says should this have been the last one.
    """

    def __init__(self, *, after_s: float | None = None, reason: str = "") -> None:
        given: Any = after_s
        if given is not None:
            if not hasattr(given, "__float__"):
                raise TypeError(f"after_s must be a number of seconds, not {type(given).__name__}")
            after_s = float(given)
            if not after_s >= 0:  # not a number, too
                raise ValueError("after_s must not be negative")
        reason = text_of(reason)
        super().__init__(reason)
        self.after_s = after_s
        self.reason = reason

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Retry) and (self.after_s, self.reason) == (other.after_s, other.reason)

    def __hash__(self) -> int:
        return hash((Retry, self.after_s, self.reason))

    def __repr__(self) -> str:
        return f"Retry(after_s={self.after_s!r}, reason={self.reason!r})"


class _Final(Exception):  # noqa: N818 - see Retry
    def __init__(self, reason: str) -> None:
        reason = text_of(reason)
        super().__init__(reason)
        self.reason = reason

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.reason == other.reason

    def __hash__(self) -> int:
        return hash((type(self), self.reason))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.reason!r})"


class Drop(_Final):
    """Forget the event, on purpose; `reason` is logged and the drop is counted."""


class DeadLetter(_Final):
    """Give up at once: the event becomes a dead letter with `reason`, visible and replayable."""


Outcome: TypeAlias = Ack | Retry | Drop | DeadLetter


def describe(error: BaseException) -> str:
    """Return an error as one line that a person can act on: its type and its message. Never raises."""
    message = text_of(error)
    return f"{type(error).__name__}: {message}"[:_MAX_REASON_CHARACTERS] if message else type(error).__name__


#: What every line of a log has of its own.
_OF_THE_LINE = frozenset(
    {"self", "event", "level", "logger", "timestamp", "exception", "frames", "consumer", "event_id", "attempt", "trace"}
)


def _values(given: dict[str, Any]) -> dict[str, Any]:
    """Return what a handler gives a line, under names that are not the line's own."""
    if _OF_THE_LINE.isdisjoint(given):
        return given
    return {f"{name}_" if name in _OF_THE_LINE else name: value for name, value in given.items()}


class Log:
    """A structlog logger that carries consumer, event_id, attempt and trace, for handlers.

    `log.info("archived", videos=3)`, `await log.ainfo(...)` and all else that structlog's loggers have: a message, and
    values of any names. One that is a name of the line itself, such as `event`, gets an underscore behind it.
    """

    __slots__ = ("_log",)

    def __init__(self, log: Any) -> None:
        self._log = log

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._log, name)
        if not callable(member):
            return member

        def call(*arguments: Any, **values: Any) -> Any:
            result = member(*arguments, **_values(values))
            # What `bind` and its like return.
            return Log(result) if hasattr(result, "bind") else result

        return call


_EPOCH = datetime.fromtimestamp(0, UTC)


class Context(Struct, frozen=True, kw_only=True):
    """One delivery, as its handler sees it.

    `event_id` is the same for every repetition of an event: the idempotency key for effects outside the store.
    `attempt` counts from 1. `received_at_us` is when the callback came in, in microseconds since the Unix epoch.
    `body` is the callback as it came, without Sign and ExpireTime. `trace` is a W3C traceparent or empty. `source` is
    empty for what the vendor sent, `reconcile` for what it was asked for, `test` for what somebody sent to try the
    consumers: it tells of no class. `store` is where recordings live; None where
    a handler runs without one.
    """

    consumer: str
    event_id: str
    attempt: int
    received_at_us: int
    body: bytes
    trace: str = ""
    source: str = ""
    store: Store | None = None

    @property
    def received_at(self) -> datetime:
        """When the callback came in (UTC)."""
        return _EPOCH + timedelta(microseconds=self.received_at_us)

    @property
    def log(self) -> Log:
        """A logger that already carries consumer, event_id, attempt and trace."""
        # Made only where it is used: most handlers have nothing to say.
        return Log(
            structlog.get_logger(
                consumer=self.consumer, event_id=self.event_id, attempt=self.attempt, trace=self.trace or None
            )
        )


#: The routing key of each kind of event.
ROUTING_KEYS: dict[type[Event], str] = {
    **{kind: name for name, kind in EVENT_TYPES.items()},
    RecordingArchived: RECORDING_ARCHIVED,
    Unrecognized: UNRECOGNIZED,
}

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def event_types(function: Callable[..., Any], where: str) -> tuple[type[Event], ...]:
    """Return the events of `(event: SomeEvent, ctx: Context)`.

    Raises `DefinitionError`, which begins with `where`, for another signature.
    """
    parameters = _parameters(function)
    if len(parameters) != 2:  # noqa: PLR2004 - event and context
        raise DefinitionError(
            f"{where}: must take two parameters: (event: SomeEvent, ctx: Context); to take many events at once, one: "
            "@consumer(batch=100) and (batch: list[tuple[SomeEvent, Context]])"
        )
    annotation = _annotation(function, parameters[0], where)
    if _is_list(annotation):
        raise DefinitionError(f"{where}: to take a list of events, say how many at most: @consumer(batch=100)")
    return _in_order(_kinds(annotation, where))


def event_types_of_group(function: Callable[..., Any], where: str) -> tuple[type[Event], ...]:
    """Return the events of `(batch: list[tuple[SomeEvent, Context]])`; raises as `event_types`."""
    parameters = _parameters(function)
    wanted = "(batch: list[tuple[SomeEvent, Context]])"
    if len(parameters) != 1:
        raise DefinitionError(f"{where}: with batch it must take one parameter: {wanted}")
    annotation = _annotation(function, parameters[0], where)
    (pair,) = get_args(_meant(annotation)) if _is_list(annotation) else (None,)
    pair = _meant(pair)
    match get_args(pair) if get_origin(pair) is tuple else ():
        case (kind, context) if context is Context:
            return _in_order(_kinds(kind, where))
        case _:
            raise DefinitionError(f"{where}: with batch its parameter must be {wanted}, not {annotation!r}")


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return the parameters; none if they cannot all be given by position."""
    parameters = list(inspect.signature(function).parameters.values())
    return parameters if all(parameter.kind in _POSITIONAL for parameter in parameters) else []


def _annotation(function: Callable[..., Any], parameter: inspect.Parameter, where: str) -> Any:
    try:
        annotation = typing.get_type_hints(function).get(parameter.name)
    except Exception as error:  # annotations are code and may raise anything
        raise DefinitionError(f"{where}: its annotations cannot be read: {error}") from error
    if annotation is None:
        raise DefinitionError(
            f"{where}: annotate {parameter.name!r} with the events it takes, such as OnlineRecordFinished"
        )
    return annotation


def _is_list(annotation: Any) -> bool:
    annotation = _meant(annotation)
    return get_origin(annotation) is list


def _meant(annotation: Any) -> Any:
    """Return what an alias stands for: that of `type Both = A | B`, from Python 3.12 on."""
    while type(annotation).__name__ == "TypeAliasType":
        annotation = annotation.__value__
    return annotation


def _kinds(annotation: Any, where: str) -> list[type[Event]]:
    annotation = _meant(annotation)
    if get_origin(annotation) in (Union, types.UnionType):
        return [kind for part in get_args(annotation) for kind in _kinds(part, where)]
    if annotation is RecordingEvent:
        return list(EVENT_TYPES.values())
    if annotation not in ROUTING_KEYS:
        names = ", ".join(kind.__name__ for kind in ROUTING_KEYS)
        raise DefinitionError(f"{where}: {annotation!r} is not an event. Events are {names}")
    return [annotation]


def _in_order(kinds: list[type[Event]]) -> tuple[type[Event], ...]:
    return tuple(kind for kind in ROUTING_KEYS if kind in kinds)


#: RabbitMQ closes the channel of a delivery that is not settled within 30 minutes:
#: https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout
MAX_TIMEOUT_S = 1500

MAX_BATCH = 10_000

_NAME = re.compile(r"[a-z][a-z0-9_]{0,99}")

EventT = TypeVar("EventT", bound=RecordingEvent | RecordingArchived | Unrecognized)
Result: TypeAlias = Outcome | None
Handler: TypeAlias = Callable[[EventT, Context], Awaitable[Result] | Result]
Results: TypeAlias = Sequence[Outcome] | None
GroupHandler: TypeAlias = Callable[[list[tuple[EventT, Context]]], Awaitable[Results] | Results]


class Consumer(Struct, frozen=True, kw_only=True):
    """A handler and how it is to be run. Calling it calls the handler.

    `attempts` in all before an event is a dead letter; `timeout_s` for each; at most `concurrency` at once in one
    process. `batch`: the most events that one call takes, as a list; None: it takes one, not in a list. `remember`: a
    completed event is not handled again when it is delivered again within 7 days. `verified`: it gets a Finished event
    only once the vendor has confirmed it.
    """

    name: str
    function: Callable[..., Any]
    event_types: tuple[type[Event], ...]
    attempts: int = 8
    timeout_s: float = 60
    concurrency: int = 10
    batch: int | None = None
    remember: bool = True
    verified: bool = False

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)

    @property
    def is_async(self) -> bool:
        """Whether the handler runs on the event loop; a plain function runs in a thread."""
        return inspect.iscoroutinefunction(self.function)

    @property
    def routing_keys(self) -> tuple[str, ...]:
        """The routing keys of the events it takes."""
        return tuple(ROUTING_KEYS[kind] for kind in self.event_types)

    @property
    def queues(self) -> ConsumerQueues:
        """Its queues."""
        return ConsumerQueues(consumer=self.name, routing_keys=self.routing_keys)


@overload
def consumer(function: Handler[EventT], /) -> Consumer: ...


@overload
def consumer(
    *, attempts: int = ..., timeout_s: float = ..., concurrency: int = ..., remember: bool = ..., verified: bool = ...
) -> Callable[[Handler[EventT]], Consumer]: ...


@overload
def consumer(
    *,
    batch: int,
    attempts: int = ...,
    timeout_s: float = ...,
    concurrency: int = ...,
    remember: bool = ...,
    verified: bool = ...,
) -> Callable[[GroupHandler[EventT]], Consumer]: ...


def consumer(
    function: Callable[..., Any] | None = None,
    /,
    *,
    attempts: int = 8,
    timeout_s: float = 60,
    concurrency: int = 10,
    batch: int | None = None,
    remember: bool = True,
    verified: bool = False,
) -> Consumer | Callable[[Callable[..., Any]], Consumer]:
    """Make a consumer of `async def name(event: SomeEvent, ctx: Context)`, or of a plain `def`.

    The annotation of the first parameter chooses the events: one of the five, `RecordingArchived`, a union of them,
    `RecordingEvent` (all five), `Unrecognized` (everything else) or `Event` (all). The function's name names the queue
    (`tiw.<name>`). It returns nothing, or raises or returns an outcome.

    With `batch` it is `async def name(batch: list[tuple[SomeEvent, Context]])`, called with the events that wait
    anyway, 1 to `batch` of them: it never waits for more. It returns None (all are handled) or one outcome for each,
    in their order. If it raises, takes longer than `timeout_s` or returns anything else, each of the events is run
    again alone, so that a bad one fails alone; only what comes of that counts. `concurrency` is then how many such
    groups run at once.

    With `verified` it gets a Finished event only once the vendor has confirmed it, and with the vendor's own
    `video_infos`: nobody can invent one for it. `ctx.body` stays as it came. `tiw reconcile` asks the vendor. Until it
    has an answer the event waits, which counts no attempt. One that the vendor contradicts, or does not confirm within
    24 hours, is a dead letter. Events of other types come as they do without.

    Raises `DefinitionError` with what to change.
    """

    def define(function: Callable[..., Any]) -> Consumer:
        where = _where(function)
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise DefinitionError(
                f"{where}: it has a yield in it, and would never be run: return an outcome, or nothing"
            )
        _check(where, "attempts", attempts, at_least=1, at_most=1000, kind=int)
        _check(where, "timeout_s", timeout_s, at_least=0.001, at_most=MAX_TIMEOUT_S)
        _check(where, "concurrency", concurrency, at_least=1, at_most=1000, kind=int)
        if batch is not None:
            _check(where, "batch", batch, at_least=1, at_most=MAX_BATCH, kind=int)
        name = _name(function, where)
        kinds = event_types(function, where) if batch is None else event_types_of_group(function, where)
        if verified and OnlineRecordFinished not in kinds:
            raise DefinitionError(
                f"{where}: verified=True is about OnlineRecordFinished, which it does not take: leave it away, or take "
                "that event too"
            )
        return Consumer(
            name=name,
            function=function,
            event_types=kinds,
            attempts=attempts,
            timeout_s=timeout_s,
            concurrency=concurrency,
            batch=batch,
            remember=remember,
            verified=verified,
        )

    return define if function is None else define(function)


def _where(function: Callable[..., Any]) -> str:
    code = getattr(function, "__code__", None)
    if code is None:
        raise DefinitionError(f"@consumer stands on {function!r}: put it on a function (def or async def)")
    return f"{code.co_filename}:{code.co_firstlineno}: consumer {function.__name__}"


def _check(
    where: str, name: str, value: object, *, at_least: float, at_most: float, kind: type[int] | type[float] = float
) -> None:
    is_number = isinstance(value, int | kind) and not isinstance(value, bool)
    if not is_number or not at_least <= value <= at_most:  # type: ignore[operator]  # it is a number here
        raise DefinitionError(f"{where}: {name} must be between {at_least} and {at_most}, not {value!r}")


def _name(function: Callable[..., Any], where: str) -> str:
    name = function.__name__
    if not _NAME.fullmatch(name):
        raise DefinitionError(f"{where}: the name becomes a queue's: use lower-case letters, digits and _, at most 100")
    if name in RESERVED_NAMES:
        raise DefinitionError(f"{where}: the names {', '.join(sorted(RESERVED_NAMES))} are taken: rename the function")
    return name
