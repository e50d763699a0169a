"""Users' consumers are found without running their code in this process."""

import os
import sys
from pathlib import Path

import pytest

from broker import ConsumerQueues
from tiw import discovery
from tiw.discovery import DiscoveryError, discover_consumers

CONSUMER = """
import warnings
from schemas import OnlineRecordFinished, Unrecognized
from workers import Context, consumer

{before}

@consumer
def {name}(event: OnlineRecordFinished | Unrecognized, ctx: Context) -> None:
    pass
"""


def environ(*sources: Path) -> dict[str, str]:
    return {**os.environ, "TIW_CONSUMERS": ",".join(map(str, sources))}


def write(file: Path, name: str = "archive", before: str = "") -> Path:
    file.write_text(CONSUMER.format(name=name, before=before), encoding="utf-8")
    return file


async def test_without_any_no_process_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "tiw_command", lambda *_: pytest.fail("a process is started"))
    assert await discover_consumers({}) == []
    assert await discover_consumers({"TIW_CONSUMERS": ""}) == []


async def test_consumers_are_found_in_their_order_and_their_code_stays_outside(tmp_path: Path) -> None:
    one = write(tmp_path / "one.py", "zebra")
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder / "two.py", "archive")
    keys = ("OnlineRecordFinished", "unrecognized")
    assert await discover_consumers(environ(one, folder)) == [
        ConsumerQueues(consumer="zebra", routing_keys=keys),
        ConsumerQueues(consumer="archive", routing_keys=keys),
    ]
    assert not {"tiw_consumers.one", "tiw_consumers.two"} & set(sys.modules)


async def test_an_empty_folder_has_none(tmp_path: Path) -> None:
    assert await discover_consumers(environ(tmp_path)) == []


async def test_what_a_module_prints_is_passed_on(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    file = write(tmp_path / "loud.py", before="print('hello')")
    assert [found.consumer for found in await discover_consumers(environ(file))] == ["archive"]
    sys.stdout.flush()
    assert b"hello\n" in capfdbinary.readouterr().out


async def test_a_module_that_fails_is_one_sentence_whatever_it_says_before(tmp_path: Path) -> None:
    file = write(tmp_path / "broken.py", before="warnings.warn('old'); 1 / 0")
    with pytest.raises(DiscoveryError) as error:
        await discover_consumers(environ(file))
    assert str(error.value) == f"{file}:6: ZeroDivisionError: division by zero"


async def test_a_module_that_ends_the_process_is_said_to(tmp_path: Path) -> None:
    file = write(tmp_path / "quits.py", before="import sys; sys.exit('no licence')")
    with pytest.raises(DiscoveryError, match="no licence"):
        await discover_consumers(environ(file))


async def test_a_module_that_takes_too_long_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "_TIMEOUT_S", 1.0)
    file = write(tmp_path / "slow.py", before="import time; time.sleep(60)")
    with pytest.raises(DiscoveryError, match="took more than 1 s: import nothing slow"):
        await discover_consumers(environ(file))
