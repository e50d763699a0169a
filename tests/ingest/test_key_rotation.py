"""A rotation of keys is a change of a file, while requests flow."""
# ruff: noqa: ASYNC240 - small files of the tests, nobody waits

import asyncio
import json
import os
from pathlib import Path

import pytest
import structlog

import ingest.keys
from ingest import KeyRing, KeysError
from tests.ingest.callback_bodies import SDK_APP_ID, callback
from tests.ingest.conftest import Serve
from tests.ingest.raw_http import post
from tests.ingest.recording_transport import RecordingTransport
from tests.ingest.waiting import until

OLD, NEW = "the old key of the tests", "the new key of the tests"


@pytest.fixture(autouse=True)
def _quick_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest.keys, "CHECK_INTERVAL_S", 0.01)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "keys.json"
    write(path, OLD)
    return path


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Grow by one whenever the file is looked at."""
    seen: list[Path] = []
    original = ingest.keys._version

    def look(path: Path) -> tuple[int, int, int] | None:
        seen.append(path)
        return original(path)

    monkeypatch.setattr(ingest.keys, "_version", look)
    return seen


def write(path: Path, *keys: str) -> None:
    """Replace the file at once, as mounted secrets are."""
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps({str(SDK_APP_ID): keys}))
    draft.replace(path)


async def test_keys_rotate_while_requests_flow(serve: Serve, transport: RecordingTransport, path: Path) -> None:
    async with KeyRing.of_file(path) as ring:
        server = await serve(ring)
        assert (await post(server.port, callback(key=NEW))).status == 401
        stop = asyncio.Event()

        async def keep_sending() -> set[int]:
            statuses = set()
            while not stop.is_set():
                key = OLD if NEW not in ring.current[SDK_APP_ID] else NEW
                statuses.add((await post(server.port, callback(key=key))).status)
            return statuses

        sending = asyncio.create_task(keep_sending())
        for keys in ((OLD, NEW), (NEW,)):
            write(path, *keys)
            await until(lambda keys=keys: ring.current == {SDK_APP_ID: keys})  # type: ignore[misc]  # bound early on purpose
        stop.set()
        assert await sending == {200}
        assert (await post(server.port, callback(key=OLD))).status == 401
    assert transport.published


async def test_a_bad_file_keeps_the_old_keys_and_is_said_once(path: Path, looks: list[Path]) -> None:
    async with KeyRing.of_file(path) as ring:
        with structlog.testing.capture_logs() as logs:
            # At once: a look in between would find the file empty, which is one more that cannot be used.
            draft = path.with_suffix(".draft")
            draft.write_text('{"1400000001": ["half a ke')
            draft.replace(path)
            await until(lambda: bool(logs))
            checked = list(looks)
            await until(lambda: len(looks) > len(checked) + 5)
            assert [entry["event"] for entry in logs] == ["callback_keys_not_changed"]
            assert "half a ke" not in repr(logs)
            assert ring.current == {SDK_APP_ID: (OLD,)}
            path.unlink()
            await until(lambda: len(logs) == 2)
            assert ring.current == {SDK_APP_ID: (OLD,)}
            write(path, NEW)
            await until(lambda: ring.current == {SDK_APP_ID: (NEW,)})
        assert [entry["event"] for entry in logs][2:] == ["callback_keys_changed"]


async def test_a_replaced_file_of_the_same_size_and_time_is_noticed(path: Path) -> None:
    async with KeyRing.of_file(path) as ring:
        stat = path.stat()
        draft = path.with_suffix(".draft")
        draft.write_text(path.read_text().replace(OLD, NEW))
        os.utime(draft, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        draft.replace(path)
        await until(lambda: ring.current == {SDK_APP_ID: (NEW,)})


async def test_a_file_that_is_not_there_or_bad_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(KeysError, match=r"nowhere\.json, cannot be read"):
        KeyRing.of_file(tmp_path / "nowhere.json")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(KeysError, match="no SdkAppId"):
        KeyRing.of_file(tmp_path / "bad.json")
