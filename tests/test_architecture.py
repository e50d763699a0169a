"""The shape of the house: who may import whom, what a package says of itself, and what must not be in it."""

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

#: What bench and chaos start, break and look into.
_MEASURED = {
    *(
        "schemas",
        "telemetry",
        "broker",
        "store",
        "ingest",
        "workers",
        "simulator",
        "vendor_api",
        "reconcile",
        "archive",
    ),
    *("tiw", "tests"),
}

#: Every arrow there is: a package may import those of its value, and itself.
ARROWS = {
    "schemas": set[str](),
    "telemetry": set[str](),
    "broker": {"schemas", "telemetry"},
    "store": {"schemas"},
    "ingest": {"schemas", "telemetry", "broker"},
    "workers": {"schemas", "telemetry", "broker", "store"},
    "notify": {"schemas", "telemetry", "broker", "store", "workers", "vendor_api"},
    "simulator": {"schemas"},
    "vendor_api": {"schemas", "telemetry"},
    "reconcile": {"schemas", "telemetry", "broker", "store", "vendor_api"},
    "archive": {"schemas", "telemetry", "broker", "store"},
    "console": {"schemas", "telemetry", "broker", "store", "workers", "reconcile", "archive"},
    "tiw": {
        *("schemas", "telemetry", "broker", "store", "ingest", "workers", "simulator", "vendor_api"),
        *("reconcile", "notify", "archive", "console"),
    },
    "examples": {"schemas", "workers"},
    "bench": _MEASURED,
    "chaos": _MEASURED,
}
PACKAGES = [name for name in ARROWS if name not in ("examples", "bench", "chaos")]

#: Who else reads the environment: prometheus-client's variable must be known before its metrics are made, and a process
#: of multiprocessing finds users' modules with nothing but the environment.
READERS_OF_THE_ENVIRONMENT = {"telemetry/metrics.py", "workers/plugins/__init__.py"}

#: What we once called things that have a name in the field; docs/architecture.md has the few words that are ours.
RETIRED_WORDS = {
    *("belt", "bury", "buried", "rung", "rungs", "lane", "lanes", "portion", "portions", "survivals", "pulse"),
    *("crowding", "hurries", "stranger", "strangers", "door", "hasty"),
}

#: Written in two halves, so that this file does not hold what it looks for.
_HOSTS = [
    *("py" + "pi.org", "pythonhos" + "ted.org", "npm" + "js.org", "npm" + "js.com", "yarn" + "pkg.com"),
    *("hub.doc" + "ker.com", "gh" + "cr.io", "qua" + "y.io", "gc" + "r.io", "proxy.go" + "lang.org"),
    *("crates" + ".io", "deb.deb" + "ian.org", "archive.ubu" + "ntu.com", "//mirr" + "ors."),
]
_PRIVATE_PATHS = ["/wo" + "rk/main", "/wo" + "rk/shared", "/wo" + "rk/.", "/tm" + "p/w/", "/ro" + "ot/", "/ho" + "me/"]


def modules(package: str) -> list[Path]:
    return sorted(path for path in (ROOT / package).rglob("*.py") if "__pycache__" not in path.parts)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


MODULES = {package: modules(package) for package in ARROWS}


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Return all that a module is made of: most of what these tests take is parsing."""
    return tuple(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


@cache
def imports(path: Path) -> tuple[tuple[str, str], ...]:
    """Return every import, also those inside functions: the module and the name taken from it."""
    found: list[tuple[str, str]] = []
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno}: relative import"
            found += [(node.module or "", alias.name) for alias in node.names]
    return tuple(found)


def kept_files() -> list[Path]:
    """Return the files of the repository: git's, or where there is no git all but what is made here."""
    git = shutil.which("git")
    listed = git and subprocess.run([git, "-C", str(ROOT), "ls-files", "-z"], capture_output=True, check=False)
    if listed and listed.returncode == 0 and listed.stdout:
        return [ROOT / os.fsdecode(name) for name in listed.stdout.split(b"\0") if name]
    made = re.compile(r"/(\.(?!ci/)[^/]*|__pycache__|var|plugins)(/|$)")
    return [path for path in ROOT.rglob("*") if path.is_file() and not made.search(f"/{name_of(path)}")]


def dotted_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_at_the_top(path: Path, ours: set[str]) -> Iterator[str]:
    """Yield the modules of ours that a module imports when it is imported itself."""
    for node in ast.iter_child_nodes(nodes(path)[0]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in ours)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                yield module if module in ours else f"{node.module}"


@pytest.mark.parametrize("package", ARROWS)
def test_a_module_imports_only_along_the_arrows(package: str) -> None:
    forbidden = (set(ARROWS) | {"tests"}) - ARROWS[package] - {package}
    found = [
        f"{name_of(path)} imports {module}"
        for path in MODULES[package]
        for module, _ in imports(path)
        if module.split(".")[0] in forbidden
    ]
    assert found == []


@pytest.mark.parametrize("package", ARROWS)
def test_a_module_takes_no_private_name_from_another_package(package: str) -> None:
    private = [
        f"{name_of(path)} takes {module}.{name}"
        for path in MODULES[package]
        for module, name in imports(path)
        if (other := module.split(".")[0]) in ARROWS and other != package
        if any(part.startswith("_") and part != "__version__" for part in [*module.split("."), name] if part)
    ]
    assert private == []


@pytest.mark.parametrize("package", PACKAGES)
def test_a_module_imports_only_what_another_package_names(package: str) -> None:
    deep = [
        f"{name_of(path)} imports {module}.{name}"
        for path in MODULES[package]
        for module, name in imports(path)
        if (other := module.split(".")[0]) in PACKAGES and other != package
        if "." in module or (name and name not in importlib.import_module(other).__all__)
    ]
    assert deep == []


def test_no_two_files_import_each_other() -> None:
    """Hold it for what is imported when a module is: an import inside a function has its reason beside it."""
    names = {dotted_name(path): path for paths in MODULES.values() for path in paths}
    imported = {name: set(imported_at_the_top(path, set(names))) - {name} for name, path in names.items()}
    while leaves := {name for name, others in imported.items() if not others & set(imported)}:
        for name in leaves:
            del imported[name]
    assert imported == {}


@pytest.mark.parametrize("package", ARROWS)
def test_the_fields_words_are_used_and_not_our_own(package: str) -> None:
    assert {name_of(path): words for path in MODULES[package] if (words := words_of(path) & RETIRED_WORDS)} == {}


def words_of(path: Path) -> set[str]:
    """Return the words of which the names in a module are made, and its own."""
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    names = {*path.relative_to(ROOT).with_suffix("").parts}
    names |= {node.name for node in nodes(path) if isinstance(node, definitions)}
    names |= {node.id for node in nodes(path) if isinstance(node, ast.Name)}
    return {part for name in names for part in re.findall(r"[a-z]+", re.sub(r"([A-Z]+)", r"_\1", name).lower())}


@pytest.mark.parametrize(
    "package", [package for package in ARROWS if package not in ("tiw", "examples", "bench", "chaos")]
)
def test_only_the_command_line_reads_the_environment(package: str) -> None:
    paths = [path for path in MODULES[package] if name_of(path) not in READERS_OF_THE_ENVIRONMENT]
    variables = ("environ", "environb", "getenv")
    reading = [
        f"{name_of(path)} reads os.{node.attr}"
        for path in paths
        for node in nodes(path)
        if isinstance(node, ast.Attribute) and node.attr in variables
        if isinstance(node.value, ast.Name) and node.value.id == "os"
    ]
    assert reading == []
    assert [name_of(path) for path in paths if {("os", name) for name in variables} & set(imports(path))] == []


def test_a_module_is_named_after_its_role() -> None:
    roleless = {"utils", "util", "helpers", "helper", "common", "base", "misc", "shared"}
    assert [name_of(path) for paths in MODULES.values() for path in paths if path.stem in roleless] == []


def test_the_exceptions_are_needed() -> None:
    for name in READERS_OF_THE_ENVIRONMENT:
        assert "os.environ" in (ROOT / name).read_text(encoding="utf-8"), f"{name} does not read the environment"


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_names_what_is_public(package: str) -> None:
    module = importlib.import_module(package)
    names: list[str] = module.__all__
    assert [name for name in names if not hasattr(module, name)] == []
    assert len(set(names)) == len(names)
    # Constants, classes, functions: as ruff sorts them.
    assert names == sorted(names, key=lambda name: (0 if name.isupper() else 1 if name[0].isupper() else 2, name))


def test_every_package_of_ours_is_drawn() -> None:
    found = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "bench", "chaos"}
    assert found == set(PACKAGES)


def test_no_file_names_a_registry_or_a_private_path() -> None:
    found = []
    for path in kept_files():
        if not path.is_file():
            continue
        content = path.read_bytes().decode(errors="replace")
        found += [f"{name_of(path)}: {word}" for word in (*_HOSTS, *_PRIVATE_PATHS) if word in content]
    assert found == []


def start(folder: Path, *before: Path) -> subprocess.CompletedProcess[str]:
    """Run a command of ours in `folder`, with the folders of `before` earlier on Python's path."""
    path = os.pathsep.join([*map(str, before), str(ROOT)])
    return subprocess.run(
        [sys.executable, "-m", "tiw", "config"],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("package", [package for package in PACKAGES if package != "tiw"])
def test_a_package_that_shadows_ours_is_named(tmp_path: Path, package: str) -> None:
    intruder = tmp_path / "elsewhere" / package / "__init__.py"
    intruder.parent.mkdir(parents=True)
    intruder.write_text("raise RuntimeError('imported')\n", encoding="utf-8")
    ended = start(tmp_path, intruder.parent.parent)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr == (
        f"tiw: the package {package!r} is imported from {intruder.resolve()} instead of {ROOT / package}: "
        "remove it, or start tiw where it is not on Python's path\n"
    )


def test_a_folder_of_the_same_name_that_is_no_package_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "schemas").mkdir()
    assert start(tmp_path).returncode == 0
