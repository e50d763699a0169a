"""Whatever the bench installs is pinned by hash, and its pins follow what is asked for."""

import json
import re
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
ASKED = sorted(BENCH.rglob("requirements.in"))
NODE = BENCH / "peers" / "node"


def names(text: str) -> set[str]:
    return {found.lower() for found in re.findall(r"^([A-Za-z0-9._-]+)", text, re.MULTILINE)}


def test_there_are_the_plots_the_python_peers_and_a_node() -> None:
    places = [path.parent.relative_to(BENCH).as_posix() for path in ASKED]
    assert sorted(places) == [".", "peers/node", "peers/python"]


@pytest.mark.parametrize("asked", ASKED, ids=lambda path: path.parent.name)
def test_every_python_requirement_is_pinned_with_hashes(asked: Path) -> None:
    pinned = asked.with_suffix(".txt").read_text(encoding="utf-8")
    assert names(asked.read_text(encoding="utf-8")) <= names(pinned)
    entries = [entry for entry in re.split(r"\n(?=[A-Za-z0-9])", pinned) if not entry.startswith("#")]
    assert entries
    for entry in entries:
        assert re.match(r"[A-Za-z0-9._-]+==\S+", entry), entry.splitlines()[0]
        assert "--hash=sha256:" in entry, entry.splitlines()[0]


def test_every_node_package_is_pinned_with_a_hash_and_without_an_address() -> None:
    lock = json.loads((NODE / "package-lock.json").read_bytes())
    package = json.loads((NODE / "package.json").read_bytes())
    own = lock["packages"].pop("")
    assert own["dependencies"] == package["dependencies"]
    for name, pinned in lock["packages"].items():
        assert pinned["integrity"].startswith("sha512-"), name
        assert "resolved" not in pinned, name
    assert {f"node_modules/{name}" for name in package["dependencies"]} <= set(lock["packages"])


def test_every_peer_that_is_started_is_there() -> None:
    started = "".join(path.read_text(encoding="utf-8") for path in (BENCH / "contenders").glob("*.py"))
    python = set(re.findall(r'(?:python_peer\(arena, |_python\("[^"]+", |_enveloping\("[^"]+", )"(\w+)"', started))
    node = set(re.findall(r'node_peer\(arena, "(\w+)"\)', started))
    assert {path.stem for path in (BENCH / "peers" / "python").glob("*.py")} == {
        *python,
        # What they share.
        *("__init__", "accepting", "handling", "storing"),
    }
    assert {path.stem for path in NODE.glob("*.js")} == {*node, "progress"}
    go = set(re.findall(r'go_peer\(arena, "(\w+)"\)', started))
    assert {path.stem for path in (BENCH / "peers" / "go").glob("*.go")} == go


def test_what_ours_and_the_peers_are_both_made_of_has_one_version() -> None:
    ours, theirs = (
        dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", path.read_text(encoding="utf-8"), re.MULTILINE))
        for path in (BENCH.parent / "requirements" / "runtime.txt", BENCH / "peers" / "python" / "requirements.txt")
    )
    shared = ours.keys() & theirs.keys()
    assert {"aio-pika", "aiohttp", "asyncpg", "uvloop"} <= shared
    assert {name: ours[name] for name in shared} == {name: theirs[name] for name in shared}
