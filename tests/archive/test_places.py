"""Files in a folder: whole or not there, never outside it, and what is told where it cannot be."""

import asyncio
import hashlib
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive import folder as folder_module
from archive.folder import FolderPlace
from archive.places import (
    FolderTarget,
    NotPlacedError,
    NotStagedError,
    PlaceError,
    S3Settings,
    S3Target,
    check_s3_settings,
    open_place,
    parse_target,
)

KEY = "1400000001/2026-11-30_880528_task/1_whiteboard.mp4"
MIB = 1024 * 1024


class Staged:
    """A file of random bytes that is to be placed."""

    def __init__(self, folder: Path, size: int = 2 * MIB + 3) -> None:
        self.path = folder / "staged.part"
        self.bytes = os.urandom(size)
        self.path.write_bytes(self.bytes)
        self.path.chmod(0o600)
        self.size = size
        self.sha256 = hashlib.sha256(self.bytes).hexdigest()
        self.progress: list[int] = []

    async def put(self, into: FolderPlace, key: str = KEY, **changes: Any) -> str:
        values: dict[str, Any] = {"size": self.size, "sha256": self.sha256, "on_progress": self.progress.append}
        return await into.put_file(self.path, key, **values | changes)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "archive"


@pytest.fixture
def other_disk() -> Iterator[Path]:
    """Return a folder that no file can be renamed into from a test's own."""
    memory = Path("/dev/shm")  # noqa: S108 - it is another disk that counts
    if not memory.is_dir() or memory.stat().st_dev == Path(tempfile.gettempdir()).stat().st_dev:
        pytest.skip("there is no second disk here")
    folder = Path(tempfile.mkdtemp(prefix="tiw-archive-", dir=memory))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def place(root: Path, **options: Any) -> FolderPlace:
    return FolderPlace(FolderTarget(path=root), **options)


def files(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != ".tiw-archive"
    }


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def replace_by_an_empty_one(folder: Path) -> None:
    if folder.exists():
        folder.rename(folder.with_name("unmounted"))
    folder.mkdir()


async def content(of: FolderPlace, key: str = KEY) -> bytes:
    return b"".join([block async for block in of.read(key)])


async def test_a_file_on_the_same_disk_is_moved(root: Path, tmp_path: Path) -> None:
    staged = Staged(tmp_path)
    inode = staged.path.stat().st_ino
    async with place(root) as folder:
        await folder.check()
        assert await folder.size_of(KEY) is None
        assert await staged.put(folder) == f"{root}/{KEY}"
        assert await folder.size_of(KEY) == staged.size
        assert await content(folder) == staged.bytes
    assert (root / KEY).stat().st_ino == inode
    assert (root / KEY).stat().st_mode & 0o777 == 0o644
    assert not staged.path.exists()
    assert staged.progress == [staged.size]


async def test_a_file_on_another_disk_is_copied_and_stays_staged(other_disk: Path, tmp_path: Path) -> None:
    staged = Staged(tmp_path)
    async with place(other_disk) as folder:
        await folder.check()
        await staged.put(folder)
        assert await content(folder) == staged.bytes
    assert files(other_disk) == {KEY: staged.bytes}
    assert staged.path.read_bytes() == staged.bytes
    assert staged.progress == [MIB, 2 * MIB, staged.size, staged.size]


async def test_placing_again_after_a_crash_before_it_was_noted_does_no_harm(root: Path, tmp_path: Path) -> None:
    staged = Staged(tmp_path)
    async with place(root) as folder:
        await folder.check()
        await staged.put(folder)
        await staged.put(folder)
        (root / KEY).write_bytes(os.urandom(staged.size))
        with pytest.raises(NotStagedError, match="fetched again"):
            await staged.put(folder)


async def test_what_a_crash_left_in_the_middle_of_a_copy_is_replaced(other_disk: Path, tmp_path: Path) -> None:
    staged = Staged(tmp_path)
    left = (other_disk / KEY).with_name(f".{Path(KEY).name}.part")
    async with place(other_disk) as folder:
        await folder.check()
        left.parent.mkdir(parents=True)
        left.write_bytes(os.urandom(3 * MIB))
        assert await folder.size_of(KEY) is None
        await staged.put(folder)
    assert files(other_disk) == {KEY: staged.bytes}


async def test_a_copy_that_is_stopped_leaves_only_a_temporary_name(
    other_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staged = Staged(tmp_path, 8 * MIB)
    write, begun, may_go_on = folder_module._write, threading.Event(), threading.Event()

    def held(file: int, data: bytes) -> None:
        write(file, data)
        begun.set()
        may_go_on.wait(30)

    monkeypatch.setattr(folder_module, "_write", held)
    async with place(other_disk) as folder:
        await folder.check()
        task = asyncio.ensure_future(staged.put(folder))
        assert await asyncio.to_thread(begun.wait, 30)
        # Two at once, as after a lease that has lapsed: the second one changes nothing.
        with pytest.raises(PlaceError, match="another process places"):
            await staged.put(folder)
        task.cancel()
        await asyncio.sleep(0)
        may_go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [Path(name).name for name in files(other_disk)] == [".1_whiteboard.mp4.part"]
        await staged.put(folder)
    assert files(other_disk) == {KEY: staged.bytes}


async def test_a_disk_that_gives_back_other_bytes_is_found_out(
    other_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staged = Staged(tmp_path)
    write = folder_module._write
    monkeypatch.setattr(folder_module, "_write", lambda file, data: write(file, data[:-1] + bytes([data[-1] ^ 1])))
    async with place(other_disk) as folder:
        await folder.check()
        with pytest.raises(PlaceError, match="gives back other bytes than were written"):
            await staged.put(folder)
        assert await folder.size_of(KEY) is None
    assert staged.path.exists()


async def test_a_staged_file_that_is_not_the_proved_one_is_not_placed(other_disk: Path, tmp_path: Path) -> None:
    staged = Staged(tmp_path)
    async with place(other_disk) as folder:
        await folder.check()
        with pytest.raises(NotStagedError, match="not what was fetched any more"):
            await staged.put(folder, sha256="0" * 64)
        with pytest.raises(NotStagedError, match="instead of"):
            await staged.put(folder, size=1)
        staged.path.rename(tmp_path / "elsewhere")
        staged.path.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(NotStagedError, match="cannot be read"):
            await staged.put(folder)
        assert await folder.size_of(KEY) is None


async def test_a_folder_that_is_not_mounted_is_told_and_stays_empty(root: Path, tmp_path: Path) -> None:
    staged = Staged(tmp_path)
    async with place(root) as folder:
        for _ in range(2):
            asked = (
                folder.check(must_exist=True),
                staged.put(folder),
                folder.put_bytes(KEY, b"", ""),
                folder.size_of(KEY),
            )
            for ask in asked:
                with pytest.raises(PlaceError, match="mount what belongs there"):
                    await ask
            replace_by_an_empty_one(root)
    assert names(root) == []
    assert staged.path.exists()


async def test_a_folder_that_goes_away_while_it_is_used_is_not_made_anew(root: Path, tmp_path: Path) -> None:
    async with place(root) as folder:
        await folder.check()
        replace_by_an_empty_one(root)
        for ask in (folder.check(), Staged(tmp_path).put(folder)):
            with pytest.raises(PlaceError, match=r"has no file \.tiw-archive"):
                await ask
        assert names(root) == []


async def test_only_the_folder_itself_is_made(tmp_path: Path) -> None:
    async with place(tmp_path / "mount" / "archive") as folder:
        with pytest.raises(PlaceError, match="mount is not there: create it"):
            await folder.check()
    assert names(tmp_path) == []


@pytest.fixture
def forbidden(other_disk: Path) -> Iterator[Path]:
    """Return an archive's folder that this process may not write."""
    root = other_disk / "archive"
    root.mkdir()
    (root / ".tiw-archive").touch()
    other_disk.chmod(0o755)
    root.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65_534)
    try:
        yield root
    finally:
        os.seteuid(user)
        root.chmod(0o755)


async def test_a_folder_that_may_not_be_written_is_told(forbidden: Path) -> None:
    async with place(forbidden) as folder:
        for ask in (folder.check(), folder.put_bytes(KEY, b"", "text/plain")):
            with pytest.raises(PlaceError, match="give the folder to that user"):
                await ask


def mount(folder: Path, *options: str) -> bool:
    program = shutil.which("mount")
    command = [str(program), *options, str(folder)]
    return bool(program) and subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "mounted"
    folder.mkdir()
    if not mount(folder, "-t", "tmpfs", "-o", "size=4m", "tmpfs"):
        pytest.skip("nothing can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run([str(shutil.which("umount")), "-l", str(folder)], check=True)


async def test_a_full_disk_is_told_and_what_is_there_stays_whole(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staged = Staged(tmp_path, 3 * MIB)
    async with place(small_disk) as folder:
        await folder.check()
        await staged.put(folder)
        with pytest.raises(PlaceError, match="nearly full, 1 MB are free: make room there") as refused:
            await staged.put(folder, "1/other/1_camera.mp4")
        assert refused.value.is_full
        # As if somebody else had filled it meanwhile.
        monkeypatch.setattr(FolderPlace, "_check_space", lambda *_: None)
        with pytest.raises(PlaceError, match="is full: make room there") as refused:
            await staged.put(folder, "1/other/1_camera.mp4")
        assert refused.value.is_full
        assert await content(folder) == staged.bytes
        assert await folder.size_of("1/other/1_camera.mp4") is None


async def test_a_disk_that_can_only_be_read_is_told(small_disk: Path, tmp_path: Path) -> None:
    staged = Staged(tmp_path)
    async with place(small_disk) as folder:
        await folder.check()
        mount(small_disk, "-o", "remount,ro")
        for ask in (folder.check(), staged.put(folder)):
            with pytest.raises(PlaceError, match="can only be read: mount it for writing"):
                await ask


async def test_a_floor_of_free_space_is_kept(root: Path) -> None:
    async with place(root, min_free_bytes=2**60) as folder:
        with pytest.raises(PlaceError, match="nearly full") as refused:
            await folder.check()
    assert refused.value.is_full


async def test_a_disk_that_does_not_answer_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = threading.Event()
    monkeypatch.setattr(folder_module, "_STOP_S", 0.0)
    async with place(root, stalled_after_s=0.05) as folder:
        await folder.check()
        monkeypatch.setattr(folder_module, "_stat", lambda *_: hangs.wait(30))
        try:
            with pytest.raises(PlaceError, match="does not answer: look after its disk or mount"):
                await folder.check()
        finally:
            hangs.set()


@pytest.mark.parametrize("depth", [0, 1])
async def test_a_link_in_the_archive_is_not_followed(root: Path, tmp_path: Path, depth: int) -> None:
    outside, staged = tmp_path / "outside", Staged(tmp_path)
    outside.mkdir()
    async with place(root) as folder:
        await folder.check()
        link = root.joinpath(*KEY.split("/")[: depth + 1])
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(outside)
        for ask in (staged.put(folder), folder.put_bytes(KEY, b"", ""), folder.size_of(KEY), content(folder)):
            with pytest.raises(PlaceError, match="is a link, or not what belongs there"):
                await ask
        (outside / "manifest.json").write_bytes(b"{}")
        assert [key async for key in folder.manifests()] == []
    assert [path.name for path in outside.iterdir()] == ["manifest.json"]


@pytest.mark.parametrize("name", [Path(KEY).name, f".{Path(KEY).name}.part"])
@pytest.mark.parametrize("hard", [False, True], ids=["symbolic", "hard"])
async def test_a_link_in_the_place_of_a_file_is_replaced_or_refused(
    other_disk: Path, tmp_path: Path, name: str, hard: bool
) -> None:
    victim = other_disk / "victim"
    root = other_disk / "archive"
    victim.write_bytes(b"as it was")
    staged = Staged(tmp_path)
    async with place(root) as folder:
        await folder.check()
        link = (root / KEY).with_name(name)
        link.parent.mkdir(parents=True)
        if hard:
            link.hardlink_to(victim)
        else:
            link.symlink_to(victim)
            if name == Path(KEY).name:
                assert await folder.size_of(KEY) is None
        if name.startswith("."):
            with pytest.raises(PlaceError, match="move it out of the archive"):
                await staged.put(folder)
        else:
            await staged.put(folder)
            assert await content(folder) == staged.bytes
    assert victim.read_bytes() == b"as it was"


async def test_a_folder_in_the_place_of_a_file_is_told(root: Path, tmp_path: Path) -> None:
    async with place(root) as folder:
        await folder.check()
        (root / KEY / "full").mkdir(parents=True)
        for ask in (Staged(tmp_path).put(folder), folder.put_bytes(KEY, b"", "")):
            with pytest.raises(PlaceError, match="move it out of the archive"):
                await ask


@given(key=st.text(st.characters() | st.sampled_from("/.\0\\~-"), max_size=60))
def test_nothing_is_ever_written_outside(key: str) -> None:
    with tempfile.TemporaryDirectory(prefix="tiw-archive-") as name:
        above = Path(name)
        root = above / "archive"

        async def put() -> None:
            async with place(root) as folder:
                await folder.check()
                try:
                    await folder.put_bytes(key, b"data", "text/plain")
                except PlaceError:
                    return
                assert await content(folder, key) == b"data"
                assert await folder.size_of(key) == 4

        asyncio.run(put())
        assert [path.name for path in above.iterdir()] == ["archive"]
        assert all(path.resolve().is_relative_to(root) for path in root.rglob("*"))


async def test_manifests_are_found_and_nothing_else(root: Path) -> None:
    keys = sorted(f"{app}/2026-11-30_1_t{number}/manifest.json" for app in (1, 2) for number in range(3))
    async with place(root) as folder:
        await folder.check()
        for key in keys:
            await folder.put_bytes(key, b"{}", "application/json")
        for other in ("1/manifest.json", "1/a/b/manifest.json", "1/a/index.html"):
            await folder.put_bytes(other, b"{}", "application/json")
        assert [key async for key in folder.manifests()] == keys
        await folder.put_bytes(keys[0], b"another", "application/json")
        assert await content(folder, keys[0]) == b"another"
        await folder.abort(keys[0], "none")


def open_files() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


async def part(of: FolderPlace, begin: int, end: int, size: int, key: str = KEY) -> bytes:
    return b"".join([block async for block in of.read_range(key, begin, end, size=size)])


async def test_a_part_of_a_file_is_read_in_blocks_and_nothing_stays_open(root: Path, tmp_path: Path) -> None:
    staged = Staged(tmp_path)
    async with place(root) as folder:
        await folder.check()
        await staged.put(folder)
        for begin, end in ((0, staged.size), (0, 1), (7, MIB), (staged.size - 1, staged.size), (5, 5)):
            assert await part(folder, begin, end, staged.size) == staged.bytes[begin:end]
        before = open_files()
        reading = folder.read_range(KEY, 0, staged.size, size=staged.size)
        first = await anext(reading)
        assert first == staged.bytes[: len(first)]
        assert len(first) < staged.size
        assert not open_files() - before


async def test_a_part_of_what_is_not_as_it_was_placed_is_told(root: Path, tmp_path: Path) -> None:
    staged = Staged(tmp_path)
    async with place(root) as folder:
        await folder.check()
        with pytest.raises(NotPlacedError, match="is not there"):
            await part(folder, 0, 1, staged.size)
        await staged.put(folder)
        with pytest.raises(NotPlacedError, match=f"has {staged.size} bytes instead of 7"):
            await part(folder, 0, 1, 7)
        reading = folder.read_range(KEY, 0, staged.size, size=staged.size)
        await anext(reading)
        other = tmp_path / "other"
        other.write_bytes(bytes(staged.size))
        other.replace(root / KEY)
        with pytest.raises(NotPlacedError, match="was replaced"):
            await anext(reading)
        for key in ("../secret", "a/../../secret", "/etc/passwd", ".hidden/1.mp4", "a//b"):
            with pytest.raises(PlaceError, match="cannot be a path below the target"):
                await part(folder, 0, 1, 1, key)


@pytest.mark.parametrize("depth", [1, 2, 3])
async def test_no_part_is_read_through_a_link(root: Path, tmp_path: Path, depth: int) -> None:
    secret = tmp_path / "elsewhere"
    (secret / "2026-11-30_880528_task").mkdir(parents=True)
    for file in (secret / "1_whiteboard.mp4", secret / "2026-11-30_880528_task" / "1_whiteboard.mp4"):
        file.write_bytes(b"secret")
    async with place(root) as folder:
        await folder.check()
        names = KEY.split("/")
        link = root.joinpath(*names[:depth])
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(secret if depth < 3 else secret / names[-1])
        with pytest.raises(PlaceError, match="is a link"):
            await part(folder, 0, 6, 6)


async def test_reading_what_is_not_there_is_told(root: Path) -> None:
    async with place(root) as folder:
        await folder.check()
        with pytest.raises(PlaceError, match="is not there"):
            await content(folder)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("/srv/classes", FolderTarget(path=Path("/srv/classes"))),
        ("/srv/classes/", FolderTarget(path=Path("/srv/classes"))),
        ("s3://classes-1250000000", S3Target(bucket="classes-1250000000")),
        ("s3://classes/of/school/", S3Target(bucket="classes", prefix="of/school")),
        ("s3://classes/学校", S3Target(bucket="classes", prefix="学校")),
    ],
)
def test_a_target_is_a_folder_or_a_bucket(text: str, target: FolderTarget | S3Target) -> None:
    assert parse_target(text) == target


@pytest.mark.parametrize(
    "text",
    [
        *("", "classes", "./classes", "/", "/srv/../etc", "~/classes", "https://secret.example/b", "s3://", "s3://a"),
        *(
            "s3://Classes",
            "s3://id:secret@classes",
            "s3://classes/../secret",
            "s3://classes/a?secret",
            "s3://a b/secret",
        ),
        "/srv/cl\0asses",
    ],
)
def test_what_is_no_target_is_told_without_repeating_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"such as|s3://") as refused:
        parse_target(text)
    assert "secret@" not in str(refused.value)
    assert "secret.example" not in str(refused.value)


def settings(**changes: Any) -> S3Settings:
    return S3Settings(**{"access_key_id": "id", "secret_access_key": "very-secret"} | changes)


@pytest.mark.parametrize(
    ("s3", "sentence"),
    [
        (None, "access key"),
        (settings(access_key_id=""), "access key"),
        (settings(secret_access_key=""), "access key"),
        (settings(), "region"),
        (settings(endpoint="cos.ap-guangzhou.myqcloud.com"), "such as https"),
        (settings(endpoint="https://h:99999"), "such as https"),
        (settings(endpoint="https://id:very-secret@host"), "host alone"),
        (settings(endpoint="https://host/bucket"), "host alone"),
        (settings(endpoint="https://bucket.cos.ap-guangzhou.myqcloud.com"), "https://cos.ap-guangzhou.myqcloud.com"),
        (settings(endpoint="https://cos.ap-guangzhou.myqcloud.com", style="path"), "virtual"),
    ],
)
def test_settings_that_lead_to_no_bucket_are_told(s3: S3Settings | None, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as refused:
        open_place(S3Target(bucket="bucket"), s3)
    assert "very-secret" not in str(refused.value)


@pytest.mark.parametrize(
    "s3",
    [
        settings(region="eu-central-1"),
        settings(endpoint="https://cos.ap-guangzhou.myqcloud.com"),
        settings(endpoint="http://127.0.0.1:3900/", style="path"),
    ],
)
def test_settings_that_lead_to_a_bucket_are_taken(s3: S3Settings) -> None:
    assert check_s3_settings(S3Target(bucket="bucket"), s3) is s3
    assert "very-secret" not in repr(s3)
    assert "very-secret" not in str(s3)


async def test_a_target_is_opened_as_what_it_is(root: Path) -> None:
    async with open_place(parse_target(str(root))) as folder:
        await folder.check()
        assert folder.name == str(root)
    async with open_place(S3Target(bucket="bucket", prefix="below"), settings(region="eu-central-1")) as bucket:
        assert bucket.name == "s3://bucket/below"
        assert bucket.location(KEY) == f"s3://bucket/below/{KEY}"
