"""Every page for everybody: axe-core finds nothing, in light, in dark and on a phone, which scrolls no page aside."""

from typing import Any

import pytest

from tests.browser.accessibility import violations
from tests.browser.chromium import Visits, overflowing
from tests.browser.pipeline import Pipeline
from tests.browser.visiting import PHONE, addresses_of, operator

LOOKS: dict[str, dict[str, Any]] = {"light": {}, "dark": {"color_scheme": "dark"}, "phone": PHONE}

#: What a look can change. Everything else is found, or not, in the light.
RULES = {
    "dark": ("color-contrast", "link-in-text-block"),
    "phone": ("color-contrast", "target-size", "scrollable-region-focusable", "meta-viewport"),
}


def test_no_page_keeps_anybody_out(visits: Visits, school: Pipeline) -> None:
    page = operator(visits, school)
    desk = page.viewport_size
    assert desk is not None
    found = {}
    for name, address in addresses_of(school).items():
        page.emulate_media(color_scheme="light")
        page.set_viewport_size(desk)
        page.goto(address)
        # What is folded is to be read, too.
        page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        found[name, "light"] = violations(page)
        page.emulate_media(color_scheme="dark")
        found[name, "dark"] = violations(page, rules=RULES["dark"])
        page.set_viewport_size(PHONE["viewport"])
        found[name, "phone"] = [*violations(page, rules=RULES["phone"]), *overflowing(page)]
    assert {place: wrong for place, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize("look", LOOKS)
def test_whoever_logs_in_is_kept_out_by_the_token_alone(visits: Visits, school: Pipeline, look: str) -> None:
    page = visits.page(school.url, **LOOKS[look])
    page.goto("/login")
    assert violations(page) == []
    assert overflowing(page) == []
