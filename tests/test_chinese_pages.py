"""The Chinese pages say what the English ones say: their headings, blocks, commands, settings, links and figures do."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import Struct

from tests.end_to_end.compose import check_compose
from tests.end_to_end.pages import Block, blocks_of
from tiw.parser import build_parser

ROOT = Path(__file__).resolve().parent.parent
ENGLISH, CHINESE, QUICK_START = "README.md", "README.zh-CN.md", "docs/quick-start.zh-CN.md"
#: What the quick start was made of.
SOURCES = ("README.md", "plugins/README.md", "docs/deployment.md", "docs/vendor-console.md", ".env.example")

_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)
_CODE = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_SCRIPT = re.compile(r" <<'END'\n(.*?)^END$", re.MULTILINE | re.DOTALL)
#: Settings, what Tencent calls its things, and files.
_NAME = re.compile(r"\b[A-Z]+(?:_[A-Z]+)+\b|\b[A-Z][a-z]+[A-Z]\w+\b|[\w./-]+\.(?:yml|json|pem|txt)\b", re.ASCII)
_FIGURE = re.compile(r"\d+(?:[.,:]\d+)*")


class Part(Struct, frozen=True, kw_only=True):
    """What is between two headings of a page, as far as it is the same in every language."""

    heading: str
    level: int
    blocks: list[str]
    rows: int
    items: int
    code: set[str]
    links: set[str]
    figures: set[str]


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def parts_of(text: str) -> list[Part]:
    """Cut a page at its headings."""
    blocks = _FENCE.findall(text)
    # Headings are looked for where no comment of a block is taken for one.
    bare = _FENCE.sub("@block@", text)
    _, *cut = re.split(r"^(?=#+ )", bare, flags=re.MULTILINE)
    anchors = {f"#{anchor_of(heading)}": f"#{number}" for number, (_, heading) in enumerate(_HEADING.findall(bare))}
    parts = list[Part]()
    for part in cut:
        heading = _HEADING.match(part)
        assert heading is not None
        prose = _LINK.sub("", _CODE.sub("", part))
        parts.append(
            Part(
                heading=heading[2],
                level=len(heading[1]),
                blocks=[blocks.pop(0) for _ in range(part.count("@block@"))],
                rows=len(re.findall(r"^\|", part, re.MULTILINE)),
                items=len(re.findall(r"^(?:-|\d+\.) ", part, re.MULTILINE)),
                code={" ".join(code.split()) for code in _CODE.findall(part)},
                links={anchors.get(link) or in_english(link) for link in _LINK.findall(part)} - {QUICK_START},
                figures=set(_FIGURE.findall(prose)),
            )
        )
    return parts


def anchor_of(heading: str) -> str:
    """Return how a heading is linked to in its own page, as GitHub has it."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def in_english(link: str) -> str:
    """Return the English page where the link leads to its Chinese twin."""
    twin = link.replace(".zh-CN.md", ".md")
    return twin if (ROOT / twin.partition("#")[0]).exists() else link


def differences(english: list[Part], chinese: list[Part]) -> str:
    """Return a sentence for all that a page has and the other has not."""
    said = list[str]()
    for number, (ours, theirs) in enumerate(zip(english, chinese, strict=False), start=1):
        said += [
            f"{number}. {ours.heading!r}, {theirs.heading!r}: {difference}" for difference in between(ours, theirs)
        ]
    for page, longer, shorter in (("English", english, chinese), ("Chinese", chinese, english)):
        for part in longer[len(shorter) :]:
            said.append(f"one heading too many in {page}, or an earlier one is missing in the other: {part.heading!r}")
    return "\n\n".join(said)


def between(english: Part, chinese: Part) -> Iterator[str]:
    for what, one, another in (
        ("signs in the heading's level", english.level, chinese.level),
        ("blocks", len(english.blocks), len(chinese.blocks)),
        ("rows of tables", english.rows, chinese.rows),
        ("items of lists", english.items, chinese.items),
    ):
        if one != another:
            yield f"{one} {what} in English, {another} in Chinese"
    for number, (block, other) in enumerate(zip(english.blocks, chinese.blocks, strict=False), start=1):
        if block != other:
            yield f"block {number} differs:\n{block}\n{other}"
    for what, missing, alone in (
        ("inline code", english.code - chinese.code, chinese.code - english.code),
        ("links", english.links - chinese.links, chinese.links - english.links),
        # Where English has a word, Chinese may have a figure.
        ("figures", english.figures - chinese.figures, set[str]()),
    ):
        if missing:
            yield f"{what} in English alone: {sorted(missing)}"
        if alone:
            yield f"{what} in Chinese alone: {sorted(alone)}"


def test_the_chinese_readme_has_all_that_the_english_one_has() -> None:
    assert differences(parts_of(read(ENGLISH)), parts_of(read(CHINESE))) == ""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("\n### 故意弄坏它", "\n## 故意弄坏它", "3 signs in the heading's level in English, 2 in Chinese"),
        ("\n### 故意弄坏它", "\n故意弄坏它", "one heading too many in English"),
        ("\n./dev demo\n", "\n./dev show\n", "block 1 differs"),
        ("\n```sh\n./dev demo\n```\n", "", "5 blocks in English, 4 in Chinese"),
        ("\n| `TIW_LOG_FORMAT` |", "\n`TIW_LOG_FORMAT`", "rows of tables"),
        ("`TIW_PATH_TOKEN`", "`TIW_TOKEN`", "in English alone: ['TIW_PATH_TOKEN']"),
        ("(docs/callbacks.md)", "(docs/callback.md)", "in Chinese alone: ['docs/callback.md']"),
        ("1073741824", "1073741823", "figures in English alone: ['1073741824']"),
    ],
)
def test_a_difference_is_told(old: str, new: str, said: str) -> None:
    text = read(CHINESE)
    assert old in text
    assert said in differences(parts_of(read(ENGLISH)), parts_of(text.replace(old, new)))


def test_the_pages_of_one_language_lead_to_those_of_the_other() -> None:
    assert f"({CHINESE})" in read(ENGLISH).partition("\n## ")[0]
    assert {f"({ENGLISH})", f"({QUICK_START})"} <= set(re.findall(r"\(\S+?\)", read(CHINESE).partition("\n## ")[0]))
    assert f"({Path(QUICK_START).name})" in read("docs/vendor-console.md")


@pytest.mark.parametrize("page", [ENGLISH, CHINESE, QUICK_START])
def test_every_link_leads_to_a_file_and_a_heading(page: str) -> None:
    for link in _LINK.findall(_FENCE.sub("", read(page))):
        if re.match(r"https?:", link):
            continue
        path, _, anchor = link.partition("#")
        target = ROOT / page if not path else (ROOT / page).parent / path
        assert target.exists(), f"{page}: nothing is at {link}"
        if anchor:
            headings = _HEADING.findall(_FENCE.sub("", target.read_text(encoding="utf-8")))
            assert anchor in {anchor_of(heading) for _, heading in headings}, f"{page}: no heading is at {link}"


BLOCKS = blocks_of(ROOT, QUICK_START)
SHELL = [block for block in BLOCKS if block.language == "sh"]


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_every_command_of_the_quick_start_exists(block: Block) -> None:
    for command in commands_of(block.text):
        check(command)


def test_the_commands_in_the_prose_of_the_quick_start_exist() -> None:
    code = _CODE.findall(_FENCE.sub("", read(QUICK_START)))
    commands = [words for words in code if re.match(r"(?:tiw|\./dev|docker compose) [a-z]", words)]
    assert commands
    for command in commands:
        if not command.endswith(" ..."):
            check(shlex.split(command))


@pytest.mark.parametrize(
    "command",
    ["tiw doctor --wait", "docker compose stop broker", "docker compose run tiw list", "./dev show", "rabbit"],
)
def test_a_command_that_does_not_exist_is_found(command: str) -> None:
    with pytest.raises(AssertionError):
        check(shlex.split(command))


def commands_of(text: str) -> list[list[str]]:
    """Return the words of each command, without what is redirected."""
    lines = _SCRIPT.sub("", text).splitlines()
    return [shlex.split(command) for line in lines for command in re.sub(r" >+ \S+$", "", line).split(" | ")]


def check(command: list[str]) -> None:
    """Fail unless a command, and all that it names of ours, exists."""
    match command:
        case ["docker", "compose", *arguments]:
            check_compose(arguments, ROOT)
        case ["tiw", *arguments] | ["./dev", "tiw", *arguments]:
            try:
                build_parser().parse_args(arguments)
            except SystemExit as error:
                raise AssertionError(f"tiw refuses {shlex.join(arguments)}") from error
        case ["./dev", name, *_]:
            assert re.search(rf"^  {name} ", read("dev"), re.MULTILINE), f"./dev has no {name}"
        case _:
            assert command[0] in {"chmod", "cp", "echo", "git", "grep", "openssl"}, f"nobody knows {command[0]}"


def test_what_the_quick_start_shows_stands_in_an_english_page() -> None:
    """There it is run; commands are put together anew, and are looked at above."""
    sources = "\n".join(map(read, SOURCES))
    kept = [block.text for block in BLOCKS if block.language not in ("sh", "ini")]
    kept += [script for block in SHELL for script in _SCRIPT.findall(block.text)]
    assert len(kept) == 3
    for text in kept:
        assert text in sources, f"no English page has:\n{text}"


def test_what_the_quick_start_names_is_named_in_an_english_page() -> None:
    sources = "\n".join(map(read, (*SOURCES, "docs/callbacks.md")))
    named = set(_NAME.findall(_LINK.sub("", read(QUICK_START))))
    assert len(named) > 20
    assert {name for name in named if name not in sources} == set()
