"""Another process on an embedded transport's folder.

`python -m tests.broker.embedded_child COMMAND FOLDER [LOOK_EVERY_S]`
"""

import asyncio
import contextlib
import math
import os
import resource
import sys
from pathlib import Path

from broker import EmbeddedTransport, Message, NotPublishedError
from tests.broker.consumers import ARCHIVE, CONSUMERS, FINISHED, LADDER
from tests.broker.inbox import AckingInbox, Inbox

FILE_LIMIT_BYTES = 400_000


def message(event_id: str, *, body: bytes = b"{}") -> Message:
    """Return an event for the consumer `archive`."""
    return Message(body=body, event_id=event_id, routing_key=FINISHED, received_at_us=1)


def say(line: str) -> None:
    """Tell the parent."""
    print(line, flush=True)  # noqa: T201 - standard output is how the parent hears of it


async def hold(transport: EmbeddedTransport, *, forks: bool = False) -> None:
    """Take three deliveries, settle the first, and wait to be killed."""
    inbox = Inbox()
    async with transport.subscribe(ARCHIVE, inbox, prefetch=3):
        first, *_ = await inbox.wait(3)
        await first.ack()
        if forks and os.fork() == 0:
            os.read(0, 1)
            os._exit(0)
        say(first.message.event_id)
        await asyncio.Event().wait()


async def hold_and_fork(transport: EmbeddedTransport) -> None:
    """Do as `hold`, and leave behind a forked process that lives until the parent closes standard input."""
    await hold(transport, forks=True)


async def share(transport: EmbeddedTransport) -> None:
    """Settle what comes until the parent closes standard input, then say what it was."""
    inbox = AckingInbox()
    async with transport.subscribe(ARCHIVE, inbox, prefetch=3):
        say("ready")
        await asyncio.to_thread(sys.stdin.read)
    say(" ".join(inbox.event_ids))


async def publish_on_demand(transport: EmbeddedTransport) -> None:
    """Publish an event per line of standard input, and say each that was kept."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        await transport.publish(message(line.strip()))
        say(line.strip())


async def echo(transport: EmbeddedTransport) -> None:
    """Settle what comes for `archive`, and send it on to `report`, until the parent closes standard input."""
    inbox = AckingInbox()
    sent = 0
    async with transport.subscribe(ARCHIVE, inbox, prefetch=3):
        say("ready")
        ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
        while not ended.done():
            arrived = asyncio.create_task(inbox.wait(sent + 1, timeout_s=math.inf))
            await asyncio.wait({arrived, ended}, return_when=asyncio.FIRST_COMPLETED)
            arrived.cancel()
            for one in inbox.messages[sent:]:
                await transport.send("report", one)
                sent += 1


async def publish(transport: EmbeddedTransport) -> None:
    """Publish without end; say each event that was kept."""
    number = 0
    while True:
        number += 1
        await transport.publish(message(f"{number}"))
        say(f"{number}")


async def fill(transport: EmbeddedTransport) -> None:
    """Publish until no more can be kept, then with space again; say each event that was kept."""
    body = bytes(20_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_LIMIT_BYTES, hard))
    refused = 0
    for number in range(200):
        try:
            await transport.publish(message(f"{number}", body=body))
        except NotPublishedError:
            refused += 1
        else:
            say(f"{number}")
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    await transport.publish(message("recovered"))
    say(f"recovered {refused}")


async def _main(command: str, folder: Path, look_every_s: float | None = None) -> None:
    commands = (hold, hold_and_fork, share, publish, publish_on_demand, echo, fill)
    options = {} if look_every_s is None else {"look_every_s": look_every_s}
    async with EmbeddedTransport(folder, consumers=CONSUMERS, retry_delays_s=LADDER, **options) as transport:
        await next(run for run in commands if run.__name__ == command)(transport)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        asyncio.run(_main(sys.argv[1], Path(sys.argv[2]), *map(float, sys.argv[3:])))
