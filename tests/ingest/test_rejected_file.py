"""The file of rejected callbacks: bounded, private, shared by processes, and no trouble when it is broken."""

import os
import stat
import time
from pathlib import Path

import pytest

import ingest.rejected
from ingest import Rejected, RejectedFileError, read_rejected, remove_rejected
from ingest.rejected import FILE_NAME, MAX_AGE_S, MAX_KEPT_BYTES, keep_rejected

NOW_US = time.time_ns() // 1000
SIGN = b"a2dabb362a9b811c0e26953a6276a41c"


def one(number: int = 0, *, age_s: float = 0, reason: str = "wrong_sign", app: int = 7, padding: int = 0) -> Rejected:
    body = b'{"Sign":"%s","Number":%d}' % (SIGN, number) + b" " * padding
    return Rejected(received_at_us=NOW_US - round(age_s * 1e6), reason=reason, sdk_app_id=app, body=body)


def kept(folder: Path) -> list[Rejected]:
    return [one.rejected for one in read_rejected(folder, now_us=NOW_US)]


def test_nothing_is_kept_and_nothing_made_where_nothing_was_refused(tmp_path: Path) -> None:
    keep_rejected(tmp_path / "rejected", [], now_us=NOW_US)
    assert kept(tmp_path / "rejected") == []
    assert list(tmp_path.iterdir()) == []


def test_what_was_kept_is_read_newest_first(tmp_path: Path) -> None:
    first, second = one(1, age_s=60), one(2)
    keep_rejected(tmp_path, [first, second], now_us=NOW_US)
    assert kept(tmp_path) == [second, first]


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "rejected"
    keep_rejected(folder, [one()], now_us=NOW_US)
    assert stat.S_IMODE((folder / FILE_NAME).stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [path.name for path in folder.iterdir()] == [FILE_NAME]


def test_a_repeated_body_is_kept_once_as_of_its_first_arrival(tmp_path: Path) -> None:
    for age_s in (20, 10, 0):
        keep_rejected(tmp_path, [one(age_s=age_s)], now_us=NOW_US)
    (found,) = kept(tmp_path)
    assert (found.tries, found.received_at_us) == (3, NOW_US - 20_000_000)


def test_what_is_a_day_old_goes_and_its_bytes_too(tmp_path: Path) -> None:
    keep_rejected(tmp_path, [one(age_s=MAX_AGE_S - 1)], now_us=NOW_US)
    assert SIGN in (tmp_path / FILE_NAME).read_bytes()
    assert read_rejected(tmp_path, now_us=NOW_US + 2_000_000) == []
    keep_rejected(tmp_path, [], now_us=NOW_US + 2_000_000)
    assert SIGN not in (tmp_path / FILE_NAME).read_bytes()


def test_what_is_removed_is_overwritten(tmp_path: Path) -> None:
    keep_rejected(tmp_path, [one(1), one(2)], now_us=NOW_US)
    found = read_rejected(tmp_path, now_us=NOW_US)
    remove_rejected(tmp_path, found)
    remove_rejected(tmp_path, found)
    assert kept(tmp_path) == []
    assert SIGN not in (tmp_path / FILE_NAME).read_bytes()


def test_a_file_that_was_replaced_loses_nothing_that_was_not_meant(tmp_path: Path) -> None:
    keep_rejected(tmp_path, [one(1)], now_us=NOW_US)
    found = read_rejected(tmp_path, now_us=NOW_US)
    (tmp_path / FILE_NAME).unlink()
    keep_rejected(tmp_path, [one(2)], now_us=NOW_US)
    remove_rejected(tmp_path, found)
    assert kept(tmp_path) == [one(2)]


def test_it_does_not_grow_beyond_its_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest.rejected, "MAX_KEPT", 20)
    for group in range(5):
        keep_rejected(tmp_path, [one(10 * group + number) for number in range(10)], now_us=NOW_US)
    assert len(kept(tmp_path)) == 20
    padding = MAX_KEPT_BYTES // 10
    keep_rejected(tmp_path, [one(100 + number, padding=padding) for number in range(12)], now_us=NOW_US)
    assert sum(len(rejected.body) for rejected in kept(tmp_path)) <= MAX_KEPT_BYTES
    assert (tmp_path / FILE_NAME).stat().st_size < 2 * MAX_KEPT_BYTES


@pytest.mark.parametrize("content", [b"no database at all, but long enough to look like one" * 100, b"\0" * 8192])
def test_a_damaged_file_is_set_aside_and_goes_after_a_day(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(RejectedFileError, match="is damaged"):
        read_rejected(tmp_path, now_us=NOW_US)
    keep_rejected(tmp_path, [one()], now_us=NOW_US)
    assert kept(tmp_path) == [one()]
    aside = tmp_path / f"{FILE_NAME}.damaged"
    assert aside.read_bytes() == content
    os.utime(aside, (0, NOW_US // 1_000_000 - MAX_AGE_S - 1))
    keep_rejected(tmp_path, [], now_us=NOW_US)
    assert not aside.exists()


def test_the_last_of_a_disk_is_left_to_authentic_callbacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest.rejected, "MIN_FREE_BYTES", 10**18)
    with pytest.raises(RejectedFileError, match="look at its disk's free space"):
        keep_rejected(tmp_path, [one()], now_us=NOW_US)
    assert kept(tmp_path) == []


def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest.rejected, "_SCHEMA_VERSION", 2)
    keep_rejected(tmp_path, [one()], now_us=NOW_US)
    monkeypatch.undo()
    with pytest.raises(RejectedFileError, match="newer version"):
        keep_rejected(tmp_path, [one(1)], now_us=NOW_US)
