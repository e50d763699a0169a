"""Points in time: integers inside (microseconds since the Unix epoch), ISO 8601 text in JSON."""

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def iso8601(at_us: int) -> str:
    """Return a point in time, in microseconds since the Unix epoch, as `2026-01-01T00:00:00.000000Z`.

    Always 27 characters for years with four digits, so that texts sort as the times do.
    """
    at = _EPOCH + timedelta(microseconds=at_us)
    return at.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"
