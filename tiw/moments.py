"""Points in time on the command line."""

import re
import time
from datetime import UTC, datetime, timedelta

from tiw.errors import UsageError

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def parse_since_us(text: str | None) -> int | None:
    """Return microseconds since the Unix epoch of an ISO 8601 moment (UTC unless it says otherwise) or an age."""
    if text is None:
        return None
    age = re.fullmatch(r"([0-9]{1,9})([smhdw])", text)
    if age:
        return max(0, time.time_ns() // 1000 - int(age[1]) * _UNITS_S[age[2]] * 1_000_000)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"--since takes 2026-11-23, 2026-11-23T10:00Z, or an age such as 90m, 12h, 3d, not {text!r}"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1_000_000)


def show_unix_s(timestamp: int | None) -> str:
    """Return Unix seconds as a person reads them, in UTC; what is no date is shown as the number it is."""
    if not timestamp:
        return ""
    try:
        return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return str(timestamp)


def show_iso(moment: str) -> str:
    """Shorten `2026-01-01T00:00:00.000000Z` to seconds."""
    return moment[:19].replace("T", " ")


def iso_of_us(moment_us: int) -> str:
    """Return microseconds since the Unix epoch as `2026-01-01T00:00:00.000000Z`."""
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=moment_us)
    return at.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def show_duration_ms(duration_ms: int | None) -> str:
    """Return a length of time as h:mm:ss."""
    if duration_ms is None:
        return ""
    seconds = round(abs(duration_ms) / 1000)
    sign = "-" if duration_ms < 0 else ""
    return f"{sign}{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def show_bytes(size: int | None) -> str:
    """Return a size with a unit."""
    if size is None:
        return ""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"
