"""Keys that change while requests flow: a rotation is a change of one file."""

import asyncio
import os
from pathlib import Path
from typing import Self, TypeAlias

import structlog

from ingest.keys import CallbackKeys, KeysError, parse_keys

#: How often the file is looked at.
CHECK_INTERVAL_S = 1.0

_Version: TypeAlias = tuple[int, int, int]
_log = structlog.get_logger()


class KeyRing:
    """The callback keys that hold now.

    `KeyRing(keys)` never changes. `KeyRing.of_file(path)` reads `path` at once and, while it is entered, again
    whenever the file changes or is replaced. A file that cannot be used leaves the last good keys in force, and
    is logged once per change.
    """

    def __init__(self, keys: CallbackKeys) -> None:
        self.current = keys
        self._path: Path | None = None
        self._seen: _Version | None = None
        self._watcher: asyncio.Task[None] | None = None

    @classmethod
    def of_file(cls, path: Path) -> Self:
        """Read the keys of `path`. Raises `KeysError` if it cannot be read or used."""
        seen = _version(path)
        ring = cls(_read(path))
        ring._path = path
        ring._seen = seen
        return ring

    async def __aenter__(self) -> Self:
        if self._path is not None:
            self._watcher = asyncio.create_task(self._watch(self._path), name="callback keys")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait([self._watcher])

    async def _watch(self, path: Path) -> None:
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            # In a thread: a mounted folder may be slow to answer.
            version = await asyncio.to_thread(_version, path)
            if version == self._seen:
                continue
            self._seen = version
            try:
                self.current = await asyncio.to_thread(_read, path)
            except KeysError as error:
                _log.error("callback_keys_not_changed", error=str(error), remedy="correct the file")
            else:
                _log.info("callback_keys_changed", sdk_app_ids=sorted(self.current))


def _version(path: Path) -> _Version | None:
    try:
        stat = os.stat(path)  # noqa: PTH116 - follows the links by which mounted secrets are swapped
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _read(path: Path) -> CallbackKeys:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise KeysError(f"the file of callback keys, {path}, cannot be read: {error.strerror}") from error
    return parse_keys(content)
