"""Know whether the store answers, so that consumers wait for it instead of failing against it."""

import asyncio
from typing import Self

import structlog

from store import Store, StoreError, check_schema
from telemetry import metrics

_PROBE_EVERY_S = 1.0

_log = structlog.get_logger()


class StoreWatch:
    """Whether the store is here; shared by the runners of one process, an async context manager.

    Who finds it away says so with `report_away`; from then on it is asked every second until it answers.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._here = asyncio.Event()
        self._here.set()
        self._probe: asyncio.Task[None] | None = None

    @property
    def is_here(self) -> bool:
        """Whether the store answered when it was last asked."""
        return self._here.is_set()

    def report_away(self) -> None:
        """Say that the store did not answer."""
        if self._here.is_set():
            self._here.clear()
            metrics.STORE_AWAY.set(1)
            _log.warning("store_away", database=self._store.safe_url)
            self._probe = asyncio.create_task(self._ask(), name="store watch")

    async def wait(self) -> None:
        """Return once the store is here."""
        await self._here.wait()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.wait({self._probe})

    async def _ask(self) -> None:
        while True:
            try:
                await check_schema(self._store)
            except StoreError as error:
                _log.debug("store_still_away", error=type(error).__name__)
                await asyncio.sleep(_PROBE_EVERY_S)
                continue
            metrics.STORE_AWAY.set(0)
            _log.info("store_back", database=self._store.safe_url)
            self._here.set()
            return
