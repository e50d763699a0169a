"""Lies told to processes about their disk and their wall clock: the commanding side of interposed.c."""

import mmap
import shutil
import struct
import subprocess
import time
from pathlib import Path
from typing import Self

from chaos.errors import ChaosError

SOURCE = Path(__file__).with_name("interposed.c")

#: In the order of the fields in interposed.c.
_FIELDS = ("write_errno", "sync_errno", "sync_delay_ms", "clock_step_ns", "clock_at_ns", "failures", "listeners")
_FIELD = struct.Struct("=q")

_NS = 1_000_000_000


def cannot_interpose() -> str | None:
    """Return why this machine cannot interpose, or None."""
    return None if _compiler() is not None else "no C compiler: install gcc"


class Interposer:
    """Tells lies to every process that is started with `environ`, from the moment it is told to. A context manager.

    Files below `disk` fail, no others. The library and the page of commands lie in `folder`. Raises `ChaosError` if
    the library cannot be made.
    """

    def __init__(self, folder: Path, *, disk: Path) -> None:
        self._library = folder / "interposed.so"
        self._control = folder / "interposed.control"
        self._disk = disk.resolve()
        self._page: mmap.mmap | None = None

    def __enter__(self) -> Self:
        if set(str(self._library)) & set(" :"):
            # https://man7.org/linux/man-pages/man8/ld.so.8.html (LD_PRELOAD)
            raise ChaosError(f"{self._library} cannot be preloaded: blanks and colons separate libraries")
        _compile(self._library)
        self._control.write_bytes(bytes(mmap.PAGESIZE))
        with self._control.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._page is not None:
            self._page.close()
            self._page = None

    @property
    def environ(self) -> dict[str, str]:
        """What comes on top of the environment of a process that is to be lied to."""
        return {
            "LD_PRELOAD": str(self._library),
            "CHAOS_CONTROL": str(self._control),
            "CHAOS_DISK": f"{self._disk}/",
        }

    @property
    def failures(self) -> int:
        """How many writes and syncs have failed or were slow so far: whether the lies were heard."""
        return self._get("failures")

    @property
    def listeners(self) -> int:
        """How many processes have been started so far that hear the lies."""
        return self._get("listeners")

    def fail_writes(self, error: int) -> None:
        """Let each write fail with `error`, an errno; reading and syncing work."""
        self._set(write_errno=error)

    def fail_syncs(self, error: int) -> None:
        """Let fsync and fdatasync fail with `error`, an errno; writing seems to work, as a disk does with a cache."""
        self._set(sync_errno=error)

    def delay_syncs(self, delay_s: float) -> None:
        """Let each sync take so much longer."""
        self._set(sync_delay_ms=round(delay_s * 1000))

    def step_clock(self, step_s: float) -> None:
        """Put the wall clock ahead by so much, or back."""
        self._set(clock_step_ns=round(step_s * _NS))

    def freeze_clock(self) -> None:
        """Let the wall clock stand still."""
        self._set(clock_at_ns=time.time_ns())

    def heal(self) -> None:
        """Let everything be as it is."""
        self._set(write_errno=0, sync_errno=0, sync_delay_ms=0, clock_step_ns=0, clock_at_ns=0)

    def _get(self, field: str) -> int:
        if self._page is None:
            raise ChaosError("nothing is interposed")
        value: int = _FIELD.unpack_from(self._page, _FIELDS.index(field) * _FIELD.size)[0]
        return value

    def _set(self, **values: int) -> None:
        if self._page is None:
            raise ChaosError("nothing is interposed")
        for field, value in values.items():
            _FIELD.pack_into(self._page, _FIELDS.index(field) * _FIELD.size, value)


def _compiler() -> str | None:
    return shutil.which("gcc") or shutil.which("cc")


def _compile(library: Path) -> None:
    compiler = _compiler()
    if compiler is None:
        raise ChaosError("no C compiler: install gcc")
    # Shared with no flags that let the compiler replace the functions that are defined here by built-in ones.
    arguments = ["-shared", "-fPIC", "-O1", "-fno-builtin", "-Wall", "-Werror", "-o", str(library), str(SOURCE), "-ldl"]
    compiled = subprocess.run([compiler, *arguments], capture_output=True, text=True, check=False)
    if compiled.returncode:
        raise ChaosError(f"the library between processes and their disk was not made:\n{compiled.stderr}")
