"""Restarts in order, one program after the other: with the same code, and with newer code."""

import shutil
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path

from msgspec import structs

from chaos.errors import ChaosError
from chaos.machine.deployment import ROOT
from chaos.machine.node import Node
from chaos.machine.servers import Servers
from chaos.scenario import Scenario, Traffic, Wiring, arrange_directly
from chaos.stage import Stage


def _restart(stage: Stage, node: Node, *, kind: str, code: Path) -> None:
    with stage.fault(kind, node.name):
        node.stop()
        node.code = code
        node.start()
        node.wait_ready()


def _inject_restart(stage: Stage) -> None:
    names = [node.name for node in stage.deployment.nodes] * stage.pick(1, 10)
    stage.rng.shuffle(names)
    stage.plan(", ".join(names))
    for name in names:
        _restart(stage, stage.deployment.node(name), kind="restart", code=ROOT)
        stage.sleep(1.0)


def _arrange_previous(stage: Stage, servers: Servers, stack: ExitStack) -> Wiring:
    """Lay the previous commit's code beside ours, for `Layout` to start with."""
    folder = Path(tempfile.mkdtemp(prefix="tiw-previous-"))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    archive = subprocess.run(
        [_git(), "-C", str(ROOT), "archive", stage.previous_commit], capture_output=True, check=False, timeout=60
    )
    if archive.returncode != 0:
        raise ChaosError(f"git has no {stage.previous_commit}: {archive.stderr.decode()[-300:]}")
    subprocess.run([_tar(), "-x", "-C", str(folder)], input=archive.stdout, check=True, timeout=60)
    stage.props["previous"] = folder
    return structs.replace(arrange_directly(stage, servers, stack), code=folder)


def _inject_update(stage: Stage) -> None:
    stage.plan(f"from {stage.previous_commit}: migrate, then each program in turn; half way back and forth again")
    deployment = stage.deployment
    # The database first, beside programs of the old version; then each program in turn.
    with stage.fault("migration", "database"):
        deployment.migrate()
    half = [deployment.node("ingest-1"), deployment.node("work-1")]
    for node in half:
        _restart(stage, node, kind="update", code=ROOT)
    # Old and new side by side for a while.
    stage.sleep(stage.pick(5.0, 60.0))
    for node in half:
        _restart(stage, node, kind="return to the previous version", code=stage.props["previous"])
    for node in deployment.nodes:
        _restart(stage, node, kind="update", code=ROOT)


def _git() -> str:
    return shutil.which("git") or "git"


def _tar() -> str:
    return shutil.which("tar") or "tar"


def _no_history() -> str | None:
    if shutil.which("git") is None or shutil.which("tar") is None:
        return "git and tar are needed"
    if not (ROOT / ".git").exists():
        return "there is no history here to update from"
    return None


SCENARIOS = (
    Scenario(
        name="rolling-restart",
        sentence="Every ingest node and worker restarted in order (SIGTERM), one after the other, under load",
        inject=_inject_restart,
        # The update restarts everything, too.
        in_short_run=False,
        traffic=Traffic(callbacks=500, rate=60.0),
    ),
    Scenario(
        name="rolling-update",
        sentence="From the previous commit's code to this one, both side by side, half way back, and forth again",
        inject=_inject_update,
        arrange=_arrange_previous,
        traffic=Traffic(callbacks=500, rate=60.0),
        cannot_run=_no_history,
    ),
)
