"""Consumers in a repository of one's own, as docs/own-repository.md has it: with our packages from a wheel."""

import importlib
import re
import zipfile
from pathlib import Path

import pytest
import yaml

from tests.end_to_end.checkout import NO_INDEX, copy_repository, make_environment, make_wheel
from tests.end_to_end.compose import check_compose
from tests.end_to_end.pages import Block, Reader, blocks_of
from tests.end_to_end.programs import ROOT, eventually
from tiw import __version__
from tiw.__main__ import PACKAGES

PAGE = "docs/own-repository.md"

#: Blocks that are not followed, by their first line.
LEFT_OUT = {
    "tiw-callbacks/                       this repository, at the version that you run",  # a picture
    "python3 -m venv .venv",  # nothing may be installed from elsewhere: one like the suite's
}

BLOCKS = [block for block in blocks_of(ROOT, PAGE) if block.first_line not in LEFT_OUT]
(INSTALLS,) = [position for position, block in enumerate(BLOCKS, 1) if "pip install --quiet" in block.text]

HUMANIZE = "def naturalsize(value: float) -> str:\n    return f'{value} Bytes'\n"


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """Return somebody who has come as far as to the installation, with a pip that asks no index."""
    folder = tmp_path_factory.mktemp("own")
    own = folder / "school-consumers"
    copy_repository(folder / "tiw-callbacks")
    make_environment(own / ".venv")
    make_wheel(folder, "humanize==4.12.3", {"humanize/__init__.py": HUMANIZE, "humanize/py.typed": ""})
    # The build's tools are in the suite's environment. pip reads 0 as "no isolation".
    pip = {**NO_INDEX, "PIP_FIND_LINKS": str(folder), "PIP_NO_BUILD_ISOLATION": "0"}
    reader = Reader(own, folder / "tmp", pip)
    reader.follow(BLOCKS[:INSTALLS])
    return reader


@pytest.fixture
def empty(reader: Reader) -> Path:
    folder = reader.temporary / "empty"
    folder.mkdir(exist_ok=True)
    return folder


def block_of(file: str) -> Block:
    (block,) = [block for block in BLOCKS if block.file == file]
    return block


def test_every_block_of_the_page_runs_as_it_stands(reader: Reader) -> None:
    with reader:
        reader.follow(BLOCKS[INSTALLS:])
        eventually(lambda: re.search(r'"size": "\d+ Bytes", "event": "report"', reader.log))
    assert [call[2:] for call in reader.calls] == [["build", "secrets"], ["up", "-d", "--build"]]
    for _, _, *arguments in reader.calls:
        check_compose(arguments, ROOT)


def test_the_consumers_of_other_pages_are_well_typed(reader: Reader) -> None:
    blocks = [block for page in ("README.md", "plugins/README.md") for block in blocks_of(ROOT, page)]
    samples = [block for block in blocks if block.file and block.language == "python"]
    assert samples
    for number, block in enumerate(samples):
        (reader.folder / f"sample_{number}.py").write_text(block.text, encoding="utf-8")
    reader.paste(".venv/bin/python -m mypy --strict sample_*.py", where="mypy")


def test_a_mistake_in_a_consumer_is_found_by_its_types(reader: Reader) -> None:
    wrong = block_of("consumers/report.py").text.replace("event.video_infos", "event.videos")
    (reader.folder / "wrong.py").write_text(wrong, encoding="utf-8")
    found = reader.paste("! .venv/bin/python -m mypy --strict wrong.py", where="mypy")
    assert '"OnlineRecordFinished" has no attribute "videos"' in found


def test_a_wheel_holds_all_of_every_package_and_nothing_else(reader: Reader) -> None:
    (wheel,) = reader.folder.glob("wheels/*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    ours = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    ours += (ROOT / "notify" / "templates").glob("*.toml")
    ours += (ROOT / "archive").glob("player.*")
    for folder in ("static", "templates", "texts"):
        ours += [path for path in (ROOT / "console" / folder).rglob("*") if path.is_file()]
    assert held == {path.relative_to(ROOT).as_posix() for path in ours} | {f"{name}/py.typed" for name in PACKAGES}
    assert f"tiw_callbacks-{__version__}-" in wheel.name, "pyproject.toml and tiw/__init__.py say one version"


def test_what_is_installed_runs_from_any_folder(reader: Reader, empty: Path) -> None:
    tiw = f"cd {empty}; {reader.folder}/.venv/bin/tiw"
    assert reader.paste(f"{tiw} --version", where="version") == f"tiw {__version__}\n"
    assert reader.paste(f"{tiw} demo --classes 3", where="demo").rstrip().endswith(" lost 0")
    reader.paste(f"{tiw} schema --output .", where="schema")
    for document in ("asyncapi.json", "callback.schema.json", "openapi.json"):
        assert (empty / document).read_bytes() == (ROOT / "docs" / document).read_bytes()
    code = "; ".join(["import " + ", ".join(PACKAGES), *(f"print({name}.__file__)" for name in PACKAGES)])
    imported = reader.paste(f"cd {empty}; {reader.folder}/.venv/bin/python -c '{code}'", where="imports").split()
    assert all(Path(file).is_relative_to(reader.folder / ".venv") for file in imported), imported


def test_what_is_installed_comes_before_the_standard_library_in_no_child(reader: Reader) -> None:
    code = "from tiw.children import child_environment; print(child_environment({'PYTHONPATH': 'theirs'}))"
    assert reader.paste(f'.venv/bin/python -c "{code}"', where="children") == "{'PYTHONPATH': 'theirs'}\n"


def test_a_package_that_takes_the_place_of_an_installed_one_is_named(reader: Reader, empty: Path) -> None:
    (empty / "store").mkdir()
    (empty / "store/__init__.py").touch()
    said = reader.paste(f"cd {empty}; ! PYTHONPATH=. {reader.folder}/.venv/bin/tiw --version", where="tiw")
    assert f"the package 'store' is imported from {empty}/store/__init__.py instead of " in said


def test_what_the_page_calls_stable_is_there() -> None:
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    for package in ("workers", "schemas"):
        (listed,) = re.findall(rf"^- from `{package}`: (.*?)[;.]$", text, re.MULTILINE | re.DOTALL)
        assert set(re.findall(r"`(\w+)`", listed)) <= set(importlib.import_module(package).__all__)


def test_the_image_is_made_from_ours_and_takes_the_place_of_ours() -> None:
    from workers.loading import _INSTALLATION  # noqa: PLC0415 - only this test needs it

    ours = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    theirs = block_of("Dockerfile").text
    assert re.findall(r"^FROM (.+)$", theirs, re.MULTILINE) == [services["plugins"]["image"]]
    assert re.findall(r"^USER (.+)$", theirs, re.MULTILINE)[-1:] == re.findall(r"^USER (.+)$", ours, re.MULTILINE)
    assert "COPY --from=build /opt/tiw /opt/tiw" in ours
    assert f"--target /opt/tiw/{_INSTALLATION.name}/packages" in theirs
    changed = yaml.safe_load(block_of("../tiw-callbacks/docker-compose.override.yml").text)["services"]
    for name, service in changed.items():
        assert services[name]["environment"].keys() >= service["environment"].keys(), name
