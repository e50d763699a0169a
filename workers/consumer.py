"""`@consumer`: from a function to a consumer, with a queue, attempts and a time-out of its own."""

import inspect
import re
import types
import typing
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, TypeVar, Union, get_args, get_origin, overload

from msgspec import Struct

from broker import RESERVED_NAMES, ConsumerQueues
from schemas import EVENT_TYPES, UNRECOGNIZED, Event, RecordingEvent, Unrecognized
from workers.context import Context
from workers.errors import DefinitionError
from workers.outcomes import Outcome

#: RabbitMQ closes the channel of a delivery that is not settled within 30 minutes:
#: https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout
MAX_TIMEOUT_S = 1500

_ROUTING_KEYS: dict[type, str] = {kind: name for name, kind in EVENT_TYPES.items()} | {Unrecognized: UNRECOGNIZED}
_NAME = re.compile(r"[a-z][a-z0-9_]{0,99}")

EventT = TypeVar("EventT", bound=RecordingEvent | Unrecognized)
Result: TypeAlias = Outcome | None
Handler: TypeAlias = Callable[[EventT, Context], Awaitable[Result] | Result]


class Consumer(Struct, frozen=True, kw_only=True):
    """A handler and how it is to be run. Calling it calls the handler.

    `attempts` in all before an event is a dead letter; `timeout_s` for each; at most `concurrency` at once in one
    process. `remember`: a completed event is not handled again when it is delivered again within 7 days.
    """

    name: str
    function: Callable[..., Any]
    event_types: tuple[type[Event], ...]
    attempts: int = 8
    timeout_s: float = 60
    concurrency: int = 10
    remember: bool = True

    def __call__(self, event: Event, context: Context) -> Any:  # noqa: D102 - the class says it
        return self.function(event, context)

    @property
    def is_async(self) -> bool:
        """Whether the handler runs on the event loop; a plain function runs in a thread."""
        return inspect.iscoroutinefunction(self.function)

    @property
    def routing_keys(self) -> tuple[str, ...]:
        """The routing keys of the events it takes."""
        return tuple(_ROUTING_KEYS[kind] for kind in self.event_types)

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


def consumer(
    function: Callable[..., Any] | None = None,
    /,
    *,
    attempts: int = 8,
    timeout_s: float = 60,
    concurrency: int = 10,
    remember: bool = True,
) -> Consumer | Callable[[Callable[..., Any]], Consumer]:
    """Make a consumer of `async def name(event: SomeEvent, ctx: Context)`, or of a plain `def`.

    The annotation of the first parameter chooses the events: one of the five, a union of them, `RecordingEvent`
    (all five), `Unrecognized` (everything else) or `Event` (all). The function's name names the queue
    (`tiw.<name>`). Raises `DefinitionError` with what to change.
    """

    def define(function: Callable[..., Any]) -> Consumer:
        where = _where(function)
        _check(where, "attempts", attempts, at_least=1, at_most=1000)
        _check(where, "timeout_s", timeout_s, at_least=0.001, at_most=MAX_TIMEOUT_S)
        _check(where, "concurrency", concurrency, at_least=1, at_most=1000)
        return Consumer(
            name=_name(function, where),
            function=function,
            event_types=_event_types(function, where),
            attempts=attempts,
            timeout_s=timeout_s,
            concurrency=concurrency,
            remember=remember,
        )

    return define if function is None else define(function)


def _where(function: Callable[..., Any]) -> str:
    code = getattr(function, "__code__", None)
    if code is None:
        raise DefinitionError(f"@consumer stands on {function!r}: put it on a function (def or async def)")
    return f"{code.co_filename}:{code.co_firstlineno}: consumer {function.__name__}"


def _check(where: str, name: str, value: object, *, at_least: float, at_most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not at_least <= value <= at_most:
        raise DefinitionError(f"{where}: {name} must be between {at_least} and {at_most}, not {value!r}")


def _name(function: Callable[..., Any], where: str) -> str:
    name = function.__name__
    if not _NAME.fullmatch(name):
        raise DefinitionError(f"{where}: the name becomes a queue's: use lower-case letters, digits and _, at most 100")
    if name in RESERVED_NAMES:
        raise DefinitionError(f"{where}: the names {', '.join(sorted(RESERVED_NAMES))} are taken: rename the function")
    return name


def _event_types(function: Callable[..., Any], where: str) -> tuple[type[Event], ...]:
    parameters = list(inspect.signature(function).parameters.values())
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if len(parameters) != 2 or any(p.kind not in positional for p in parameters):  # noqa: PLR2004 - event and context
        raise DefinitionError(f"{where}: must take two parameters: (event: SomeEvent, ctx: Context)")
    try:
        annotation = typing.get_type_hints(function).get(parameters[0].name)
    except Exception as error:  # annotations are code and may raise anything
        raise DefinitionError(f"{where}: its annotations cannot be read: {error}") from error
    if annotation is None:
        raise DefinitionError(
            f"{where}: annotate {parameters[0].name!r} with the events it takes, such as OnlineRecordFinished"
        )
    kinds = tuple(dict.fromkeys(_kinds(annotation, where)))
    return tuple(kind for kind in _ROUTING_KEYS if kind in kinds)


def _kinds(annotation: Any, where: str) -> list[type[Event]]:
    if get_origin(annotation) in (Union, types.UnionType):
        return [kind for part in get_args(annotation) for kind in _kinds(part, where)]
    if annotation is RecordingEvent:
        return list(EVENT_TYPES.values())
    if annotation not in _ROUTING_KEYS:
        names = ", ".join(kind.__name__ for kind in _ROUTING_KEYS)
        raise DefinitionError(f"{where}: {annotation!r} is not an event. Events are {names}")
    return [annotation]
