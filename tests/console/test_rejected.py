"""Refused requests: why, what mends it, and letting them in after a look at what that would do."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from console.rejected import EXPLAINED
from console.rendering import Texts
from ingest import Refusal
from telemetry import AdminListener, AdminPage, Readiness
from tests.console.test_now import opened
from tests.console.test_peers import row
from tests.console.world import READ_TOKEN, TOKEN, World, elements, links, text_of

HOSTILE = "<script>alert(1)</script>\u202e\"'"


class Keeper:
    """An ingest node that keeps refused callbacks; `asked` says how it was asked to check them."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows
        self.asked: list[bool] = []
        self.address = ""
        self.told: dict[str, Any] = {"authentic": 2, "remaining": 1, "refused": {"expired": 1}}

    async def listed(self, query: Any) -> bytes:
        return msgspec.json.encode(self.rows[: int(query["limit"])])

    async def reverified(self, query: Any) -> bytes:
        is_dry = "dry_run" in query
        self.asked.append(is_dry)
        return msgspec.json.encode(self.told | {"let_in": 0 if is_dry else self.told["authentic"]})


@asynccontextmanager
async def keeper(*rows: dict[str, Any]) -> AsyncIterator[Keeper]:
    running = Keeper([*rows])
    pages = [
        AdminPage(method="GET", path="/rejected", token=lambda: TOKEN, answer=running.listed),
        AdminPage(method="POST", path="/rejected/reverify", token=lambda: TOKEN, answer=running.reverified),
    ]
    async with AdminListener("127.0.0.1", 0, ready=Readiness, pages=pages) as listener:
        running.address = f"http://127.0.0.1:{listener.port}"
        yield running


@asynccontextmanager
async def world_of(folder: Path, *rows: dict[str, Any]) -> AsyncIterator[tuple[World, Keeper]]:
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(keeper(*rows))
        yield await stack.enter_async_context(opened(folder, peers=[node.address])), node


async def test_each_is_shown_with_what_mends_it(tmp_path: Path) -> None:
    async with world_of(tmp_path, row(1), row(2, reason="expired"), row(3, reason="unknown_app", sdk_app_id=7)) as (
        world,
        node,
    ):
        page = await world.browser.get("/rejected")
        text = text_of(page.text)
        assert "Compare the key at the vendor" in text
        assert "Let NTP set this machine's clock" in text
        assert "tiw keys add --app N" in text
        assert node.address in text
        assert "/rejected/reverify" in links(page.text)
        chosen = await world.browser.get("/rejected?app=7")
        assert "class-3" in text_of(chosen.text)
        assert "class-1" not in text_of(chosen.text)
        assert "tiw rejected list --app 7" in text_of(chosen.text)
        by_reason = json.loads((await world.browser.get("/rejected?reason=expired&format=json")).text)
        assert [one["task_id"] for one in by_reason] == ["class-2"]


async def test_nobody_has_vouched_for_what_it_says_and_nothing_of_it_is_markup(tmp_path: Path) -> None:
    hostile = row(1, reason=HOSTILE, event_type=HOSTILE, task_id=HOSTILE * 100, sdk_app_id=-5)
    async with world_of(tmp_path, hostile) as (world, _):
        page = await world.browser.get("/rejected")
        assert page.status == 200
        assert [one for one in elements(page.text, "script") if not (one.get("src") or "").startswith("/static/")] == []
        assert "\u202e" not in page.text
        assert "Nobody has vouched" in text_of(page.text)


async def test_no_sign_is_anywhere(tmp_path: Path) -> None:
    async with world_of(tmp_path, row(1, sign="0123456789abcdef0123456789abcdef")) as (world, _):
        page = await world.browser.get("/rejected")
        assert "0123456789abcdef" not in page.text


async def test_a_look_before_changes_nothing_and_the_button_lets_them_in(tmp_path: Path) -> None:
    async with world_of(tmp_path, row(1)) as (world, node):
        preview = await world.browser.get("/rejected/reverify")
        assert "2 callbacks would be let in" in text_of(preview.text)
        assert "Still rejected" in text_of(preview.text)
        assert node.asked == [True]
        done = await world.browser.post("/rejected/reverify", {"form_token": preview.form_token})
        assert node.asked == [True, False]
        assert done.url.path == "/rejected"
        assert "2 callbacks were let in, 1 are still rejected" in text_of(done.text)
        (change,) = json.loads((await world.browser.get("/changes?format=json")).text)
        assert (change["action"], change["result"]) == ("reverify", "2 let in, 1 remain")


async def test_where_none_would_be_let_in_there_is_no_button(tmp_path: Path) -> None:
    async with world_of(tmp_path, row(1)) as (world, node):
        node.told["authentic"] = 0
        preview = await world.browser.get("/rejected/reverify")
        assert "None would be let in" in text_of(preview.text)
        assert "Let them in" not in text_of(preview.text)


async def test_without_a_form_of_ours_and_without_the_role_nothing_is_let_in(tmp_path: Path) -> None:
    async with world_of(tmp_path, row(1)) as (world, node):
        assert (await world.browser.post("/rejected/reverify", {})).status == 403
        async with world.another() as other:
            await other.log_in(READ_TOKEN)
            assert "class-1" in text_of((await other.get("/rejected")).text)
            assert (await other.get("/rejected/reverify")).status == 403
            assert "/rejected/reverify" not in links((await other.get("/rejected")).text)
        assert node.asked == []


async def test_without_processes_to_ask_the_page_says_how_to_name_them(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        page = await world.browser.get("/rejected")
        assert page.status == 200
        assert "Set TIW_CONSOLE_PEERS" in text_of(page.text)
        assert "tiw rejected list" in text_of(page.text)
        assert "Set TIW_CONSOLE_PEERS" in text_of((await world.browser.get("/rejected/reverify")).text)
        done = await world.browser.act("/rejected/reverify", {}, seen="/test")
        assert "Nothing was checked" in text_of(done.text)


async def test_a_node_that_is_away_is_named_beside_what_the_others_keep(tmp_path: Path) -> None:
    async with keeper(row(1)) as node, opened(tmp_path, peers=[node.address, "http://127.0.0.1:1"]) as world:
        text = text_of((await world.browser.get("/rejected")).text)
        assert "http://127.0.0.1:1 : Connection refused" in text
        assert "class-1" in text
        done = await world.browser.act("/rejected/reverify", {}, seen="/rejected/reverify")
        assert "Not asked, because they do not answer: http://127.0.0.1:1" in text_of(done.text)


async def test_an_empty_list_and_an_odd_filter_say_so(tmp_path: Path) -> None:
    async with world_of(tmp_path) as (world, _):
        assert "No request of the last 24 hours" in text_of((await world.browser.get("/rejected")).text)
        assert (await world.browser.get("/rejected?app=<b>")).status == 400


@pytest.mark.parametrize("reason", [refusal.label for refusal in Refusal if refusal.status < 500])
def test_every_refusal_is_explained(reason: str) -> None:
    assert reason in EXPLAINED
    assert f"rejected.why.{reason}" in Texts().texts
