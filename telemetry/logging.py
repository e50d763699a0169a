"""Logs: one line per event on standard error, as JSON or for a terminal."""

import logging
import sys
import traceback
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal, TypeAlias

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from telemetry.redaction import presentable

LogFormat: TypeAlias = Literal["console", "json"]

#: Values that bear these names are never shown, whatever they hold.
SECRET_NAMES = frozenset({"sign", "callback_key", "callback_keys", "key", "keys", "password", "path_token", "token"})

_MAX_FRAMES = 20
_MAX_DEPTH = 4
_ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None]


def configure_logging(format: LogFormat, *, level: int = logging.INFO) -> None:  # noqa: A002 - what it is called everywhere
    """Send structlog's events from `level` on, and warnings of libraries, to standard error.

    `console` has colours only on a terminal; `json` is one object per line. Both pass every value through
    `presentable`. Exceptions appear as `exception` (type and message) and `frames` (locations, innermost last);
    local variables never do. May be called again: the last call wins.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _describe_exception,
        _make_presentable,
    ]
    renderer = _renderer(format)
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)


def _renderer(format: LogFormat) -> Processor:  # noqa: A002 - as in configure_logging
    if format == "json":
        return structlog.processors.JSONRenderer()
    return structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=32
    )


def _describe_exception(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Replace exc_info by what may be shown of it."""
    del logger, method
    exc_info = _exc_info(event.pop("exc_info", None))
    if exc_info is not None:
        kind, error, trace = exc_info
        event["exception"] = f"{kind.__name__}: {error}"
        event["frames"] = [
            f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(trace)[-_MAX_FRAMES:]
        ]
        if error.__cause__ is not None:
            event["cause"] = f"{type(error.__cause__).__name__}: {error.__cause__}"
    return event


def _exc_info(value: Any) -> _ExcInfo | None:
    if isinstance(value, BaseException):
        return type(value), value, value.__traceback__
    if not value:
        return None
    kind, error, trace = value if isinstance(value, tuple) else sys.exc_info()
    return None if kind is None or error is None else (kind, error, trace)


def _make_presentable(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    del logger, method
    # Keys with an underscore in front belong to structlog itself.
    return {name: value if name.startswith("_") else _shown(name, value, _MAX_DEPTH) for name, value in event.items()}


def _shown(name: str, value: Any, depth: int) -> Any:
    if name.lower() in SECRET_NAMES:
        return "***"
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return f"({len(value)} bytes)"  # a body looks like this
    if depth and isinstance(value, Mapping):
        return {presentable(str(key)): _shown(str(key), item, depth - 1) for key, item in value.items()}
    if depth and isinstance(value, list | tuple | set | frozenset):
        return [_shown("", item, depth - 1) for item in value]
    return presentable(str(value))
