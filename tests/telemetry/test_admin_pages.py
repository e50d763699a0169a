"""Further pages of the admin listener: for who has the token, one request at a time, and for nobody else."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import aiohttp
import pytest
import structlog

import telemetry.pages
from telemetry import AdminListener, AdminPage, AdminPageError, Readiness

TOKEN = "a token of twenty-two and more"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


class Counted:
    """A page that tells how often it was asked, and how often at once."""

    def __init__(self) -> None:
        self.answered = 0
        self.running = 0
        self.most_at_once = 0
        self.has_begun = asyncio.Event()
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def __call__(self, query: Mapping[str, str]) -> bytes:
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        self.has_begun.set()
        await asyncio.sleep(0)
        await self.may_end.wait()
        self.running -= 1
        self.answered += 1
        return json.dumps(dict(query)).encode()


def listener(answer: Any, *, token: str | None = TOKEN, **options: Any) -> AdminListener:
    pages = [
        AdminPage(method="GET", path="/rejected", token=lambda: token, answer=answer, **options),
        AdminPage(method="POST", path="/rejected/reverify", token=lambda: token, answer=answer, **options),
    ]
    return AdminListener("127.0.0.1", 0, ready=Readiness, pages=pages)


async def ask(
    admin: AdminListener, path: str, *, method: str = "GET", headers: Mapping[str, str] = BEARER, **options: Any
) -> tuple[int, Any, Mapping[str, str]]:
    url = f"http://127.0.0.1:{admin.port}{path}"
    async with aiohttp.ClientSession() as session, session.request(method, url, headers=headers, **options) as answer:
        return answer.status, await answer.json(), answer.headers.copy()


async def test_who_presents_the_token_gets_the_document() -> None:
    async with listener(Counted()) as admin:
        status, document, headers = await ask(admin, "/rejected?limit=5")
        assert (status, document, headers["Cache-Control"]) == (200, {"limit": "5"}, "no-store")
        assert (await ask(admin, "/rejected/reverify", method="POST"))[:2] == (200, {})


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        TOKEN,
        f"Basic {TOKEN}",
        f"bearer {TOKEN}",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN}x",
        f"Bearer  {TOKEN}",
        f"Bearer {TOKEN[:-1]}é",
        "Bearer " + "x" * 4000,
    ],
)
async def test_who_presents_another_or_none_gets_nothing(authorization: str | None) -> None:
    counted = Counted()
    headers = {} if authorization is None else {"Authorization": authorization}
    async with listener(counted) as admin:
        for method, path in (("GET", "/rejected"), ("POST", "/rejected/reverify")):
            status, document, answered = await ask(admin, path, method=method, headers=headers)
            assert (status, document) == (401, {"error": "unauthorized"})
            assert answered["WWW-Authenticate"] == "Bearer"
    assert counted.answered == 0


async def test_a_token_in_the_address_is_none() -> None:
    async with listener(Counted()) as admin:
        assert (await ask(admin, f"/rejected?token={TOKEN}&access_token={TOKEN}", headers={}))[0] == 401


async def test_without_a_token_there_is_no_such_page() -> None:
    counted = Counted()
    async with listener(counted, token=None) as admin:
        for headers in (BEARER, {}, {"Authorization": "Bearer None"}, {"Authorization": "Bearer "}):
            assert (await ask(admin, "/rejected", headers=headers))[:2] == (404, {"error": "not found"})
    assert counted.answered == 0


async def test_nothing_is_changed_by_a_link() -> None:
    counted = Counted()
    async with listener(counted) as admin:
        assert (await ask(admin, "/rejected/reverify"))[0] == 405
    assert counted.answered == 0


async def test_a_body_is_refused_and_not_read() -> None:
    counted = Counted()
    async with listener(counted) as admin:
        for body in (b"x", b"x" * 100_000):
            status, document, headers = await ask(admin, "/rejected/reverify", method="POST", data=body)
            assert (status, document) == (413, {"error": "this page takes no body"})
            assert headers["Connection"] == "close"
    assert counted.answered == 0


async def test_headers_and_addresses_of_any_length_are_refused() -> None:
    async with listener(Counted()) as admin:
        for path, headers in (
            ("/rejected", {**BEARER, "X": "x" * 100_000}),
            (f"/rejected?x={'x' * 100_000}", dict(BEARER)),
        ):
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{admin.port}{path}", headers=headers) as answer,
            ):
                assert answer.status == 400
        assert (await ask(admin, "/rejected"))[0] == 200


async def test_a_name_that_stands_twice_is_refused() -> None:
    async with listener(Counted()) as admin:
        assert (await ask(admin, "/rejected?dry_run=1&dry_run=0"))[0] == 400


async def test_many_at_once_are_answered_one_after_the_other() -> None:
    counted = Counted()
    async with listener(counted) as admin:
        answers = await asyncio.gather(*(ask(admin, "/rejected/reverify", method="POST") for _ in range(40)))
    assert {status for status, *_ in answers} == {200}
    assert (counted.answered, counted.most_at_once) == (40, 1)


async def test_who_would_wait_long_is_told_to_ask_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry.pages, "TURN_TIMEOUT_S", 0.05)
    counted = Counted()
    counted.may_end.clear()
    async with listener(counted) as admin:
        first = asyncio.create_task(ask(admin, "/rejected"))
        await counted.has_begun.wait()
        others = await asyncio.gather(*(ask(admin, "/rejected") for _ in range(20)))
        assert {status for status, *_ in others} == {503}
        assert (await ask(admin, "/livez", headers={}))[0] == 200
        counted.may_end.set()
        assert (await first)[0] == 200
    assert counted.answered == 1


async def test_what_takes_too_long_is_given_up_and_the_next_one_has_its_turn() -> None:
    counted = Counted()
    counted.may_end.clear()
    async with listener(counted, timeout_s=0.05) as admin:
        status, document, _ = await ask(admin, "/rejected")
        assert (status, document) == (503, {"error": "this took longer than 0.05 s, and was given up"})
        counted.may_end.set()
        assert (await ask(admin, "/rejected"))[0] == 200


async def test_a_page_that_cannot_answer_says_why_and_one_that_fails_only_that_it_does() -> None:
    async def unable(query: Mapping[str, str]) -> bytes:
        raise AdminPageError(503, "the broker does not answer")

    async def broken(query: Mapping[str, str]) -> bytes:
        raise KeyError(TOKEN)

    async with listener(unable) as admin:
        assert (await ask(admin, "/rejected"))[:2] == (503, {"error": "the broker does not answer"})
    with structlog.testing.capture_logs() as logs:
        async with listener(broken) as admin:
            assert (await ask(admin, "/rejected"))[:2] == (500, {"error": "this page failed: the log says why"})
    assert [entry["event"] for entry in logs] == ["admin_page_failed"]
