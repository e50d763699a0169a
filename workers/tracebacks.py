"""Where a handler failed, as text that travels with its event and is kept with its dead letter.

Frames and the one-line texts of errors, as Python shows them; never local variables. Errors' texts are those of
reasons: one line, cut. What looks like a secret, in a line of code or in a text, is left out as it is of logs.
"""

import linecache
import sysconfig
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType

from broker import MAX_TRACEBACK_BYTES
from telemetry import presentable
from workers.api import describe

_CAUSED = "The above exception was the direct cause of the following exception:"
_DURING = "During handling of the above exception, another exception occurred:"
_CUT = "(the beginning is left out)\n"

#: The innermost of each error; the others are mostly of libraries that call libraries.
_MAX_FRAMES = 40
#: Of a chain of causes, and of groups within groups.
_MAX_DEPTH = 5
_MAX_IN_GROUP = 5

_PRODUCT = Path(__file__).resolve().parent.parent
#: What calls handlers, and says nothing of them.
_CALLER = str(_PRODUCT / "workers" / "slots.py")
#: What paths are shortened by: the longest that fits.
_FOLDERS = sorted(
    {
        *(f"{place}/" for place in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), _PRODUCT)),
        f"{Path(sysconfig.get_path('stdlib')).parent}/",
    },
    key=len,
    reverse=True,
)


def traceback_of(error: BaseException) -> str:
    """Return where an error was raised, its causes first, in at most `MAX_TRACEBACK_BYTES` of UTF-8: the end of it.

    There is neither NUL nor an unpaired surrogate in it. Never raises: empty if nothing can be said.
    """
    try:
        text = "\n".join(_lines(error, _MAX_DEPTH))
        encoded = str.encode(text.replace("\0", " "), "utf-8", "replace")
    except BaseException:  # noqa: BLE001 - errors are made by users' code, which may do anything when looked at
        return ""
    if len(encoded) > MAX_TRACEBACK_BYTES:
        kept = encoded[len(_CUT) - MAX_TRACEBACK_BYTES :]
        # From the beginning of a line on, unless there is none.
        encoded = _CUT.encode() + (kept.partition(b"\n")[2] or kept)
    return encoded.decode(errors="ignore")


def _lines(error: BaseException, depth: int) -> Iterator[str]:
    cause = error.__cause__
    context = None if cause is not None or error.__suppress_context__ else error.__context__
    before = context if cause is None else cause
    if before is not None and depth:
        yield from _lines(before, depth - 1)
        yield f"\n{_DURING if cause is None else _CAUSED}\n"
    yield from _frames(error.__traceback__)
    yield presentable(describe(error))
    if isinstance(error, BaseExceptionGroup) and depth:
        for number, one in enumerate(error.exceptions[:_MAX_IN_GROUP], 1):
            yield f"  {number} of {len(error.exceptions)}:"
            yield from (f"    {line}" for text in _lines(one, depth - 1) for line in text.split("\n"))


def _frames(raised_at: TracebackType | None) -> Iterator[str]:
    # As `traceback.extract_tb`, which takes many times as long: it looks at each file anew, and at the columns.
    places: deque[tuple[FrameType, int]] = deque(maxlen=_MAX_FRAMES)
    while raised_at is not None:
        if places or raised_at.tb_frame.f_code.co_filename != _CALLER:
            places.append((raised_at.tb_frame, raised_at.tb_lineno))
        raised_at = raised_at.tb_next
    if places:
        yield "Traceback (most recent call last):"
    for frame, number in places:
        path = frame.f_code.co_filename
        yield f'  File "{_shortened(path)}", line {number}, in {frame.f_code.co_name}'
        line = linecache.getline(path, number, frame.f_globals).strip()
        if line:
            yield f"    {presentable(line)}"


def _shortened(path: str) -> str:
    for folder in _FOLDERS:
        if path.startswith(folder):
            return path[len(folder) :]
    return path
