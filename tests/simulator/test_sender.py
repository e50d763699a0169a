import asyncio
import socket
from random import Random

import pytest

from simulator import ClassKind, Patience, Sender, play_class
from tests.simulator.fake_clock import FakeClock
from tests.simulator.receiver import KEY, Behaviour, answer, close, hang, hang_in_the_body, is_signed, receiving

CALLBACK = play_class(ClassKind.NORMAL, Random(1), sdk_app_id=1_400_000_001, room_id=880528)[0]
QUICK = Patience(timeout_s=0.05)


async def test_a_200_ends_it() -> None:
    time = FakeClock()
    async with receiving() as receiver, Sender(receiver.url, key=KEY, clock=time.clock) as sender:
        outcome = await sender.send(CALLBACK)

    assert outcome.accepted
    assert outcome.retries == 0
    assert outcome.failures == ()
    assert outcome.answer_ms is not None
    assert len(receiver.bodies) == 1
    assert time.slept_s == []
    assert receiver.requests[0].method == "POST"
    assert receiver.requests[0].content_type == "application/json"


async def test_tries_are_spaced_by_5_s_and_end_with_the_sixth() -> None:
    time = FakeClock()
    refusals = [answer(500)] * 9
    async with receiving(*refusals) as receiver, Sender(receiver.url, key=KEY, clock=time.clock) as sender:
        outcome = await sender.send(CALLBACK)

    assert not outcome.accepted
    assert outcome.retries == 5
    assert outcome.failures == ("HTTP 500",) * 6
    assert outcome.answer_ms is None
    assert len(receiver.bodies) == 6
    assert time.slept_s == [5.0] * 5


async def test_the_last_try_can_still_be_accepted() -> None:
    time = FakeClock()
    async with receiving(*[answer(503)] * 5) as receiver, Sender(receiver.url, key=KEY, clock=time.clock) as sender:
        outcome = await sender.send(CALLBACK)

    assert outcome.accepted
    assert outcome.retries == 5
    assert len(receiver.bodies) == 6


@pytest.mark.parametrize(
    ("behaviour", "failure"),
    [
        (answer(201), "HTTP 201"),
        (answer(202), "HTTP 202"),
        (answer(204), "HTTP 204"),
        (answer(302, Location="/elsewhere"), "HTTP 302"),
        (answer(401), "HTTP 401"),
        (hang, "time-out"),
        (hang_in_the_body, "time-out"),
        (close, "connection lost"),
    ],
)
async def test_anything_but_a_200_is_tried_again(behaviour: Behaviour, failure: str) -> None:
    time = FakeClock()
    async with (
        asyncio.timeout(10),
        receiving(behaviour) as receiver,
        Sender(receiver.url, key=KEY, patience=QUICK, clock=time.clock) as sender,
    ):
        outcome = await sender.send(CALLBACK)

    assert outcome.accepted
    assert outcome.failures == (failure,)
    assert time.slept_s == [5.0]
    assert [request.path for request in receiver.requests] == ["/callbacks/tiw"] * 2


async def test_nobody_listening_is_tried_again_too() -> None:
    time = FakeClock()
    with socket.socket() as bound_but_not_listening:
        bound_but_not_listening.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound_but_not_listening.getsockname()[1]}/"
        async with Sender(url, key=KEY, clock=time.clock) as sender:
            outcome = await sender.send(CALLBACK)

    assert outcome.failures == ("not connected",) * 6


async def test_every_try_is_signed_anew() -> None:
    time = FakeClock()
    async with receiving(answer(500)) as receiver, Sender(receiver.url, key=KEY, clock=time.clock) as sender:
        await sender.send(CALLBACK)
        await sender.send(CALLBACK, copy=1)

    assert all(is_signed(members) for members in receiver.members)
    assert len({members["Sign"] for members in receiver.members}) == 3
    assert all(members["ExpireTime"] > time.now_s for members in receiver.members)


async def test_without_a_key_nothing_is_signed() -> None:
    async with receiving() as receiver, Sender(receiver.url, key=None) as sender:
        await sender.send(CALLBACK)

    assert not {"Sign", "ExpireTime"} & receiver.members[0].keys()


async def test_the_oldest_form_is_not_signed_whatever_the_key() -> None:
    oldest = play_class(ClassKind.UNSIGNED, Random(1), sdk_app_id=1, room_id=1)[0]
    async with receiving() as receiver, Sender(receiver.url, key=KEY) as sender:
        await sender.send(oldest)

    assert not {"Sign", "ExpireTime", "SdkAppId"} & receiver.members[0].keys()


async def test_a_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with receiving() as receiver, Sender(receiver.url, key=KEY) as sender:
        outcome = await sender.send(CALLBACK)

    assert outcome.accepted


async def test_a_sender_that_is_not_open_says_so() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        await Sender("http://127.0.0.1:9", key=None).send(CALLBACK)
