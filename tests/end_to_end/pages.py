"""The blocks of a page, and somebody who pastes them into a shell, one after the other.

- `sh`: is run as it stands. One whose last line ends in `up` runs until the next such block, or until the page ends.
- `text` right after an `sh` block: what that prints. `...` stands for any text in a line, and alone for any lines.
- Whatever names a file in a comment in its first line (`# archive.py`) is put there.

`docker` and `git` are stand-ins that note what they were called with, see `compose.py`.
"""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from msgspec import Struct

from tests.end_to_end.deployment import free_port, get
from tests.end_to_end.programs import DEADLINE_S, STOP_S, eventually

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# ([\w./-]*\w\.\w+|[\w/]*Dockerfile)\n")

_SHELL = ("bash", "-euo", "pipefail", "-c")

_STAND_IN = """#!/bin/sh
{ printf '%s\\037' "${0##*/}" "$@"; printf '\\036'; } >>"$CALLS"
case "$*" in
  *'config --services') printf '%s\\n' ingest worker-finished plugins ;;
  *logs*) echo 'ingest-1  | callback key for 1400000001: 0f6b0c' ;;
esac
"""


class Block(Struct, frozen=True, kw_only=True):
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    text: str
    #: Whether nothing but one empty line is between it and a block for the shell.
    follows: bool

    @property
    def first_line(self) -> str:
        return self.text.split("\n", 1)[0]

    @property
    def file(self) -> str | None:
        """Where its first line says that it belongs."""
        named = _FILE.match(self.text)
        return None if named is None else named[1]

    @property
    def runs_on(self) -> bool:
        """Whether it runs until it is stopped."""
        return self.language == "sh" and re.search(r"(\./dev|tiw) up$", self.text.rstrip()) is not None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(root: Path, page: str) -> list[Block]:
    """Return the blocks of a page in their order."""
    text = (root / page).read_text(encoding="utf-8")
    blocks, end = list[Block](), -1
    for found in _FENCE.finditer(text):
        blocks.append(
            Block(
                page=page,
                line=text.count("\n", 0, found.start()) + 1,
                language=found[1],
                text=found[2],
                follows=found.start() == end + 2 and blocks[-1].language == "sh",
            )
        )
        end = found.end()
    return blocks


def is_what_came(quoted: str, came: str) -> bool:
    """Say whether a page's output is what was printed, but for ids, ports, durations and the width of columns.

    Where lines are left out on both sides of some, these may be anywhere: recordings that end together have no order.
    """
    printed = "".join(f"{_alike(line)}\n" for line in came.splitlines() if line.strip())
    lines = "".join(f"{_alike(line)}\n" for line in quoted.splitlines() if line.strip())
    first, *others = (
        re.escape(part).replace(re.escape("..."), ".*") for part in re.split(r"^\.\.\.\n", lines, flags=re.MULTILINE)
    )
    if not others:
        return re.fullmatch(first, printed) is not None
    *anywhere, last = others
    ends = re.fullmatch(rf"{first}(?:.*\n)*?{last}", printed)
    return ends is not None and all(re.search(rf"^{part}", printed, re.MULTILINE) for part in anywhere)


def _alike(line: str) -> str:
    line = re.sub(r"\s+", " ", line.strip())
    line = re.sub(r"─+", "─", line)
    line = re.sub(r"\b127\.0\.0\.1:\d+", "127.0.0.1:PORT", line)
    line = re.sub(r"\b[0-9a-f]{32}\b|\b[0-9a-f]{6}\.\.\.", "ID", line)
    return re.sub(r"\b\d+\.\d+ s\b", "0 s", line)


class Reader:
    """Pastes blocks into a shell, in `folder`; a context manager that leaves no process behind.

    The ports of a page and its /tmp are replaced by free ones and `temporary`.
    """

    def __init__(self, folder: Path, temporary: Path, settings: Mapping[str, str]) -> None:
        self.folder = folder
        self.temporary = temporary
        self._came = ""
        self._running: subprocess.Popen[bytes] | None = None
        self._calls = temporary / "calls"
        self._output = temporary / "output"
        http, admin, console = free_port(), free_port(), free_port()
        self._replaced = {
            "127.0.0.1:8080": f"127.0.0.1:{http}",
            "127.0.0.1:8090": f"127.0.0.1:{console}",
            "127.0.0.1:9080": f"127.0.0.1:{admin}",
        }
        temporary.mkdir()
        programs = temporary / "programs"
        programs.mkdir()
        for name in ("docker", "git"):
            (programs / name).write_text(_STAND_IN, encoding="utf-8")
            (programs / name).chmod(0o755)
        self._ready = f"http://127.0.0.1:{admin}/readyz"
        self._environment = {
            **{name: value for name, value in os.environ.items() if not re.match(r"TIW_|PYTHON|PIP_", name)},
            "PATH": f"{programs}:{os.environ['PATH']}",
            "CALLS": str(self._calls),
            "TIW_HTTP": f"127.0.0.1:{http}",
            "TIW_ADMIN": f"127.0.0.1:{admin}",
            "TIW_CONSOLE": f"127.0.0.1:{console}",
            **settings,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if self._running is not None:
            try:
                self._end()
            finally:
                self._kill()

    @property
    def log(self) -> str:
        """What the latest block that runs on has printed."""
        return self._output.read_text(encoding="utf-8") if self._output.exists() else ""

    @property
    def calls(self) -> list[list[str]]:
        """What stand-ins were called with, their names first."""
        if not self._calls.exists():
            return []
        return [call.split("\037")[:-1] for call in self._calls.read_text(encoding="utf-8").split("\036")[:-1]]

    def follow(self, blocks: Sequence[Block]) -> None:
        """Do what each block says, and compare what it quotes."""
        for block in blocks:
            if block.file is not None:
                file = self.folder / block.file
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(self._here(block.text), encoding="utf-8")
            elif block.language == "text":
                assert block.follows, f"{block} quotes what no block before it prints"
                assert is_what_came(block.text, self._came), f"{block} is not what came:\n{self._came}"
            elif block.runs_on:
                self._start(block)
            else:
                assert block.language == "sh", (
                    f"{block}: nobody knows what to do with {block.language or 'no language'}"
                )
                self._came = self.paste(self._here(block.text), where=str(block))

    def paste(self, text: str, *, where: str) -> str:
        """Run lines of a shell to their end, which must be a good one, and return what they print."""
        done = subprocess.run(
            [*_SHELL, text],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=DEADLINE_S,
            check=False,
        )
        came = done.stdout.decode()
        assert done.returncode == 0, f"{where} ended with {done.returncode}:\n{came}\n{self.log[-5000:]}"
        return came

    def _here(self, text: str) -> str:
        for theirs, ours in self._replaced.items():
            text = text.replace(theirs, ours)
        return re.sub(r'(?<=["\s])/tmp/', f"{self.temporary}/", text)

    def _start(self, block: Block) -> None:
        """Start what runs on, once what ran before has ended; it is ready when this returns."""
        if self._running is not None:
            self._end()
        with self._output.open("wb") as output:
            running = self._running = subprocess.Popen(
                [*_SHELL, self._here(block.text)],
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

        def is_ready() -> bool:
            assert running.poll() is None, f"{block} ended:\n{self.log}"
            return get(self._ready)[0] == 200

        eventually(is_ready)
        # A terminal would show the log in colours, and without the lines of JSON.
        self._came = "".join(line for line in self.log.splitlines(keepends=True) if not line.startswith("{"))
        (printed,) = re.findall(r"^Send a callback:\n\n(.*?)\n\n", self._came, re.MULTILINE | re.DOTALL)
        if shutil.which("curl"):
            assert self.paste(printed, where=f"the command that {block} prints").strip() == '{"error_code":0}'

    def _end(self) -> None:
        """Press Ctrl-C."""
        assert self._running is not None
        os.killpg(self._running.pid, signal.SIGINT)
        code = self._running.wait(STOP_S)
        self._running = None
        assert code == 0, f"exit {code}:\n{self.log}"
        assert "Traceback" not in self.log, self.log

    def _kill(self) -> None:
        if self._running is not None:
            os.killpg(self._running.pid, signal.SIGKILL)
            self._running.wait()
