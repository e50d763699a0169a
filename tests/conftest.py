"""What all tests share."""

import gc
import logging
import os
import sys
from collections.abc import Iterator

import hypothesis
import pytest
import structlog

from tests.profiles import QUICK, THOROUGH, is_thorough

pytest_plugins = ["tests.servers.postgres_fixtures", "tests.servers.rabbitmq_fixtures"]

# Tests start hundreds of interpreters. Where these may keep nothing of what they compile, as many an image has it, each
# compiles all our code anew, for half a second.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# How long an example takes, or drawing it, says more of the machine than of the code.
hypothesis.settings.register_profile(
    "untimed",
    max_examples=THOROUGH if is_thorough() else QUICK,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("untimed")


#: What takes longest comes first: begun last, it would keep one process busy while the others have nothing left to do.
#: xdist itself puts the files with most tests first, and those with one long test last.
LONG = (
    "tests/end_to_end/",
    "tests/browser/",
    "tests/chaos/test_simulation",
    "tests/chaos/test_running",
    "tests/tiw/test_every_command",
    "tests/broker/test_amqp",
    "tests/broker/test_embedded_model",
    "tests/store/test_concurrency",
    "tests/ingest/test_growth",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what takes longest first."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over what thousands of collected tests are made of: it stays to the end."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Undo what a command set up: its log goes to a stream that is closed with its test."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:], root.level = before
