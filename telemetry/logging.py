"""Logs: one line per event on standard error, as JSON or for a terminal.

The first rule is not to log secrets at all. `presentable` catches what slips through in the messages of libraries.
"""

import logging
import math
import os
import re
import select
import stat
import sys
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal, TextIO, TypeAlias, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

#: Longer values are cut, and say so.
MAX_CHARACTERS = 500

#: What is looked at of a longer text before it is cut: enough to find a secret that straddles the cut.
_MAX_EXAMINED = 8 * MAX_CHARACTERS

#: Of a text that somebody's code makes.
_MAX_TEXT = 1_000_000

_URL_CREDENTIALS = re.compile(r"(?<=://)[^\s/]+@")
_NAMED_SECRET = re.compile(
    r"""(?<![A-Za-z0-9])(Sign|CallbackKey|TIW_CALLBACK_KEYS|SecretKey|TIW_VENDOR_SECRET_KEY)  # no end of another word
        (\\*["']?\s{0,8}[:=]\s{0,8})                           # how it is given: JSON, escaped JSON, a query
        (?:\\*"[^"]*+"?|\\*'[^']*+'?|[^\s,;&}\])]++)           # its value""",
    re.VERBOSE | re.IGNORECASE,
)


def presentable(text: str) -> str:
    """Return `text` as it may be shown in a log: secrets as `***`, on one line, at most about 500 characters.

    Redacted are credentials in URLs and the values of Sign, CallbackKey and SecretKey, as JSON or as `name=value`.
    Characters that a terminal or an editor would obey instead of show (control characters, escape sequences,
    bidirectional overrides, unpaired surrogates) are written as Python escapes.
    """
    if len(text) <= MAX_CHARACTERS and ":" not in text and "=" not in text and text.isprintable():
        # Nothing in it can be a secret's name and value: a glance instead of a search, for each value of each line.
        return text
    cut = text[:_MAX_EXAMINED]
    if "://" in cut:
        cut = _URL_CREDENTIALS.sub("***@", cut)
    cut = _NAMED_SECRET.sub(r"\1\2***", cut)
    omitted = max(len(text) - _MAX_EXAMINED, 0) + max(len(cut) - MAX_CHARACTERS, 0)
    cut = cut[:MAX_CHARACTERS]
    if not cut.isprintable():
        cut = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)
    return f"{cut}... ({omitted} more)" if omitted else cut


LogFormat: TypeAlias = Literal["console", "json"]

#: Values that bear these names are never shown, whatever they hold.
SECRET_NAMES = frozenset(
    {
        "sign",
        "callback_key",
        "callback_keys",
        "key",
        "keys",
        "password",
        "path_token",
        "secret_id",
        "secret_key",
        "token",
    }
)

_MAX_FRAMES = 20
_MAX_DEPTH = 4


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
    output = cast("TextIO", LogOutput(sys.stderr))
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(output),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)


#: What a pipe takes without waiting if it takes anything, and in one piece: PIPE_BUF of pipe(7).
_PIECE_BYTES = 4096

#: How long a reader of the log may hold up the process before lines are left out.
_PATIENCE_MS = 100


class LogOutput:
    """Writes lines to `stream`, and never fails or waits for long: a log must not stop what it tells of.

    A pipe whose reader sleeps gets no more until it takes something again, and then how many lines were left out. A
    terminal that is closed, or a full disk, loses the lines.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._is_stuck = False
        self._left_out = 0
        self._poll: select.poll | None = None
        with suppress(AttributeError, OSError, ValueError):  # None, or not a file
            descriptor = cast("TextIO", stream).fileno()
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                self._poll = select.poll()
                self._poll.register(descriptor, select.POLLOUT)

    def write(self, text: str) -> int:
        """Write `text` now, or leave it out."""
        if self._stream is None:
            return len(text)
        try:
            if self._left_out and self._can_write():
                left_out, self._left_out = self._left_out, 0
                self._stream.write(f'{{"event": "log_lines_left_out", "level": "warning", "count": {left_out}}}\n')
            for start in range(0, len(text), _PIECE_BYTES // 4):
                if not self._can_write():
                    self._left_out += 1
                    break
                # A character has up to four bytes.
                self._stream.write(text[start : start + _PIECE_BYTES // 4])
                self._stream.flush()
        except (OSError, ValueError):  # ValueError: it is closed
            self._left_out += 1
        return len(text)

    def flush(self) -> None:
        """Do nothing: what was written is written."""

    def _can_write(self) -> bool:
        if self._poll is None:
            return True
        events = self._poll.poll(0 if self._is_stuck else _PATIENCE_MS)
        # What is broken says so when it is written to.
        self._is_stuck = not events
        return not self._is_stuck


def locations(error: BaseException) -> list[str]:
    """Return where `error` came from, one `file:line function` per frame, the innermost last."""
    frames = traceback.extract_tb(error.__traceback__)[-_MAX_FRAMES:]
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]


def _renderer(format: LogFormat) -> Processor:  # noqa: A002 - as in configure_logging
    if format == "json":
        return structlog.processors.JSONRenderer()
    return structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=32
    )


def _describe_exception(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Replace exc_info by what may be shown of it."""
    del logger, method
    error = _error(event.pop("exc_info", None))
    if error is not None:
        event["exception"] = f"{type(error).__name__}: {_text(error)}"
        event["frames"] = locations(error)
        if error.__cause__ is not None:
            event["cause"] = f"{type(error.__cause__).__name__}: {_text(error.__cause__)}"
    return event


class Throttle:
    """Lets something be logged at most once in `every_s`: what may be wrong with each callback fills no log."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._passed_s = -math.inf

    def passes(self) -> bool:
        """Say whether it may be logged now; if so, the time begins anew."""
        now_s = time.monotonic()
        if now_s - self._passed_s < self._every_s:
            return False
        self._passed_s = now_s
        return True


def _error(exc_info: Any) -> BaseException | None:
    """Return the exception meant by what loggers take as exc_info: it, a tuple with it, or True for the current one."""
    if isinstance(exc_info, BaseException):
        return exc_info
    if not exc_info:
        return None
    error = (exc_info if isinstance(exc_info, tuple) else sys.exc_info())[1]
    return error if isinstance(error, BaseException) else None


def _make_presentable(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    del logger, method
    # Keys with an underscore in front belong to structlog itself.
    return {name: value if name.startswith("_") else _shown(name, value, _MAX_DEPTH) for name, value in event.items()}


def _shown(name: str, value: Any, depth: int) -> Any:
    is_secret = name.lower() in SECRET_NAMES
    if is_secret or type(value) is str:  # as most are
        return "***" if is_secret else presentable(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return f"({len(value)} bytes)"  # a body looks like this
    if depth and isinstance(value, Mapping):
        return {presentable(_text(key)): _shown(_text(key), item, depth - 1) for key, item in value.items()}
    if depth and isinstance(value, list | tuple | set | frozenset):
        return [_shown("", item, depth - 1) for item in value]
    return presentable(_text(value))


def _text(value: object) -> str:
    """Return a value as text. To log something must not fail, and users' code makes some of the texts."""
    try:
        return str(value)[:_MAX_TEXT]
    except BaseException:  # noqa: BLE001 - as said
        return "(its text cannot be made)"
