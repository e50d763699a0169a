"""The command that a page of the console names shows what the page shows."""

import asyncio
import html
import json
import re
import shlex
import time
from pathlib import Path

import pytest

from store import Change, Store, apply_events, keep_change, mark_replayed, pages_of_dead_letters, register_consumers
from tests.console.classes import given_up, lesson, now_s, of
from tests.console.test_recordings import FAILED, FIRST, FORGED, PAUSED, fill
from tests.console.world import running
from tests.store.classes import callback, keep
from tiw.parser import main

#: 20:00 UTC on 2025-11-30: the next day in China.
NIGHT_S = 1_764_460_800 + 20 * 3600


async def _fill(store: Store) -> None:
    """Keep something for every page."""
    await fill(store)
    await register_consumers(store, {"forward": ["OnlineRecordStarted"]})
    test = of("Started", "test-1", at_s=now_s(), source="test")
    strange = keep(callback("Strange"), received_at_us=time.time_ns() // 1000)
    night = lesson("n" * 20, start_s=NIGHT_S, length_s=600, room=5)
    await apply_events(store, [test, strange, *night])
    for event in night:
        await given_up(store, "forward", event, reason="no space left\non the disk")
    await given_up(store, "started", test, reason="it broke")
    change = Change(
        at_us=time.time_ns() // 1000,
        who="3f2a9c",
        role="operate",
        address="127.0.0.1",
        action="recording.ask",
        detail={"app": 1400000001, "task": FIRST},
        result="asked",
    )
    await keep_change(store, change)
    await mark_replayed(store, await anext(pages_of_dead_letters(store, consumer="started")))


ADDRESSES = [
    "/recordings",
    "/recordings?failed=1",
    "/recordings?found_late=1",
    "/recordings?contradicted=1&room=66",
    "/recordings?not_archived=1",
    "/recordings?status=PAUSED",
    "/recordings?room=77&failed=1",
    "/recordings?teacher=teacher_1&app=5",
    "/recordings?q=880528",
    "/recordings?q=secon",
    "/recordings?q=tic_record_user_77_1",
    f"/recordings?q={PAUSED}",
    "/recordings?q=nobody-and-nothing",
    "/recordings?task=fir*",
    "/recordings?task=a%20b%3B%20rm%20-rf%20%27",
    "/recordings?from=2025-11-30&until=2025-11-30&offset=0",
    "/recordings?from=2025-11-30&until=2025-11-30&offset=480",
    "/recordings?from=2025-12-01&until=2025-12-01&offset=480",
    "/recordings?from=2025-12-01&until=9999-12-31&offset=-300",
    "/events",
    "/events?unrecognized=1",
    "/events?type=OnlineRecordFinished",
    "/events?type=Strange",
    "/events?source=callback",
    "/events?source=reconcile",
    "/events?source=archive",
    "/events?source=test",
    "/events?consumer=forward&app=1400000001",
    f"/events?task={FORGED}",
    "/events?until=2025-11-30&offset=0",
    "/events?from=2025-12-01&until=2025-12-01&offset=480",
    "/dead-letters?all=1",
    "/dead-letters?consumer=forward&reason=no%20space%20left",
    "/dead-letters?resolved=1",
    "/consumers",
    "/consumer?name=started",
    "/changes",
    f"/recording?app=1400000001&task={FIRST}",
    f"/recording?app=1400000001&task={FAILED}",
]


async def _pages(folder: Path) -> dict[str, tuple[list[str], object]]:
    """Return the command of each page, as a shell takes it, and the page itself as JSON."""
    found: dict[str, tuple[list[str], object]] = {}
    async with running(folder) as world:
        await _fill(world.store)
        for address in ADDRESSES:
            page = await world.browser.get(address)
            assert page.status == 200, page.text
            (command,) = re.findall(r'<p class="command"><span>[^<]*</span> <code>([^<]*)</code>', page.text)
            answer = await world.browser.get(f"{address}{'&' if '?' in address else '?'}format=json")
            found[address] = (shlex.split(html.unescape(command)), json.loads(answer.text))
    return found


def test_the_command_prints_what_the_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # There the console's store is the one that commands take.
    monkeypatch.setenv("TIW_DATA_DIR", str(tmp_path))
    pages = asyncio.run(_pages(tmp_path))
    for address, ((name, *words), shown) in pages.items():
        capsys.readouterr()
        assert (name, main([*words, "--json"])) == ("tiw", 0), address
        assert json.loads(capsys.readouterr().out) == shown, (address, words)
    # All others chose something.
    assert {address for address, (_, shown) in pages.items() if not shown} == {
        "/recordings?q=nobody-and-nothing",
        "/recordings?task=a%20b%3B%20rm%20-rf%20%27",
        "/recordings?from=2025-11-30&until=2025-11-30&offset=480",
        "/events?source=archive",
    }
