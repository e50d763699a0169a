"""Loading what TIW_CONSUMERS names, and what a person is told when it cannot be."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from workers import DefinitionError, LoadError, load_consumers

GOOD = """
from schemas import OnlineRecordFinished
from workers import Context, consumer

@consumer
async def {name}(event: OnlineRecordFinished, ctx: Context) -> None: ...
"""


@pytest.fixture(autouse=True)
def _forget_modules() -> Iterator[None]:
    modules, path = set(sys.modules), list(sys.path)
    yield
    for name in set(sys.modules) - modules:
        del sys.modules[name]
    sys.path[:] = path


def write(folder: Path, name: str, text: str) -> str:
    file = folder / name
    file.write_text(text)
    return str(file)


def test_a_file_gives_its_consumers_in_their_order(tmp_path: Path) -> None:
    file = write(tmp_path, "mine.py", GOOD.format(name="zebra") + GOOD.format(name="ant"))

    assert [consumer.name for consumer in load_consumers([file])] == ["zebra", "ant"]


def test_a_folder_gives_the_consumers_of_all_its_files(tmp_path: Path) -> None:
    write(tmp_path, "b.py", GOOD.format(name="second"))
    write(tmp_path, "a.py", GOOD.format(name="first"))
    write(tmp_path, "_helper.py", "raise RuntimeError('not to be loaded')")
    write(tmp_path, "notes.txt", "not Python")

    assert [consumer.name for consumer in load_consumers([str(tmp_path)])] == ["first", "second"]


def test_an_empty_folder_gives_none(tmp_path: Path) -> None:
    assert load_consumers([str(tmp_path)]) == []


def test_a_module_is_found_on_pythons_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    write(tmp_path, "my_consumers.py", GOOD.format(name="mine"))

    assert [consumer.name for consumer in load_consumers(["my_consumers"])] == ["mine"]


def test_a_file_may_import_its_neighbour_and_does_not_take_its_consumers_twice(tmp_path: Path) -> None:
    write(tmp_path, "a.py", GOOD.format(name="first"))
    write(tmp_path, "b.py", "from a import first as borrowed\n" + GOOD.format(name="second"))

    names = [consumer.name for consumer in load_consumers([str(tmp_path / "b.py")])]

    assert names == ["second"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("def broken(:\n", r"mine\.py:1: "),
        ("\nimport no_such_module_anywhere\n", r"mine\.py:2: there is no module 'no_such_module_anywhere'"),
        ("\n\nprint(1 / 0)\n", r"mine\.py:3: ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)\n", r"mine\.py:1: SystemExit: 3"),
        ("x = 1\n", r"mine\.py defines no consumer"),
        (GOOD.format(name="notify"), r"mine\.py: 'notify' is what reads the events that people are told of"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_named_with_its_line(tmp_path: Path, text: str, sentence: str) -> None:
    file = write(tmp_path, "mine.py", text)

    with pytest.raises(LoadError, match=sentence):
        load_consumers([file])


@pytest.mark.parametrize("source", ["missing.py", "no/such/folder", "no_such_module_anywhere"])
def test_what_is_not_there_is_named(source: str) -> None:
    with pytest.raises(LoadError, match=source):
        load_consumers([source])


def test_two_consumers_of_one_name_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "a.py", GOOD.format(name="mine"))
    write(tmp_path, "b.py", GOOD.format(name="mine"))

    with pytest.raises(DefinitionError, match=r"b\.py.*a\.py.*'mine'"):
        load_consumers([str(tmp_path)])


def test_the_name_of_a_built_in_consumer_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path, "a.py", GOOD.format(name="finished"))

    with pytest.raises(DefinitionError, match="'finished'"):
        load_consumers([file])


def test_a_reserved_name_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path, "a.py", GOOD.format(name="dead"))

    with pytest.raises(DefinitionError, match="taken"):
        load_consumers([file])
