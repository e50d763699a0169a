"""An archive is judged from its rows, its bytes and what was asked for: each way of being wrong is found."""

from pathlib import Path

from msgspec import structs

from chaos.checking.archived import Original, begun_again, look, not_archived, not_as_marked, sha256_of, too_many, twice
from chaos.scenarios.archiving import plan_troubles
from simulator import Content, FileRequest
from store import ArchiveFileRow

ONE = Original(task_id="a", path="/one.mp4", content=Content(seed="one", size=70_000), modified_at=1.0)
OTHER = Original(task_id="a", path="/other.mp4", content=Content(seed="other", size=70_000), modified_at=1.0)
BOTH = [ONE, OTHER]


def archived(root: Path, original: Original, name: str) -> ArchiveFileRow:
    """Put a file into the target, and return its row."""
    path = root / "1" / "a" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(original.content.read(0, original.content.size)))
    return ArchiveFileRow(
        sdk_app_id=1,
        task_id=original.task_id,
        name=name,
        state="archived",
        size=original.content.size,
        fetched_bytes=original.content.size,
        deleted_at="",
        attempts=1,
        reason=None,
        location=str(path),
        sha256=original.sha256,
        archived_at="2026-11-30T01:00:00Z",
        folder="1/a",
    )


def whole(root: Path) -> list[ArchiveFileRow]:
    rows = [archived(root, ONE, "1_mixed.mp4"), archived(root, OTHER, "2_camera.mp4")]
    (root / ".tiw-archive").write_bytes(b"")
    (root / "1" / "a" / "manifest.json").write_bytes(b"{}")
    (root / "1" / "a" / "index.html").write_bytes(b"")
    (root / "1" / "a" / ".rclone_temp_put_0f").write_bytes(b"left by an rclone that was killed")
    return rows


def test_nothing_is_wrong_with_an_archive_that_is_whole(tmp_path: Path) -> None:
    rows = whole(tmp_path)
    assert not_archived(BOTH, rows) == not_as_marked(rows, tmp_path) == too_many(BOTH, rows, look(tmp_path, 1)) == []


def test_a_file_that_is_missing_or_has_the_bytes_of_another_is_found(tmp_path: Path) -> None:
    rows = whole(tmp_path)
    assert not_archived(BOTH, rows[1:]) == ["/one.mp4"]
    waiting = structs.replace(rows[0], state="staged")
    assert not_archived(BOTH, [waiting, rows[1]]) == ["/one.mp4"]
    assert not_archived(BOTH, [structs.replace(rows[0], sha256=OTHER.sha256), rows[1]]) == ["/one.mp4"]


def test_a_mark_without_its_bytes_is_found(tmp_path: Path) -> None:
    rows = whole(tmp_path)
    file = tmp_path / "1" / "a" / "1_mixed.mp4"
    file.write_bytes(file.read_bytes()[:-1])
    assert not_as_marked(rows, tmp_path) == ["1/a/1_mixed.mp4"]
    file.unlink()
    assert not_as_marked(rows, tmp_path) == ["1/a/1_mixed.mp4"]
    assert sha256_of(file) == ""
    assert not_as_marked([structs.replace(row, state="waiting") for row in rows], tmp_path) == []


def test_what_is_there_twice_is_found(tmp_path: Path) -> None:
    rows = whole(tmp_path)
    (tmp_path / "1" / "a" / ".3_mixed.mp4.part").write_bytes(b"left behind")
    again = archived(tmp_path, ONE, "3_mixed.mp4")
    assert too_many(BOTH, rows, look(tmp_path, 1)) == ["a file: 1/a/.3_mixed.mp4.part", "a file: 1/a/3_mixed.mp4"]
    assert f"a row of a: {ONE.sha256}" in too_many(BOTH, [*rows, again], look(tmp_path, 1))
    forged = structs.replace(again, task_id="forged", state="refused", sha256=None)
    assert too_many(BOTH, [*rows, forged], look(tmp_path, 1))[0] == "a row of forged: 3_mixed.mp4"


def test_a_file_that_is_asked_for_from_its_start_though_a_part_survived_is_found() -> None:
    def asked(at_s: float, wanted: str = "", method: str = "GET") -> FileRequest:
        return FileRequest(at_s=at_s, method=method, path="/one.mp4", range=wanted, if_match="")

    assert begun_again([asked(1.0), asked(3.0, "bytes=5-"), asked(4.0, method="HEAD")], {"/one.mp4": 2.0}) == []
    assert begun_again([asked(1.0), asked(3.0)], {"/other.mp4": 2.0}) == []
    assert begun_again([asked(1.0), asked(3.0), asked(4.0, "bytes=0-")], {"/one.mp4": 2.0}) == ["/one.mp4"] * 2


def test_a_file_that_was_sent_from_its_start_twice_is_found() -> None:
    def sent(path: str, answer: str = "200", method: str = "GET") -> FileRequest:
        return FileRequest(at_s=1.0, method=method, path=path, range="", if_match="", answer=answer)

    once = [sent("/a.mp4"), sent("/a.mp4", "206"), sent("/a.mp4", method="HEAD"), sent("/b.mp4", "404"), sent("/b.mp4")]
    assert twice(once) == []
    assert twice([*once, sent("/b.mp4")]) == ["/b.mp4"]


def test_some_kills_fall_into_each_trouble_and_some_into_none() -> None:
    for kills in (6, 100):
        troubles = plan_troubles(kills)
        assert troubles.disk_full
        assert troubles.target_away
        assert not set(troubles.disk_full) & set(troubles.target_away)
        assert len(troubles.disk_full) + len(troubles.target_away) < kills
