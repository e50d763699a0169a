"""Several processes on one folder, and what is left when one of them is killed."""

import asyncio
import sys
import threading
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from broker import EmbeddedTransport
from broker.embedded.commit import Level
from tests.broker.consumers import ARCHIVE, CONSUMERS, LADDER, SHORT_S
from tests.broker.embedded_child import message
from tests.broker.inbox import TIMEOUT_S, AckingInbox, Inbox, eventually

ROOT = Path(__file__).parents[2]


def _transport(folder: Path) -> EmbeddedTransport:
    return EmbeddedTransport(folder, consumers=CONSUMERS, retry_delays_s=LADDER)


@asynccontextmanager
async def _child(command: str, folder: Path) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.broker.embedded_child", command, str(folder), stdin=PIPE, stdout=PIPE, cwd=ROOT
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate(b"")  # which closes standard input


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def _descriptors(folder: Path) -> list[Path]:
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return [path for path in (link.readlink() for link in links) if path.is_relative_to(folder)]


async def _line(process: Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


@pytest.mark.parametrize("command", ["hold", "hold_and_fork"])
async def test_a_killed_process_gives_back_what_it_held_at_once(tmp_path: Path, command: str) -> None:
    async with _transport(tmp_path) as transport:
        for event_id in ("a", "b", "c"):
            await transport.publish(message(event_id))
        inbox = Inbox()
        async with _child(command, tmp_path) as child:
            acked = await _line(child)
            async with transport.subscribe(ARCHIVE, inbox, prefetch=5):
                (state,) = await transport.inspect(["archive"])
                assert (state.ready, state.unacked) == (0, 2)
                assert len(inbox) == 0
                child.kill()
                await inbox.wait(2, timeout_s=5)
                (state,) = await transport.inspect(["archive"])
                assert state.connected == 1
    assert acked == "a"
    assert inbox.event_ids == ["b", "c"]
    assert [delivery.crashes for delivery in inbox.deliveries] == [1, 1]
    assert _names(tmp_path) == ["transport.db"]


async def test_a_killed_process_is_not_counted_as_connected(tmp_path: Path) -> None:
    async with _transport(tmp_path) as transport:
        for event_id in ("a", "b", "c"):
            await transport.publish(message(event_id))
        async with _child("hold", tmp_path) as child:
            await _line(child)
            (before,) = await transport.inspect(["archive"])
            child.kill()
            await child.wait()
            (after,) = await transport.inspect(["archive"])
    assert (before.connected, before.ready, before.unacked) == (1, 0, 2)
    assert (after.connected, after.ready, after.unacked) == (0, 2, 0)


async def test_two_processes_share_a_queue_and_no_delivery_is_had_twice(tmp_path: Path) -> None:
    inbox = AckingInbox()
    async with _transport(tmp_path) as transport, _child("share", tmp_path) as child:
        assert await _line(child) == "ready"
        async with transport.subscribe(ARCHIVE, inbox, prefetch=3):
            async with asyncio.TaskGroup() as group:
                for number in range(500):
                    group.create_task(transport.publish(message(f"{number}")))

            async def all_are_handled() -> bool:
                (state,) = await transport.inspect(["archive"])
                return state.ready == state.unacked == 0

            await eventually(all_are_handled)
        assert child.stdin is not None
        child.stdin.close()
        theirs = (await _line(child)).split()
    assert len(theirs) + len(inbox) == 500
    assert len({*theirs, *inbox.event_ids}) == 500


async def test_another_process_notices_an_event_and_a_retry(tmp_path: Path) -> None:
    async with _transport(tmp_path) as transport, _child("share", tmp_path) as child:
        assert await _line(child) == "ready"
        await transport.publish(message("event"))
        await transport.retry("archive", message("retry"), delay_s=SHORT_S)

        async def both_are_handled() -> bool:
            (state,) = await transport.inspect(["archive"])
            return state.ready == state.unacked == 0 and await _waiting(transport) == 0

        await eventually(both_are_handled)
        assert child.stdin is not None
        child.stdin.close()
        assert await _line(child) == "event retry"


async def _waiting(transport: EmbeddedTransport) -> int:
    sql = "SELECT count(*) FROM messages WHERE visible_at_us > 0"
    return int(await transport._ask(lambda transaction: transaction.execute(sql).fetchone()[0], Level.READ))


async def test_what_was_published_survives_a_kill(tmp_path: Path) -> None:
    kept: list[str] = []
    async with _child("publish", tmp_path) as child:
        while len(kept) < 50:
            kept.append(await _line(child))
        child.kill()
        assert child.stdout is not None
        kept += (await child.stdout.read()).decode().split()
    inbox = Inbox()
    async with _transport(tmp_path) as transport, transport.subscribe(ARCHIVE, inbox, prefetch=len(kept)):
        await inbox.wait(len(kept))
    assert inbox.event_ids == kept


async def test_a_full_disk_refuses_events_and_loses_none_that_was_kept(tmp_path: Path) -> None:
    async with _child("fill", tmp_path) as child:
        assert child.stdout is not None
        lines = (await child.stdout.read()).decode().splitlines()
        assert await child.wait() == 0
    *kept, last = lines
    refused = int(last.removeprefix("recovered "))
    assert refused > 0
    assert len(kept) + refused == 200
    inbox = Inbox()
    async with _transport(tmp_path) as transport, transport.subscribe(ARCHIVE, inbox, prefetch=500):
        await inbox.wait(len(kept) + 1)
    # An event that was refused may be there all the same, as after any lost confirmation.
    assert {*kept, "recovered"} <= set(inbox.event_ids)


async def test_nothing_is_left_open_after_closing(tmp_path: Path) -> None:
    tasks = asyncio.all_tasks()
    threads = threading.active_count()
    async with _transport(tmp_path) as transport, transport.subscribe(ARCHIVE, Inbox(), prefetch=1):
        await transport.publish(message("a"))
        assert len(_descriptors(tmp_path)) >= 3
        assert threading.active_count() == threads + 1
    assert not _descriptors(tmp_path)
    assert threading.active_count() == threads
    assert asyncio.all_tasks() == tasks
    assert _names(tmp_path) == ["transport.db"]
