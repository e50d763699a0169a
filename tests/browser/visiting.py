"""What visitors of the console do again and again."""

from typing import Any

from playwright.sync_api import Page, expect

from tests.browser.chromium import Visits
from tests.browser.pipeline import READ_TOKEN, TOKEN, Pipeline
from tests.end_to_end.sending import APP

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

PHONE: dict[str, Any] = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


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


def addresses_of(pipeline: Pipeline) -> dict[str, str]:
    """Return the address of every kind of page there is, by its name, with something on each."""
    school = pipeline.school
    (event_id, *_) = pipeline.one("SELECT event_id FROM dead_letters WHERE resolved_at_us IS NULL ORDER BY event_id")
    (unknown_id, *_) = pipeline.one("SELECT event_id FROM events WHERE task_id = '' OR task_id IS NULL")
    recordings = {f"recording {name}": recording_address(cls.task_id) for name, cls in school.by_name.items()}
    return {
        **{name: path for path, name in PAGES.items()},
        **{name: path for name, path in recordings.items() if name != "recording other"},
        "Recordings, filtered": "/recordings?failed=1",
        "Recordings, none": "/recordings?room=999999",
        "event": f"/event?id={event_id}",
        "unrecognized": "/events?unrecognized=1",
        "unrecognized event": f"/event?id={unknown_id}",
        "dead letters of one": "/dead-letters?consumer=copies",
        "dead letter": f"/dead-letter?consumer=copies&id={event_id}",
        "replay of all": "/dead-letters/replay?consumer=copies",
        "what became of a replay": "/dead-letters/replayed?at=1",
        "purge of all": "/dead-letters/purge?consumer=copies",
        "replay of an event": f"/events/replay?consumer=finished&id={event_id}",
        "reverify": "/rejected/reverify",
        "consumer": "/consumer?name=copies",
    }


def recording_address(task_id: str) -> str:
    """Return the address of a recording's page."""
    return f"/recording?app={APP}&task={task_id}"
