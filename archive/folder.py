"""A folder as the place of an archive, on a disk or on what is mounted.

Nothing is ever written outside it: each folder on the way to a file is opened from the one above, and a symbolic link
among them is refused. All that touches it runs in threads of its own, which a mount that hangs may keep.
"""

import asyncio
import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

from archive.naming import MANIFEST_NAME, check_key
from archive.places import (
    MARKER,
    MARKER_NAME,
    STALLED_AFTER_S,
    FolderTarget,
    NotPlacedError,
    NotStagedError,
    OnProgress,
    OnUploadId,
    PlaceError,
    unless_stalled,
)

_BLOCK = 1024 * 1024
#: What is read at once for somebody who watches: many do at the same time, and each has some of these in memory.
_RANGE_BLOCK = 256 * 1024
#: What is written is on the disk after so many bytes, so that progress is real and the last fsync is short.
_SYNC_EVERY = 64 * _BLOCK
_THREADS = 8
_STOP_S = 5.0
#: Files are for whoever may look into the folder, not for this user alone as the staged ones.
_FILE_MODE = 0o644
_FOLDER_MODE = 0o755

_AWAY = {errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENODEV, errno.ENXIO}
_FULL = {errno.ENOSPC, errno.EDQUOT}

Result = TypeVar("Result")


class _StoppedError(Exception):
    """Nobody waits for this work any more."""


class _Transfer:
    """One piece of work in a thread: how far it has come, and whether it is still wanted."""

    def __init__(self, told: Callable[[int], object] | None) -> None:
        self.moved = 0
        self.is_stopped = False
        self._told = told

    def add(self, size: int) -> None:
        """Note that so many bytes have moved. Raises `_StoppedError` if nobody waits any more."""
        if self.is_stopped:
            raise _StoppedError
        self.moved += size

    def tell(self, size: int) -> None:
        if self._told is not None and not self.is_stopped:
            # The loop may have ended.
            with suppress(RuntimeError):
                self._told(size)


class FolderPlace:
    """See `Place`. An async context manager.

    A file that lies staged on the same disk is moved; else it is copied under a temporary name, read again from the
    disk and compared, and then renamed. So a name that does not begin with a dot is always whole.
    """

    def __init__(
        self,
        target: FolderTarget,
        *,
        min_free_bytes: int = 0,
        stalled_after_s: float = STALLED_AFTER_S,
    ) -> None:
        self._root = target.path
        self._was_there = False
        self._min_free_bytes = min_free_bytes
        self._stalled_after_s = stalled_after_s
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="archive-folder")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    @property
    def name(self) -> str:
        return str(self._root)

    def location(self, key: str) -> str:
        return f"{self._root}/{key}"

    async def check(self, *, must_exist: bool = False) -> None:
        await self._run(partial(self._check, must_exist or self._was_there))
        self._was_there = True

    async def put_file(
        self,
        staged: Path,
        key: str,
        *,
        size: int,
        sha256: str,
        upload_id: str | None = None,  # noqa: ARG002 - a folder knows no uploads
        on_upload_id: OnUploadId | None = None,  # noqa: ARG002 - same
        on_progress: OnProgress | None = None,
    ) -> str:
        await self._run(partial(self._put_file, staged, _parts(key), size, sha256), on_progress)
        return self.location(key)

    async def put_bytes(self, key: str, data: bytes, content_type: str) -> str:  # noqa: ARG002 - a folder knows no types
        await self._run(partial(self._put_bytes, _parts(key), data))
        return self.location(key)

    async def read(self, key: str) -> AsyncIterator[bytes]:
        file = await self._run(partial(self._open, _parts(key)))
        if file is None:
            raise PlaceError(f"{self.location(key)} is not there")
        try:
            while block := await self._run(lambda _: os.read(file, _BLOCK)):
                yield block
        finally:
            os.close(file)

    async def read_range(self, key: str, begin: int, end: int, *, size: int) -> AsyncGenerator[bytes, None]:
        parts = _parts(key)
        known: tuple[int, int, int] | None = None
        while begin < end:
            # Opened anew for each block: those who watch go away at any time, and a mount may hang meanwhile.
            wanted = min(_RANGE_BLOCK, end - begin)
            block, found = await self._run(partial(self._read_at, parts, begin, wanted))
            if found is None or found.st_size != size or not block:
                what = "is not there" if found is None else f"has {found.st_size} bytes instead of {size}"
                raise NotPlacedError(f"{self.location(key)} {what}")
            identity = (found.st_dev, found.st_ino, found.st_mtime_ns)
            if known not in (None, identity):
                raise NotPlacedError(f"{self.location(key)} was replaced while it was read")
            known = identity
            yield block
            begin += len(block)

    async def size_of(self, key: str) -> int | None:
        return await self._run(partial(self._size_of, _parts(key)))

    async def manifests(self) -> AsyncIterator[str]:
        for key in await self._run(self._manifests):
            yield key

    async def abort(self, key: str, upload_id: str) -> None:
        """Do nothing: a folder knows no uploads."""

    async def _run(self, work: Callable[[_Transfer], Result], on_progress: OnProgress | None = None) -> Result:
        """Return what `work` does in a thread; make a sentence of what goes wrong there."""
        loop = asyncio.get_running_loop()
        transfer = _Transfer(None if on_progress is None else lambda size: loop.call_soon_threadsafe(on_progress, size))
        future = loop.run_in_executor(self._threads, work, transfer)
        # What becomes of it once nobody waits any more is of no interest.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            return await unless_stalled(future, lambda: transfer.moved, after_s=self._stalled_after_s)
        except OSError as error:
            raise self._explain(error) from error
        finally:
            transfer.is_stopped = True
            if not future.done():
                await asyncio.wait({future}, timeout=_STOP_S)

    def _explain(self, error: OSError) -> PlaceError:
        code = error.errno
        if isinstance(error, TimeoutError) or code in _AWAY:
            what = "does not answer: look after its disk or mount"
        elif code in _FULL:
            what = "is full: make room there"
        elif code == errno.EROFS:
            what = "can only be read: mount it for writing"
        elif code in (errno.EACCES, errno.EPERM):
            what = f"may not be written by user {os.geteuid()}: give the folder to that user (chown)"
        elif code == errno.EFBIG:
            what = "takes no file that large: use a disk, or limits of this process, that do"
        elif code == errno.EISDIR:
            what = "has a folder where a file belongs: move it out of the archive"
        else:
            what = f"cannot be used: {os.strerror(code) if code else type(error).__name__}"
        return PlaceError(f"{self._root} {what}", is_full=code in _FULL)

    # What follows runs in threads.

    def _check(self, must_exist: bool, transfer: _Transfer) -> None:
        transfer.add(0)
        if not must_exist:
            self._prepare()
        probe = f"{MARKER_NAME}.check.{os.getpid()}"
        with self._opened_root() as root:
            self._check_space(root, 0)
            with _opened(probe, os.O_WRONLY | os.O_CREAT, root) as file:
                os.write(file, MARKER)
                os.fsync(file)
            with suppress(FileNotFoundError):
                os.unlink(probe, dir_fd=root)

    def _prepare(self) -> None:
        """Make the folder, but not the one above: that may be where a disk should be mounted. Put the marker there."""
        try:
            self._root.mkdir(_FOLDER_MODE, exist_ok=True)
        except FileNotFoundError:
            raise PlaceError(f"{self._root.parent} is not there: create it, or mount what belongs there") from None
        except FileExistsError:
            raise PlaceError(f"{self._root} is no folder: name a folder for the archive") from None
        with _opened(self._root, os.O_RDONLY | os.O_DIRECTORY, follow=True) as root:
            if _stat(MARKER_NAME, root) is None:
                with _opened(MARKER_NAME, os.O_WRONLY | os.O_CREAT, root, mode=_FILE_MODE) as file:
                    os.write(file, MARKER)
                    os.fsync(file)
                _sync_folder(root)

    @contextmanager
    def _opened_root(self) -> Iterator[int]:
        """Open the folder if it is the right one: it has the marker. All that is opened from it lies in it."""
        remedy = "mount what belongs there; if it was emptied on purpose"
        try:
            root = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            raise PlaceError(f"{self._root} is not there: {remedy}, create it with a file {MARKER_NAME}") from None
        try:
            found = _stat(MARKER_NAME, root)
            if found is None or not stat.S_ISREG(found.st_mode):
                raise PlaceError(f"{self._root} has no file {MARKER_NAME}: {remedy}, create that file")
            yield root
        finally:
            os.close(root)

    @contextmanager
    def _opened_parent(self, parts: Sequence[str], *, create: bool) -> Iterator[int]:
        """Open the folder that has a file, each from the one above. Raises `FileNotFoundError` if there is none."""
        with self._opened_root() as root:
            parent = os.dup(root)
            try:
                for part in parts[:-1]:
                    below = self._below(parent, part, create=create)
                    os.close(parent)
                    parent = below
                yield parent
            finally:
                os.close(parent)

    def _below(self, parent: int, part: str, *, create: bool) -> int:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        if create:
            with suppress(FileExistsError):
                os.mkdir(part, _FOLDER_MODE, dir_fd=parent)
                _sync_folder(parent)
        try:
            return os.open(part, flags, dir_fd=parent)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise self._no_file(part) from None
            raise

    def _no_file(self, name: str) -> PlaceError:
        return PlaceError(f"{name} in {self._root} is a link, or not what belongs there: move it out of the archive")

    def _check_space(self, folder: int, size: int) -> None:
        space = os.fstatvfs(folder)
        free = space.f_bavail * space.f_frsize
        if free < size + self._min_free_bytes:
            raise PlaceError(f"{self._root} is nearly full, {free // 10**6} MB are free: make room there", is_full=True)

    def _put_file(self, staged: Path, parts: tuple[str, ...], size: int, sha256: str, transfer: _Transfer) -> None:
        transfer.add(0)
        with self._opened_parent(parts, create=True) as parent:
            try:
                source = os.open(staged, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except OSError as error:
                if isinstance(error, FileNotFoundError):
                    # Moved here, before this could be noted.
                    if self._has(parent, parts[-1], size, sha256, transfer):
                        return
                    raise NotStagedError("the staged file is gone: it has to be fetched again") from None
                raise NotStagedError(f"the staged file cannot be read ({error.strerror})") from None
            try:
                found = os.fstat(source).st_size
                if found != size:
                    raise NotStagedError(f"the staged file has {found} bytes instead of {size}")
                if not _move(staged, source, parent, parts[-1]):
                    self._copy(source, parent, parts[-1], size=size, sha256=sha256, transfer=transfer)
                _sync_folder(parent)
                transfer.tell(size)
            finally:
                os.close(source)

    def _has(self, parent: int, name: str, size: int, sha256: str, transfer: _Transfer) -> bool:
        found = _stat(name, parent)
        if found is None or not stat.S_ISREG(found.st_mode) or found.st_size != size:
            return False
        with _opened(name, os.O_RDONLY, parent) as file:
            return _digest(file, transfer) == sha256

    def _copy(self, source: int, parent: int, name: str, *, size: int, sha256: str, transfer: _Transfer) -> None:
        self._check_space(parent, size)
        with self._temporary(parent, name) as (temporary, file):
            digest, copied = hashlib.sha256(), 0
            while block := os.read(source, _BLOCK):
                digest.update(block)
                _write(file, block)
                copied += len(block)
                if copied % _SYNC_EVERY < len(block):
                    os.fdatasync(file)
                transfer.add(len(block))
                transfer.tell(copied)
            if digest.hexdigest() != sha256:
                raise NotStagedError("the staged file is not what was fetched any more: look after the staging disk")
            os.fsync(file)
            # So that what is read next comes from the disk.
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            with _opened(temporary, os.O_RDONLY, parent) as again:
                if _digest(again, transfer) != sha256:
                    raise PlaceError(f"{self._root} gives back other bytes than were written: look after its disk")
            os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)

    def _put_bytes(self, parts: tuple[str, ...], data: bytes, transfer: _Transfer) -> None:
        transfer.add(0)
        with self._opened_parent(parts, create=True) as parent:
            self._check_space(parent, 0)
            with self._temporary(parent, parts[-1]) as (temporary, file):
                _write(file, data)
                os.fsync(file)
                os.rename(temporary, parts[-1], src_dir_fd=parent, dst_dir_fd=parent)
            _sync_folder(parent)

    @contextmanager
    def _temporary(self, parent: int, name: str) -> Iterator[tuple[str, int]]:
        """Open an empty file that nobody else writes: what is left of an earlier attempt is replaced.

        Its name is always the same, so that no attempt that was cut off leaves more than one behind.
        """
        temporary = f".{name}.part"
        try:
            file = os.open(
                temporary,
                os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC,
                _FILE_MODE,
                dir_fd=parent,
            )
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EISDIR):
                raise self._no_file(temporary) from None
            raise
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise PlaceError(f"another process places {name} at this moment") from None
            except OSError as error:
                # Some network file systems have no locks. What two have written at once does not pass the comparison.
                if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                    raise
            found, named = os.fstat(file), _stat(temporary, parent)
            if named is None or (named.st_dev, named.st_ino) != (found.st_dev, found.st_ino):
                raise PlaceError(f"another process has just placed {name}")
            # A second name of it could be a file elsewhere.
            if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
                raise self._no_file(temporary)
            os.ftruncate(file, 0)
            yield temporary, file
        finally:
            os.close(file)

    def _open(self, parts: tuple[str, ...], transfer: _Transfer) -> int | None:
        transfer.add(0)
        try:
            with self._opened_parent(parts, create=False) as parent:
                found = _stat(parts[-1], parent)
                if found is None:
                    return None
                if not stat.S_ISREG(found.st_mode):
                    raise self._no_file(parts[-1])
                return os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        except FileNotFoundError:
            return None

    def _read_at(
        self, parts: tuple[str, ...], begin: int, size: int, transfer: _Transfer
    ) -> tuple[bytes, os.stat_result | None]:
        file = self._open(parts, transfer)
        if file is None:
            return b"", None
        try:
            return os.pread(file, size, begin), os.fstat(file)
        finally:
            os.close(file)

    def _size_of(self, parts: tuple[str, ...], transfer: _Transfer) -> int | None:
        transfer.add(0)
        try:
            with self._opened_parent(parts, create=False) as parent:
                found = _stat(parts[-1], parent)
                return found.st_size if found is not None and stat.S_ISREG(found.st_mode) else None
        except FileNotFoundError:
            return None

    def _manifests(self, transfer: _Transfer) -> list[str]:
        keys = []
        with self._opened_root() as root:
            for app in _folders(root):
                with _opened(app, os.O_RDONLY | os.O_DIRECTORY, root) as folder:
                    for recording in _folders(folder):
                        transfer.add(1)
                        found = _stat(f"{recording}/{MANIFEST_NAME}", folder)
                        if found is not None and stat.S_ISREG(found.st_mode):
                            keys.append(f"{app}/{recording}/{MANIFEST_NAME}")
        return keys


def _parts(key: str) -> tuple[str, ...]:
    try:
        return check_key(key)
    except ValueError as error:
        raise PlaceError(str(error)) from None


@contextmanager
def _opened(
    path: str | Path, flags: int, folder: int | None = None, *, mode: int = _FILE_MODE, follow: bool = False
) -> Iterator[int]:
    file = os.open(path, flags | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW), mode, dir_fd=folder)
    try:
        yield file
    finally:
        os.close(file)


def _stat(name: str, folder: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _folders(folder: int) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(each.name for each in entries if each.is_dir(follow_symlinks=False) and each.name[0] != ".")


def _move(staged: Path, source: int, parent: int, name: str) -> bool:
    """Move a file if it lies on the same disk; say whether it did."""
    os.fsync(source)
    try:
        os.rename(staged, name, dst_dir_fd=parent)
    except OSError as error:
        # Not only on another disk: also across two mounts of one.
        if error.errno == errno.EXDEV:
            return False
        raise
    # Some file systems have no modes.
    with suppress(PermissionError):
        os.fchmod(source, _FILE_MODE)
    return True


def _write(file: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


def _digest(file: int, transfer: _Transfer) -> str:
    digest = hashlib.sha256()
    while block := os.read(file, _BLOCK):
        digest.update(block)
        transfer.add(len(block))
    return digest.hexdigest()


def _sync_folder(folder: int) -> None:
    try:
        os.fsync(folder)
    except OSError as error:
        # Some network file systems have none for folders.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
