"""Users' code that cannot be loaded, or behaves badly while it is, stops its own consumer and nothing else."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec import Struct

from tests.end_to_end.deployment import Deployment, embedded, get
from tests.end_to_end.programs import ROOT, STOP_S, Program, eventually
from tests.end_to_end.sending import callback, send

CONSUMER = """
from schemas import OnlineRecordStarted
from workers import Context, consumer

{before}

@consumer
async def {name}(event: OnlineRecordStarted, ctx: Context) -> None:
    ctx.log.info("succeeded", task_id=event.task_id)
"""

RESERVED_NAME = CONSUMER.format(name="retry", before="")

#: What a file holds, and what is said of it.
CANNOT_BE_LOADED = {
    "a syntax error": ("def broken(:\n", "{name}.py:1: invalid syntax"),
    "an import of what is not installed": ("import not_here\n", "{name}.py:1: there is no module 'not_here'"),
    "an error": ("\nraise RuntimeError('no bucket is set')\n", "{name}.py:2: RuntimeError: no bucket is set"),
    "a reserved name": (RESERVED_NAME, "are taken: rename the function"),
    "an end of the process": ("import os; os._exit(0)\n", "{name}.py ended its process"),
    "an exit": ("import sys; sys.exit('no licence')\n", "no licence"),
    "a null byte": ("\0", "{name}.py"),
}


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    with embedded(tmp_path) as deployment:
        deployment.settings["TIW_CONSUMERS"] = str(deployment.plugins)
        yield deployment


def write(deployment: Deployment, name: str, content: str) -> None:
    draft = deployment.plugins / f".{name}.part"
    draft.write_text(content, encoding="utf-8")
    draft.rename(deployment.plugins / f"{name}.py")


def start(deployment: Deployment) -> tuple[Program, str]:
    """Start `tiw up`, not waiting until it is ready; return it and where its readiness is told."""
    up = deployment.program("up")

    def line(begin: str) -> str:
        assert up.code is None, up.err
        return next((one.removeprefix(begin) for one in up.out.splitlines() if one.startswith(begin)), "")

    deployment.address = eventually(lambda: line("callbacks  "))
    return up, line("health     ")


class Mended(Struct, frozen=True, kw_only=True):
    """A `tiw up` whose consumers could not be loaded at first; what it said then, by the name of the file."""

    up: Program
    folder: Path
    told: dict[str, str]
    not_ready: list[str]


def named(what: str) -> str:
    """Return the name of the file with this mistake, and later of its consumer."""
    return f"mine_{list(CANNOT_BE_LOADED).index(what)}"


@pytest.fixture(scope="module")
def mended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mended]:
    """Run one pipeline with all that cannot be loaded; mend it, and send a callback before and another behind that."""
    with embedded(tmp_path_factory.mktemp("mended")) as deployment:
        deployment.settings["TIW_CONSUMERS"] = str(deployment.plugins)
        for what, (content, _) in CANNOT_BE_LOADED.items():
            write(deployment, named(what), content)
        write(deployment, "other", CONSUMER.format(name="other", before=""))
        up, health = start(deployment)
        told = {
            name: up.wait_logged("consumers_not_loaded", source=f"{deployment.plugins}/{name}.py")["error"]
            for name in map(named, CANNOT_BE_LOADED)
        }
        up.wait_logged("worker_started", consumers=["other"])
        not_ready = json.loads(get(health)[1])["not_ready"]
        send(deployment.address, callback("OnlineRecordStarted", "class-1"))
        eventually(lambda: up.told("succeeded", consumer="other") == ["class-1"])
        for name in told:
            write(deployment, name, CONSUMER.format(name=name, before=""))
        for name in told:
            up.wait_logged("worker_started", consumers=[name])
        eventually(lambda: get(health)[0] == 200)
        send(deployment.address, callback("OnlineRecordStarted", "class-2"))
        yield Mended(up=up, folder=deployment.plugins, told=told, not_ready=not_ready)


@pytest.mark.parametrize("what", CANNOT_BE_LOADED)
def test_a_file_that_cannot_be_loaded_is_told_with_its_line_and_loaded_once_it_is_mended(
    mended: Mended, what: str
) -> None:
    _, words = CANNOT_BE_LOADED[what]
    told = mended.told[named(what)]
    assert words.format(name=named(what)) in told
    assert "Traceback" not in told
    assert f"{mended.folder}/{named(what)}.py is not loaded: {told}" in mended.not_ready
    # The first callback came before there was its queue.
    eventually(lambda: mended.up.told("succeeded", consumer=named(what)) == ["class-2"])
    assert mended.up.told("succeeded", consumer="other")[0] == "class-1"


def test_an_import_that_takes_long_starts_threads_prints_and_forks_holds_up_nobody(deployment: Deployment) -> None:
    before = (
        "import atexit, os, subprocess, threading, time\n"
        "print('hello')\n"
        "atexit.register(print, 'bye')\n"
        "threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()\n"
        "subprocess.Popen(['sleep', '15'], start_new_session=True)\n"
        "time.sleep(4)"
    )
    write(deployment, "mine", CONSUMER.format(name="mine", before=before))
    write(deployment, "other", CONSUMER.format(name="other", before=""))
    began_s = time.monotonic()
    up, _ = start(deployment)
    send(deployment.address, callback("OnlineRecordStarted", "class-1"))
    up.wait_logged("worker_started", consumers=["other"])
    assert not up.logged("worker_started", consumers=["mine"])
    up.wait_logged("worker_started", consumers=["mine"])
    assert time.monotonic() - began_s > 8, "it is imported to be described, and to run"
    up.stop(within_s=STOP_S)


def test_a_file_that_appears_is_loaded(deployment: Deployment) -> None:
    up, health = start(deployment)
    up.wait_logged("idle")
    eventually(lambda: get(health)[0] == 200)
    write(deployment, "mine", CONSUMER.format(name="mine", before=""))
    up.wait_logged("worker_started", consumers=["mine"])


def test_files_that_are_not_there_are_told_and_loaded_when_they_are(deployment: Deployment) -> None:
    mine = f"{deployment.plugins}/mine.py"
    (deployment.plugins / "none.py").write_text("answer = 42\n")
    deployment.settings["TIW_CONSUMERS"] = f"{mine},no_such_module,{deployment.plugins}/none.py"
    up, _ = start(deployment)
    assert "which is not there" in up.wait_logged("consumers_not_loaded", source=mine)["error"]
    of_module = up.wait_logged("consumers_not_loaded", source="no_such_module")
    assert "there is no module 'no_such_module'" in of_module["error"]
    without = up.wait_logged("consumers_not_loaded", source=f"{deployment.plugins}/none.py")
    assert "defines no consumer" in without["error"]
    write(deployment, "mine", CONSUMER.format(name="mine", before=""))
    up.wait_logged("worker_started", consumers=["mine"])


def test_a_worker_that_reloads_runs_what_is_in_the_file_now(make_distributed: Callable[..., Deployment]) -> None:
    deployment = make_distributed()
    deployment.settings["TIW_CONSUMERS"] = str(deployment.plugins)
    write(deployment, "mine", CONSUMER.format(name="mine", before=""))
    assert deployment.run("migrate").code == 0
    deployment.ingest()
    worker = deployment.program("work", "--reload")
    worker.wait_logged("worker_started", consumers=["mine"])
    worker.wait_logged("consumer_started", queue="tiw.started")
    write(deployment, "mine", CONSUMER.format(name="mine", before="").replace("succeeded", "changed"))
    # The old one may take its grace to end, and the event a lease to come back.
    eventually(lambda: len(worker.logged("worker_started", consumers=["mine"])) == 2, within_s=180)
    send(deployment.address, callback("OnlineRecordStarted", "class-1"))
    eventually(lambda: worker.told("changed", consumer="mine") == ["class-1"], within_s=180)
    assert not worker.told("succeeded", consumer="mine")


#: Two consumers in one file, with all that people do in a module of a package.
PACKAGE = """\ufefffrom __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import TypedDict

import beside_pythonpath
from names import spelled
from schemas import OnlineRecordStarted
from workers import Context, consumer

from . import names
from .store import where
{alias}

@dataclass(frozen=True)
class Lesson:
    task_id: str


class Row(TypedDict):
    lesson: Lesson


def double(lesson: Lesson) -> Lesson:
    return Lesson(lesson.task_id * 2)


@consumer
def computes(event: {kinds}, ctx: Context) -> None:
    assert names.spelled is not None and where() == "theirs"
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        doubled = pool.submit(double, Lesson(spelled(event.task_id))).result()
    row = Row(lesson=doubled)
    ctx.log.info("computed", task_id=row["lesson"].task_id, beside=beside_pythonpath.__name__)


@consumer
async def looks(event: OnlineRecordStarted, ctx: Context) -> None:
    kind = os.readlink("/proc/self/fd/0")
    ctx.log.info("looked", task_id=event.task_id, stdin=kind)
"""


def test_plugins_are_a_package_with_neighbours_and_processes_of_their_own(
    deployment: Deployment, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "beside_pythonpath.py").write_text("")
    deployment.settings["PYTHONPATH"] = f"{ROOT}{os.pathsep}{elsewhere}"
    deployment.anew = True
    has_aliases = sys.version_info >= (3, 12)
    alias = "type Either = OnlineRecordStarted" if has_aliases else ""
    (deployment.plugins / "names.py").write_text("def spelled(text): return text.upper()\n")
    (deployment.plugins / "store.py").write_text("def where(): return 'theirs'\n")
    content = PACKAGE.format(alias=alias, kinds="Either" if has_aliases else "OnlineRecordStarted")
    write(deployment, "mine", content)
    up, health = start(deployment)
    eventually(lambda: get(health)[0] == 200, within_s=30)
    send(deployment.address, callback("OnlineRecordStarted", "a1"))
    (computed,) = eventually(lambda: up.logged("computed", consumer="computes"))
    assert (computed["task_id"], computed["beside"]) == ("A1A1", "beside_pythonpath")
    (looked,) = eventually(lambda: up.logged("looked", consumer="looks"))
    assert looked["stdin"] == "/dev/null"
    up.signal(signal.SIGTERM)
    up.wait(within_s=STOP_S)
    # The tracker of multiprocessing ends a moment after the process that had it.
    eventually(lambda: not _group_lives(up.pid))


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_no_folder_for_temporary_files_is_needed(deployment: Deployment, tmp_path: Path) -> None:
    # As where /tmp is read-only: Python finds no folder that it can write.
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import tempfile\n"
        "def refuse(): raise FileNotFoundError(2, 'No usable temporary directory found')\n"
        "tempfile.gettempdir = tempfile._get_default_tempdir = refuse\n"
    )
    deployment.settings["PYTHONPATH"] = f"{ROOT}{os.pathsep}{site}"
    deployment.anew = True
    write(deployment, "mine", CONSUMER.format(name="mine", before=""))
    up, health = start(deployment)
    eventually(lambda: get(health)[0] == 200)
    assert len(list(deployment.data.glob("metrics-*"))) == 1
    up.stop(within_s=STOP_S)
    assert list(deployment.data.glob("metrics-*")) == []
