"""Every page has a JSON form, and docs/output.schema.json describes it."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

import console.live
from broker import BUILT_IN_CONSUMERS
from console.server import ROUTES
from store import apply_events, keep_dead_letters
from tests.console.classes import APP, lesson
from tests.console.test_now import letter, opened
from tests.console.test_peers import row
from tests.console.test_rejected import keeper
from tests.console.world import World
from tests.tiw.described import check_described
from tiw.commands.schema import PAGES
from workers import LetterSelection, replay_letters

TASK = "class-1"
EVENTS = lesson(TASK)
EVENT = EVENTS[0].event_id
REPLAY_AT_US = 1_790_000_000_000_000

#: What sends a file, and what goes on and on.
OTHERS = {"/media", "/live"}

#: What a page needs to have something to say.
ASKED: dict[str, dict[str, str]] = {
    "/recording": {"task": TASK, "app": str(APP)},
    "/event": {"id": EVENT},
    "/events/replay": {"id": EVENT, "consumer": "started"},
    "/dead-letter": {"consumer": "started", "id": "e" * 32},
    "/dead-letters/replay": {"consumer": "started"},
    "/dead-letters/purge": {"consumer": "started"},
    "/dead-letters/replayed": {"at": str(REPLAY_AT_US)},
    "/consumer": {"name": "started"},
    "/test?sent": {"sent": EVENT[::-1], "key": "OnlineRecordStarted"},
}


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """Give a console with something to say on every page, which waits for a slow machine."""
    monkeypatch.setattr(console.live, "PATIENCE_S", 20.0)
    # Holding a document against the schema keeps the loop that asks, too.
    monkeypatch.setattr(console.live, "TIMEOUT_S", 20.0)
    async with (
        keeper(row(1), row(2, event_type=None, task_id=None)) as node,
        opened(tmp_path, peers=[node.address], consumers=[*BUILT_IN_CONSUMERS]) as world,
    ):
        await apply_events(world.store, EVENTS)
        replayed = LetterSelection(event_id="a" * 32)
        await keep_dead_letters(world.store, [letter("started"), letter("started", event_id=replayed.event_id)])
        done = await replay_letters(world.store, world.transport, replayed, replay_at_us=REPLAY_AT_US)
        assert done.count == 1
        await world.browser.act("/test", {"kind": "started", "app": str(APP), "room": "1"}, seen="/changes")
        yield world


def address(page: str) -> str:
    members = ASKED.get(page, {}) | {"format": "json"}
    return f"{page.partition('?')[0]}?{urlencode(members)}"


def test_every_page_has_a_schema_of_its_json_form() -> None:
    pages = {route.path for route in ROUTES if route.method == "GET"} - OTHERS
    assert {page.partition("?")[0] for page in PAGES} == pages | {"POST"}


async def test_what_a_page_answers_is_as_its_schema_says(world: World) -> None:
    for page in PAGES:
        if page == "POST":
            continue
        answer = await world.browser.get(address(page))
        assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json"), (page, answer.text)
        document = json.loads(answer.text)
        assert document, page
        check_described(page, document)


async def test_what_an_action_answers_is_as_its_schema_says(world: World) -> None:
    form = {"form_token": (await world.browser.get("/changes")).form_token, "kind": "stopped", "app": "1", "room": "1"}
    done = json.loads((await world.browser.post("/test?format=json", form)).text)
    check_described("POST", done)
    # It says where what it did is followed.
    assert (await world.browser.get(f"{done['to']}&format=json")).status == 200


async def test_what_is_not_known_is_an_error_that_says_why(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        for page in ("/rejected", "/rejected/reverify"):
            answer = await world.browser.get(address(page))
            assert answer.status == 503
            assert "TIW_CONSOLE_PEERS" in json.loads(answer.text)["error"]
