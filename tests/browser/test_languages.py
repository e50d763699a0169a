"""Two languages: the browser's own, or the one that was chosen; and no page is in both."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect

from tests.browser.chromium import Visits
from tests.browser.pipeline import Pipeline
from tests.browser.visiting import addresses_of, operator

TEXTS = Path(__file__).resolve().parents[2] / "console" / "texts"

#: What is shown as it came, or as it is typed: ids, commands, bodies.
_AS_IT_IS = "bdi, code, pre, .id, time, option, textarea, [lang=en], script, style, noscript"


def texts(language: str) -> Iterator[str]:
    """Yield all texts of a language."""

    def inside(group: dict[str, Any]) -> Iterator[str]:
        for name, text in group.items():
            if isinstance(text, dict):
                yield from inside(text)
            elif name.startswith(language):
                yield text

    for file in TEXTS.glob("*.toml"):
        yield from inside(tomllib.loads(file.read_text(encoding="utf-8")))


def words(text: str) -> set[str]:
    return set(re.findall(r"[A-Za-z]{2,}", text))


def shown(page: Page) -> list[str]:
    """Return what a page says, text by text: what is read of it, and what is read out."""
    found: list[str] = page.evaluate(
        """(asItIs) => {
          const texts = [document.title];
          const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
          while (walker.nextNode()) {
            const text = walker.currentNode.textContent.trim();
            if (text && !walker.currentNode.parentElement.closest(asItIs)) texts.push(text);
          }
          for (const name of ["aria-label", "title", "placeholder", "alt", "data-label"]) {
            for (const element of document.body.querySelectorAll(`[${name}]`)) {
              if (!element.closest(asItIs)) texts.push(element.getAttribute(name));
            }
          }
          return texts;
        }""",
        _AS_IT_IS,
    )
    return found


def test_nothing_on_a_chinese_page_is_english(visits: Visits, school: Pipeline) -> None:
    page = operator(visits, school, locale="zh-CN")
    # Names that Chinese texts have, too, what the vendor says in English, why a file is not archived, as it stands in
    # the log, and what consumers are called.
    said = "".join(cls.callbacks[-1].event_data for cls in school.school.classes)
    said += " ".join(reason for (reason,) in school.select("SELECT reason FROM archived_files") if reason)
    known = words(" ".join(texts("zh"))) | words(said) | {"finished", "copies"}
    english = words(re.sub(r"\{\w+\}", "", " ".join(texts("en")))) - known
    wrong = {}
    for name, address in addresses_of(school).items():
        page.goto(address)
        found = [text for text in shown(page) if words(text) & english]
        if found:
            wrong[name] = found
        assert page.evaluate("document.documentElement.lang") == "zh-CN"
    assert wrong == {}, json.dumps(wrong, ensure_ascii=False, indent=1)


def test_the_language_is_the_browsers_until_another_is_chosen_and_then_stays(visits: Visits, school: Pipeline) -> None:
    page = operator(visits, school, "/recordings?failed=1", locale="de-DE")
    expect(page.get_by_role("navigation", name="Pages")).to_be_visible()
    page.get_by_role("link", name="中文").click()
    # Where one was, with the filters that one had.
    page.wait_for_url(f"{school.url}/recordings?failed=1")
    expect(page.get_by_role("navigation", name="页面")).to_be_visible()
    page.goto("/events")
    expect(page.get_by_role("navigation", name="页面")).to_be_visible()
    page.get_by_role("link", name="English").click()
    expect(page.get_by_role("navigation", name="Pages")).to_be_visible()


def test_whoever_reads_chinese_logs_in_in_chinese(visits: Visits, school: Pipeline) -> None:
    page = visits.page(school.url, locale="zh-CN")
    page.goto("/login")
    expect(page.get_by_role("heading", level=1)).to_have_text("登录")
