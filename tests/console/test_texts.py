"""Every text there is in both languages, and none that nobody shows."""

import re
import string
from pathlib import Path

import pytest

from console.rendering import LANGUAGES, Texts, language_of

CONSOLE = Path(__file__).resolve().parents[2] / "console"
TEXTS = Texts().texts
_CALLED = re.compile(r"""\bt\(\s*f?["']([a-z_0-9.]+)["']\s*[,)]""")
_BEGUN = re.compile(r"""(?:f["']([a-z_0-9.]+[._])\{|["']([a-z_0-9.]+[._])["']\s*~)""")


def _sources() -> dict[str, str]:
    files = [*CONSOLE.rglob("*.py"), *CONSOLE.rglob("*.html")]
    return {file.name: file.read_text(encoding="utf-8") for file in files}


def _fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def test_a_text_is_there_in_every_language_with_the_same_values() -> None:
    for key, texts in TEXTS.items():
        assert set(LANGUAGES) <= set(texts) <= {*LANGUAGES, "en_one"}, key
        assert all(text.strip() == text != "" for text in texts.values()), key
        assert _fields(texts["en"]) == _fields(texts["zh"]), key
        assert _fields(texts.get("en_one", "")) <= _fields(texts["en"]), key


def test_every_text_that_a_page_asks_for_is_there() -> None:
    asked = {key for source in _sources().values() for key in _CALLED.findall(source)}
    assert "login.title" in asked
    assert sorted(asked - set(TEXTS)) == []


def test_no_text_is_there_that_no_page_shows() -> None:
    sources = _sources().values()
    named = {name for source in sources for name in re.findall(r"[\"']([a-z_0-9.]+)[\"']", source)}
    begun = tuple({one or other for source in sources for one, other in _BEGUN.findall(source)})
    unused = [key for key in TEXTS if key not in named and not key.startswith(begun)]
    assert unused == []


def test_chinese_texts_are_chinese() -> None:
    # Names of the product and of commands may stand alone.
    latin = [key for key, texts in TEXTS.items() if not re.search(r"[\u4e00-\u9fff]", texts["zh"])]
    assert latin == []


@pytest.mark.parametrize(
    ("accepted", "chosen", "language"),
    [
        ("zh-CN,zh;q=0.9,en;q=0.8", None, "zh"),
        ("en-GB,en;q=0.9,zh;q=0.8", None, "en"),
        ("de,zh;q=0.5,en;q=0.4", None, "zh"),
        ("de", None, "en"),
        ("", None, "en"),
        ("zh;q=nonsense", None, "en"),
        ("en", "zh", "zh"),
        ("zh", "xx", "zh"),
    ],
)
def test_the_language_is_the_chosen_one_else_what_the_browser_prefers(
    accepted: str, chosen: str | None, language: str
) -> None:
    assert language_of(accepted, chosen) == language
