"""The sending process: `python -m chaos.traffic ORDER`, a file of JSON. SIGTERM: nothing new, then the end."""

import asyncio
import signal
import sys
from pathlib import Path

import msgspec
from msgspec import structs

from chaos.evidence import LineWriter
from chaos.traffic.sender import Order, Sender, Stalls, enlarged, stream


async def _send(order: Order) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    items = stream(order.seed, sdk_app_id=order.sdk_app_id, duplicates=order.duplicates, forged=order.forged)
    if order.body_bytes:
        items = (structs.replace(item, callback=enlarged(item.callback, order.body_bytes)) for item in items)
    with LineWriter(Path(order.ledger)) as ledger:
        async with Stalls() as stalls:
            await Sender(order, ledger, stalls, stopping).send_all(items)


if __name__ == "__main__":
    asyncio.run(_send(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Order)))
