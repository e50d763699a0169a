"""Nobody looks at the file again and again: who changes something for others rings at them.

In these tests nobody looks by himself within a minute, and everything has to come within `TIMEOUT_S`.
"""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from broker import EmbeddedTransport
from broker.embedded.commit import Level
from broker.embedded.queues import now_us
from tests.broker.consumers import ARCHIVE, CONSUMERS, LADDER, REPORT, SHORT_S
from tests.broker.embedded_child import message
from tests.broker.inbox import TIMEOUT_S, AckingInbox, Inbox, eventually

ROOT = Path(__file__).parents[2]

#: Longer than any test waits.
NEVER_S = 3 * TIMEOUT_S


def _transport(folder: Path, *, look_every_s: float = NEVER_S) -> EmbeddedTransport:
    return EmbeddedTransport(folder, consumers=CONSUMERS, retry_delays_s=LADDER, look_every_s=look_every_s)


@asynccontextmanager
async def _child(command: str, folder: Path) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.broker.embedded_child", command, str(folder), str(NEVER_S)),
        stdin=PIPE,
        stdout=PIPE,
        cwd=ROOT,
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate(b"")


async def _line(process: Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


async def _publish(process: Process, event_id: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{event_id}\n".encode())
    assert await _line(process) == event_id


async def _looks_no_more(transport: EmbeddedTransport) -> None:
    async def will_not_look() -> bool:
        return transport._watch._next_look_us > now_us() + TIMEOUT_S * 1e6

    await eventually(will_not_look)


def _bells(folder: Path) -> list[Path]:
    return [*folder.glob("owner-*.bell")]


async def test_an_event_of_another_process_is_delivered_though_nobody_looks(tmp_path: Path) -> None:
    inbox = AckingInbox()
    async with (
        _transport(tmp_path) as transport,
        transport.subscribe(ARCHIVE, inbox, prefetch=1),
        _child("publish_on_demand", tmp_path) as child,
    ):
        for number in range(20):
            await _publish(child, f"{number}")
            await inbox.wait(number + 1)
    assert inbox.event_ids == [f"{number}" for number in range(20)]


async def test_two_processes_ring_at_each_other(tmp_path: Path) -> None:
    inbox = AckingInbox()
    async with _transport(tmp_path) as transport, _child("echo", tmp_path) as child:
        assert await _line(child) == "ready"
        async with transport.subscribe(REPORT, inbox, prefetch=1):
            for number in range(10):
                await transport.send("archive", message(f"{number}"))
                await inbox.wait(number + 1)
    assert inbox.event_ids == [f"{number}" for number in range(10)]


@pytest.mark.parametrize("whose", ["own", "another's"])
async def test_a_retry_is_delivered_when_it_is_due(tmp_path: Path, whose: str) -> None:
    inbox = AckingInbox()
    async with (
        _transport(tmp_path) as consuming,
        _transport(tmp_path) as another,
        consuming.subscribe(ARCHIVE, inbox, prefetch=1),
    ):
        await consuming.publish(message("event"))
        await inbox.wait(1)
        await _looks_no_more(consuming)
        retrying = consuming if whose == "own" else another
        await retrying.retry("archive", message("retry"), delay_s=SHORT_S)
        await inbox.wait(2)
    assert inbox.event_ids == ["event", "retry"]


@pytest.mark.parametrize("command", ["hold", "hold_and_fork"])
async def test_the_end_of_a_process_is_noticed_though_nobody_looks(tmp_path: Path, command: str) -> None:
    inbox = Inbox()
    async with _transport(tmp_path) as transport:
        for event_id in ("a", "b", "c"):
            await transport.publish(message(event_id))
        async with _child(command, tmp_path) as child:
            assert await _line(child) == "a"
            async with transport.subscribe(ARCHIVE, inbox, prefetch=5):
                await _looks_no_more(transport)
                child.kill()
                await inbox.wait(2)
    assert not _bells(tmp_path)
    assert inbox.event_ids == ["b", "c"]


async def test_who_comes_later_is_known_to_who_was_there(tmp_path: Path) -> None:
    inbox = Inbox()
    async with _transport(tmp_path) as transport, transport.subscribe(ARCHIVE, inbox, prefetch=0):
        for event_id in ("a", "b", "c"):
            await transport.publish(message(event_id))
        await _looks_no_more(transport)
        async with _child("hold", tmp_path) as child:
            assert await _line(child) == "a"
            child.kill()

            async def is_noticed() -> bool:
                sql = "SELECT count(*) FROM subscriptions"
                count = lambda transaction: transaction.execute(sql).fetchone()[0]  # noqa: E731
                return int(await transport._commits.submit(count, Level.READ)) == 1

            await eventually(is_noticed)
    assert len(inbox) == 0


async def test_a_doorbell_that_was_deleted_is_made_anew_by_the_next_look(tmp_path: Path) -> None:
    inbox = AckingInbox()
    async with (
        _transport(tmp_path, look_every_s=0.02) as consuming,
        _transport(tmp_path) as publishing,
        consuming.subscribe(ARCHIVE, inbox, prefetch=1),
    ):
        (bell,) = _bells(tmp_path)
        bell.unlink()
        await publishing.publish(message("unheard"))
        await inbox.wait(1)
        async with asyncio.timeout(TIMEOUT_S):
            while not _bells(tmp_path):  # noqa: ASYNC110 - a file appears
                await asyncio.sleep(0.01)
    assert inbox.event_ids == ["unheard"]


async def test_where_no_doorbell_can_be_had_the_file_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "mkfifo", refuse)
    inbox = AckingInbox()
    async with (
        _transport(tmp_path) as consuming,
        _transport(tmp_path) as publishing,
        consuming.subscribe(ARCHIVE, inbox, prefetch=1),
    ):
        assert not _bells(tmp_path)
        await publishing.publish(message("unheard"))
        await publishing.retry("archive", message("retry"), delay_s=SHORT_S)
        await inbox.wait(2)
    assert inbox.event_ids == ["unheard", "retry"]


async def test_a_doorbell_that_nobody_has_answered_yet_blocks_nobody(tmp_path: Path) -> None:
    inbox = AckingInbox()
    async with (
        _transport(tmp_path) as consuming,
        _transport(tmp_path) as publishing,
        consuming.subscribe(ARCHIVE, inbox, prefetch=1),
    ):
        await publishing.publish(message("first"))
        await inbox.wait(1)
        (bell,) = _bells(tmp_path)
        descriptor = os.open(bell, os.O_WRONLY | os.O_NONBLOCK)
        try:
            with suppress(BlockingIOError):
                while True:
                    os.write(descriptor, bytes(4096))
        finally:
            os.close(descriptor)
        await publishing.publish(message("second"))
        await inbox.wait(2)
    assert inbox.event_ids == ["first", "second"]
