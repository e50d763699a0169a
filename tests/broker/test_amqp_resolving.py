import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from broker.amqp import endpoints as amqp_resolving
from broker.amqp.endpoints import Resolver
from tests.broker.inbox import eventually


class _Names:
    """A resolver of names that hangs while it is told to."""

    def __init__(self) -> None:
        self.answer: list[str] | OSError = ["192.0.2.7", "192.0.2.8", "192.0.2.7"]
        self.asked = 0
        self.goes_on = threading.Event()
        self.goes_on.set()

    def __call__(self, _host: str, _port: object, **_: object) -> list[Any]:
        self.asked += 1
        self.goes_on.wait(30)
        if isinstance(self.answer, OSError):
            raise self.answer
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in self.answer]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Names]:
    names = _Names()
    monkeypatch.setattr(socket, "getaddrinfo", names)
    yield names
    names.goes_on.set()


async def test_a_name_is_looked_up_and_an_address_is_not(names: _Names) -> None:
    resolver = Resolver()
    assert await resolver.resolve("192.0.2.1") == ("192.0.2.1",)
    assert await resolver.resolve("::1") == ("::1",)
    assert names.asked == 0
    assert await resolver.resolve("broker.example") == ("192.0.2.7", "192.0.2.8")


async def test_a_resolver_that_hangs_holds_one_thread_of_its_own(names: _Names) -> None:
    names.goes_on.clear()
    resolver = Resolver()
    for _ in range(5):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(resolver.resolve("broker.example"), 0.01)
    assert [thread.name for thread in threading.enumerate()].count("tiw-resolve-broker.example") == 1
    # The pool that all others use has its threads.
    assert await asyncio.gather(*(asyncio.to_thread(int) for _ in range(40))) == [0] * 40
    names.goes_on.set()
    assert await resolver.resolve("broker.example") == ("192.0.2.7", "192.0.2.8")


async def test_what_an_earlier_look_up_found_is_used_while_the_resolver_fails_or_hangs(
    names: _Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(amqp_resolving, "PATIENCE_S", 0.05)
    resolver = Resolver()
    found = await resolver.resolve("broker.example")
    names.answer = OSError("no server for names")
    assert await resolver.resolve("broker.example") == found
    names.goes_on.clear()
    assert await resolver.resolve("broker.example") == found
    names.answer = ["192.0.2.9"]
    names.goes_on.set()

    async def is_known() -> bool:
        return await resolver.resolve("broker.example") == ("192.0.2.9",)

    await eventually(is_known)


@pytest.mark.usefixtures("names")
async def test_a_name_that_nobody_knows_is_an_error(names: _Names) -> None:
    names.answer = OSError("no such host")
    with pytest.raises(OSError, match="no such host"):
        await Resolver().resolve("broker.example")


def test_a_loop_that_has_ended_is_not_told(names: _Names) -> None:
    names.goes_on.clear()

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(Resolver().resolve("broker.example"), 0.01)

    asyncio.run(give_up())
    names.goes_on.set()
    for thread in threading.enumerate():
        if thread.name.startswith("tiw-resolve"):
            thread.join(10)
