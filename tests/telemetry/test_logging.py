"""Logs: one presentable line per event, whoever wrote it."""

import io
import json
import logging
from collections.abc import Iterator
from contextlib import redirect_stderr
from typing import Any

import pytest
import structlog

from telemetry import LogFormat, configure_logging


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Stand in for standard error, and put logging back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def configure(stream: io.StringIO, *, form: LogFormat = "json", level: int = logging.INFO) -> None:
    with redirect_stderr(stream):
        configure_logging(form, level=level)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def fail() -> None:
    url = "amqp://user:secret@host"
    try:
        int(url)
    except ValueError as error:
        raise RuntimeError(f"cannot connect to {url}\nfor good") from error


def test_an_event_is_one_json_object_on_one_line(stream: io.StringIO) -> None:
    configure(stream)
    structlog.get_logger().warning("callback_refused", reason="wrong_sign", count=3, late_s=1.5, app=None)
    (line,) = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "callback_refused", "level": "warning", "reason": "wrong_sign", "count": 3, "late_s": 1.5, "app": None,
    }  # fmt: skip


def test_every_value_is_made_presentable(stream: io.StringIO) -> None:
    configure(stream)
    structlog.get_logger().info(
        "Sign=abcdef",
        url="amqp://u:secret@h",
        nested={"a": ["x\ny", "CallbackKey=secret"]},
        Sign="secret",
        body=b"secret",
    )
    (line,) = lines(stream)
    assert "secret" not in stream.getvalue()
    assert line["event"] == "Sign=***"
    assert line["url"] == "amqp://***@h"
    assert line["nested"] == {"a": ["x\\ny", "CallbackKey=***"]}
    assert line["body"] == "(6 bytes)"


def test_an_exception_is_its_type_its_redacted_text_and_its_places(stream: io.StringIO) -> None:
    configure(stream)
    try:
        fail()
    except RuntimeError:
        structlog.get_logger().exception("connection_lost")
    (line,) = lines(stream)
    assert line["exception"] == "RuntimeError: cannot connect to amqp://***@host\\nfor good"
    assert line["cause"].startswith("ValueError: invalid literal")
    assert "secret" not in stream.getvalue()
    assert [frame.rpartition(" ")[2] for frame in line["frames"]][-1] == "fail"


def test_libraries_are_heard_from_warning_on_in_the_same_form(stream: io.StringIO) -> None:
    configure(stream)
    library = logging.getLogger("a.library")
    library.info("unheard")
    library.warning("no route to %s", "amqp://u:secret@h\x1b[0m")
    try:
        fail()
    except RuntimeError:
        library.exception("failed")
    first, second = lines(stream)
    assert (first["event"], first["logger"]) == ("no route to amqp://***@h\\x1b[0m", "a.library")
    assert second["exception"].startswith("RuntimeError: ")
    assert "secret" not in stream.getvalue()


def test_debug_is_silent_unless_asked_for(stream: io.StringIO) -> None:
    configure(stream)
    structlog.get_logger().debug("callback_accepted")
    assert stream.getvalue() == ""
    configure(stream, level=logging.DEBUG)
    structlog.get_logger().debug("callback_accepted")
    assert len(lines(stream)) == 1


def test_the_console_has_no_colours_unless_it_is_a_terminal(
    stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(stream, form="console")
    structlog.get_logger().info("started", port=8080, note="\x1b[31m")
    try:
        fail()
    except RuntimeError:
        structlog.get_logger().exception("connection_lost")
    assert "port=8080" in stream.getvalue()
    assert "RuntimeError: cannot connect to amqp://***@host" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    configure(stream, form="console")
    structlog.get_logger().info("started")
    assert "\x1b[" in stream.getvalue()


def test_configuring_again_does_not_repeat_lines(stream: io.StringIO) -> None:
    configure(stream)
    configure(stream)
    logging.getLogger("a.library").warning("once")
    assert len(lines(stream)) == 1
