"""Points in time, lengths and sizes as a person writes and reads them."""

import time

import pytest

from tiw.output import parse_since_us, show_bytes, show_duration_ms, show_iso, show_unix_s
from tiw.settings import UsageError

NEW_YEAR_US = 1_767_225_600_000_000


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-01",
        "2026-01-01T00:00",
        "2026-01-01T00:00:00Z",
        "2026-01-01 00:00:00.000000+00:00",
        "2026-01-01T08:00+08:00",
        "2025-12-31T19:00-05:00",
    ],
)
def test_a_moment_is_utc_unless_it_says_otherwise(text: str) -> None:
    assert parse_since_us(text) == NEW_YEAR_US


@pytest.mark.parametrize(
    ("age", "seconds"), [("90s", 90), ("90m", 5400), ("12h", 43_200), ("3d", 259_200), ("1w", 604_800), ("0s", 0)]
)
def test_an_age_is_counted_from_now(age: str, seconds: int) -> None:
    before_us = time.time_ns() // 1000
    since_us = parse_since_us(age)
    assert since_us is not None
    assert before_us <= since_us + seconds * 1_000_000 <= time.time_ns() // 1000


def test_nothing_is_nothing() -> None:
    assert parse_since_us(None) is None


@pytest.mark.parametrize("text", ["999999999w", "0001-01-01", "9999-12-31T23:59:59", "0001-01-01T00:00+14:00"])
def test_any_moment_fits_a_column_of_a_database(text: str) -> None:
    since_us = parse_since_us(text)
    assert since_us is not None
    assert -(2**63) <= since_us < 2**63


@pytest.mark.parametrize(
    "text", ["", "yesterday", "3", "3y", "-3d", "1.5h", "2026-13-01", "2026-01-01T25:00", "\u0663d"]
)
def test_anything_else_is_refused_with_examples(text: str) -> None:
    with pytest.raises(UsageError, match="--since takes 2026-11-23, 2026-11-23T10:00Z, or an age such as 90m"):
        parse_since_us(text)


@pytest.mark.parametrize(
    ("timestamp", "shown"),
    [
        (None, ""),
        (0, ""),
        (1_575_545_412, "2019-12-05 11:30:12"),
        (-1, "1969-12-31 23:59:59"),
        (2**63 - 1, str(2**63 - 1)),
        (-(2**63), str(-(2**63))),
    ],
)
def test_unix_seconds_are_shown_in_utc(timestamp: int | None, shown: str) -> None:
    assert show_unix_s(timestamp) == shown


def test_a_moment_is_shortened_to_seconds() -> None:
    assert show_iso("2026-01-01T00:00:00.000000Z") == "2026-01-01 00:00:00"


@pytest.mark.parametrize(
    ("duration_ms", "shown"),
    [
        (None, ""),
        (0, "0:00:00"),
        (999, "0:00:01"),
        (18_317, "0:00:18"),
        (86_400_000, "24:00:00"),
        (-61_000, "-0:01:01"),
    ],
)
def test_a_length_is_hours_minutes_seconds(duration_ms: int | None, shown: str) -> None:
    assert show_duration_ms(duration_ms) == shown


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (None, ""),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (593_418, "593.4 kB"),
        (2_500_000_000, "2.5 GB"),
        (-5, "-5 B"),
    ],
)
def test_a_size_has_a_unit(size: int | None, shown: str) -> None:
    assert show_bytes(size) == shown
