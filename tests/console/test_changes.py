"""Who changed what: every change is kept and shown, and nothing in it is markup."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from store import Change, keep_change
from tests.console.test_now import opened
from tests.console.world import READ_TOKEN, World, elements, links, text_of


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with opened(tmp_path) as world:
        yield world


async def test_changes_are_shown_newest_first_page_by_page(world: World) -> None:
    for number in range(60):
        change = Change(
            at_us=1_700_000_000_000_000 + number,
            who="session",
            role="operate",
            address="127.0.0.1",
            action="test",
            detail={"task": f"<i>{number}</i>", "nothing": None},
            result='<img src="x">\u202e',
        )
        await keep_change(world.store, change)
    page = await world.browser.get("/changes")
    assert "task: <i>59</i>" in text_of(page.text)
    assert "<i>" not in page.text
    assert "\u202e" not in page.text
    assert elements(page.text, "img") == []
    (older,) = [link for link in links(page.text) if link.startswith("/changes?after=")]
    second = await world.browser.get(older)
    assert "task: <i>9</i>" in text_of(second.text)
    assert len(json.loads((await world.browser.get("/changes?format=json")).text)) == 50


async def test_a_change_made_here_is_among_them(world: World) -> None:
    await world.browser.act("/test", {"kind": "started", "app": "1", "room": "7"}, seen="/test")
    (change,) = json.loads((await world.browser.get("/changes?format=json")).text)
    assert (change["action"], change["role"], change["address"]) == ("test", "operate", "127.0.0.1")
    assert change["detail"]["room"] == 7
    assert change["result"].startswith("sent ")


async def test_an_empty_list_and_a_wrong_place_say_so(world: World) -> None:
    assert "Nothing was changed" in text_of((await world.browser.get("/changes")).text)
    assert (await world.browser.get("/changes?after=nonsense")).status == 400


async def test_who_may_only_look_sees_them_too(world: World) -> None:
    async with world.another() as other:
        await other.log_in(READ_TOKEN)
        assert (await other.get("/changes")).status == 200
