"""The last check: what a text may show."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry import presentable
from telemetry.logging import MAX_CHARACTERS

SECRET = "s3cret0a2dabb362a9b811c0e26953a6276a41c"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"amqp://tiw:{SECRET}@rabbitmq:5672/vhost", "amqp://***@rabbitmq:5672/vhost"),
        (f"tried postgresql+asyncpg://u:{SECRET}@db/tiw, amqps://u:{SECRET}@b", "tried postgresql+asyncpg://***@db/tiw, amqps://***@b"),
        (f"amqp://user:p@{SECRET}@host", "amqp://***@host"),
        (f'{{"Sign": "{SECRET}", "SdkAppId": 1}}', '{"Sign": ***, "SdkAppId": 1}'),
        (f'{{"Sign":"{SECRET}"}}', '{"Sign":***}'),
        (f'"{{\\"Sign\\": \\"{SECRET}\\"}}"', None),
        (f"{{'Sign': '{SECRET}'}}", "{'Sign': ***}"),
        (f"Sign={SECRET}&ExpireTime=5", "Sign=***&ExpireTime=5"),
        (f"sign: {SECRET}", "sign: ***"),
        (f"CallbackKey={SECRET}", "CallbackKey=***"),
        (f'"CallbackKey": "{SECRET}', '"CallbackKey": ***'),
        (f"SecretKey: {SECRET}", "SecretKey: ***"),
        (f"TIW_VENDOR_SECRET_KEY={SECRET}", "TIW_VENDOR_SECRET_KEY=***"),
        ("https://example.com/a?b=c", "https://example.com/a?b=c"),
        ("Design: a signal=4, resign=5, sign of life", "Design: a signal=4, resign=5, sign of life"),
        ("课堂 café", "课堂 café"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\x1b[31mred\x9b", "\\x1b[31mred\\x9b"),
        ("\u202eevil\u2066", "\\u202eevil\\u2066"),
        ("\ud800", "\\ud800"),
        ("\u2028", "\\u2028"),
    ],
)  # fmt: skip
def test_secrets_and_control_characters_do_not_show(text: str, shown: str | None) -> None:
    assert SECRET not in presentable(text)
    assert shown is None or presentable(text) == shown


@given(st.text(max_size=2000))
def test_every_text_becomes_one_printable_line_of_bounded_length(text: str) -> None:
    shown = presentable(text)
    assert shown.isprintable()
    assert len(shown) <= 10 * MAX_CHARACTERS + 30
    assert shown.encode().decode() == shown


@pytest.mark.parametrize("length", [MAX_CHARACTERS + 1, 5000, 1_000_000])
def test_a_long_text_is_cut_and_says_by_how_much(length: int) -> None:
    shown = presentable("x" * length)
    assert shown == "x" * MAX_CHARACTERS + f"... ({length - MAX_CHARACTERS} more)"
    assert presentable("x" * MAX_CHARACTERS) == "x" * MAX_CHARACTERS


def test_a_secret_across_the_cut_does_not_show() -> None:
    text = "x" * (MAX_CHARACTERS - 12) + f" amqp://user:{SECRET}@host"
    assert "user" not in presentable(text)
