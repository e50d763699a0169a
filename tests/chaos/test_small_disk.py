"""A small disk is full when it is filled, has room again when it is freed, and is gone at the end."""

import errno
from pathlib import Path

import pytest

from chaos.faults.small_disk import SmallDisk, cannot_mount

pytestmark = pytest.mark.skipif(cannot_mount() is not None, reason=str(cannot_mount()))


def test_a_small_disk_can_be_filled_and_freed(tmp_path: Path) -> None:
    with SmallDisk(tmp_path / "disk", size_bytes=1024 * 1024) as disk:
        disk.fill()
        with pytest.raises(OSError, match="No space left") as raised:
            (disk.path / "file").write_bytes(b"x" * 10_000)
        assert raised.value.errno == errno.ENOSPC
        disk.free()
        (disk.path / "file").write_bytes(b"x" * 10_000)
    assert list((tmp_path / "disk").iterdir()) == []
