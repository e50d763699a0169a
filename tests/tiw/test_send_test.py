"""`tiw send-test`: what the console sends, from a command line."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from broker.embedded.transport import EmbeddedTransport
from tests.tiw.filled_folder import APP
from tiw.parser import TEST_KINDS, main
from workers import TEST_EVENT_TYPES, is_test_task_id

TASK = "test-20261130-000000-0a1b2c3d"


def test_the_parser_knows_what_can_be_sent() -> None:
    assert tuple(TEST_EVENT_TYPES) == TEST_KINDS


async def _ready(folder: Path, *consumers: str) -> list[int]:
    """Return how many events wait for each consumer."""
    async with EmbeddedTransport(folder) as transport:
        return [state.ready for state in await transport.inspect(consumers)]


def _send(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["send-test", *arguments, "--json"]) == 0
    sent: dict[str, Any] = json.loads(capsys.readouterr().out)
    return sent


def test_all_get_it_or_one_alone(filled_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    started, stopped = asyncio.run(_ready(filled_folder, "started", "stopped"))
    first = _send(capsys, "started")
    # An application that is known, and the room of the vendor's documents.
    assert (first["event_type"], first["sdk_app_id"], first["room_id"]) == ("OnlineRecordStarted", APP, 880528)
    assert is_test_task_id(first["task_id"])
    assert first["consumer"] is None
    second = _send(capsys, "stopped", "--app", "5", "--room", "7", "--task", first["task_id"], "--consumer", "stopped")
    assert (second["sdk_app_id"], second["room_id"], second["task_id"]) == (5, 7, first["task_id"])
    assert second["consumer"] == "stopped"
    assert asyncio.run(_ready(filled_folder, "started", "stopped")) == [started + 1, stopped + 1]


def test_how_it_is_found_again_is_said(filled_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert filled_folder.is_dir()
    assert main(["send-test", "finished", "--task", TASK]) == 0
    shown = capsys.readouterr().out
    assert TASK in shown
    assert "all consumers" in shown
    assert f"tiw events show {shown.split(maxsplit=1)[0]}" in shown


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["started", "--consumer", "finished"], 1, "'finished' does not take OnlineRecordStarted: it takes"),
        (["started", "--consumer", "nobody"], 1, "nobody"),
        (["started", "--task", "rtc30dje7c2g0cdc2v0o"], 2, "it begins with `test-`"),
    ],
    ids=["not taken", "no consumer", "a class of somebody"],
)
def test_what_cannot_be_sent_is_said_and_not_sent(
    filled_folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, said: str
) -> None:
    before = asyncio.run(_ready(filled_folder, "started", "finished"))
    assert main(["send-test", *arguments]) == code
    assert said in capsys.readouterr().err
    assert asyncio.run(_ready(filled_folder, "started", "finished")) == before
