"""A page that is open, or opened, while something is away says what it does not know, and knows it again later."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.chromium import Visits
from tests.browser.pipeline import Pipeline, prepared
from tests.servers.postgres import PostgresServer
from tests.servers.rabbitmq import RabbitMQServer

#: A browser asks again after some seconds, and our processes after a few more.
BACK_MS = 60_000

#: What a browser says of what it could not get.
AWAY = (
    "ERR_CONNECTION_REFUSED",
    "ERR_INCOMPLETE_CHUNKED_ENCODING",
    "ERR_CONNECTION_RESET",
    "ERR_EMPTY_RESPONSE",
    "503",
)


@pytest.fixture(scope="module")
def distributed(
    browser: Browser, rabbitmq: RabbitMQServer, postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pipeline]:
    """Run a pipeline over servers that tests stop and start."""
    with prepared(tmp_path_factory.mktemp("away") / "deployment", (rabbitmq, postgres)) as pipeline:
        pipeline.start()
        yield pipeline


def opened(visits: Visits, pipeline: Pipeline, address: str) -> Page:
    """Open a page of somebody whose browser may miss something."""
    page, watch = visits.watched(pipeline.url)
    # What htmx tells of a stream that ended.
    watch.expect(*AWAY, "[object Event]")
    page.goto(f"/login#{pipeline.token}")
    page.wait_for_url(f"{pipeline.url}/")
    page.goto(address)
    return page


def test_a_live_page_says_that_it_is_cut_off_and_goes_on_once_the_console_is_back(
    visits: Visits, distributed: Pipeline
) -> None:
    page = opened(visits, distributed, "/")
    cut_off = page.get_by_text("This page has lost its connection")
    expect(cut_off).to_be_hidden()
    before = page.locator("#numbers time").get_attribute("datetime")
    distributed.stop_console()
    expect(cut_off).to_be_visible(timeout=BACK_MS)
    distributed.start_console()
    distributed.wait_console()
    expect(cut_off).to_be_hidden(timeout=BACK_MS)
    expect(page.locator("#numbers time")).not_to_have_attribute("datetime", before or "", timeout=BACK_MS)
    # Nobody has to log in again.
    page.get_by_role("link", name="Recordings", exact=True).first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Recordings")


def test_without_the_database_pages_say_so_and_consumers_are_still_seen(
    visits: Visits, distributed: Pipeline, postgres: PostgresServer
) -> None:
    page = opened(visits, distributed, "/")
    postgres.stop()
    try:
        expect(page.get_by_text("The database does not answer")).to_be_visible(timeout=BACK_MS)
        expect(page.get_by_role("link", name="finished", exact=True)).to_be_visible()
        page.goto("/recordings")
        expect(page.get_by_role("heading", level=1)).to_have_text("Not known right now")
        expect(page.get_by_text("Callbacks are still taken and kept meanwhile")).to_be_visible()
    finally:
        postgres.start()
    page.get_by_role("link", name="Try again").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Recordings", timeout=BACK_MS)
    page.goto("/")
    expect(page.get_by_text("The database does not answer")).to_be_hidden(timeout=BACK_MS)


def test_without_the_broker_pages_say_so_and_recordings_are_still_found(
    visits: Visits, distributed: Pipeline, rabbitmq: RabbitMQServer
) -> None:
    page = opened(visits, distributed, "/")
    rabbitmq.stop()
    try:
        expect(page.get_by_text("The broker does not answer")).to_be_visible(timeout=BACK_MS)
        page.goto("/recordings")
        expect(page.get_by_role("heading", level=1)).to_have_text("Recordings")
        page.goto("/test")
        page.get_by_role("button", name="Send", exact=True).click()
        expect(page.locator("p.done.failed, h1:has-text('Not known right now')")).to_be_visible(timeout=BACK_MS)
    finally:
        rabbitmq.start()
    page.goto("/")
    expect(page.get_by_text("The broker does not answer")).to_be_hidden(timeout=BACK_MS)
