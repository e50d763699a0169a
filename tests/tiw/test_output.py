"""What is printed is for reading, whatever anybody puts into it."""

import json

import pytest

from tiw import output
from tiw.output import print_fields, print_json, print_lines, print_table

#: Colours, a new title of the window, a bell, another line, the other direction, a C1 control, markup of two kinds.
HOSTILE = "\x1b[31mred\x1b]0;title\x07\r\n\u202eright\x9b2J[bold]x[/bold][/][link=https://e.example]:smile:"
HARMLESS = (
    "\ufffd[31mred\ufffd]0;title\ufffd\ufffd\ufffd\ufffdright\ufffd2J[bold]x[/bold][/][link=https://e.example]:smile:"
)


def test_a_table_shows_control_characters_and_markup_harmlessly(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["one", "two"], [(HOSTILE, 5), (None, None)], empty="", title="Title")
    shown = capsys.readouterr().out
    assert HARMLESS in shown
    assert "Title" in shown
    assert not set("\x1b\x07\r\u202e\x9b") & set(shown)


def test_fields_and_their_title_are_shown_harmlessly(capsys: pytest.CaptureFixture[str]) -> None:
    print_fields({"name": HOSTILE, "absent": None, "empty": "", "zero": 0}, title=HOSTILE)
    shown = capsys.readouterr().out
    assert shown.count(HARMLESS) == 2
    assert "zero  0" in " ".join(shown.split(" ")).replace("zero   ", "zero  ")
    assert "absent" not in shown
    assert "empty" not in shown


def test_lines_are_harmless_and_never_broken(capsys: pytest.CaptureFixture[str]) -> None:
    long = "https://example.com/" + "x" * 1000
    print_lines([long, HOSTILE])
    assert capsys.readouterr().out.splitlines() == [long, HARMLESS]


def test_numbers_stand_to_the_right_and_text_to_the_left(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["text", "number"], [("a", 1), ("long text", 1000), (None, None)], empty="")
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert any(line.endswith("     1") and line.lstrip().startswith("a ") for line in lines)


def test_a_table_without_rows_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["one"], [], empty="Nothing [bold]yet[/bold].")
    assert capsys.readouterr().out == "Nothing [bold]yet[/bold].\n"


def test_long_cells_are_folded_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["one", "two"], [("x" * 300, "y" * 300)], empty="")
    shown = capsys.readouterr().out
    assert (shown.count("x"), shown.count("y")) == (300, 300)


def test_json_is_one_document_in_utf_8(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    print_json({"text": HOSTILE, "name": "\u8bfe\u5802", "none": None, "list": [1]})
    printed = capfdbinary.readouterr().out
    assert json.loads(printed) == {"text": HOSTILE, "name": "\u8bfe\u5802", "none": None, "list": [1]}
    assert "\u8bfe\u5802".encode() in printed
    assert b"\x1b" not in printed
    assert printed.endswith(b"}\n")


def test_a_terminal_that_is_too_narrow_leaves_out_what_can_be_spared(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    columns, row = ["recording", "room", "stopped"], ("t" * 20, 880528, "2026-11-23 10:00:00")
    shown = {}
    for width in (40, 50, 80):
        monkeypatch.setattr(output, "_WIDE", width)
        print_table(columns, [row], empty="", spare=["stopped", "room"])
        printed = capsys.readouterr().out
        shown[width] = [column for column in columns if column in printed]
        assert "t" * 20 in printed

    assert shown == {40: ["recording", "room"], 50: ["recording", "room"], 80: columns}
