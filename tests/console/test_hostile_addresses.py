"""Whatever stands in an address or a form, a page says what is wrong with it: nothing here breaks."""

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import pytest
import structlog.testing

from console.server import ROUTES
from tests.console.world import World, elements, running

HOSTILE = [
    "",
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "\0",
    "\u202egnp.exe",
    "%ff%fe",
    "%ed%a0%80",
    "-1",
    "0",
    str(2**63),
    "9" * 5000,
    "1e999",
    "nan",
    "None",
    "../../etc/passwd",
    "a" * 6000,
    "\U0001d7d9",
    "2026-13-45",
    "0000-01-01",
    "9999-12-31",
    "*",
    "%",
    "_",
    "';--",
    "{{7*7}}",
    "{count}",
]

#: All names of members that a page reads.
NAMES = [
    *("app", "task", "room", "teacher", "status", "from", "until", "offset", "after", "search", "q", "id", "consumer"),
    *(
        "reason",
        "type",
        "event_type",
        "source",
        "name",
        "file",
        "dry_run",
        "count",
        "limit",
        "event",
        "to",
        "back",
        "kind",
    ),
    *("unrecognized", "failed", "paused", "found_late", "contradicted", "not_archived", "resolved", "t"),
    *("at", "replay"),
]
GETS = sorted({route.path for route in ROUTES if route.method == "GET"} - {"/live"})
POSTS = sorted({route.path for route in ROUTES if route.method == "POST"})


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running(tmp_path) as opened:
        yield opened


def _encoded(value: str) -> str:
    return value if value.startswith("%") else quote(value, safe="")


@pytest.mark.parametrize("path", GETS)
async def test_a_page_answers_whatever_its_address_says(world: World, path: str) -> None:
    with structlog.testing.capture_logs() as logs:
        for value in HOSTILE:
            for address in (
                f"{path}?{'&'.join(f'{name}={_encoded(value)}' for name in NAMES)}",
                f"{path}?{_encoded(value)}",
            ):
                if len(address) > 8000:
                    continue
                page = await world.browser.get(address, allow_redirects=False)
                assert page.status < 500 or page.status == 503, (address, page.text)
                assert "alert(1)</script>" not in page.text
                assert all(image.get("src") != "x" for image in elements(page.text, "img"))
    assert "console_page_failed" not in [entry["event"] for entry in logs]


@pytest.mark.parametrize("path", GETS)
async def test_a_page_answers_whatever_one_member_of_its_address_says(world: World, path: str) -> None:
    with structlog.testing.capture_logs() as logs:
        for name in NAMES:
            for value in ("<b>", "\0", "%ff", str(2**63), "a" * 3000):
                page = await world.browser.get(f"{path}?{name}={_encoded(value)}", allow_redirects=False)
                assert page.status < 500 or page.status == 503, (path, name, value, page.text)
    assert "console_page_failed" not in [entry["event"] for entry in logs]


@pytest.mark.parametrize("path", POSTS)
async def test_an_action_answers_whatever_its_form_says(world: World, path: str) -> None:
    form_token = (await world.browser.get("/changes")).form_token
    with structlog.testing.capture_logs() as logs:
        for value in HOSTILE:
            form = dict.fromkeys(NAMES, value) | {"form_token": form_token}
            answer = await world.browser.post(path, form, allow_redirects=False)
            assert answer.status < 500 or answer.status == 503, (path, value, answer.text)
            assert "\n" not in answer.headers.get("Location", "")
            assert answer.headers.get("Location", "/").startswith("/")
    assert "console_page_failed" not in [entry["event"] for entry in logs]
