"""A callback that the spool took is on the disk, and comes to the broker whatever happens to this process."""

import asyncio
import os
import stat
import time
from pathlib import Path

import pytest

from broker import BrokerError, Message, NotPublishedError
from ingest import Spool
from ingest.config import Budget
from ingest.durability import Durability
from ingest.spool import drain, spool_files, waiting_callbacks
from ingest.spool.files import WAITING, SpoolFolder, marker_of
from telemetry.metrics import REGISTRY as METRICS
from tests.ingest.recording_transport import RecordingTransport
from tests.ingest.spool.messages import ids, message
from tests.ingest.waiting import until


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


async def test_a_damaged_file_is_drained_as_far_as_it_can_be_read_and_kept(folder: Path) -> None:
    away, back = RecordingTransport(), RecordingTransport()
    away.is_ready = False
    async with Spool(folder, away) as spool:
        for number in range(3):
            await spool.put(message(f"{number}"))
    (path,) = SpoolFolder(folder).files(WAITING)
    data = path.read_bytes()
    middle = data.index(marker_of(path), data.index(marker_of(path), 1) + 1) - 10
    path.write_bytes(data[:middle] + b"\0" + data[middle + 1 :])
    async with Spool(folder, back) as spool:
        await until(lambda: len(back.published) == 2)
        await until(lambda: [state.kind for state in spool_files(folder) if state.damaged_bytes] == ["damaged"])
        assert spool.is_ready


async def test_files_belong_to_their_user_alone(spool: Spool, transport: RecordingTransport, folder: Path) -> None:
    transport.is_ready = False
    await spool.put(message("one"))
    (path,) = SpoolFolder(folder).files(WAITING)
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
