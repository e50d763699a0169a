import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.tables import iso8601, storable


@pytest.mark.parametrize(
    ("at_us", "expected"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (1_767_225_600_000_000, "2026-01-01T00:00:00.000000Z"),
        (1_767_225_600_123_456, "2026-01-01T00:00:00.123456Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
    ],
)
def test_a_time_is_shown_to_the_microsecond(at_us: int, expected: str) -> None:
    assert iso8601(at_us) == expected


@given(st.text(st.characters(codec=None)))
def test_storable_text_is_utf_8_without_nul_and_else_the_same(text: str) -> None:
    stored = storable(text)
    stored.encode()
    assert "\0" not in stored
    if "\0" not in text and not any("\ud800" <= c <= "\udfff" for c in text):
        assert stored == text


def test_what_cannot_be_stored_is_marked() -> None:
    assert storable("a\0b\ud800c") == "a\ufffdb\ufffdc"
