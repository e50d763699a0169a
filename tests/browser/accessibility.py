"""axe-core in a page."""

from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import Page

_AXE = (Path(__file__).parent / "vendor" / "axe.min.js").read_text(encoding="utf-8")


def violations(page: Page, *, rules: Sequence[str] = ()) -> list[str]:
    """Return what axe-core finds, a line for each: the rule and the first elements that break it.

    `rules`: only these, where the others cannot have another answer; else all.
    """
    # Evaluated from outside: the page's own policy would not let it in.
    if not page.evaluate("typeof axe === 'object'"):
        page.evaluate(f"() => {{ {_AXE} }}")
    found = page.evaluate(
        "async (rules) => (await axe.run(document, { resultTypes: ['violations'],"
        " ...(rules.length ? { runOnly: rules } : {}) })).violations",
        list(rules),
    )
    return [
        f"{one['id']}: {one['help']}: {node['html'][:200]} ({node['failureSummary'][:300]})"
        for one in found
        for node in one["nodes"][:3]
    ]
