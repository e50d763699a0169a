"""Every command runs on uvloop where it is there, and without it where it is not."""

import asyncio

import pytest

from tiw.process import has_uvloop, run_loop


async def loop_module() -> int:
    assert type(asyncio.get_running_loop()).__module__.partition(".")[0] in ("uvloop", "asyncio")
    return int(type(asyncio.get_running_loop()).__module__.startswith("uvloop"))


def test_uvloop_is_used_where_it_is_installed() -> None:
    assert run_loop(loop_module()) == int(has_uvloop())


def test_without_uvloop_the_loop_is_the_standard_librarys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiw.process.find_spec", lambda _: None)
    assert run_loop(loop_module()) == 0
