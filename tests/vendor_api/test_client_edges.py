"""What comes over the wire that no honest API sends, or that does not come: each question ends, and says how."""

import asyncio
import re
from datetime import date
from pathlib import Path

import pytest
from aiohttp import web

from telemetry import metrics
from tests.vendor_api.api_answers import APP, TASK, answer, error, finished
from tests.vendor_api.api_edge import SECRET_ID, SECRET_KEY, answering, client_of, serve
from vendor_api import (
    Again,
    AppPaused,
    Credentials,
    Failed,
    Finished,
    VendorClient,
    VendorError,
    VendorSite,
    parse_endpoint,
)


async def reason(client: VendorClient) -> str:
    """Ask about a recording, and return why nothing was learned."""
    found = await client.describe_online_record(APP, TASK)
    assert isinstance(found, Again)
    return found.reason


@pytest.mark.parametrize(
    "content_type", ["application/json", "text/plain", "application/json; charset=utf-8", "text/html", ""]
)
async def test_an_error_is_seen_under_every_content_type(content_type: str) -> None:
    async with client_of(answering(error("FailedOperation.Record"), content_type)) as client:
        assert isinstance(await client.describe_online_record(APP, TASK), Failed)


async def test_a_result_is_read_under_another_content_type_too() -> None:
    async with client_of(answering(finished(), "application/json; charset=utf-8")) as client:
        assert isinstance(await client.describe_online_record(APP, TASK), Finished)


async def test_an_answer_that_warns_of_its_own_end_is_read() -> None:
    async with client_of(answering(finished(DeprecatedWarning="soon"))) as client:
        assert isinstance(await client.describe_online_record(APP, TASK), Finished)


@pytest.mark.parametrize("status", [201, 204, 400, 403, 429, 500, 502, 504])
async def test_another_status_than_200_is_asked_again_and_its_page_is_not_repeated(status: int) -> None:
    async with client_of(answering(b"" if status == 204 else b"<h1>secret page</h1>", "text/html", status)) as client:
        assert await reason(client) == f"ServerNetworkError: HTTP status {status}"


async def test_a_redirect_is_not_followed() -> None:
    seen = []

    async def handle(request: web.Request) -> web.StreamResponse:
        seen.append(request.path)
        raise web.HTTPTemporaryRedirect("/elsewhere")

    async with client_of(handle) as client:
        assert "307" in await reason(client)
    assert seen == ["/"]


async def test_an_answer_that_is_too_large_is_not_read_to_its_end() -> None:
    sent = 0

    async def handle(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(1000):
            await response.write(b"x" * 65_536)
            sent += 65_536
        return response

    async with client_of(handle) as client:
        assert "larger" in await reason(client)
    assert sent < 40_000_000


async def test_an_answer_that_drips_ends_at_the_time_out() -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.05)

    async with client_of(handle, timeout_s=0.3) as client:
        assert "not complete" in await reason(client)


async def test_no_answer_at_all_ends_at_the_time_out() -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()

    async with client_of(handle, timeout_s=0.3) as client:
        assert "timed out" in await reason(client)


async def test_an_answer_that_is_cut_off_is_asked_again() -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100000"})
        await response.prepare(request)
        await response.write(finished())
        assert request.transport is not None
        request.transport.close()
        return response

    async with client_of(handle) as client:
        assert await reason(client)


async def test_a_compressed_answer_is_not_unpacked() -> None:
    asked_for = []

    async def handle(request: web.Request) -> web.StreamResponse:
        asked_for.append(request.headers["Accept-Encoding"])
        response = web.Response(body=b"x" * 1_000_000)
        response.enable_compression(web.ContentCoding.gzip)
        return response

    async with client_of(handle) as client:
        assert "JSON" in await reason(client)
    assert asked_for == ["identity"]


async def test_nobody_there_is_asked_again() -> None:
    async with serve(answering(b"")) as url:
        pass
    credentials = Credentials(secret_id=SECRET_ID, secret_key=SECRET_KEY)
    async with VendorClient(credentials, endpoint=parse_endpoint(url), timeout_s=2) as client:
        assert "ClientNetworkError" in await reason(client)


async def test_proxies_passwords_and_certificates_of_the_environment_are_not_looked_at(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authorizations = []

    async def handle(request: web.Request) -> web.StreamResponse:
        authorizations.append(request.headers["Authorization"])
        return web.Response(body=finished(), content_type="application/json")

    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password anything\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with client_of(handle) as client:
        assert isinstance(await client.describe_online_record(APP, TASK), Finished)
    assert authorizations[0].startswith("TC3-HMAC-SHA256 ")


async def test_cookies_are_not_kept() -> None:
    cookies = []

    async def handle(request: web.Request) -> web.StreamResponse:
        cookies.append(request.headers.get("Cookie"))
        return web.Response(body=finished(), headers={"Set-Cookie": "a=b", "Content-Type": "application/json"})

    async with client_of(handle) as client:
        await client.describe_online_record(APP, TASK)
        await client.describe_online_record(APP, TASK)
    assert cookies == [None, None]


async def test_no_error_and_no_repr_shows_a_secret() -> None:
    texts = [f"{SECRET_ID} {SECRET_KEY}", f'quoted "{SECRET_KEY}"']
    for text in texts:
        for code in ("AuthFailure.SignatureFailure", "InternalError", "AuthFailure.SignatureExpire"):
            async with client_of(answering(error(code, text))) as client:
                found = await client.describe_online_record(APP, TASK)
                shown = f"{found!r} {client!r} {client._credentials!r}"
                assert SECRET_ID not in shown
                assert SECRET_KEY not in shown


async def test_a_refused_address_or_key_is_not_repeated() -> None:
    secret = "https://example.com/callbacks/tiw/a-token-in-the-path"
    async with client_of(answering(error("InvalidParameter.CallbackAddressFormatError", f"bad: {secret}"))) as client:
        with pytest.raises(VendorError) as raised:
            await client.set_callback(APP, secret)
        assert str(raised.value) == "InvalidParameter.CallbackAddressFormatError"
        with pytest.raises(VendorError) as raised:
            await client.set_callback_key(APP, secret)
        assert secret not in repr(raised.value.refusal)


async def test_an_address_and_a_key_are_not_shown_by_their_repr() -> None:
    async with client_of(answering(answer(Callback="https://example.com/token", CallbackKey="the key"))) as client:
        config = await client.describe_callback(APP)
    assert (config.url, config.key) == ("https://example.com/token", "the key")
    assert "token" not in repr(config)
    assert "the key" not in repr(config)


async def test_a_callback_that_is_not_set_is_empty() -> None:
    async with client_of(answering(answer(Callback=None))) as client:
        config = await client.describe_callback(APP)
    assert (config.url, config.key) == ("", "")


async def test_other_questions_raise_what_is_to_be_done() -> None:
    async with client_of(answering(error("UnauthorizedOperation.SdkAppId"))) as client:
        with pytest.raises(VendorError, match="SdkAppId is not one of the account") as raised:
            await client.describe_running_tasks(APP)
    assert isinstance(raised.value.refusal, AppPaused)


async def test_each_request_waits_for_the_limiter() -> None:
    class Counting:
        waited = 0

        async def wait(self) -> None:
            self.waited += 1

    limiter = Counting()
    page = answer(Total=1200, Tasks=[{"TaskID": f"t{number}"} for number in range(500)])
    async with client_of(answering(page), limiter=limiter) as client:
        await client.describe_online_record(APP, TASK)
        assert len(await client.describe_running_tasks(APP)) == 500
    assert limiter.waited == 4


async def test_a_list_that_never_ends_is_given_up() -> None:
    asked = 0

    async def handle(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        return web.Response(body=answer(Total=10**12, Tasks=[{"TaskID": "t"}]), content_type="application/json")

    async with client_of(handle) as client:
        assert len(await client.describe_running_tasks(APP)) == 1
    assert asked == 100


async def test_many_questions_at_once_are_all_answered() -> None:
    async with client_of(answering(finished())) as client:
        found = await asyncio.gather(*(client.describe_online_record(APP, TASK) for _ in range(50)))
    assert {type(one) for one in found} == {Finished}


@pytest.mark.parametrize("task_id", ["", "x" * 256, "a\0b", "a\ud800b"])
async def test_what_cannot_be_a_task_id_is_not_asked_for(task_id: str) -> None:
    async with client_of(answering(finished())) as client:
        with pytest.raises(ValueError, match="1 to 255"):
            await client.describe_online_record(APP, task_id)


async def test_requests_are_counted_by_action_and_outcome() -> None:
    def counted(outcome: str) -> float:
        labels = {"action": "DescribeOnlineRecord", "outcome": outcome}
        return metrics.REGISTRY.get_sample_value("tiw_vendor_requests_total", labels) or 0.0

    for content, outcome in (
        (finished(), "answered"),
        (error("FailedOperation.Record"), "answered"),
        (error("AuthFailure"), "paused"),
        (error("AuthFailure.SignatureExpire"), "clock_off"),
        (b"nonsense", "again"),
    ):
        before = counted(outcome)
        async with client_of(answering(content)) as client:
            await client.describe_online_record(APP, TASK)
        assert counted(outcome) == before + 1


@pytest.mark.parametrize(
    ("site", "host", "region", "usage_region"),
    [
        (VendorSite.CHINA, "tiw.tencentcloudapi.com", "ap-guangzhou", "ap-guangzhou"),
        (VendorSite.INTERNATIONAL, "tiw.intl.tencentcloudapi.com", "ap-singapore", "ap-guangzhou"),
    ],
)
async def test_a_site_has_its_host_and_its_regions(site: VendorSite, host: str, region: str, usage_region: str) -> None:
    regions = []

    async def handle(request: web.Request) -> web.StreamResponse:
        regions.append(request.headers["X-TC-Region"])
        return web.Response(body=answer(Usages=[]), content_type="application/json")

    credentials = Credentials(secret_id=SECRET_ID, secret_key=SECRET_KEY)
    async with serve(handle) as url, VendorClient(credentials, site=site, endpoint=parse_endpoint(url)) as client:
        await client.describe_online_record(APP, TASK)
        await client.daily_usage(APP, date(2026, 11, 1))
    assert site.host == host
    assert regions == [region, usage_region]


@pytest.mark.parametrize("text", ["", "a b", "line\nbreak", "ключ", "x" * 257])
def test_credentials_that_cannot_be_right_are_refused_without_showing_them(text: str) -> None:
    with pytest.raises(ValueError, match="copy it anew") as raised:
        Credentials(secret_id="AKID", secret_key=text)
    assert not text or text not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "scheme", "host"),
    [
        ("https://tiw.tencentcloudapi.com", "https", "tiw.tencentcloudapi.com"),
        ("https://tiw.ap-guangzhou.tencentcloudapi.com:443/", "https", "tiw.ap-guangzhou.tencentcloudapi.com:443"),
        ("http://127.0.0.1:9000", "http", "127.0.0.1:9000"),
        ("http://127.8.9.1:9000", "http", "127.8.9.1:9000"),
        ("http://localhost:9000", "http", "localhost:9000"),
        ("http://[::1]:9000", "http", "[::1]:9000"),
    ],
)
def test_an_endpoint_is_a_scheme_and_a_host(text: str, scheme: str, host: str) -> None:
    endpoint = parse_endpoint(text)
    assert (endpoint.scheme, endpoint.host) == (scheme, host)


@pytest.mark.parametrize(
    "text",
    [
        "http://tiw.tencentcloudapi.com",
        "http://10.0.0.1:9000",
        "http://0.0.0.0:9000",
        "http://localhost.example.com",
        "http://127.0.0.1.example.com",
    ],
)
def test_without_tls_only_this_machine_is_asked(text: str) -> None:
    with pytest.raises(ValueError, match="only taken for this machine"):
        parse_endpoint(text)


@pytest.mark.parametrize(
    "text",
    [
        *("tiw.tencentcloudapi.com", "ftp://tiw.tencentcloudapi.com", "https://", "https://host/path", "https://h?q=1"),
        *("https://user:password@host", "https://host#f", "https://host:port", "https://[::1"),
    ],
)
def test_an_endpoint_with_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape("must be https://HOST")) as raised:
        parse_endpoint(text)
    assert "password" not in str(raised.value)
