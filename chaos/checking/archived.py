"""What must be true of an archive, whatever failed: judged from rows, from bytes, and from what was asked for. Pure."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final

from msgspec import Struct

from simulator import Content, FileRequest
from store import ArchiveFileRow

#: What lies beside the files of each recording.
_BESIDE = {"manifest.json", "index.html"}

_BLOCK = 1024 * 1024


class Original(Struct, frozen=True, kw_only=True):
    """A file as the vendor has it: whose it is, its bytes, and when it came to be, in Unix seconds."""

    task_id: str
    path: str
    content: Content
    modified_at: float

    @property
    def sha256(self) -> str:
        """In hex."""
        return _sha256_of(self.content)


@cache
def _sha256_of(content: Content) -> str:
    digest = hashlib.sha256()
    for piece in content.read(0, content.size):
        digest.update(piece)
    return digest.hexdigest()


#: An rclone writes what it receives to a file of this name, and renames it when it is whole: one that is killed in the
#: middle leaves it in its folder. No other server of S3 keeps its unfinished files there.
_OF_RCLONE: Final = ".rclone_temp_put_"


class Looked(Struct, frozen=True, kw_only=True):
    """An application's folder of a target as it was found: the SHA-256 of each file, by its path at the target."""

    files: dict[str, str]

    @property
    def strays(self) -> list[str]:
        """What is not written beside the files of each recording."""
        names = ((path, Path(path).name) for path in self.files)
        return [path for path, name in names if name not in _BESIDE and not name.startswith(_OF_RCLONE)]


def look(root: Path, app: int) -> Looked:
    """Read all files of an application at a target that lies in a folder."""
    found = sorted((root / str(app)).rglob("*"))
    return Looked(files={path.relative_to(root).as_posix(): sha256_of(path) for path in found if path.is_file()})


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hex; empty if there is none."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except FileNotFoundError:
        return ""
    return digest.hexdigest()


def not_archived(originals: Iterable[Original], rows: Sequence[ArchiveFileRow]) -> list[str]:
    """Name the files of the vendor that no row says are archived with their bytes."""
    archived = {(row.task_id, row.sha256) for row in rows if row.state == "archived"}
    return [one.path for one in originals if (one.task_id, one.sha256) not in archived]


def not_as_marked(rows: Iterable[ArchiveFileRow], root: Path) -> list[str]:
    """Name the files that a row says are archived and whose bytes are not there."""
    return [
        f"{row.folder}/{row.name}"
        for row in rows
        if row.state == "archived"
        if row.sha256 is None or sha256_of(root / row.folder / row.name) != row.sha256
    ]


def too_many(originals: Sequence[Original], rows: Sequence[ArchiveFileRow], looked: Looked) -> list[str]:
    """Name what is more than once each file of the vendor: rows, and files of the target."""
    wanted = Counter((one.task_id, one.sha256) for one in originals)
    rows_more = Counter((row.task_id, row.sha256 or row.name) for row in rows) - wanted
    named = {f"{row.folder}/{row.name}" for row in rows if row.state == "archived"}
    return [
        *(f"a row of {task_id}: {what}" for task_id, what in rows_more.elements()),
        *(f"a file: {path}" for path in looked.strays if path not in named),
    ]


def begun_again(requests: Iterable[FileRequest], survived_s: Mapping[str, float]) -> list[str]:
    """Name the files that were asked for from their start after a part of them was seen on disk.

    `survived_s`: when that was first seen, by the file's path, on the monotonic clock.
    """
    return [
        one.path
        for one in requests
        if one.method == "GET" and one.range in ("", "bytes=0-")
        if one.at_s > survived_s.get(one.path, float("inf"))
    ]


def twice(requests: Iterable[FileRequest]) -> list[str]:
    """Name the files that were sent from their start more than once."""
    whole = Counter(one.path for one in requests if one.method == "GET" and one.answer == "200")
    return [path for path, count in whole.items() if count > 1]
