"""The admin listener: alive, ready, measured."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest
import structlog

import telemetry.admin
from telemetry import AdminListener, Readiness


async def get(listener: AdminListener, path: str, method: str = "GET") -> tuple[int, Any, str]:
    """Return status, content and Content-Type."""
    url = f"http://127.0.0.1:{listener.port}{path}"
    async with aiohttp.ClientSession() as session, session.request(method, url) as answer:
        body = await answer.read()
        content = json.loads(body) if answer.content_type == "application/json" else body
        return answer.status, content, answer.headers["Content-Type"]


async def test_it_is_live_ready_and_measured() -> None:
    async with AdminListener("127.0.0.1", 0, ready=Readiness) as listener:
        assert listener.port > 0
        assert await get(listener, "/livez") == (200, {"live": True}, "application/json")
        assert (await get(listener, "/readyz"))[:2] == (200, {"ready": True, "not_ready": []})
        status, content, kind = await get(listener, "/metrics")
        assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert b"# TYPE tiw_callbacks_accepted_total counter" in content


async def test_it_names_what_is_not_ready_and_lives_on() -> None:
    async def ready() -> Readiness:
        return Readiness(not_ready=("the broker cannot be reached",))

    async with AdminListener("127.0.0.1", 0, ready=ready) as listener:
        assert (await get(listener, "/readyz"))[:2] == (
            503,
            {"ready": False, "not_ready": ["the broker cannot be reached"]},
        )
        assert (await get(listener, "/livez"))[0] == 200


async def test_a_check_that_fails_or_hangs_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry.admin, "READY_TIMEOUT_S", 0.05)

    async def hang() -> Readiness:
        await asyncio.Event().wait()
        return Readiness()

    def fail() -> Readiness:
        raise KeyError("x")

    with structlog.testing.capture_logs() as logs:
        for check in (hang, fail):
            async with AdminListener("127.0.0.1", 0, ready=check) as listener:
                status, content, _ = await get(listener, "/readyz")
                assert status == 503
                assert len(content["not_ready"]) == 1
    assert [entry["event"] for entry in logs] == ["readiness_check_failed"]


async def test_other_addresses_and_methods_are_refused_in_json() -> None:
    async with AdminListener("127.0.0.1", 0, ready=Readiness) as listener:
        assert (await get(listener, "/"))[:2] == (404, {"error": "not found"})
        assert (await get(listener, "/livez", "POST"))[:2] == (405, {"error": "method not allowed"})


async def test_an_address_that_is_taken_stops_the_start() -> None:
    async with AdminListener("127.0.0.1", 0, ready=Readiness) as listener:
        with pytest.raises(OSError, match="address already in use"):
            async with AdminListener("127.0.0.1", listener.port, ready=Readiness):
                pass
