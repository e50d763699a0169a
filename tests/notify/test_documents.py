"""What docs/notifications.md says of rules, channels and codes is so, and the Chinese page says the same."""

import re
from pathlib import Path

import pytest
from msgspec import structs

from notify import RULES
from notify.channels import _LATER_S, PACES, REFUSALS
from notify.config import _TAKES, KINDS
from tests.test_chinese_pages import differences, parts_of
from tiw.parser import build_parser

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    name: (ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("notifications.md", "notifications.zh-CN.md")
}
ENGLISH = PAGES["notifications.md"]

each_page = pytest.mark.parametrize("page", PAGES.values(), ids=list(PAGES))


def first_cells(page: str) -> set[str]:
    return set(re.findall(r"^\| `([a-z_]+)=?` \|", page, re.MULTILINE))


@each_page
def test_every_rule_and_every_kind_has_its_row(page: str) -> None:
    parameters = {name for takes in _TAKES.values() for name in takes.parameters}
    assert first_cells(page) == {*RULES, *KINDS, *parameters}


@each_page
def test_every_code_is_named_with_what_is_done(page: str) -> None:
    for code in [code for table in (REFUSALS, _LATER_S) for codes in table.values() for code in codes]:
        assert re.search(rf"(?<!\d){code}(?!\d)", page), code


def test_a_parameter_is_for_the_kinds_that_take_it() -> None:
    for name, kinds in re.findall(r"^\| `(\w+)=` \| ([^|]+) \|", ENGLISH, re.MULTILINE):
        named = set(re.findall(r"`(\w+)`", kinds))
        taking = {kind for kind in KINDS if name in _TAKES[kind].parameters}
        expected = {"all": taking, "all but `webhook`": set(KINDS) - {"webhook"}}.get(kinds.strip(), named)
        assert taking == expected, name


def test_the_pace_of_each_kind_is_as_it_is_said() -> None:
    for kind, row in re.findall(r"^\| `(\w+)` \|.*\| ([^|]+) \|$", ENGLISH, re.MULTILINE):
        if kind in PACES:
            numbers = {float(number) for number in re.findall(r"\d+(?:\.\d+)?", row)}
            pace = PACES[kind]
            wanted = {float(pace.burst)} if pace.burst > 1 else set()
            every_s = {1 / pace.every_s} if pace.every_s < 1 else {pace.every_s}
            assert numbers == wanted | (every_s - {1.0}), kind


def test_the_chinese_page_has_all_that_the_english_one_has() -> None:
    english, chinese = (
        [structs.replace(part, links=part.links - PAGES.keys()) for part in parts_of(page)] for page in PAGES.values()
    )
    assert differences(english, chinese) == ""


@each_page
def test_every_command_exists(page: str) -> None:
    for command in re.findall(r"`tiw ([a-z][^`]*)`", page):
        given = command.replace("CHANNEL", "wecom") + (" wecom" if command == "notify test" else "")
        assert build_parser().parse_args(given.split()).runs
