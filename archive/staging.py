"""The folder on a local disk where files are until the target has them: its parts, its floor of free space."""

import contextlib
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from msgspec import Struct

_IDENTITY: Final = "staging-id"
_PART: Final = re.compile(r"[0-9a-f]{32}\.part")

#: A part whose row is done is just being removed by who did it.
_LEFT_OVER_AFTER_S: Final = 60.0


class StagingError(Exception):
    """Raised when the folder cannot be used; the text says what to do."""


class StagedPart(Struct, frozen=True, kw_only=True):
    """A part that lies there, and how many bytes of it."""

    path: Path
    size: int


class Staging:
    """A folder for parts, made if it is missing (mode 0700); several processes of one machine may share it.

    `identity` is that of the folder, kept in it: a row of the store that names it has its part here. Raises
    `StagingError` if the folder cannot be had.
    """

    def __init__(self, folder: Path, *, min_free_bytes: int) -> None:
        self.folder = folder
        self._min_free_bytes = min_free_bytes
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.identity = _identity(folder / _IDENTITY)
        except OSError as error:
            raise StagingError(
                f"files cannot be staged in {folder} ({error.strerror}): mend that, or name another folder in "
                "TIW_ARCHIVE_STAGING"
            ) from error

    def part(self, sdk_app_id: int, task_id: str, file_key: str) -> Path:
        """Return where the part of a file is, or would be: a name of ours, nothing of it is the sender's."""
        name = hashlib.sha256(f"{sdk_app_id}\n{task_id}\n{file_key}".encode("utf-8", "surrogatepass")).hexdigest()[:32]
        return self.folder / f"{name}.part"

    def parts(self) -> Iterator[StagedPart]:
        """Yield the parts that are there."""
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if _PART.fullmatch(entry.name):
                    with contextlib.suppress(FileNotFoundError):
                        yield StagedPart(path=Path(entry.path), size=entry.stat(follow_symlinks=False).st_size)

    def remove_leftovers(self, wanted: Collection[Path]) -> int:
        """Remove parts that are not `wanted` and were not written to for a minute; return how many.

        A process that was killed between the row and the file leaves one.
        """
        removed = 0
        for part in list(self.parts()):
            with contextlib.suppress(FileNotFoundError):
                is_old = time.time() - part.path.lstat().st_mtime > _LEFT_OVER_AFTER_S
                if part.path not in wanted and is_old:
                    part.path.unlink()
                    removed += 1
        return removed

    def give_up_largest(self, parts: Collection[Path]) -> int:
        """Remove the largest of these parts, unless somebody writes it; return how many bytes it had."""
        sizes = {part.path: part.size for part in self.parts() if part.path in parts and part.size}
        for path in sorted(sizes, key=lambda one: sizes[one], reverse=True):
            with contextlib.suppress(OSError):
                file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
                    return sizes[path]
                finally:
                    os.close(file)
        return 0

    @property
    def free_bytes(self) -> int:
        """How much may still be written here before the floor is reached; negative below it."""
        return shutil.disk_usage(self.folder).free - self._min_free_bytes


def _identity(path: Path) -> str:
    while True:
        with contextlib.suppress(FileNotFoundError):
            found = path.read_text(encoding="ascii").strip()
            if found:
                return found
            path.unlink()
        # Whole or not at all, though two processes begin at the same moment.
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        temporary.write_text(secrets.token_hex(8), encoding="ascii")
        try:
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)
        finally:
            temporary.unlink()
