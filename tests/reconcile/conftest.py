"""A world for every test that asks for one."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from simulator import SimulatedClass
from tests.reconcile.world import AWorld, World, a_world


@pytest.fixture
def world(tmp_path: Path) -> AWorld:
    """Give what makes a world."""

    def make(*classes: SimulatedClass, **options: Any) -> AbstractAsyncContextManager[World]:
        return a_world(tmp_path, classes, **options)

    return make
