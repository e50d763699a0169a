"""What the tests of commands share: no setting but those that a test makes, and data folders."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from tests.tiw.filled_folder import fill


@pytest.fixture(autouse=True)
def _only_own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("TIW_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def _filled_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filled")
    asyncio.run(fill(folder))
    return folder


@pytest.fixture
def filled_folder(_filled_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a data folder with something in everything that can be shown; commands use it."""
    monkeypatch.setenv("TIW_DATA_DIR", str(tmp_path))
    shutil.copytree(_filled_once, tmp_path, dirs_exist_ok=True)
    return tmp_path
