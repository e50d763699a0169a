"""A callback's trace: a proxy's, if it is one, else a new one."""

import re

import pytest

from ingest.request import traceparent

GIVEN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_a_trace_that_was_begun_goes_on() -> None:
    assert traceparent(GIVEN) == GIVEN


@pytest.mark.parametrize(
    "received",
    [None, "", "00", GIVEN.upper(), GIVEN + "\n", "01" + GIVEN[2:], f"00-{32 * '0'}-00f067aa0ba902b7-01", "x" * 10_000],
)
def test_anything_else_begins_a_new_one(received: str | None) -> None:
    first, second = traceparent(received), traceparent(received)

    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", first)
    assert first not in (received, second)
