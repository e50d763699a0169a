"""What is kept of where a handler failed: frames and texts, the newest, and nothing more than is asked for."""

from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker import MAX_TRACEBACK_BYTES
from workers.slots import run_in_thread
from workers.tracebacks import traceback_of

Error = TypeVar("Error", bound=BaseException)


def raised(error: Error, *, cause: BaseException | None = None) -> Error:
    """Return an error as somebody who caught it has it."""
    if cause is not None:
        error.__cause__ = cause
    try:
        raise error
    except type(error):
        return error


def test_it_says_where_and_what_with_the_source_line_and_a_short_path() -> None:
    text = traceback_of(raised(KeyError("bucket")))
    lines = text.split("\n")
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1].startswith('  File "tests/workers/test_tracebacks.py", line ')
    assert lines[1].endswith(", in raised")
    assert lines[2].startswith("    raise error")
    assert lines[-1] == "KeyError: 'bucket'"


def test_its_causes_come_first() -> None:
    text = traceback_of(raised(ValueError("no class"), cause=raised(KeyError("room"))))
    first, _, last = text.partition("\n\nThe above exception was the direct cause of the following exception:\n\n")
    assert first.endswith("KeyError: 'room'")
    assert last.endswith("ValueError: no class")


def test_an_error_on_the_way_of_another_is_told_and_one_that_is_hidden_is_not() -> None:
    def failing(*, hidden: bool) -> None:
        try:
            raise KeyError("first")  # noqa: TRY301 - that is the point
        except KeyError:
            if hidden:
                raise ValueError("second") from None
            raise ValueError("second")  # noqa: B904 - that is the point

    for hidden in (False, True):
        with pytest.raises(ValueError, match="second") as caught:
            failing(hidden=hidden)
        text = traceback_of(caught.value)
        assert ("KeyError: 'first'" in text) is not hidden
        assert ("During handling of the above exception" in text) is not hidden


def test_what_a_group_of_errors_holds_is_told() -> None:
    group = ExceptionGroup("two uploads", [raised(OSError("disk")), raised(KeyError("x")), *[ValueError()] * 8])
    text = traceback_of(raised(group))
    assert "ExceptionGroup: two uploads (10 sub-exceptions)" in text
    assert "  1 of 10:\n    Traceback (most recent call last):" in text
    assert "    OSError: disk" in text
    assert "  5 of 10:" in text
    assert "  6 of 10:" not in text


def test_local_variables_are_never_in_it() -> None:
    def failing() -> None:
        secret = "/".join(["made", "here"])  # noqa: FLY002 - so that it stands in no source line
        raise ValueError(len(secret))

    with pytest.raises(ValueError, match="9") as caught:
        failing()
    text = traceback_of(caught.value)
    assert "made/here" not in text
    assert "secret" in text, "the line is there"


def test_what_looks_like_a_secret_is_left_out_of_code_and_of_texts() -> None:
    with pytest.raises(ValueError, match="amqp") as caught:
        raise ValueError(f"amqp://tiw:{'hunter2'}@rabbit, SecretKey=hunter3")
    text = traceback_of(caught.value)
    assert "hunter3" not in text
    assert "tiw:hunter2" not in text
    assert text.endswith("ValueError: amqp://***@rabbit, SecretKey=***")


def test_the_end_of_a_long_one_is_kept_and_it_says_so() -> None:
    def deep(number: int) -> None:
        if number:
            deep(number - 1)
        raise ValueError("\N{GRINNING FACE}" * 1000)

    error = raised(ValueError("last"))
    for _ in range(20):
        with pytest.raises(ValueError, match="\N{GRINNING FACE}") as caught:
            deep(200)
        caught.value.__cause__ = error
        error = caught.value
    text = traceback_of(error)
    assert text.startswith("(the beginning is left out)\n")
    assert text.endswith("\N{GRINNING FACE}")
    assert 6000 < len(text.encode()) <= MAX_TRACEBACK_BYTES


class Unspeakable(Exception):  # noqa: N818 - it is what a user might write
    """An error whose text cannot be made."""

    def __str__(self) -> str:
        raise KeyboardInterrupt


class Hiding(Exception):  # noqa: N818 - as above
    """An error that fails when it is looked at."""

    @property
    def __cause__(self) -> BaseException | None:  # type: ignore[override]
        raise SystemExit


@given(text=st.text(st.characters()) | st.text(st.characters(categories=["Cs", "Cc", "Cf"])))
@settings(max_examples=50)
def test_whatever_an_error_says_it_can_be_sent_and_stored(text: str) -> None:
    kept = traceback_of(raised(ValueError(text)))
    assert "\0" not in kept
    assert len(kept.encode()) <= MAX_TRACEBACK_BYTES
    assert "ValueError" in kept


def test_an_error_that_cannot_be_looked_at_harms_nobody() -> None:
    assert traceback_of(raised(Unspeakable())).endswith("Unspeakable: its text cannot be made")
    assert traceback_of(raised(Hiding())) == ""


def test_errors_that_cause_each_other_come_to_an_end() -> None:
    one, other = raised(KeyError(1)), raised(KeyError(2))
    one.__cause__, other.__cause__ = other, one
    assert len(traceback_of(one).encode()) <= MAX_TRACEBACK_BYTES


async def test_nothing_is_told_of_what_calls_a_handler() -> None:
    def handler() -> None:
        raise ValueError("in a thread")

    _, error = await run_in_thread(handler, name="test")
    assert error is not None
    text = traceback_of(error)
    assert "slots.py" not in text
    assert "in handler" in text


def test_names_of_files_can_be_anything(tmp_path: Path) -> None:
    code = compile("raise ValueError('made')", f"{tmp_path}/\udcff\n\u202e.py", "exec")
    try:
        exec(code, {})  # noqa: S102 - to have such a name
    except ValueError as error:
        text = traceback_of(error)
    assert "ValueError: made" in text
    text.encode()
