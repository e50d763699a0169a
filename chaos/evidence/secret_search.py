"""Looking for what must never be written down: a Sign, and the callback key itself."""

from collections.abc import Iterable, Iterator
from pathlib import Path

#: The one place where a Sign is kept on purpose, for a while, for its owner's eyes alone: refused callbacks.
_ALLOWED = "rejected"

#: As JSON has it, and as a log line in JSON has JSON.
_SIGN = (b'"Sign"', b'\\"Sign\\"')


def secrets_in(content: bytes, key: str) -> list[str]:
    """Return what of both is in `content`: `a Sign`, `the key`."""
    found = ["a Sign"] if any(sign in content for sign in _SIGN) else []
    return [*found, "the key"] if key.encode() in content else found


def search_files(folders: Iterable[Path], key: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the name of every file in `folders`, and what of both was found in it."""
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and _ALLOWED not in path.relative_to(folder).parts:
                yield f"{folder.name}/{path.relative_to(folder)}", secrets_in(path.read_bytes(), key)
