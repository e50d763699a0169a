"""docs/security.md names the tests that hold its defences: they exist, and none but the archive opens addresses."""

import ast
import re
from pathlib import Path

import pytest

from ingest.request import OLDEST_AIOHTTP

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
TESTS = {
    name
    for path in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
}


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(test_\w+)`", DOCUMENT))))
def test_a_test_that_is_named_exists(name: str) -> None:
    assert name in TESTS


def test_every_row_is_answered() -> None:
    rows = [line for line in DOCUMENT.splitlines() if line.startswith("| A")]
    numbers = {int(number) for line in rows for number in re.findall(r"A([0-9]+)", line.split("|")[1])}
    assert numbers == set(range(1, 45))
    assert all("`test_" in line.split("|")[4] for line in rows)


def test_the_oldest_aiohttp_is_the_one_that_is_asked_for() -> None:
    oldest = ".".join(map(str, OLDEST_AIOHTTP))
    assert f'"aiohttp>={oldest},<4"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert oldest in DOCUMENT


#: What opens an address or a file. The examples have these, with the address of their settings alone.
OPENERS = {"aiohttp", "urllib", "http", "requests", "httpx", "socket", "ftplib", "subprocess"}
MAY_OPEN = {
    "workers/memory.py": {"socket"},  # for the name of its host
    "store/direct/sqlite.py": {"urllib"},  # to write the path of its own file as a URI
    "examples/forward_webhook.py": {"aiohttp", "urllib"},
    "examples/notify_chat.py": {"aiohttp", "urllib"},
}


@pytest.mark.parametrize("package", ["workers", "store", "schemas", "examples"])
def test_nothing_of_ours_opens_an_address_that_an_event_names(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        name = path.relative_to(ROOT).as_posix()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imported = {
            module.split(".")[0]
            for node in ast.walk(tree)
            for module in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        }
        assert imported & OPENERS <= MAY_OPEN.get(name, set()), name
        if "aiohttp" in imported:
            posts = [
                node
                for node in ast.walk(tree)
                if isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "session"
            ]
            assert posts
            for post in posts:
                assert ast.unparse(post.args[0]) == "URL", name
                assert "allow_redirects=False" in ast.unparse(post), name
