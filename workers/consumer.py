"""`@consumer`: from a function to a consumer, with a queue, attempts and a time-out of its own."""

import inspect
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias, TypeVar, overload

from msgspec import Struct

from broker import RESERVED_NAMES, ConsumerQueues
from schemas import Event, RecordingEvent, Unrecognized
from workers.annotations import ROUTING_KEYS, event_types, event_types_of_group
from workers.context import Context
from workers.errors import DefinitionError
from workers.outcomes import Outcome

#: RabbitMQ closes the channel of a delivery that is not settled within 30 minutes:
#: https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout
MAX_TIMEOUT_S = 1500

MAX_BATCH = 10_000

_NAME = re.compile(r"[a-z][a-z0-9_]{0,99}")

EventT = TypeVar("EventT", bound=RecordingEvent | Unrecognized)
Result: TypeAlias = Outcome | None
Handler: TypeAlias = Callable[[EventT, Context], Awaitable[Result] | Result]
Results: TypeAlias = Sequence[Outcome] | None
GroupHandler: TypeAlias = Callable[[list[tuple[EventT, Context]]], Awaitable[Results] | Results]


class Consumer(Struct, frozen=True, kw_only=True):
    """A handler and how it is to be run. Calling it calls the handler.

    `attempts` in all before an event is a dead letter; `timeout_s` for each; at most `concurrency` at once in one
    process. `batch`: the most events that one call takes, as a list; None: it takes one, not in a list. `remember`: a
    completed event is not handled again when it is delivered again within 7 days.
    """

    name: str
    function: Callable[..., Any]
    event_types: tuple[type[Event], ...]
    attempts: int = 8
    timeout_s: float = 60
    concurrency: int = 10
    batch: int | None = None
    remember: bool = True

    def __call__(self, *arguments: Any) -> Any:  # noqa: D102 - the class says it
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
    *, attempts: int = ..., timeout_s: float = ..., concurrency: int = ..., remember: bool = ...
) -> Callable[[Handler[EventT]], Consumer]: ...


@overload
def consumer(
    *, batch: int, attempts: int = ..., timeout_s: float = ..., concurrency: int = ..., remember: bool = ...
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
) -> Consumer | Callable[[Callable[..., Any]], Consumer]:
    """Make a consumer of `async def name(event: SomeEvent, ctx: Context)`, or of a plain `def`.

    The annotation of the first parameter chooses the events: one of the five, a union of them, `RecordingEvent`
    (all five), `Unrecognized` (everything else) or `Event` (all). The function's name names the queue
    (`tiw.<name>`). It returns nothing, or raises or returns an outcome.

    With `batch` it is `async def name(batch: list[tuple[SomeEvent, Context]])`, called with the events that wait
    anyway, 1 to `batch` of them: it never waits for more. It returns None (all are handled) or one outcome for each,
    in their order. If it raises, takes longer than `timeout_s` or returns anything else, each of the events is run
    again alone, so that a bad one fails alone; only what comes of that counts. `concurrency` is then how many such
    groups run at once.

    Raises `DefinitionError` with what to change.
    """

    def define(function: Callable[..., Any]) -> Consumer:
        where = _where(function)
        _check(where, "attempts", attempts, at_least=1, at_most=1000, kind=int)
        _check(where, "timeout_s", timeout_s, at_least=0.001, at_most=MAX_TIMEOUT_S)
        _check(where, "concurrency", concurrency, at_least=1, at_most=1000, kind=int)
        if batch is not None:
            _check(where, "batch", batch, at_least=1, at_most=MAX_BATCH, kind=int)
        return Consumer(
            name=_name(function, where),
            function=function,
            event_types=event_types(function, where) if batch is None else event_types_of_group(function, where),
            attempts=attempts,
            timeout_s=timeout_s,
            concurrency=concurrency,
            batch=batch,
            remember=remember,
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
