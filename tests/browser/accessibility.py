"""axe-core in a page."""

from pathlib import Path

from playwright.sync_api import Page

_AXE = (Path(__file__).parent / "vendor" / "axe.min.js").read_text(encoding="utf-8")


def violations(page: Page) -> list[str]:
    """Return what axe-core finds, a line for each: the rule and the first elements that break it."""
    # Evaluated from outside: the page's own policy would not let it in.
    if not page.evaluate("typeof axe === 'object'"):
        page.evaluate(f"() => {{ {_AXE} }}")
    found = page.evaluate("async () => (await axe.run(document, { resultTypes: ['violations'] })).violations")
    return [
        f"{one['id']}: {one['help']}: {node['html'][:200]} ({node['failureSummary'][:300]})"
        for one in found
        for node in one["nodes"][:3]
    ]
