"""Debian's Chromium, and what it has to say against a page."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Dialog,
    Page,
    Request,
    Response,
    WebError,
    sync_playwright,
)

NOT_INSTALLED = (
    "Chromium is not installed: its tests were NOT run. Run `./dev test` as root on Debian, or name one with "
    "TIW_TEST_CHROMIUM"
)
#: The first one is the same Chromium without a window, for a third less CPU.
NAMES = ("chromium-headless-shell", "chromium", "google-chrome", "google-chrome-stable")

#: Two busy cores draw slowly.
DEADLINE_S = 30.0

#: A page that is left drops what it still reads: the live stream, a video, and a picture or script of little use.
DROPPED = "net::ERR_ABORTED"


def find_chromium() -> Path | None:
    """Return where Chromium is: as TIW_TEST_CHROMIUM says, else the first on the PATH."""
    named = os.environ.get("TIW_TEST_CHROMIUM")
    found = named or next(filter(None, map(shutil.which, NAMES)), None)
    return None if found is None else Path(found)


@contextmanager
def running(chromium: Path) -> Iterator[Browser]:
    """Run it while the block does.

    Until then no event loop may be started in this thread: Playwright's own one counts as running in it.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            # It refuses its sandbox to root, and what it shows here is ours.
            args=[
                "--no-sandbox",
                "--disable-dev-shm-usage",
                # There is none: to imitate one takes a tenth of all CPU.
                "--disable-gpu",
                "--force-color-profile=srgb",
                # Names that lead here, as those of an attacker may.
                "--host-resolver-rules=MAP *.example 127.0.0.1",
                # What it keeps from them by itself is not ours to rely on: older ones do not.
                "--disable-features=LocalNetworkAccessChecks",
            ],
        )
        try:
            yield browser
        finally:
            browser.close()


class Watch:
    """Takes note of all that goes wrong in the pages of a context."""

    def __init__(self, context: BrowserContext) -> None:
        self.problems: list[str] = []
        self._expected: list[str] = []
        context.set_default_timeout(DEADLINE_S * 1000)
        context.add_init_script(
            "document.addEventListener('securitypolicyviolation', (event) => console.error("
            "`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`));"
        )
        context.on("console", self._note_message)
        context.on("weberror", self._note_error)
        context.on("dialog", self._note_dialog)
        context.on("requestfailed", self._note_failed)
        context.on("response", self._note_response)
        context.on("request", self._note_report)
        context.on("page", self._watch_page)

    def expect(self, *parts: str) -> None:
        """Let problems be that have one of these in them."""
        self._expected += parts

    def assert_nothing(self) -> None:
        """Assert that nothing went wrong but what was expected."""
        wrong = [problem for problem in self.problems if not any(part in problem for part in self._expected)]
        assert not wrong, "\n".join(wrong)

    def _watch_page(self, page: Page) -> None:
        page.on("crash", lambda crashed: self.problems.append(f"crash: {crashed.url}"))

    def _note_message(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(f"console: {message.text} ({message.location.get('url')})")

    def _note_error(self, error: WebError) -> None:
        self.problems.append(f"script: {error.error}")

    def _note_dialog(self, dialog: Dialog) -> None:
        self.problems.append(f"dialog: {dialog.type} {dialog.message}")
        dialog.dismiss()

    def _note_failed(self, request: Request) -> None:
        if request.failure != DROPPED:
            self.problems.append(f"failed: {request.method} {request.url}: {request.failure}")

    def _note_response(self, response: Response) -> None:
        if response.status >= 400:
            self.problems.append(f"status: {response.status} of {response.request.method} {response.url}")

    def _note_report(self, request: Request) -> None:
        if urlsplit(request.url).path == "/csp-report":
            self.problems.append(f"policy: reported {request.post_data}")


class Visits:
    """Contexts of a browser, one for each visitor. They end with the test; what went wrong in their pages fails it."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._contexts: list[tuple[BrowserContext, Watch]] = []

    def page(self, base_url: str, **options: Any) -> Page:
        """Open a page of a new visitor, who reads English unless `options` say otherwise."""
        return self.watched(base_url, **options)[0]

    def watched(self, base_url: str, **options: Any) -> tuple[Page, Watch]:
        """Open a page as `page` does, and give what watches it."""
        context = self._browser.new_context(base_url=base_url, **{"locale": "en-US", **options})
        watch = Watch(context)
        self._contexts.append((context, watch))
        return context.new_page(), watch

    def end(self) -> None:
        """Close all, and assert that nothing went wrong."""
        for context, _ in self._contexts:
            context.close()
        for _, watch in self._contexts:
            watch.assert_nothing()


def keys_until(page: Page, key: str, selected: str, *, at_most: int = 200) -> None:
    """Press `key` until what has the focus fits the selector; fail if it never does."""
    for _ in range(at_most):
        page.keyboard.press(key)
        if page.evaluate("(selected) => document.activeElement?.matches(selected) ?? false", selected):
            return
    raise AssertionError(f"nothing that fits {selected!r} gets the focus by {key} at {page.url}")


def overflowing(page: Page) -> Sequence[str]:
    """Return what makes the page wider than the window, a line for each; what scrolls inside of something does not."""
    found: list[str] = page.evaluate(
        """() => {
          const width = document.documentElement.clientWidth;
          if (document.documentElement.scrollWidth <= width) return [];
          const wide = [...document.body.querySelectorAll("*")].filter((element) => {
            if (element.getBoundingClientRect().right <= width + 0.5) return false;
            for (let outer = element.parentElement; outer && outer !== document.body; outer = outer.parentElement) {
              if (getComputedStyle(outer).overflowX !== "visible") return false;
            }
            return true;
          });
          const tell = (one) => `${one.outerHTML.slice(0, 120)} ends at ${one.getBoundingClientRect().right}`;
          return [`the page is ${document.documentElement.scrollWidth} wide`, ...wide.map(tell)];
        }"""
    )
    return found
