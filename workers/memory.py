"""What a consumer remembers of its events in the store: who is handling them, and which were handled."""

import asyncio

import structlog

from store import Claim, Store, StoreError, claim, complete, release
from workers.leases import Leases
from workers.owner import release_leases_of_the_gone
from workers.store_watch import AWAY_ERRORS, StoreWatch

_log = structlog.get_logger()


class Memory:
    """Claims and completions of one consumer, each call for a group of events in one transaction.

    `owner` is this process's name in the leases, which last for `lease_s` unless they are renewed; `leases` tells
    whether they still do.
    """

    def __init__(self, consumer: str, *, store: Store, store_watch: StoreWatch, owner: str, lease_s: float) -> None:
        self._consumer = consumer
        self._store = store
        self._store_watch = store_watch
        self._owner = owner
        self._lease_s = lease_s
        self.leases = Leases(lease_s)
        #: Leases that nobody here needs, but the store was away when they should have been given back.
        self._owed: set[str] = set()
        #: What is given back late must not be what is claimed anew at the same moment.
        self._claiming = asyncio.Lock()

    async def claim(self, event_ids: list[str]) -> dict[str, Claim]:
        """Ask to handle events; what processes of this host held that have died is free. Raises `StoreError`."""
        async with self._claiming:
            self._owed.difference_update(event_ids)
            claims = await self._claim(event_ids)
            leased = [event_id for event_id, claimed in claims.items() if claimed is Claim.LEASED]
            if leased and await release_leases_of_the_gone(self._store):
                claims |= await self._claim(leased)
            return claims

    async def complete(self, event_ids: list[str]) -> None:
        """Remember completions, however long the store is away: the handler has done its work."""
        while True:
            await self._store_watch.wait()
            try:
                await complete(self._store, consumer=self._consumer, event_ids=event_ids, owner=self._owner)
            except AWAY_ERRORS:
                self._store_watch.report_away()
                continue
            return

    async def release(self, event_ids: list[str]) -> None:
        """Let go of leases; if the store is away, `release_owed` does it later."""
        if not self._store_watch.is_here:
            self._owed.update(event_ids)
            return
        try:
            await self._release(event_ids)
        except AWAY_ERRORS:
            self._owed.update(event_ids)
            self._store_watch.report_away()

    async def release_owed(self) -> None:
        """Let go of what could not be given back before. Raises `StoreError`.

        It would not run out by itself: a process renews all leases in its name, also one that it does not know of
        because the connection was lost between the claim's commit and its answer.
        """
        if not self._owed:
            return
        async with self._claiming:
            # In one transaction: they can be hundreds, and claims wait meanwhile.
            owed = [*self._owed]
            try:
                await self._release(owed)
            except StoreError:
                raise
            except Exception:  # noqa: BLE001 - logged; an id that no database takes must not stop the renewals
                _log.exception("release_failed", consumer=self._consumer)
            self._owed.difference_update(owed)

    async def _release(self, event_ids: list[str]) -> None:
        await release(self._store, consumer=self._consumer, event_ids=event_ids, owner=self._owner)

    async def _claim(self, event_ids: list[str]) -> dict[str, Claim]:
        return await claim(
            self._store, consumer=self._consumer, event_ids=event_ids, owner=self._owner, lease_s=self._lease_s
        )
