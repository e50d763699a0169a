"""What visitors of the console do again and again."""

from playwright.sync_api import Page, expect

from tests.browser.chromium import Visits
from tests.browser.pipeline import READ_TOKEN, TOKEN, Pipeline

#: All that the navigation leads to, and how the page says what it is.
PAGES = {
    "/": "Now",
    "/recordings": "Recordings",
    "/events": "Events",
    "/dead-letters": "Dead letters",
    "/rejected": "Rejected",
    "/consumers": "Consumers",
    "/test": "Send a test",
    "/changes": "Changes",
}

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


def log_in(page: Page, token: str = TOKEN, *, to: str = "/changes") -> Page:
    """Log in with the link that is printed at the start, and go to a page."""
    page.goto(f"/login#{token}")
    page.wait_for_url(lambda url: "/login" not in url)
    # A link with the token is left behind by what it leads to.
    page.goto(to)
    return page


def operator(visits: Visits, pipeline: Pipeline, to: str = "/", **options: object) -> Page:
    """Open a page of somebody who may act."""
    return log_in(visits.page(pipeline.url, **options), to=to)


def reader(visits: Visits, pipeline: Pipeline, to: str = "/", **options: object) -> Page:
    """Open a page of somebody who may look."""
    return log_in(visits.page(pipeline.url, **options), READ_TOKEN, to=to)


def expect_done(page: Page, text: str, *, ok: bool = True) -> None:
    """Expect to be told what an action came to."""
    told = page.locator("p.done")
    expect(told).to_contain_text(text)
    expect(told).to_have_class("done ok" if ok else "done failed")
