"""Texts: what values can do in them, where they are cut, and templates of one's own."""

import json
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notify.config import KINDS, Kind
from notify.rules import RULES, TEMPLATE_FIELDS
from notify.texts import (
    LANGUAGES,
    MAX_VALUE_CHARACTERS,
    Part,
    Template,
    cut,
    escape,
    fill,
    fit,
    load_templates,
    one_line,
    utf8_size,
)

CHATS: list[Kind] = ["wecom", "dingtalk", "feishu", "slack"]

HOSTILE = st.one_of(
    st.text(),
    st.lists(
        st.sampled_from(
            [
                '<at user_id="all">x</at>',
                "<!channel>",
                "<@U123>",
                "@all",
                "@here",
                "[here](https://evil.example)",
                "https://evil.example/login",
                "**bold**",
                "`code`",
                "~x~",
                "\u202e\u2066\u200f\u061c",
                "\u200b\ufeff\u00ad",
                "\r\nBcc: a@b.c",
                "\u2028\u2029\x85",
                "\x00\x1b[31m",
                "\ud800",
                "录制失败",
                "\U0001f3a5",
            ]
        )
    ).map("".join),
)


@given(value=HOSTILE)
def test_a_value_is_one_line_that_hides_nothing(value: str) -> None:
    line = one_line(value)
    assert line.isprintable()
    assert len(line) <= MAX_VALUE_CHARACTERS
    assert not {unicodedata.category(c) for c in line} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert one_line(line) == line


@given(value=HOSTILE, kind=st.sampled_from(CHATS))
def test_no_value_calls_anybody_or_makes_a_link_or_a_format_in_a_chat(value: str, kind: Kind) -> None:
    shown = escape(kind, value)
    assert not set(shown) & set("<>[]@*`~")
    assert "://" not in shown
    assert shown.isprintable()


def test_what_a_person_needs_to_copy_stays_as_it_is() -> None:
    for kind in KINDS:
        assert escape(kind, "tic_record_user_1-a.b/c: 40004 (x), FailedOperation.Record") == (
            "tic_record_user_1-a.b/c: 40004 (x), FailedOperation.Record"
        )
    assert escape("email", "a <b@c.d> [e]") == "a <b@c.d> [e]"


@given(text=st.text(), at_most=st.integers(min_value=3, max_value=80))
def test_a_cut_fits_and_is_a_beginning_in_whole_characters(text: str, at_most: int) -> None:
    if any("\ud800" <= c <= "\udfff" for c in text):
        return
    shown = cut(text, at_most)
    assert utf8_size(shown) <= at_most
    assert shown.encode().decode() == shown
    assert shown == text or text.startswith(shown.removesuffix("\N{HORIZONTAL ELLIPSIS}"))


def test_chinese_is_cut_at_bytes_and_never_inside_a_character() -> None:
    text = "录制已暂停" * 200
    for at_most in range(2040, 2049):
        shown = cut(text, at_most)
        assert at_most - 3 < utf8_size(shown) <= at_most
        assert set(shown) <= set("录制已暂停\N{HORIZONTAL ELLIPSIS}")


def test_a_letter_keeps_the_marks_on_it() -> None:
    assert cut("abe\u0301\u0302xyz", 8) == "ab\N{HORIZONTAL ELLIPSIS}"


LINES = st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30), max_size=40)


@given(
    parts=st.lists(st.tuples(LINES, st.sampled_from(["", "... {more} more"])), min_size=1, max_size=2),
    at_most=st.integers(min_value=20, max_value=2048),
)
def test_parts_fit_whatever_they_are_and_lines_are_whole_or_counted(
    parts: list[tuple[list[str], str]], at_most: int
) -> None:
    given_parts = [Part(title="title", lines=tuple(lines), more=more) for lines, more in parts]

    def json_size(text: str) -> int:
        return len(json.dumps(text, ensure_ascii=False).encode()) - 2

    for size in (utf8_size, len, json_size):
        shown = fit(given_parts, at_most, size)
        assert size(shown) <= at_most
    whole = "\n\n".join("\n".join(["title", *lines]) for lines, _ in parts)
    if utf8_size(whole) <= at_most // len(parts):
        assert fit(given_parts, at_most) == whole


def test_what_does_not_fit_of_a_digest_is_counted() -> None:
    lines = tuple(f"- line {number}" for number in range(100))
    part = Part(title="100 notices", lines=lines, more="... and {more} more")
    shown = fit([part], 200).splitlines()
    assert shown[0] == "100 notices"
    assert shown[1] == "- line 0"
    found = re.fullmatch(r"\.\.\. and (\d+) more", shown[-1])
    assert found is not None
    assert int(found[1]) + len(shown) - 2 == 100
    assert utf8_size("\n".join(shown)) <= 200


def test_two_languages_share_what_there_is_and_one_gets_what_the_other_leaves() -> None:
    long = Part(title="长", lines=("录" * 1000,))
    short = Part(title="short", lines=("line",))
    shown = fit([long, short], 2048)
    assert shown.endswith("\n\nshort\nline")
    assert 2040 < utf8_size(shown) <= 2048
    both = fit([long, long], 2048)
    assert both.count("长") == 2
    assert utf8_size(both) <= 2048


def test_a_line_without_any_of_its_values_is_left_out() -> None:
    template = Template(title="Room {room_id}", text="at {a}\n{b} or {c}\n\nend")
    part = fill(template, {"room_id": "", "a": "", "b": "x", "c": ""})
    assert part == Part(title="Room ?", lines=("x or ?", "", "end"))


def test_every_rule_has_its_texts_in_both_languages_with_values_that_there_are() -> None:
    loaded = load_templates(TEMPLATE_FIELDS)
    assert loaded.problems == ()
    assert {language: each.keys() for language, each in loaded.templates.items()} == {
        language: TEMPLATE_FIELDS.keys() for language in LANGUAGES["both"]
    }
    # What a text says in one language it says in the other.
    for rule in TEMPLATE_FIELDS:
        english, chinese = (loaded.templates[language][rule] for language in ("en", "zh"))
        values = [
            [set(re.findall(r"\{(\w+)\}", line)) for line in (each.title, *each.text.splitlines())]
            for each in (english, chinese)
        ]
        assert values[0] == values[1], rule


def test_a_users_template_replaces_one_and_leaves_the_others(tmp_path: Path) -> None:
    (tmp_path / "zh.toml").write_text('[failed]\ntitle = "失败 {room_id}"\ntext = "{error_code}"\n', encoding="utf-8")
    loaded = load_templates(TEMPLATE_FIELDS, tmp_path)
    assert loaded.problems == ()
    assert loaded.templates["zh"]["failed"] == Template(title="失败 {room_id}", text="{error_code}")
    default = load_templates(TEMPLATE_FIELDS).templates
    assert loaded.templates["en"] == default["en"]
    assert loaded.templates["zh"]["found"] == default["zh"]["found"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[failed\n", "en.toml cannot be read"),
        (b"\xff\xfe", "en.toml cannot be read"),
        ('[fialed]\ntitle = "x"\ntext = "y"\n', "[fialed]: there is no such rule, only app_paused,"),
        ('[failed]\ntitle = "x"\n', "[failed]: it must have a title and a text, and nothing else"),
        ('[failed]\ntitle = 1\ntext = "y"\n', "title and text must be texts in quotes"),
        ('[failed]\ntitle = "a\\nb"\ntext = "y"\n', "its title must be one line"),
        ('[failed]\ntitle = "{romo_id}"\ntext = "y"\n', "there is no value {romo_id} here, only error_code,"),
        ('[failed]\ntitle = "x"\ntext = "{0}"\n', "there is no value {0} here"),
        (f'[failed]\ntitle = "x"\ntext = "{"y" * 5000}"\n', "at most 4000 characters"),
        ('failed = "x"\n', "it must have a title and a text"),
    ],
)
def test_a_bad_template_is_said_and_the_default_stands_in(tmp_path: Path, content: str | bytes, said: str) -> None:
    (tmp_path / "en.toml").write_bytes(content if isinstance(content, bytes) else content.encode())
    loaded = load_templates(TEMPLATE_FIELDS, tmp_path)
    (problem,) = loaded.problems
    assert said in problem
    assert problem.endswith(("the default template is used", "the default templates are used"))
    assert loaded.templates == load_templates(TEMPLATE_FIELDS).templates


def test_a_folder_without_templates_is_said(tmp_path: Path) -> None:
    (problem,) = load_templates(TEMPLATE_FIELDS, tmp_path / "nowhere").problems
    assert "has neither en.toml nor zh.toml" in problem


def test_no_value_can_reach_what_a_template_does_not_name() -> None:
    template = Template(title="{task_id}", text="{task_id.__class__} {task_id!r} {{task_id}}")
    part = fill(template, {"task_id": "{room_id}"})
    assert part.title == "{room_id}"
    assert part.lines == ("{task_id.__class__} {task_id!r} {{room_id}}",)


def test_the_rules_and_the_templates_are_the_same() -> None:
    assert TEMPLATE_FIELDS.keys() == RULES.keys() | {"digest"}
