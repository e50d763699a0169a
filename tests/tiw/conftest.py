"""Commands see no setting but those that their test makes."""

import os

import pytest


@pytest.fixture(autouse=True)
def _only_own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("TIW_"):
            monkeypatch.delenv(name)
