"""Texts of anybody stay text, times stay readable, commands can be pasted."""

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from console.rendering import command_line, duration_s, iso_us, plain, render, size, static_names, utc_s, utc_us


@given(st.text())
def test_what_is_shown_has_nothing_invisible_and_turns_no_direction(text: str) -> None:
    shown = plain(text)
    assert len(shown) <= len(text)
    assert not set(shown) & set("\0\n\r\t\x1b\u202e\u2066\u200f\u2028")


def test_a_long_text_is_cut_and_says_so() -> None:
    assert plain("x" * 5000).endswith("x…")
    assert len(plain("x" * 1_000_000)) == 2001
    assert plain("a\r\nb\tc\0", lines=True) == "a\nb\tc\N{REPLACEMENT CHARACTER}"


@given(st.lists(st.text(alphabet=st.characters(codec="utf-8"), min_size=1), min_size=1))
def test_a_command_that_is_pasted_has_the_words_that_are_shown(words: list[str]) -> None:
    assert shlex.split(command_line("tiw", *words, None)) == ["tiw", *(plain(word) for word in words)]


@pytest.mark.parametrize("at_us", [-(2**63), 2**63 - 1, 10**18])
def test_a_time_that_is_none_is_the_number_that_it_is(at_us: int) -> None:
    assert iso_us(at_us) == ""
    assert utc_us(at_us) == str(at_us)


def test_times_lengths_and_sizes_are_read_at_once() -> None:
    assert utc_us(1_568_949_369_000_000) == "2019-09-20 03:16:09"
    assert iso_us(1_568_949_369_000_000) == "2019-09-20T03:16:09Z"
    assert utc_s(2**70) == str(2**70)
    assert [duration_s(s) for s in (0, 59.6, 3723, -5, 100_000)] == [
        "0:00:00",
        "0:01:00",
        "1:02:03",
        "-0:00:05",
        "1 d 3:46:40",
    ]
    assert [size(n) for n in (0, 999, 1500, 2_500_000, 3_000_000_000)] == ["0 B", "999 B", "1.5 kB", "2.5 MB", "3.0 GB"]


def test_markup_is_made_by_templates_alone() -> None:
    with pytest.raises(TypeError, match="markup"):
        render("unknown.html", {"heading": Markup("<b>")})


def test_a_file_has_another_name_when_it_has_another_content() -> None:
    names = static_names()
    assert set(names) >= {"console.css", "console.js", "login.js"}
    assert all(len(name.partition("/")[0]) == 12 for name in names.values())
