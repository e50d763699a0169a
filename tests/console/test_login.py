"""Who gets in, what a session lets do, and which requests are none of ours."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import structlog.testing

import console.logins
from console.security import (
    FAILURES_OF_ALL,
    FAILURES_OF_ONE,
    FAILURES_WITHIN_S,
    Failures,
    Hosts,
    KnownBrowser,
    Sessions,
    is_own_path,
)
from console.server import _DONE_BYTES
from tests.console.world import READ_TOKEN, TOKEN, World, elements, running, text_of


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running(tmp_path, log_in=False) as opened:
        yield opened


async def test_nobody_sees_a_page_before_logging_in(world: World) -> None:
    page = await world.browser.get("/changes?after=x")
    assert page.url.path == "/login"
    assert page.url.query["back"] == "/changes?after=x"
    assert (await world.browser.get("/changes", headers={"Accept": "application/json"})).status == 401


async def test_the_token_lets_in_and_leads_to_the_page_that_was_asked_for(world: World) -> None:
    page = await world.browser.post("/login", {"token": f" {TOKEN} ", "back": "/changes"})
    assert (page.status, page.url.path) == (200, "/changes")
    cookies = page.headers, {cookie.key: cookie for cookie in world.browser.session.cookie_jar}
    session = cookies[1]["tiw_console"]
    assert session["httponly"] is True
    assert session["samesite"] == "Strict"
    assert TOKEN not in session.value


async def test_a_wrong_token_is_told_and_logged_without_it(world: World) -> None:
    with structlog.testing.capture_logs() as logs:
        page = await world.browser.log_in("guessed-guessed-guessed-guessed")
    assert page.status == 401
    assert "not the token" in text_of(page.text)
    assert "guessed" not in str(logs)
    assert [entry["event"] for entry in logs] == ["console_login_refused"]


async def test_wrong_tokens_are_bounded_and_then_even_the_right_one_waits(world: World) -> None:
    for _ in range(FAILURES_OF_ONE):
        assert (await world.browser.log_in("wrong")).status == 401
    page = await world.browser.log_in(TOKEN)
    assert page.status == 429
    assert 0 < int(page.headers["Retry-After"]) <= FAILURES_WITHIN_S + 1
    bearer = await world.browser.get("/changes", headers={"Authorization": f"Bearer {TOKEN}"})
    assert bearer.status == 429


async def test_who_is_logged_in_is_not_kept_out_by_wrong_tokens_of_others(world: World) -> None:
    await world.browser.log_in()
    async with world.another() as other:
        for _ in range(FAILURES_OF_ONE + 1):
            await other.log_in("wrong")
    assert (await world.browser.get("/changes")).status == 200


async def test_a_browser_that_was_logged_in_before_is_not_kept_out_by_wrong_tokens_of_others(world: World) -> None:
    page = await world.browser.log_in()
    await world.browser.post("/logout", {"form_token": page.form_token})
    async with world.another() as other:
        for _ in range(FAILURES_OF_ONE):
            assert (await other.log_in("wrong")).status == 401
        assert (await other.log_in()).status == 429
    # All come from one address, as behind a proxy.
    assert (await world.browser.log_in()).status == 200


async def test_a_browser_that_was_logged_in_before_can_guess_no_more_than_others(world: World) -> None:
    await world.browser.log_in()
    async with world.another() as other:
        for _ in range(FAILURES_OF_ONE):
            await other.log_in("wrong")
    for _ in range(FAILURES_OF_ONE):
        assert (await world.browser.log_in("wrong")).status == 429
    assert (await world.browser.log_in()).status == 429


async def test_a_browser_that_may_look_learns_nothing_of_the_token_that_operates(world: World) -> None:
    await world.browser.log_in(READ_TOKEN)
    async with world.another() as other:
        for _ in range(FAILURES_OF_ONE):
            await other.log_in("wrong")
    right, wrong = await world.browser.log_in(TOKEN), await world.browser.log_in("wrong")
    assert (right.status, right.text) == (wrong.status, wrong.text)
    assert right.status == 429
    assert (await world.browser.log_in(READ_TOKEN)).status == 200


async def test_what_a_browser_is_known_by_lets_nobody_in_and_ends_with_the_token() -> None:
    before = Sessions("first-token-of-22-characters", "second-token-of-22-characters")
    known = before.browser_cookie(KnownBrowser(id="b", role="read"))
    session = before.cookie(before.begin("read"))
    assert before.read_browser(known) == KnownBrowser(id="b", role="read")
    assert before.read(known) is None
    assert before.read_browser(session) is None
    assert Sessions("first-token-of-22-characters", "another-token-of-22-characters").read_browser(known) is None


async def test_the_password_of_a_proxy_is_no_token(world: World) -> None:
    await world.browser.log_in()
    basic = {"Authorization": "Basic dGVhY2hlcjpzZWNyZXQ="}
    for _ in range(FAILURES_OF_ONE + 1):
        page = await world.browser.get("/changes", headers=basic)
        assert (page.status, page.url.path) == (200, "/changes")
    # It comes with every request of the browser: a form needs its own token all the same.
    assert (await world.browser.post("/logout", {}, headers=basic)).status == 403


def test_attempts_are_bounded_for_all_addresses_together_and_forgotten_in_time() -> None:
    now_s = 0.0
    failures = Failures(lambda: now_s)
    for number in range(FAILURES_OF_ALL):
        assert failures.wait_s(f"192.0.2.{number}") == 0
        failures.note(f"192.0.2.{number}")
    assert failures.wait_s("198.51.100.1") > 0
    now_s = FAILURES_WITHIN_S + 1
    assert failures.wait_s("198.51.100.1") == 0


async def test_who_may_only_look_changes_nothing(world: World) -> None:
    await world.browser.log_in(READ_TOKEN)
    page = await world.browser.get("/changes")
    assert page.status == 200
    for path in ("/test", "/dead-letters/replay", "/rejected/reverify"):
        answer = await world.browser.post(path, {"form_token": page.form_token})
        assert answer.status in (403, 404), path


async def test_a_form_without_our_token_or_from_elsewhere_does_nothing(world: World) -> None:
    await world.browser.log_in()
    page = await world.browser.get("/changes")
    forged: list[tuple[dict[str, str], dict[str, str]]] = [
        ({}, {}),
        ({"form_token": "x" * 43}, {}),
        ({"form_token": page.form_token}, {"Origin": "https://elsewhere.example"}),
        ({"form_token": page.form_token}, {"Origin": "null"}),
        ({"form_token": page.form_token}, {"Origin": "http://[::1"}),
    ]
    for form, headers in forged:
        assert (await world.browser.post("/logout", form, headers=headers)).status == 403
    assert (await world.browser.get("/changes")).url.path == "/changes"
    # Of another session, it is none of ours.
    async with world.another() as other:
        await other.log_in()
        theirs = (await other.get("/changes")).form_token
    assert (await world.browser.post("/logout", {"form_token": theirs})).status == 403


async def test_logging_out_ends_the_session_also_for_who_copied_the_cookie(world: World) -> None:
    await world.browser.log_in()
    page = await world.browser.get("/changes")
    (cookie,) = [one.value for one in world.browser.session.cookie_jar if one.key == "tiw_console"]
    await world.browser.post("/logout", {"form_token": page.form_token})
    assert (await world.browser.get("/changes")).url.path == "/login"
    async with world.another(cookies={"tiw_console": cookie}) as other:
        assert (await other.get("/changes")).url.path == "/login"


async def test_a_session_that_was_logged_out_is_ended_in_every_other_process(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.browser.log_in()
    (cookie,) = [one.value for one in world.browser.session.cookie_jar if one.key == "tiw_console"]
    page = await world.browser.get("/changes")
    async with (
        running(tmp_path / "beside", store=world.store, log_in=False) as beside,
        beside.another(cookies={"tiw_console": cookie}) as copied,
    ):
        assert (await copied.get("/changes")).url.path == "/changes"
        await world.browser.post("/logout", {"form_token": page.form_token})
        # It asks from time to time.
        monkeypatch.setattr(console.logins, "_ENDED_EVERY_S", 0.0)
        assert (await copied.get("/changes")).url.path == "/login"
    # As `tiw up` begins one whenever somebody comes.
    async with (
        running(tmp_path / "after", store=world.store, log_in=False) as after,
        after.another(cookies={"tiw_console": cookie}) as copied,
    ):
        assert (await copied.get("/changes")).url.path == "/login"


async def test_a_session_outlives_a_restart_and_ends_with_its_token(tmp_path: Path) -> None:
    before = Sessions("first-token-of-22-characters", "second-token-of-22-characters")
    cookie = before.cookie(before.begin("operate"))
    assert Sessions("first-token-of-22-characters").read(cookie) is not None
    assert Sessions("other-token-of-22-characters").read(cookie) is None
    reading = before.cookie(before.begin("read"))
    assert Sessions("first-token-of-22-characters").read(reading) is None


def test_a_cookie_that_was_changed_is_none() -> None:
    sessions = Sessions("first-token-of-22-characters", "second-token-of-22-characters")
    cookie = sessions.cookie(sessions.begin("read"))
    for place in range(len(cookie)):
        changed = cookie[:place] + ("A" if cookie[place] != "A" else "B") + cookie[place + 1 :]
        read = sessions.read(changed)
        # The last character of each part has bits that count for nothing.
        assert read is None or read == sessions.read(cookie)
    for nonsense in ("", ".", "x.y", "ü.y", "\ud800", "e30.x", cookie.upper()):
        assert sessions.read(nonsense) is None


def test_a_session_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = Sessions("first-token-of-22-characters")
    cookie = sessions.cookie(sessions.begin("operate"))
    assert sessions.read(cookie) is not None
    later_s = time.time() + 13 * 3600
    monkeypatch.setattr(time, "time", lambda: later_s)
    assert sessions.read(cookie) is None


async def test_a_name_that_is_not_ours_gets_nothing(world: World) -> None:
    for host in (
        "attacker.example",
        f"attacker.example:{world.port}",
        "127.0.0.1.attacker.example",
        "localhost.example",
    ):
        answer = await world.browser.get("/login", headers={"Host": host})
        assert answer.status == 421
        assert "TIW_CONSOLE_URL" in answer.text
    for host in (f"127.0.0.1:{world.port}", f"localhost:{world.port}", "[::1]", "192.0.2.7:80"):
        assert (await world.browser.get("/login", headers={"Host": host})).status == 200


async def test_the_name_of_the_public_address_is_ours_and_makes_cookies_secure(tmp_path: Path) -> None:
    async with running(tmp_path, log_in=False, url="https://console.school.example") as world:
        answer = await world.browser.request(
            "POST",
            "/login",
            data={"token": TOKEN},
            headers={"Host": "console.school.example", "Origin": "https://console.school.example"},
            allow_redirects=False,
        )
        assert answer.status == 303
        for cookie in answer.headers.getall("Set-Cookie"):
            assert "Secure" in cookie
        # No other name of the school, and no plain answer, can put a session of its own in its place.
        session = answer.headers.getall("Set-Cookie")[0]
        assert session.startswith("__Host-tiw_console=")
        assert "Path=/;" in f"{session};"
        assert "Domain" not in session
        headers = {"Host": "console.school.example", "Cookie": session.partition(";")[0]}
        assert (await world.browser.get("/changes", headers=headers)).url.path == "/changes"
        headers["Cookie"] = headers["Cookie"].removeprefix("__Host-")
        plain = await world.browser.get("/changes", headers=headers, allow_redirects=False)
        assert plain.headers["Location"].startswith("/login")
        assert "max-age" in answer.headers["Strict-Transport-Security"]


def test_a_form_that_came_without_https_is_none_of_the_public_name() -> None:
    hosts = Hosts("https://console.school.example")
    assert hosts.is_own_origin("https://console.school.example", "console.school.example")
    assert not hosts.is_own_origin("http://console.school.example", "console.school.example")
    assert hosts.is_own_origin("http://127.0.0.1:8090", "127.0.0.1:8090")


@pytest.mark.parametrize("host", ["", "[", "::::", "a b", "localhost@evil", "0x7f.1", "\uff11\uff12\uff17.0.0.1"])
def test_a_host_that_is_none_is_not_ours(host: str) -> None:
    assert not Hosts(None).allows(host)


@pytest.mark.parametrize(
    "path", ["//evil.example", "/\\evil.example", "https://evil.example", "", "/a b", "/a\nb", "\\x"]
)
async def test_after_logging_in_nobody_is_led_elsewhere(world: World, path: str) -> None:
    assert not is_own_path(path)
    answer = await world.browser.request("POST", "/login", data={"token": TOKEN, "back": path}, allow_redirects=False)
    assert answer.headers["Location"] == "/"


async def test_every_answer_tells_browsers_what_to_refuse(world: World) -> None:
    await world.browser.log_in()
    stylesheet = re.search(r"/static/[^\"]+console.css", (await world.browser.get("/login")).text)
    assert stylesheet is not None
    for path in ("/login", "/changes", "/nothing", "/livez", stylesheet[0]):
        answer = await world.browser.get(path)
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("host", "is_sent"),
    [
        ("127.0.0.1:8090", True),
        ("localhost", True),
        ("[::1]:8090", True),
        ("console.school.example", True),
        ("192.0.2.7:8090", False),
        ("[2001:db8::7]", False),
    ],
)
async def test_what_browsers_heed_only_over_https_is_not_sent_where_they_would_complain(
    tmp_path: Path, host: str, is_sent: bool
) -> None:
    async with running(tmp_path, log_in=False, url="https://console.school.example") as world:
        answer = await world.browser.get("/login", headers={"Host": host})
        assert answer.status == 200
        assert ("Cross-Origin-Opener-Policy" in answer.headers) == is_sent


async def test_no_page_has_script_or_style_in_it(world: World) -> None:
    await world.browser.log_in()
    for path in ("/login", "/changes", "/nothing"):
        page = (await world.browser.get(path)).text
        assert all(script.get("src") for script in elements(page, "script"))
        assert elements(page, "style") == []
        assert not re.search(r"<[^>]+\s(style|on[a-z]+)=", page)


async def test_a_script_uses_the_token_itself_and_needs_no_form_token(world: World) -> None:
    answer = await world.browser.get("/changes?format=json", headers={"Authorization": f"Bearer {TOKEN}"})
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    assert (await world.browser.get("/changes", headers={"Authorization": "Bearer wrong"})).status == 401


async def test_the_language_is_switched_and_kept(world: World) -> None:
    page = await world.browser.get("/language?to=zh&back=/login")
    assert page.url.path == "/login"
    assert 'lang="zh-CN"' in page.text
    assert "登录" in page.text
    page = await world.browser.get("/language?to=en&back=//evil.example", allow_redirects=False)
    assert page.headers["Location"] == "/"


async def test_only_plain_forms_are_read(world: World) -> None:
    with aiohttp.MultipartWriter("form-data") as parts:
        parts.append(TOKEN, {"Content-Disposition": 'form-data; name="token"'})
    answer = await world.browser.request("POST", "/login", data=parts)
    assert answer.status == 415
    assert "x-www-form-urlencoded" in text_of(answer.text)


def test_what_an_action_came_to_fits_a_cookie_in_any_language() -> None:
    sessions = Sessions("first-token-of-22-characters")
    sealed = sessions.seal(sessions.begin("operate"), "failed " + "错" * (_DONE_BYTES // 3))
    # Browsers drop a cookie that is longer: https://www.rfc-editor.org/rfc/rfc6265#section-6.1
    assert len(f"tiw_console_done={sealed}; Max-Age=60; Path=/; HttpOnly; Secure; SameSite=Strict") <= 4096


async def test_a_form_that_is_too_large_is_refused(world: World) -> None:
    await world.browser.log_in()
    assert (await world.browser.post("/logout", {"form_token": "x" * 300_000})).status == 413


async def test_what_is_no_http_fills_no_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nno header\x1b[31m\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.0 400")
        writer.close()
    assert len(caplog.records) <= 1


async def test_reports_of_browsers_are_counted_and_not_believed(world: World) -> None:
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            answer = await world.browser.request("POST", "/csp-report", data=b"<script>" * 10_000)
            assert answer.status == 204
    assert [entry["event"] for entry in logs] == ["console_policy_violated"]
    assert "script" not in str(logs)
