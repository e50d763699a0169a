"""plugins/requirements.txt is installed for users' consumers, and takes the place of nothing of ours."""

import hashlib
import re
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.commands import Finished
from tests.end_to_end.checkout import NO_INDEX, make_environment, make_wheel
from tests.end_to_end.programs import DEADLINE_S, ROOT, environment
from tiw.__main__ import PACKAGES

CONSUMER = """
import aiohttp
import school_tools
from schemas import OnlineRecordFinished
from workers import Context, consumer

@consumer
async def archive(event: OnlineRecordFinished, ctx: Context) -> None:
    print(school_tools.GREETING, aiohttp.__version__)
"""


class Checkout:
    """A clone of the repository with an environment of its own, which has what the suite's has."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.plugins = folder / "plugins"
        self.plugins.joinpath("wheels").mkdir(parents=True)
        for name in (*PACKAGES, "requirements", "deploy"):
            (folder / name).symlink_to(ROOT / name)
        shutil.copy(ROOT / "dev", folder)
        make_environment(folder / ".venv")
        self.plugins.joinpath("archive.py").write_text(CONSUMER, encoding="utf-8")

    def require(self, *lines: str) -> None:
        self.plugins.joinpath("requirements.txt").write_text(
            "".join(f"{line}\n" for line in ("--find-links wheels", *lines)), encoding="utf-8"
        )

    def wheel(self, name: str, module: str, content: str, *, needs: str | None = None) -> str:
        """Make a wheel of one module; return its hash."""
        return make_wheel(self.plugins / "wheels", f"{name}==1.0", {f"{module}.py": content}, needs=needs)

    def run(self, *command: str) -> Finished:
        """Run a command to its end."""
        done = subprocess.run(
            command,
            env=environment({**NO_INDEX, "TIW_DATA_DIR": str(self._folder / "var")}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=DEADLINE_S,
            check=False,
        )
        return Finished(code=done.returncode, out=done.stdout.decode(), err=done.stderr.decode())

    def attempt(self) -> Finished:
        """Try the consumer on an event, with `./dev tiw try`."""
        return self.run(str(self._folder / "dev"), "tiw", "try", str(self.plugins / "archive.py"))

    def attempt_in_container(self) -> Finished:
        """Try it as a container does: the folder is mounted, and nothing is installed at the start."""
        python = str(self._folder / ".venv/bin/python")
        return self.run(python, "-P", "-m", "tiw", "try", str(self.plugins / "archive.py"))


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / "clone")


def test_what_it_names_is_installed_once_and_again_when_it_changes(checkout: Checkout) -> None:
    checkout.wheel("school-tools", "school_tools", "GREETING = 'hello'")
    before = checkout.attempt()
    assert before.code == 2
    assert "no module 'school_tools': correct the name, or put its package into plugins/requirements.txt" in before.err
    checkout.require("school-tools")
    first = checkout.attempt()
    assert (first.code, first.out.splitlines()[0]) == (0, f"hello {version('aiohttp')}"), first.err
    assert "installing plugins/requirements.txt" in first.err
    assert "installing" not in checkout.attempt().err
    checkout.require("# Nothing is needed any more.")
    changed = checkout.attempt()
    assert (changed.code, "installing" in changed.err) == (2, True)


def test_hashes_are_honoured(checkout: Checkout) -> None:
    right = checkout.wheel("school-tools", "school_tools", "GREETING = 'hello'")
    wrong = hashlib.sha256(b"another file").hexdigest()
    checkout.require(f"school-tools==1.0 --hash=sha256:{wrong}")
    refused = checkout.attempt()
    assert refused.code == 2
    assert "DO NOT MATCH THE HASHES" in refused.err
    assert "school-tools==1.0" in refused.err.split("tiw: ")[1], "the consumer's error names the package"
    checkout.require(f"school-tools==1.0 --hash=sha256:{right}")
    assert checkout.attempt().code == 0


def test_what_cannot_be_installed_is_named_and_keeps_nothing_else_from_running(checkout: Checkout) -> None:
    checkout.wheel("school-tools", "school_tools", "GREETING = 'hello'")
    checkout.require("school-tools")
    assert checkout.attempt().code == 0
    checkout.require("school-tools", "no-such-package==7.1")
    failed = checkout.attempt()
    assert "No matching distribution found for no-such-package==7.1" in failed.err
    assert "dev: plugins/requirements.txt is not installed, see above: correct it" in failed.err
    assert failed.code == 0, "what was installed before stays"
    (checkout.plugins / "archive.py").write_text("import no_such_package\n", encoding="utf-8")
    missing = checkout.attempt_in_container()
    assert re.search(
        r"tiw: .*/archive\.py:1: there is no module 'no_such_package': .*/requirements\.txt could not be installed"
        r" \(.*no-such-package==7\.1.*\): correct it, then start \./dev again, or build the image again\n",
        missing.err,
    )


def test_a_requirement_that_contradicts_ours_is_refused_and_ours_stays(checkout: Checkout) -> None:
    checkout.wheel("school-tools", "school_tools", "GREETING = 'hello'", needs="aiohttp<3")
    checkout.wheel("aiohttp", "aiohttp", "__version__ = '1.0'")
    checkout.require("school-tools")
    refused = checkout.attempt()
    assert refused.code == 2
    assert "school-tools 1.0 depends on aiohttp<3" in refused.err
    assert f"aiohttp=={version('aiohttp')}" in refused.err
    # Even what gets past pip stands behind ours.
    shutil.rmtree(checkout.plugins / "wheels")
    checkout.plugins.joinpath("wheels").mkdir()
    checkout.wheel("school-tools", "school_tools", "GREETING = 'hello'")
    checkout.wheel("another-name", "aiohttp", "__version__ = '1.0'")
    checkout.require("school-tools", "another-name")
    assert checkout.attempt().out.splitlines()[0] == f"hello {version('aiohttp')}"


def test_an_image_that_was_built_without_it_says_what_to_do(checkout: Checkout) -> None:
    checkout.require("school-tools")
    tried = checkout.attempt_in_container()
    assert tried.code == 2
    assert tried.err.endswith(
        f"archive.py:3: there is no module 'school_tools': {checkout.plugins}/requirements.txt is not installed as it "
        "is now: start ./dev again, or build the image again\n"
    )
