"""Sinks on loopback, for every test that asks for one."""

from collections.abc import AsyncIterator

import pytest

from tests.notify.sinks import MailSink, WebSink, run_mail_sink, run_web_sink


@pytest.fixture
async def web_sink() -> AsyncIterator[WebSink]:
    """Give a web server, robots included."""
    async with run_web_sink() as sink:
        yield sink


@pytest.fixture
async def mail_sink() -> AsyncIterator[MailSink]:
    """Give a mail server."""
    async with run_mail_sink() as sink:
        yield sink
