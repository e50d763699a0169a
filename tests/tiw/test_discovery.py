"""Users' consumers are found without running their code in this process."""

import os
import sys
from pathlib import Path

import pytest

from broker import ConsumerQueues
from telemetry.metrics import MULTIPROCESS_VARIABLE
from tiw import discovery
from tiw.discovery import CustomConsumer, DiscoveryError, discover_consumers

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
        CustomConsumer(queues=ConsumerQueues(consumer="zebra", routing_keys=keys), source=str(one)),
        CustomConsumer(queues=ConsumerQueues(consumer="archive", routing_keys=keys), source=str(folder / "two.py")),
    ]
    assert not {"workers.plugins.one", "workers.plugins.two"} & set(sys.modules)


async def test_an_empty_folder_has_none(tmp_path: Path) -> None:
    assert await discover_consumers(environ(tmp_path)) == []


async def test_looking_leaves_no_metrics_behind(tmp_path: Path) -> None:
    shared = tmp_path / "metrics"
    shared.mkdir()
    file = write(tmp_path / "archive.py")
    assert await discover_consumers(environ(file) | {MULTIPROCESS_VARIABLE: str(shared)})
    assert list(shared.iterdir()) == []


async def test_what_a_module_prints_is_passed_on(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    file = write(tmp_path / "loud.py", before="print('hello')")
    assert [found.queues.consumer for found in await discover_consumers(environ(file))] == ["archive"]
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


async def test_two_consumers_of_one_name_are_refused_with_both_files(tmp_path: Path) -> None:
    one, two = write(tmp_path / "one.py", "archive"), write(tmp_path / "two.py", "archive")
    with pytest.raises(DiscoveryError, match=f"{two}: {one} is called 'archive' too"):
        await discover_consumers(environ(one, two))


async def test_a_broken_file_is_left_out_where_that_is_asked_for(tmp_path: Path) -> None:
    good = write(tmp_path / "good.py", "archive")
    broken = write(tmp_path / "broken.py", before="1 / 0")
    dies = write(tmp_path / "dies.py", before="import os; os._exit(7)")
    taken = write(tmp_path / "taken.py", "finished")
    errors: dict[str, str] = {}

    found = await discover_consumers(environ(tmp_path), on_error=lambda source, error: errors.update({source: error}))

    assert [consumer.source for consumer in found] == [str(good)]
    assert errors.keys() == {str(broken), str(dies), str(taken)}
    assert "ZeroDivisionError" in errors[str(broken)]
    assert errors[str(dies)] == f"{dies} ended its process"
    assert "is called 'finished' too" in errors[str(taken)]
