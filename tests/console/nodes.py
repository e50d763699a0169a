"""Processes that a console asks, as tests want them: with the numbers that they tell, slow, silent or hostile."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from console.peers import PeerMetrics, Sample


def told(values: Mapping[str, Any] = {}, *, address: str = "http://node:9080") -> PeerMetrics:
    """Return what a process tells: each metric as a number, or one for each value of its first label.

    With two labels their values stand with a `/` between.
    """
    labels = {
        "tiw_callbacks_accepted_total": ("routing_key",),
        "tiw_callbacks_refused_total": ("reason",),
        "tiw_callbacks_not_kept_total": ("reason",),
        "tiw_answer_seconds_bucket": ("le",),
        "tiw_deliveries_total": ("consumer", "outcome"),
        "tiw_lag_seconds_bucket": ("consumer", "le"),
    }
    samples: dict[str, list[Sample]] = {}
    for name, value in values.items():
        by_label = value if isinstance(value, Mapping) else {"": value}
        samples[name] = [
            Sample(labels=dict(zip(labels.get(name, ()), text.split("/"), strict=False)), value=number)
            for text, number in by_label.items()
        ]
    return PeerMetrics(address=address, ok=True, samples=samples)


def silent(address: str = "http://node:9080", reason: str = "Connection refused") -> PeerMetrics:
    return PeerMetrics(address=address, ok=False, reason=reason)


class Node:
    """An admin listener of a test: `text` is what it tells; `stopped` while it does not answer."""

    def __init__(self) -> None:
        self.text = ""
        self.answers = asyncio.Event()
        self.answers.set()
        self.asked = 0
        self.address = ""

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked += 1
        await self.answers.wait()
        return web.Response(text=self.text if request.path == "/metrics" else "", status=200)


@asynccontextmanager
async def node(text: str = "") -> AsyncIterator[Node]:
    """Run one."""
    running = Node()
    running.text = text
    runner = web.ServerRunner(web.Server(running.answer), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    running.address = f"http://127.0.0.1:{site.port}"
    try:
        yield running
    finally:
        running.answers.set()
        await runner.cleanup()
