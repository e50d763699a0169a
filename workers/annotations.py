"""Which events a handler takes, read from the annotation of its first parameter."""

import inspect
import types
import typing
from collections.abc import Callable
from typing import Any, Union, get_args, get_origin

from schemas import EVENT_TYPES, UNRECOGNIZED, Event, RecordingEvent, Unrecognized
from workers.context import Context
from workers.errors import DefinitionError

#: The routing key of each kind of event.
ROUTING_KEYS: dict[type[Event], str] = {kind: name for name, kind in EVENT_TYPES.items()} | {Unrecognized: UNRECOGNIZED}

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
    (pair,) = get_args(annotation) if _is_list(annotation) else (None,)
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
    return get_origin(annotation) is list


def _kinds(annotation: Any, where: str) -> list[type[Event]]:
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
