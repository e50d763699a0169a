"""Load users' consumers from what TIW_CONSUMERS names."""

import hashlib
import importlib
import importlib.util
import site
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

from workers import plugins
from workers.api import Consumer, DefinitionError, LoadError
from workers.builtin import BUILT_IN

#: Where deploy/plugins.sh installs plugins/requirements.txt: `packages`, and which file it was that is `installed` or
#: `failed`, by its SHA-256, with pip's words.
_INSTALLATION = Path(sys.prefix) / "plugins"

_LONGEST_WORDS = 500

#: Names of consumers of ours that are not always there: two of one name would share a queue.
_OURS = {"notify": "what reads the events that people are told of (TIW_NOTIFY)"}


def load_consumers(sources: Sequence[str], *, may_be_none: bool = False) -> list[Consumer]:
    """Return the consumers of `sources`, in their order: modules, .py files, or folders of .py files.

    A folder may be empty, or hold files that help others; names that start with `_` or `.` are skipped in it. A file or
    module that is named itself must define at least one consumer, unless there `may_be_none`. Raises `LoadError` or
    `DefinitionError` with file, line and what to change.
    """
    consumers: list[Consumer] = []
    packages = _INSTALLATION / "packages"
    if sources and packages.is_dir():
        # Behind ours, and only here: nobody else's process has anything of theirs on its path.
        site.addsitedir(str(packages))
    for source in sources:
        for module, where in _modules(source):
            found = [
                value
                for value in vars(module).values()
                if isinstance(value, Consumer) and value.function.__module__ == module.__name__
            ]
            if not found and not may_be_none and not Path(source).is_dir():
                raise LoadError(f"{where} defines no consumer: put @consumer on a function in it")
            for value in found:
                if value.name in _OURS:
                    raise LoadError(f"{where}: {value.name!r} is {_OURS[value.name]}: rename the function")
            consumers += dict.fromkeys(found)
    refuse_name_clashes([*BUILT_IN, *consumers])
    return consumers


def list_sources(sources: Iterable[str]) -> list[str]:
    """Return `sources` with every folder replaced by its .py files, in their order. Nothing is loaded."""
    return [
        file
        for source in sources
        for file in ([str(path) for path in _files(Path(source))] if Path(source).is_dir() else [source])
    ]


def refuse_name_clashes(consumers: Iterable[Consumer]) -> None:
    """Raise `DefinitionError` if two consumers have one name, which would be one queue."""
    seen: dict[str, Consumer] = {}
    for consumer in consumers:
        other = seen.setdefault(consumer.name, consumer)
        if other is not consumer:
            raise DefinitionError(
                f"{_where(consumer)}: {_where(other)} is called {consumer.name!r} too: rename one of the functions"
            )


def _where(consumer: Consumer) -> str:
    code = consumer.function.__code__
    return f"{code.co_filename}:{code.co_firstlineno}"


def _modules(source: str) -> Iterator[tuple[ModuleType, str]]:
    path = Path(source)
    if path.is_dir():
        for file in _files(path):
            yield _load_file(file), str(file)
    elif source.endswith(".py"):
        if not path.is_file():
            raise LoadError(f"TIW_CONSUMERS names {source}, which is not there")
        yield _load_file(path), source
    elif "/" in source:
        raise LoadError(f"TIW_CONSUMERS names {source}, which is neither a .py file nor a folder")
    else:
        yield _load_module(source), f"module {source}"


def _files(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.glob("*.py")) if not file.name.startswith(("_", "."))]


def _load_file(file: Path) -> ModuleType:
    file = file.resolve()
    # Last on the path: a file may import its neighbours, and cannot shadow what is ours or the standard library's.
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
    plugins.add_folder(file.parent)
    name = f"{plugins.__name__}.{file.stem}"
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__file__", None) != str(file):
        raise LoadError(f"{file}: another file of that name is loaded already: rename one of them")
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise LoadError(f"{file} cannot be loaded as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:  # noqa: BLE001 - a file's code may raise anything; told apart in _explain
        del sys.modules[name]
        _explain(error, str(file), requirements=file.with_name("requirements.txt"))
    return module


def _load_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except BaseException as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            raise LoadError(
                f"TIW_CONSUMERS names {name}, but there is no module {error.name!r}: {_remedy(None)}"
            ) from error
        _explain(error, f"module {name}")
        raise  # _explain always raises; this tells the type checker


def _explain(error: BaseException, where: str, *, requirements: Path | None = None) -> None:
    """Raise what a person can act on; `requirements` is where packages for the file are named."""
    if isinstance(error, KeyboardInterrupt | DefinitionError):
        raise error
    if isinstance(error, SyntaxError):
        at = where if error.filename is None else f"{error.filename}:{error.lineno}"
        raise LoadError(f"{at}: {error.msg}") from error
    at = _last_line(error, where)
    if isinstance(error, ModuleNotFoundError):
        raise LoadError(f"{at}: there is no module {error.name!r}: {_remedy(requirements)}") from error
    raise LoadError(f"{at}: {type(error).__name__}: {error}") from error


def _remedy(requirements: Path | None) -> str:
    """Return what to do about a module that is missing."""
    again = "then start ./dev again, or build the image again"
    named = f"correct the name, or put its package into plugins/requirements.txt, {again}"
    if requirements is None or not requirements.is_file():
        return named
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    installed, _ = _record("installed")
    if installed == wanted:
        return named
    failed, words = _record("failed")
    if failed == wanted:
        return f"{requirements} could not be installed ({words[:_LONGEST_WORDS]}): correct it, {again}"
    return f"{requirements} is not installed as it is now: start ./dev again, or build the image again"


def _record(name: str) -> tuple[str, str]:
    """Return which requirements a record of the installation is about, and what it says, on one line."""
    try:
        digest, *words = (_INSTALLATION / name).read_text(encoding="utf-8", errors="replace").split()
    except (OSError, ValueError):
        return "", ""
    return digest, " ".join(words)


def _last_line(error: BaseException, where: str) -> str:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename]
    ours = [f for f in frames if f.filename != __file__]
    return f"{ours[-1].filename}:{ours[-1].lineno}" if ours else where
