"""A browser, pages in which nothing may go wrong, and pipelines to look at."""

import os
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.browser.chromium import NOT_INSTALLED, Visits, find_chromium, running
from tests.browser.pipeline import Pipeline, prepared
from tests.servers.postgres import PostgresServer
from tests.servers.rabbitmq import RabbitMQServer

KINDS = ["embedded", "distributed"]


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Run a browser for all tests here; each has a context of its own in it."""
    chromium = find_chromium()
    if chromium is None:
        if os.environ.get("CI") == "true":
            pytest.fail(NOT_INSTALLED)
        pytest.skip(NOT_INSTALLED)
    with running(chromium) as browser:
        yield browser


@pytest.fixture
def visits(browser: Browser) -> Iterator[Visits]:
    """Open pages; a test fails of what goes wrong in one."""
    visits = Visits(browser)
    yield visits
    visits.end()


@pytest.fixture(scope="package")
def school(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """Run a pipeline in one process with the callbacks of a school, for tests that only look."""
    with prepared(tmp_path_factory.mktemp("school") / "deployment", None) as pipeline:
        pipeline.start()
        pipeline.fill()
        yield pipeline


@pytest.fixture(scope="module", params=KINDS)
def pipeline(
    browser: Browser, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pipeline]:
    """Run a pipeline of either kind with the callbacks of a school, for tests that change something in it."""
    servers: tuple[RabbitMQServer, PostgresServer] | None = None
    if request.param == "distributed":
        servers = request.getfixturevalue("rabbitmq"), request.getfixturevalue("postgres")
    with prepared(tmp_path_factory.mktemp("pipeline") / "deployment", servers) as pipeline:
        pipeline.start()
        pipeline.fill()
        yield pipeline
