"""A rotation goes on where it was, wherever it was broken off, and keeps no key but in the file of keys."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiw.key_rotation import ROTATIONS_FILE, Rotation, Rotations, Step, begin, key_to_retire, new_key_of, next_step
from tiw.settings import FailedError
from tiw.vendor import digest

APP = 1400000001
OLD, NEW, OTHER = "0" * 8 + "old-key-of-the-vendor", "1" * 8 + "new-key", "2" * 8 + "another-family"
DAY_S = 86_400


def step(rotation: Rotation | None, accepted: tuple[str, ...], theirs: str, now_s: float = 0.0) -> Step:
    return next_step(rotation, accepted, theirs, wait_s=DAY_S, now_s=now_s)


def test_the_steps_of_a_rotation_follow_each_other() -> None:
    rotation = begin(NEW, OLD, (OTHER, OLD))
    both = (OTHER, OLD, NEW)
    assert step(None, (OTHER, OLD), OLD) is Step.BEGIN
    assert step(rotation, both, OLD) is Step.SET
    rotation = Rotation(new=rotation.new, old=rotation.old, set_at=1000.0)
    assert step(rotation, both, NEW, 1000.0 + DAY_S - 1) is Step.WAIT
    assert step(rotation, both, NEW, 1000.0 + DAY_S) is Step.RETIRE
    assert (key_to_retire(rotation, both), new_key_of(rotation, both)) == (2, NEW)


def test_a_rotation_that_was_broken_off_goes_on() -> None:
    rotation = begin(NEW, OLD, (OLD,))
    assert step(rotation, (OLD,), OLD) is Step.BEGIN, "noted, but the key was not added"
    assert step(rotation, (OLD, NEW), NEW) is Step.WAIT, "set, but not noted"
    assert step(Rotation(new=rotation.new, old=rotation.old, set_at=1.0), (NEW,), NEW, DAY_S * 2) is Step.RETIRE
    assert key_to_retire(rotation, (NEW,)) is None, "retired, but not noted"


def test_a_key_that_somebody_else_gave_to_the_vendor_is_not_replaced_and_nothing_is_retired() -> None:
    rotation = Rotation(new=digest(NEW), old=digest(OLD), set_at=1.0)
    for now_s in (2.0, DAY_S * 9.0):
        assert step(rotation, (OLD, NEW), OTHER, now_s) is Step.FOREIGN


def test_where_the_vendor_has_no_key_of_ours_none_is_retired() -> None:
    for theirs in ("", OTHER):
        assert key_to_retire(begin(NEW, theirs, (OLD,)), (OLD, NEW)) is None


_keys = st.sampled_from([OLD, NEW, OTHER, ""])


@given(
    st.none()
    | st.builds(Rotation, new=_keys.map(digest), old=st.none() | _keys.map(digest), set_at=st.none() | st.floats()),
    st.lists(_keys, unique=True, max_size=4).map(tuple),
    _keys,
    st.floats(),
)
def test_nothing_is_retired_unless_the_vendor_signs_with_a_key_that_stays(
    rotation: Rotation | None, accepted: tuple[str, ...], theirs: str, now_s: float
) -> None:
    if step(rotation, accepted, theirs, now_s) is not Step.RETIRE:
        return
    assert rotation is not None
    retired = key_to_retire(rotation, accepted)
    left = [key for number, key in enumerate(accepted, start=1) if number != retired]
    assert theirs in left or rotation.old == rotation.new


def test_how_far_a_rotation_has_come_is_kept_without_its_keys_and_for_its_owner_alone(tmp_path: Path) -> None:
    rotations = Rotations(tmp_path / "data")
    assert rotations.find(APP) is None
    assert list(tmp_path.iterdir()) == [], "looking makes nothing"
    rotation = begin(NEW, OLD, (OLD,))
    rotations.keep(APP, rotation)
    rotations.keep(APP + 1, rotation)
    file = tmp_path / "data" / ROTATIONS_FILE
    assert rotations.find(APP) == rotation
    assert OLD not in file.read_text(encoding="utf-8")
    assert NEW not in file.read_text(encoding="utf-8")
    assert file.stat().st_mode & 0o777 == 0o600
    rotations.keep(APP, None)
    assert (rotations.find(APP), rotations.find(APP + 1)) == (None, rotation)
    assert [path.name for path in file.parent.iterdir()] == [ROTATIONS_FILE]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"x": {}}', json.dumps({APP: {"new": 5}}).encode()])
def test_a_damaged_file_says_what_to_do(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ROTATIONS_FILE).write_bytes(content)
    with pytest.raises(FailedError, match="is damaged: move it away"):
        Rotations(tmp_path).find(APP)


def test_a_folder_that_cannot_be_used_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FailedError, match="cannot be"):
        Rotations(tmp_path / "file").find(APP)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / ROTATIONS_FILE).mkdir()
    with pytest.raises(FailedError, match="cannot be read"):
        Rotations(tmp_path / "full").keep(APP, None)
