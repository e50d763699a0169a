"""Every command with every option, where things are not as they should be: it says so, and is never lied to.

The commands and options are read from the parser, so that a new one is tried without a word here.
"""

import argparse
import asyncio
import contextlib
import io
import os
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct, structs

from broker.embedded.transport import EmbeddedTransport
from ingest.spool.files import WAITING, SpoolFolder
from ingest.spool.format import Record, render_record
from store import Store, migrate
from tests.commands import Finished, run_command
from tests.ingest.spool.messages import message
from tiw.parser import build_parser

ROOT = Path(__file__).resolve().parents[2]

#: What is given for an option or argument, by its name in the parser: something that is there or may be, and worse.
VALUES = {
    "app": ["1400000001", "9" * 30],
    "attempt": ["2", "9" * 30],
    "body": ["/nowhere/body.json", "."],
    "classes": ["1"],
    "concurrency": ["1"],
    "consumer": ["finished", "nobody", "no/body"],
    "consumers": ["nobody"],
    "event": ["Finished", "Nonsense"],
    "event_id": ["x"],
    "file": ["/nowhere/consumer.py", ".", "no such module"],
    "key": ["a-key"],
    "kind": ["started", "Nonsense"],
    "limit": ["0", "9" * 30],
    "name": ["nobody", "finished"],
    "output": ["/proc/nowhere", "documents"],
    "processes": ["2"],
    "rate": ["1000"],
    "reason": ["x"],
    "seed": ["1", "9" * 30],
    "room": ["5", "9" * 18],
    "since": ["3d", "2026-11-23", "999999999w", "0001-01-01", "yesterday"],
    "status": ["finished"],
    "shell": ["bash", "nonsense"],
    "task": ["x"],
    "task_id": ["x"],
    "teacher": ["x"],
    "timeout": ["0.2"],
    "until": ["3d", "2026-11-23T10:00+08:00", "yesterday"],
    "url": ["http://127.0.0.1:1/callbacks/tiw", "nonsense"],
}

#: What some options need beside them, here or at all.
AND = {"await_callback": ("--timeout", "0.2")}

#: These run until they are stopped, or play classes: once each is enough, with all that is said of their data folder.
LONG = {"up", "ingest", "work", "console", "demo", "simulate", "migrate"}


#: These run until they are told to stop; whatever they stumble over, they say by then.
LASTING = {"up", "ingest", "work", "console", "reconcile"}
STOP_AFTER_S = 4.0


class Case(Struct, frozen=True, kw_only=True):
    """A command line; `only_reads`: it has no business to make or change a file."""

    arguments: tuple[str, ...]
    only_reads: bool

    @property
    def lasts(self) -> bool:
        return self.arguments[0] in LASTING

    def __str__(self) -> str:
        return " ".join(argument[:12] for argument in self.arguments)


def leaves(parser: argparse.ArgumentParser, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if "runs" in parser._defaults:
        yield path, parser
    for group in groups:
        for name, child in group.choices.items():
            yield from leaves(child, (*path, name))


def values_of(action: argparse.Action) -> list[list[str]]:
    """Return the ways in which an option or argument is given."""
    flag = list(action.option_strings[-1:])
    if action.nargs == 0:
        return [[*flag, *AND.get(action.dest, ())]]
    return [[*flag, value] for value in VALUES.get(action.dest, ["x", "9" * 30])]


def cases() -> Iterator[Case]:
    for path, parser in leaves(build_parser()):
        actions = [
            action
            for action in parser._actions
            if action.help != argparse.SUPPRESS
            and not isinstance(action, argparse._HelpAction | argparse._SubParsersAction)
        ]
        required = [action for action in actions if action.required]
        base = [part for action in required for part in values_of(action)[0]]
        lines = [base]
        for action in actions:
            others = [part for one in required if one is not action for part in values_of(one)[0]]
            lines += [[*given, *others] for given in values_of(action) if [*given, *others] != base]
        for line in lines[:1] if path[0] in LONG else lines:
            yield Case(arguments=(*path, *line), only_reads=only_reads(path, line))


def only_reads(path: tuple[str, ...], line: list[str]) -> bool:
    reading = {"list", "show", "verify", "config", "doctor", "consumers", "schema", "try", "completion", "audit"}
    return "--dry-run" in line or (path[-1] in reading and not {"--output", "--await-callback"} & {*line})


def is_refused_unread(case: Case) -> bool:
    """Say whether the parser refuses it: then nothing of a data folder is looked at."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        try:
            build_parser().parse_args(case.arguments)
        except SystemExit:
            return True
    return False


CASES = list(cases())
READING = [case for case in CASES if not is_refused_unread(case)]


class Condition(Struct, frozen=True, kw_only=True):
    """What a data folder is like. `hides`: what cannot be looked at there, by the first word of its commands.

    `spares`: what finds there what it finds in a whole one, and is tried in that.
    """

    name: str
    prepare: Callable[[Path], None]
    hides: frozenset[str] = frozenset()
    spares: frozenset[str] = frozenset()
    is_somebody_elses: bool = False


_OF_THE_STORE = frozenset({"recordings", "events", "dead-letters", "consumers", "notify", "reconcile"})
_EVERYTHING = _OF_THE_STORE | {"spool", "rejected"}
_BESIDE_THE_STORE = frozenset({"spool", "rejected", "try", "keys", "vendor", "schema", "config", "completion"})


def _whole(folder: Path) -> None:
    async def make() -> None:
        async with Store(f"sqlite+aiosqlite:///{folder}/store.db") as store, EmbeddedTransport(folder) as transport:
            await migrate(store)
            await transport.wait_ready()

    folder.mkdir()
    asyncio.run(make())
    for name in ("spool", "rejected"):
        (folder / name).mkdir()


def _damaged(folder: Path) -> None:
    _whole(folder)
    for path in folder.rglob("*.db"):
        path.write_bytes(b"damage" * 1000)
    file = SpoolFolder(folder / "spool").create(WAITING)
    for sequence in (1, 2):
        file.append(
            render_record(file.marker, Record(sequence=sequence, spooled_at_us=1, message=message(str(sequence))))
        )
    file.close()
    content = file.path.read_bytes()
    file.path.write_bytes(content[:20] + b"damage" + content[26:])
    (folder / "rejected" / "rejected.db").write_bytes(b"damage" * 1000)
    (folder / "callback_keys.json").write_bytes(b"\xff damage")


def _newer(folder: Path) -> None:
    _whole(folder)
    with sqlite3.connect(folder / "store.db") as connection:
        connection.execute("UPDATE schema_level SET level = 99, usable_since = 99")
    connection.close()


def _take_away(folder: Path) -> None:
    """Let a folder be somebody else's; who is not root can only take it from himself."""
    if os.getuid() == 0:
        os.chown(folder, 65534, 65534)
    folder.chmod(0o700 if os.getuid() == 0 else 0o000)


def _another_programs(folder: Path) -> None:
    _whole(folder)
    for name in ("store.db", "transport.db"):
        (folder / name).unlink()
        with contextlib.closing(sqlite3.connect(folder / name)) as connection:
            connection.execute("CREATE TABLE events (what TEXT)")


CONDITIONS = [
    Condition(name="absent", prepare=lambda _: None),
    Condition(name="whole", prepare=_whole),
    Condition(name="damaged", prepare=_damaged, hides=_EVERYTHING),
    Condition(name="newer", prepare=_newer, hides=_OF_THE_STORE, spares=_BESIDE_THE_STORE),
    Condition(name="another program's", prepare=_another_programs, hides=_OF_THE_STORE, spares=_BESIDE_THE_STORE),
    Condition(name="a file", prepare=Path.touch, hides=_EVERYTHING),
    Condition(name="somebody else's", prepare=_whole, hides=_EVERYTHING, is_somebody_elses=True),
]


class Ended(Finished, frozen=True, kw_only=True):
    """What became of a command, and of its data folder."""

    case: Case
    before: dict[str, str]
    after: dict[str, str]


@pytest.fixture(scope="module", params=CONDITIONS, ids=lambda condition: condition.name)
def condition(request: pytest.FixtureRequest) -> Condition:
    found: Condition = request.param
    return found


@pytest.fixture(scope="module")
def ended(condition: Condition, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Ended]]:
    base = tmp_path_factory.mktemp("commands")
    template = base / "template"
    condition.prepare(template)
    before = _snapshot(template)
    # What is refused whatever the data folder is like is tried where there is none.
    tried = CASES if condition is CONDITIONS[0] else READING
    tried = [case for case in tried if case.arguments[0] not in condition.spares]

    def end(number: int) -> Ended:
        place = base / str(number)
        place.mkdir()
        folder = place / "data"
        if template.is_dir():
            shutil.copytree(template, folder)
        elif template.exists():
            folder.touch()
        if condition.is_somebody_elses:
            _take_away(folder)
        case = tried[number]
        environ = {
            "PATH": os.environ["PATH"],
            "TIW_DATA_DIR": str(folder),
            "TIW_HTTP": "127.0.0.1:0",
            "TIW_ADMIN": "127.0.0.1:0",
            "TIW_CONSOLE": "127.0.0.1:0",
        }
        finished = run_command(
            case.arguments,
            environ,
            cwd=place,
            as_stranger=condition.is_somebody_elses,
            stop_after_s=STOP_AFTER_S if case.lasts else None,
        )
        if condition.is_somebody_elses:
            folder.chmod(0o700)
        return Ended(**structs.asdict(finished), case=case, before=before, after=_snapshot(folder))

    # Those that last only wait.
    at_once = sum(case.lasts for case in tried) + 2 * (os.cpu_count() or 1)
    with ThreadPoolExecutor(at_once) as pool:
        yield list(pool.map(end, range(len(tried))))
    shutil.rmtree(base, ignore_errors=True)


def _snapshot(folder: Path) -> dict[str, str]:
    """Return what is in a folder; a database's own notes for its readers (-wal, -shm) apart."""
    if not folder.is_dir():
        return {".": str(folder.read_bytes())} if folder.exists() else {}
    return {
        str(path.relative_to(folder)): _content(path)
        for path in sorted(folder.rglob("*"))
        if not path.name.endswith(("-wal", "-shm"))
    }


def _content(path: Path) -> str:
    if path.is_dir():
        return ""
    with contextlib.suppress(sqlite3.DatabaseError), contextlib.closing(sqlite3.connect(path)) as connection:
        return "".join(connection.iterdump())
    return str(path.read_bytes())


def test_none_ends_with_a_traceback_or_in_silence(ended: list[Ended]) -> None:
    wrong = {
        str(one.case): one.err[-600:] or f"silence, {one.code}"
        for one in ended
        if "Traceback" in one.err or one.code not in {0, 1, 2} or not (one.out or one.err or not one.code)
    }
    assert wrong == {}


def test_what_could_not_be_done_is_said_in_one_sentence(ended: list[Ended]) -> None:
    wrong = {
        str(one.case): one.err
        for one in ended
        if one.code == 2 and (len(one.err.splitlines()) != 1 or not one.err.startswith("tiw: "))
    }
    assert wrong == {}


def test_what_only_reads_makes_and_changes_nothing(ended: list[Ended]) -> None:
    wrong = {
        str(one.case): sorted({*one.before.items()} ^ {*one.after.items()})[:3]
        for one in ended
        if one.case.only_reads and one.before != one.after
    }
    assert wrong == {}


def test_nothing_is_called_empty_that_could_not_be_looked_at(condition: Condition, ended: list[Ended]) -> None:
    wrong = {
        str(one.case): one.out + one.err
        for one in ended
        if one.case.only_reads
        and one.case.arguments[0] in condition.hides
        and (one.code == 0 or "is empty" in one.out or one.out.startswith("No "))
    }
    assert wrong == {}


def test_the_readme_names_every_command() -> None:
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## Commands\n")[2].partition("\n## ")[0]
    named = {words[1]: words[2:] for words in map(str.split, re.findall(r"`(tiw [^`]+)`", section))}
    paths = [path for path, _ in leaves(build_parser())]
    assert named.keys() == {path[0] for path in paths}
    missing = [path for path in paths if not set(path[1:]) <= set(re.split(r"[^\w-]+", " ".join(named[path[0]])))]
    assert missing == []
