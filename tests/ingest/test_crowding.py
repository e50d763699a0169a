"""Who has to go when too much was refused: a flood loses its own, whatever it claims to be."""

from hypothesis import given
from hypothesis import strategies as st

from ingest.connections import SLOT_US, Place, crowded_out

APP = 1400000001


def place(id_: int, *, slot: int = 0, app: int | None = APP, tries: int = 1, size: int = 10) -> Place:
    """Return a place; later ids came later in their slot."""
    return Place(id=id_, received_at_us=slot * SLOT_US + id_, app=app, tries=tries, size_bytes=size)


def staying(places: list[Place], *, limit: int = 1000, limit_bytes: int = 10**9) -> list[int]:
    listed = crowded_out(places, limit=limit, limit_bytes=limit_bytes)
    gone = set(listed)
    assert len(gone) == len(listed)
    return [one.id for one in places if one.id not in gone]


def test_nothing_goes_while_there_is_room() -> None:
    assert staying([place(number) for number in range(1000)]) == list(range(1000))


def test_of_one_crowd_the_last_stay() -> None:
    assert staying([place(number) for number in range(1100)]) == list(range(100, 1100))


def test_what_was_kept_in_other_minutes_stays() -> None:
    real = [place(number, slot=3) for number in range(6)]
    flood = [place(1000 * slot + number, slot=slot) for slot in range(4, 20) for number in range(1000)]
    assert set(staying(real + flood)) >= set(range(6))


def test_applications_that_nobody_configured_do_not_touch_those_that_are() -> None:
    real = [place(number) for number in range(50)]
    rubbish = [place(100 + number, app=None) for number in range(5000)]
    assert set(staying(real + rubbish)) >= set(range(50))


def test_what_came_again_stays_rather_than_what_came_once() -> None:
    real = [place(number, tries=6) for number in range(6)]
    flood = [place(100 + number) for number in range(5000)]
    assert set(staying(real + flood)) >= set(range(6))


def test_of_too_many_bytes_the_largest_go() -> None:
    real = [place(number, size=1000) for number in range(6)]
    flood = [place(100 + number, size=1_000_000) for number in range(40)]
    stay = staying(real + flood, limit_bytes=16_000_000)
    assert set(stay) >= set(range(6))
    assert len(stay) == 6 + 15


places = st.lists(
    st.tuples(
        st.integers(0, 3), st.sampled_from([None, 0, 1]), st.integers(1, 3), st.integers(0, 20)
    ),
    max_size=40,
)  # fmt: skip


@given(places, st.integers(0, 20), st.integers(0, 200))
def test_no_more_goes_than_must(given: list[tuple[int, int | None, int, int]], limit: int, limit_bytes: int) -> None:
    all_places = [
        place(number, slot=slot, app=app, tries=tries, size=size)
        for number, (slot, app, tries, size) in enumerate(given)
    ]
    stay = staying(all_places, limit=limit, limit_bytes=limit_bytes)
    sizes = {one.id: one.size_bytes for one in all_places}
    assert len(stay) <= limit
    assert sum(sizes[id_] for id_ in stay) <= limit_bytes
    if len(all_places) <= limit and sum(sizes.values()) <= limit_bytes:
        assert len(stay) == len(all_places)
    if sum(sizes.values()) <= limit_bytes:
        assert len(stay) == min(limit, len(all_places))
