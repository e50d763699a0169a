"""Whatever happens to a file, every record in it that was not touched is read."""

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st

from ingest.spool.format import (
    Kind,
    Record,
    Refused,
    read_contents,
    render,
    render_record,
    render_refused,
    render_settled,
)
from tests.ingest.spool.messages import message

MARKER = bytes(range(8))


def record(sequence: int, body: bytes = b"x") -> Record:
    return Record(sequence=sequence, spooled_at_us=1, message=message(f"{sequence}", size_bytes=len(body)))


@given(sizes=st.lists(st.integers(0, 500), max_size=20), settled=st.sets(st.integers(0, 19)))
def test_what_is_written_is_read(sizes: list[int], settled: set[int]) -> None:
    records = [record(number, b"x" * size) for number, size in enumerate(sizes)]
    data = b"".join(render_record(MARKER, one) for one in records) + render_settled(MARKER, sorted(settled))
    contents = read_contents(data, MARKER)
    assert contents.pending == [one for one in records if one.sequence not in settled]
    assert (contents.damaged_bytes, contents.torn_bytes, contents.unknown_frames) == (0, 0, 0)


@given(
    sizes=st.lists(st.integers(0, 300), min_size=1, max_size=12),
    start=st.integers(0, 5000),
    cut=st.integers(0, 400),
    put=st.binary(max_size=400),
)
@example(sizes=[10, 10, 10], start=0, cut=1, put=b"")
@example(sizes=[10, 10, 10], start=100, cut=0, put=MARKER)
def test_bytes_cut_out_changed_or_put_in_anywhere_take_no_record_with_them_but_those_they_touch(
    sizes: list[int], start: int, cut: int, put: bytes
) -> None:
    frames = [render_record(MARKER, record(number, b"x" * size)) for number, size in enumerate(sizes)]
    data = b"".join(frames)
    start = min(start, len(data))
    end = min(start + cut, len(data))
    untouched, position = [], 0
    for number, frame in enumerate(frames):
        if position + len(frame) <= start or position >= end:
            untouched.append(number)
        position += len(frame)
    contents = read_contents(data[:start] + put + data[end:], MARKER)
    read = [one.sequence for one in contents.pending]
    assert set(untouched) <= set(read)
    assert all(one == record(one.sequence, b"x" * sizes[one.sequence]) for one in contents.pending)


@given(data=st.binary(max_size=2000), marker=st.sampled_from([MARKER, b"\0" * 8]))
def test_no_bytes_make_reading_fail(data: bytes, marker: bytes) -> None:
    contents = read_contents(marker + data + marker, marker)
    assert contents.damaged_bytes + contents.torn_bytes > 0


@given(length=st.integers(0, 10_000))
def test_a_write_that_was_cut_off_is_no_damage(length: int) -> None:
    data = b"".join(render_record(MARKER, record(number, b"x" * 100)) for number in range(20))
    contents = read_contents(data[:length], MARKER)
    assert contents.damaged_bytes == 0
    assert [one.sequence for one in contents.pending] == list(range(len(contents.pending)))


def test_a_frame_inside_a_body_is_not_taken_for_one_even_if_what_is_around_it_is_damaged() -> None:
    forged = render_record(b"attacker", record(666))
    carrying = msgspec.structs.replace(message("1"), body=forged)
    outer = Record(sequence=1, spooled_at_us=1, message=carrying)
    data = render_record(MARKER, outer)
    assert read_contents(data, MARKER).pending == [outer]
    assert read_contents(data[:30] + b"\0" + data[31:], MARKER).pending == []


def test_the_last_count_of_refusals_holds() -> None:
    data = render_record(MARKER, record(1))
    for refusals in (1, 2, 3):
        data += render_refused(MARKER, Refused(sequence=1, refusals=refusals, reason="no"))
    contents = read_contents(data, MARKER)
    assert contents.refused[1].refusals == 3


def test_what_a_newer_version_wrote_is_counted_and_takes_nothing_with_it() -> None:
    newer = render(MARKER, 9, b"{}") + render(MARKER, Kind.RECORD, b"\xc1")  # type: ignore[arg-type]  # it is newer
    contents = read_contents(render_record(MARKER, record(1)) + newer + render_record(MARKER, record(2)), MARKER)
    assert ([one.sequence for one in contents.pending], contents.unknown_frames) == ([1, 2], 2)
