"""A browser, pages that may do nothing wrong, and pipelines to look at."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from tests.browser.chromium import NOT_INSTALLED, Watch, find_chromium, running
from tests.browser.pipeline import READ_TOKEN, TOKEN, Pipeline, pipeline
from tests.servers.postgres import PostgresServer
from tests.servers.rabbitmq import RabbitMQServer


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


class Visits:
    """Contexts of the browser, which end with the test; what goes wrong in their pages fails it."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._contexts: list[tuple[BrowserContext, Watch]] = []

    def page(self, base_url: str, **options: Any) -> tuple[Page, Watch]:
        """Open a page in a new context."""
        context = self._browser.new_context(base_url=base_url, **{"locale": "en-US", **options})
        watch = Watch(context)
        self._contexts.append((context, watch))
        return context.new_page(), watch

    def close(self) -> None:
        for context, _ in self._contexts:
            context.close()
        for _, watch in self._contexts:
            watch.assert_nothing()


@pytest.fixture
def visits(browser: Browser) -> Iterator[Visits]:
    """Open pages that nobody is logged in to yet."""
    visits = Visits(browser)
    yield visits
    visits.close()


def log_in(page: Page, token: str = TOKEN) -> None:
    """Log in as a person does, and be where one was going."""
    page.goto("/login")
    page.locator("input[type=password]").fill(token)
    page.locator("main form button").click()
    page.wait_for_url(lambda url: "/login" not in url)


class Visitor:
    """Somebody who is logged in to the console of a pipeline."""

    def __init__(self, visits: Visits, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self._visits = visits
        self._states: dict[str, Any] = {}

    def page(self, *, token: str = TOKEN, **options: Any) -> Page:
        """Open a page, logged in."""
        return self.watched(token=token, **options)[0]

    def watched(self, *, token: str = TOKEN, **options: Any) -> tuple[Page, Watch]:
        """Open a page, logged in, and give what watches it."""
        page, watch = self._visits.page(self.pipeline.url, **options)
        log_in(page, token)
        return page, watch
