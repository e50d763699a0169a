"""A disk that is full, fails, hangs or cannot be read costs no callback that was kept."""

import asyncio
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from ingest import Spool, SpoolError
from ingest.spool import spool_files, waiting_callbacks, writer
from ingest.spool.files import WAITING, SpoolFolder, SystemDisk
from ingest.spool.spool import RESERVED_BYTES
from tests.ingest.recording_transport import RecordingTransport
from tests.ingest.spool.messages import ids, message
from tests.ingest.waiting import until


async def test_it_takes_no_more_than_its_bound(folder: Path, transport: RecordingTransport) -> None:
    transport.is_ready = False
    async with Spool(folder, transport, max_bytes=10_000) as spool:
        results = await asyncio.gather(
            *(spool.put(message(f"{number}", size_bytes=1000)) for number in range(20)), return_exceptions=True
        )
        kept = [number for number, result in enumerate(results) if result is None]
        assert 5 <= len(kept) < 10
        assert all(isinstance(result, SpoolError) for result in results if result is not None)
        assert not spool.is_ready
        transport.is_ready = True
        await until(lambda: len(transport.published) == len(kept))
        await until(lambda: spool.is_ready and spool.depth.bytes == 0)
        await spool.put(message("again"))


async def test_the_disks_last_bytes_are_not_taken(
    spool: Spool, transport: RecordingTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport.is_ready = False
    monkeypatch.setattr(SystemDisk, "free_bytes", lambda *_: RESERVED_BYTES)
    with pytest.raises(SpoolError, match="full"):
        await spool.put(message("one"))
    await until(lambda: not spool.is_ready)
    monkeypatch.undo()
    await until(lambda: spool.is_ready)
    await spool.put(message("two"))


async def test_a_disk_that_fails_is_told_and_tried_again(
    spool: Spool, transport: RecordingTransport, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport.is_ready = False
    await spool.put(message("before"))

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(SpoolError, match="Input/output error"):
        await spool.put(message("while"))
    assert not spool.is_ready
    monkeypatch.undo()
    await until(lambda: spool.is_ready)
    await spool.put(message("after"))
    transport.is_ready = True
    await until(lambda: {"before", "after"} <= set(ids(transport)))
    assert len(SpoolFolder(folder).files(WAITING)) <= 2


async def test_a_disk_that_hangs_makes_it_unready_and_takes_no_more_memory_than_its_bound(
    spool: Spool, transport: RecordingTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport.is_ready = False
    fdatasync = os.fdatasync
    hangs = True

    def hang(descriptor: int) -> None:
        while hangs:
            time.sleep(0.005)
        fdatasync(descriptor)

    monkeypatch.setattr(os, "fdatasync", hang)
    monkeypatch.setattr(writer, "DISK_TIMEOUT_S", 0.05)
    waiting = [spool.put(message(f"{number}", size_bytes=16 * 1024 * 1024)) for number in range(4)]
    with pytest.raises(SpoolError, match="does not answer"):
        spool.put(message("one too many"))
    await until(lambda: not spool.is_ready)
    hangs = False
    await asyncio.gather(*waiting)
    await until(lambda: spool.is_ready)


async def test_a_folder_that_is_deleted_meanwhile_is_made_again_and_nothing_is_lost(
    spool: Spool, transport: RecordingTransport, folder: Path
) -> None:
    transport.is_ready = False
    await spool.put(message("before"))
    shutil.rmtree(folder)
    await spool.put(message("after"))
    assert [one.record.message.event_id for one in waiting_callbacks(folder)] == ["after"]
    transport.is_ready = True
    await until(lambda: set(ids(transport)) == {"before", "after"})


async def test_a_folder_on_a_network_file_system_is_refused(
    folder: Path, transport: RecordingTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.embedded.database._mounts", lambda: "server:/export / nfs4 rw 0 0\n")
    with pytest.raises(SpoolError, match=r"network file system \(nfs4\): set TIW_DATA_DIR"):
        await Spool(folder, transport).__aenter__()


async def test_a_folder_that_can_never_be_written_is_refused(tmp_path: Path, transport: RecordingTransport) -> None:
    (tmp_path / "spool").write_text("a file")
    with pytest.raises(SpoolError, match="cannot make the folder"):
        await Spool(tmp_path / "spool", transport).__aenter__()


async def test_a_callback_that_cannot_be_written_fails_alone_and_ends_nothing(
    spool: Spool, transport: RecordingTransport
) -> None:
    transport.is_ready = False
    with pytest.raises(SpoolError, match="an error of the receiver"):
        await spool.put(message("\ud800"))
    await spool.put(message("next"))


async def test_a_disk_that_hangs_keeps_no_node_from_starting(
    folder: Path, transport: RecordingTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()
    monkeypatch.setattr(writer, "DISK_TIMEOUT_S", 0.05)
    monkeypatch.setattr(os, "fdatasync", lambda _: ended.wait(10))
    async with Spool(folder, transport) as spool:
        assert not spool.is_ready
        ended.set()


async def test_a_file_that_cannot_be_read_now_is_left_to_whoever_can(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away, back = RecordingTransport(), RecordingTransport()
    away.is_ready = False
    async with Spool(folder, away) as spool:
        await spool.put(message("left"))

    def fail(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", fail)
    async with Spool(folder, back) as spool:
        await until(lambda: bool(spool._unreadable))
        await until(lambda: [state.owned for state in spool_files(folder) if state.waiting] == [False])
        monkeypatch.undo()
        await until(lambda: ids(back) == ["left"])
