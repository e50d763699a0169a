"""Who changed what: every change is kept and shown, and nothing in it is markup."""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from console.changes import RESULTS, results_in_words
from console.rendering import Texts
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
    assert "recording <i>59</i>" in text_of(page.text)
    assert "<i>" not in page.text
    assert "\u202e" not in page.text
    assert elements(page.text, "img") == []
    (older,) = [link for link in links(page.text) if link.startswith("/changes?after=")]
    second = await world.browser.get(older)
    assert "recording <i>9</i>" in text_of(second.text)
    assert len(json.loads((await world.browser.get("/changes?format=json")).text)) == 50


async def test_a_change_made_here_is_among_them(world: World) -> None:
    await world.browser.act("/test", {"kind": "started", "app": "1", "room": "7"}, seen="/test")
    (change,) = json.loads((await world.browser.get("/changes?format=json")).text)
    assert (change["action"], change["role"], change["address"]) == ("test", "operate", "127.0.0.1")
    assert change["detail"]["room"] == 7
    assert change["result"].startswith("sent ")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_result_that_is_noted_is_told_in_words(language: Any) -> None:
    t = Texts().translator(language)
    noted = [
        *("1 replayed", "3 replayed; no queue: a, b; stopped: the broker is away; the time was up", "not confirmed"),
        *("5 deleted", "replayed", "somebody else did meanwhile", "no queue", "no such recording", "a test"),
        *("no application", "no application named", "no file is planned", "asked", "kept", "done", "not done"),
        *("2 let in, 1 remain", "not known: nobody answers", "sent 0123456789012345", "not sent: it is away"),
    ]
    shown = {result: results_in_words(result, t) for result in noted}
    assert {key for key, _ in RESULTS} == {
        key for key, pattern in RESULTS for result in noted for part in result.split("; ") if pattern.fullmatch(part)
    }
    assert [len(parts) for parts in shown.values()] == [4 if "; " in result else 1 for result in noted]
    assert shown["sent 0123456789012345"][0].endswith("0123456789012345")
    if language == "zh":
        assert not [parts for parts in shown.values() if not re.search(r"[\u4e00-\u9fff]", parts[0])]
    # Of a newer version.
    assert results_in_words("painted it <green>; 5 replayed!", t) == ["painted it <green>", "5 replayed!"]


async def test_in_chinese_no_code_of_ours_is_left(world: World) -> None:
    await world.browser.act("/test", {"kind": "long_pause_warning", "app": "1", "room": "7"}, seen="/test")
    page = await world.browser.get("/changes", headers={"Accept-Language": "zh-CN"})
    text = text_of(page.text)
    assert "事件类型 长时间暂停" in text
    assert "已发送，事件" in text
    assert "long_pause_warning" not in text
    (change,) = json.loads((await world.browser.get("/changes?format=json")).text)
    assert change["detail"]["kind"] == "long_pause_warning", "it is kept as it was noted"


async def test_what_was_refused_is_not_noted_as_done(world: World) -> None:
    page = await world.browser.act("/test", {"kind": "nonsense", "app": "1", "room": "7"}, seen="/test")
    assert page.status == 400
    (change,) = json.loads((await world.browser.get("/changes?format=json")).text)
    assert (change["action"], change["result"]) == ("/test", "not done")
    text = text_of((await world.browser.get("/changes")).text)
    assert "Send a test callback not done: the page said why" in text


async def test_an_empty_list_and_a_wrong_place_say_so(world: World) -> None:
    assert "Nothing was changed" in text_of((await world.browser.get("/changes")).text)
    assert (await world.browser.get("/changes?after=nonsense")).status == 400


async def test_who_may_only_look_sees_them_too(world: World) -> None:
    async with world.another() as other:
        await other.log_in(READ_TOKEN)
        assert (await other.get("/changes")).status == 200
