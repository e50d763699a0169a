"""Who has to go when too much was refused: a flood loses its own, whatever it claims to be."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ingest.rejected
from ingest import Rejected, read_rejected
from ingest.rejected import MAX_KEPT, SLOT_US, keep_rejected

APP = 1400000001


def refused(number: int, *, slot: int = 0, app: int | None = APP, tries: int = 1, size: int = 10) -> Rejected:
    """Return a refused callback; later numbers came later in their slot. `app` None: one that is not configured."""
    return Rejected(
        received_at_us=slot * SLOT_US + number,
        reason="unknown_app" if app is None else "wrong_sign",
        sdk_app_id=number if app is None else app,
        body=b"%010d" % number + b" " * (size - 10),
        tries=tries,
    )


def staying(given: Iterable[Rejected]) -> list[int]:
    """Return the numbers of those that stay, in their order."""
    with tempfile.TemporaryDirectory() as folder:
        keep_rejected(Path(folder), given, now_us=0)
        return sorted(int(one.rejected.body) for one in read_rejected(Path(folder), now_us=0))


def test_nothing_goes_while_there_is_room() -> None:
    assert staying(map(refused, range(MAX_KEPT))) == list(range(MAX_KEPT))


def test_of_one_flood_the_last_stay() -> None:
    assert staying(map(refused, range(MAX_KEPT + 100))) == list(range(100, MAX_KEPT + 100))


def test_what_was_kept_in_other_minutes_stays() -> None:
    real = [refused(number, slot=3) for number in range(6)]
    flood = [refused(1000 * slot + number, slot=slot) for slot in range(4, 20) for number in range(1000)]
    assert set(staying(real + flood)) >= set(range(6))


def test_applications_that_nobody_configured_do_not_touch_those_that_are() -> None:
    real = [refused(number) for number in range(50)]
    rubbish = [refused(100 + number, app=None) for number in range(5000)]
    assert set(staying(real + rubbish)) >= set(range(50))


def test_what_came_again_stays_rather_than_what_came_once() -> None:
    real = [refused(number, tries=6) for number in range(6)]
    flood = [refused(100 + number) for number in range(5000)]
    assert set(staying(real + flood)) >= set(range(6))


def test_of_too_many_bytes_the_largest_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest.rejected, "MAX_KEPT_BYTES", 1_600_000)
    real = [refused(number, size=1000) for number in range(6)]
    flood = [refused(100 + number, size=100_000) for number in range(40)]
    stay = staying(real + flood)
    assert set(stay) >= set(range(6))
    assert len(stay) == 6 + 15


groups = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from([None, 0, 1]), st.integers(1, 3), st.integers(10, 30)), max_size=40
)


@settings(max_examples=50, deadline=None)
@given(groups, st.integers(0, 20), st.integers(0, 400))
def test_no_more_goes_than_must(given: list[tuple[int, int | None, int, int]], limit: int, limit_bytes: int) -> None:
    everything = [
        refused(number, slot=slot, app=app, tries=tries, size=size)
        for number, (slot, app, tries, size) in enumerate(given)
    ]
    sizes = [len(one.body) for one in everything]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest.rejected, "MAX_KEPT", limit)
        patch.setattr(ingest.rejected, "MAX_KEPT_BYTES", limit_bytes)
        stay = staying(everything)
    assert len(stay) <= limit
    assert sum(sizes[number] for number in stay) <= limit_bytes
    if len(everything) <= limit and sum(sizes) <= limit_bytes:
        assert len(stay) == len(everything)
    if sum(sizes) <= limit_bytes:
        assert len(stay) == min(limit, len(everything))
