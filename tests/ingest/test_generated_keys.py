"""One key for all who share a folder, made once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ingest import KeysError, generated_keys

ROOT = Path(__file__).parents[2]
# Each says that it is there, waits for the word, and tells what it got.
RACER = """
import sys, json
from pathlib import Path
from ingest.keys import generated_keys
print("ready", flush=True)
sys.stdin.readline()
made = generated_keys(Path(sys.argv[1]))
print(json.dumps([made.keys[1400000001], made.created]))
"""


def test_the_key_is_made_once_and_readable_by_its_owner_alone(tmp_path: Path) -> None:
    first = generated_keys(tmp_path / "var")
    second = generated_keys(tmp_path / "var")
    assert (first.created, second.created) == (True, False)
    assert first.keys == second.keys
    (key,) = first.keys[1400000001]
    assert len(key) == 32
    assert first.path == tmp_path / "var" / "callback_keys.json"
    assert first.path.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in first.path.parent.iterdir()] == ["callback_keys.json"]


def test_eight_processes_at_once_get_one_key(tmp_path: Path) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(tmp_path)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    try:
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        results = [json.loads(racer.communicate(timeout=60)[0]) for racer in racers]
    finally:
        for racer in racers:
            racer.kill()
            racer.communicate()
    assert len({tuple(keys) for keys, _ in results}) == 1
    assert [created for _, created in results].count(True) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["callback_keys.json"]


def test_a_file_that_a_person_has_spoiled_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "callback_keys.json"
    path.write_text("{}")
    with pytest.raises(KeysError, match="no SdkAppId"):
        generated_keys(tmp_path)
    assert path.read_text() == "{}"


def test_a_folder_that_cannot_be_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("")
    with pytest.raises(KeysError, match=r"no callback key can be kept in .*var .*: make it writable"):
        generated_keys(tmp_path / "var")
