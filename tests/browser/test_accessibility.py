"""Every page for everybody: axe-core finds nothing, in light, in dark and on a phone, which scrolls no page aside."""

from typing import Any

import pytest

from tests.browser.accessibility import violations
from tests.browser.chromium import Visits, overflowing
from tests.browser.pipeline import Pipeline
from tests.browser.visiting import PHONE, addresses_of, operator

LOOKS: dict[str, dict[str, Any]] = {"light": {}, "dark": {"color_scheme": "dark"}, "phone": PHONE}


@pytest.mark.parametrize("look", LOOKS)
def test_no_page_keeps_anybody_out(visits: Visits, school: Pipeline, look: str) -> None:
    page = operator(visits, school, **LOOKS[look])
    found = {}
    for name, address in addresses_of(school).items():
        page.goto(address)
        # What is folded is to be read, too.
        page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        wrong = [*violations(page), *(overflowing(page) if look == "phone" else [])]
        if wrong:
            found[name] = wrong
    assert found == {}


@pytest.mark.parametrize("look", LOOKS)
def test_whoever_logs_in_is_kept_out_by_the_token_alone(visits: Visits, school: Pipeline, look: str) -> None:
    page = visits.page(school.url, **LOOKS[look])
    page.goto("/login")
    assert violations(page) == []
    assert overflowing(page) == []
