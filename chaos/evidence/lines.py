"""Files of JSON lines that survive whoever writes them."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import msgspec
from msgspec import Struct


class LineWriter:
    """Appends records to a file, each with one write: what was written stays when the writer is killed.

    A context manager.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1

    def __enter__(self) -> Self:
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        return self

    def __exit__(self, *exc_info: object) -> None:
        os.close(self._file)

    def write(self, record: Struct) -> None:
        """Append one record."""
        os.write(self._file, msgspec.json.encode(record) + b"\n")


def read_lines(path: Path, kind: Any) -> Iterator[Any]:
    """Yield the records of a file, of one kind or of a union; none if there is no file.

    A last line that was cut off is passed over.
    """
    if not path.exists():
        return
    decoder = msgspec.json.Decoder(kind)
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield decoder.decode(line)
