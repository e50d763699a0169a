"""A callback that the spool took is on the disk, and comes to the broker whatever happens to this process."""

import asyncio
import os
import shutil
import stat
import threading
import time
from pathlib import Path

import pytest

from broker import BrokerError, Message, NotPublishedError
from ingest import Spool, SpoolError
from ingest.config import Budget
from ingest.durability import Durability
from ingest.spool import drain, spool_files, waiting_callbacks, writer
from ingest.spool import spool as spool_module
from ingest.spool.files import WAITING, files, marker_of
from telemetry.metrics import REGISTRY as METRICS
from tests.ingest.recording_transport import RecordingTransport
from tests.ingest.spool.messages import message
from tests.ingest.waiting import until


def ids(transport: RecordingTransport) -> list[str]:
    return [one.event_id for one in transport.published]


class FussyTransport(RecordingTransport):
    """Refuses some messages for good, and counts how often."""

    def __init__(self, refused: set[str]) -> None:
        super().__init__()
        self.refused = refused
        self.tries: dict[str, int] = {}

    async def publish(self, message: Message) -> None:
        """Refuse or remember."""
        self.tries[message.event_id] = self.tries.get(message.event_id, 0) + 1
        if message.event_id in self.refused:
            raise NotPublishedError("the broker refused the message")
        await super().publish(message)


class CountingTransport(RecordingTransport):
    """Counts what it was asked to publish."""

    tries = 0

    async def publish(self, message: Message) -> None:
        """Count, and go on."""
        self.tries += 1
        await super().publish(message)


def count_syncs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows with each fdatasync."""
    synced: list[int] = []
    fdatasync = os.fdatasync

    def count(descriptor: int) -> None:
        fdatasync(descriptor)
        synced.append(descriptor)

    monkeypatch.setattr(os, "fdatasync", count)
    return synced


async def test_it_keeps_while_the_broker_is_away_and_drains_when_it_is_back(
    spool: Spool, transport: RecordingTransport, folder: Path
) -> None:
    transport.is_ready = False
    await asyncio.gather(*(spool.put(message(f"{number}", received_at_us=1 + number)) for number in range(200)))
    assert spool.depth.callbacks == 200
    assert spool.depth.oldest_at_us == 1
    assert [one.record.message.event_id for one in waiting_callbacks(folder)] == [f"{number}" for number in range(200)]
    transport.is_ready = True
    await until(lambda: len(transport.published) == 200)
    await until(lambda: spool.depth.callbacks == 0)
    assert sorted(ids(transport), key=int) == [f"{number}" for number in range(200)]
    await until(lambda: sum(state.waiting for state in spool_files(folder)) == 0)


async def test_what_was_put_is_durable_before_its_future_ends(
    spool: Spool, transport: RecordingTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport.is_ready = False
    synced = count_syncs(monkeypatch)
    for number in range(3):
        before = len(synced)
        await spool.put(message(f"{number}"))
        assert len(synced) > before


async def test_callbacks_that_come_together_share_an_fsync(
    spool: Spool, transport: RecordingTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport.is_ready = False
    synced = count_syncs(monkeypatch)
    await asyncio.gather(*(spool.put(message(f"{number}")) for number in range(1000)))
    assert len(synced) < 20


async def test_what_is_left_at_the_end_is_drained_by_the_next_start(folder: Path) -> None:
    away, back = RecordingTransport(), RecordingTransport()
    away.is_ready = False
    async with Spool(folder, away) as spool:
        await spool.put(message("left"))
    assert [state.owned for state in spool_files(folder)] == [False]
    async with Spool(folder, back) as spool:
        await until(lambda: ids(back) == ["left"])
        await until(lambda: spool.depth.bytes == 0)
    assert spool_files(folder) == []


async def test_a_file_of_a_process_that_lives_is_left_to_it(folder: Path) -> None:
    away, other = RecordingTransport(), RecordingTransport()
    away.is_ready = False
    async with Spool(folder, other) as neighbour:
        async with Spool(folder, away) as spool:
            await spool.put(message("mine"))
            for _ in range(5):
                await neighbour._look_around()
            assert neighbour.depth.callbacks == 0
        # Now nobody owns it.
        await until(lambda: ids(other) == ["mine"])


async def test_a_record_refused_five_times_is_set_aside_and_holds_up_nobody(folder: Path) -> None:
    transport = FussyTransport({"poison"})
    transport.is_ready = False
    async with Spool(folder, transport) as spool:
        for event_id in ("poison", *(f"{number}" for number in range(50))):
            await spool.put(message(event_id))
        transport.is_ready = True
        await until(lambda: len(transport.published) == 50)
        assert transport.tries["poison"] < 5
        # What tells that it is the record, and not the broker: others get through.
        for number in range(100, 400):
            await spool.put(message(f"{number}"))
            await asyncio.sleep(0.01)
            if any(one.is_set_aside for one in waiting_callbacks(folder)):
                break
        (aside,) = [one for one in waiting_callbacks(folder) if one.is_set_aside]
        assert (aside.record.message, aside.refusals) == (message("poison"), 5)
        assert aside.reason == "the broker refused the message"
        await until(lambda: spool.depth.callbacks == 0)
        await until(lambda: METRICS.get_sample_value("tiw_spool_set_aside_callbacks") == 1)
    # A failure after which nothing else was confirmed does not count.
    assert transport.tries["poison"] >= 5
    assert ids(transport).count("poison") == 0


async def test_a_broker_that_refuses_everything_costs_no_record_its_place(folder: Path) -> None:
    transport = CountingTransport()
    transport.error = NotPublishedError("the broker did not confirm in time")
    async with Spool(folder, transport) as spool:
        await asyncio.gather(*(spool.put(message(f"{number}")) for number in range(20)))
        await until(lambda: transport.tries > 200)
        assert spool.depth.callbacks == 20
        assert not [one for one in waiting_callbacks(folder) if one.is_set_aside or one.refusals]
        transport.error = None
        await until(lambda: spool.depth.callbacks == 0)
    assert len(set(ids(transport))) == 20


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
    monkeypatch.setattr(spool_module, "free_bytes", lambda _: spool_module.RESERVED_BYTES)
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
    assert len(files(folder, WAITING)) <= 2


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


async def test_a_damaged_file_is_drained_as_far_as_it_can_be_read_and_kept(folder: Path) -> None:
    away, back = RecordingTransport(), RecordingTransport()
    away.is_ready = False
    async with Spool(folder, away) as spool:
        for number in range(3):
            await spool.put(message(f"{number}"))
    (path,) = files(folder, WAITING)
    data = path.read_bytes()
    middle = data.index(marker_of(path), data.index(marker_of(path), 1) + 1) - 10
    path.write_bytes(data[:middle] + b"\0" + data[middle + 1 :])
    async with Spool(folder, back) as spool:
        await until(lambda: len(back.published) == 2)
        await until(lambda: [state.kind for state in spool_files(folder) if state.damaged_bytes] == ["damaged"])
        assert spool.is_ready


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


async def test_files_belong_to_their_user_alone(spool: Spool, transport: RecordingTransport, folder: Path) -> None:
    transport.is_ready = False
    await spool.put(message("one"))
    (path,) = files(folder, WAITING)
    modes = await asyncio.to_thread(lambda: [stat.S_IMODE(place.stat().st_mode) for place in (folder, path)])
    assert modes == [0o700, 0o600]


async def test_metrics_tell_how_much_waits_and_since_when(spool: Spool, transport: RecordingTransport) -> None:
    transport.is_ready = False
    await spool.put(message("old", received_at_us=round((time.time() - 100) * 1e6)))
    await until(lambda: 99 < (METRICS.get_sample_value("tiw_spool_oldest_age_seconds") or 0) < 160)
    assert METRICS.get_sample_value("tiw_spool_callbacks") == 1
    assert (METRICS.get_sample_value("tiw_spool_bytes") or 0) > 100
    transport.is_ready = True
    await until(lambda: METRICS.get_sample_value("tiw_spool_callbacks") == 0)
    assert METRICS.get_sample_value("tiw_spool_oldest_age_seconds") == 0


async def test_one_callback_at_a_time_finds_out_whether_the_broker_takes_any(
    spool: Spool, transport: RecordingTransport
) -> None:
    transport.is_ready = False
    await asyncio.gather(*(spool.put(message(f"{number}")) for number in range(100)))
    transport.gate.clear()
    transport.is_ready = True
    await until(lambda: transport.waiting == 1)
    transport.gate.set()
    await until(lambda: len(transport.published) == 100)


async def test_an_error_of_the_transport_that_is_no_answer_is_one_all_the_same(
    spool: Spool, transport: RecordingTransport
) -> None:
    transport.error = BrokerError("the transport is not open")
    durability = Durability(transport, spool, budget=Budget(), max_unconfirmed=10)
    await spool.put(message("one"))
    for _ in range(3):
        await durability.keep(message("live"), deadline_s=time.monotonic() + 10)
    assert durability.is_failing
    transport.error = None
    await until(lambda: sorted(ids(transport)) == ["live", "live", "live", "one"])
    assert not durability.is_failing


async def test_a_record_that_breaks_the_transport_is_a_refused_one(folder: Path, transport: RecordingTransport) -> None:
    class BreakingTransport(RecordingTransport):
        async def publish(self, message: Message) -> None:
            if message.event_id == "poison":
                raise ValueError("a fault of ours")
            await super().publish(message)

    transport = BreakingTransport()
    async with Spool(folder, transport) as spool:
        await asyncio.gather(*(spool.put(message(event_id)) for event_id in ("poison", "1", "2")))
        await until(lambda: sorted(ids(transport)) == ["1", "2"])
        await until(lambda: [one.record.message.event_id for one in waiting_callbacks(folder)] == ["poison"])


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


async def test_a_record_that_meets_lost_connections_is_not_taken_for_a_refused_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class LosingTransport(FussyTransport):
        async def publish(self, message: Message) -> None:
            if message.event_id in self.refused:
                self.is_ready = False
                asyncio.get_running_loop().call_later(0.01, setattr, self, "is_ready", True)
            await super().publish(message)

    monkeypatch.setattr(drain, "LOSSES_TO_SET_ASIDE", 8)
    transport = LosingTransport({"unlucky"})
    async with Spool(folder, transport) as spool:
        await spool.put(message("unlucky"))
        for number in range(1000):
            await spool.put(message(f"{number}"))
            await asyncio.sleep(0.01)
            if aside := [one for one in waiting_callbacks(folder) if one.is_set_aside]:
                break
        assert [(one.record.message, one.refusals) for one in aside] == [(message("unlucky"), 0)]
        assert transport.tries["unlucky"] >= 8
        # It held up nobody meanwhile.
        assert len(transport.published) > number / 2


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
