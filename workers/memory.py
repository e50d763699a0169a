"""What a consumer remembers of its events in the store: who is handling them, and which were handled."""

import structlog

from store import Claim, Store, StoreUnavailableError, claim, complete, release
from workers.owner import release_leases_of_the_gone
from workers.store_watch import StoreWatch

_log = structlog.get_logger()


class Memory:
    """Claims and completions of one consumer, each call for a group of events in one transaction.

    `owner` is this process's name in the leases, which last for `lease_s` unless they are renewed.
    """

    def __init__(self, consumer: str, *, store: Store, store_watch: StoreWatch, owner: str, lease_s: float) -> None:
        self._consumer = consumer
        self._store = store
        self._store_watch = store_watch
        self._owner = owner
        self._lease_s = lease_s

    async def claim(self, event_ids: list[str]) -> dict[str, Claim]:
        """Ask to handle events; what processes of this host held that have died is free. Raises `StoreError`."""
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
            except StoreUnavailableError:
                self._store_watch.report_away()
                continue
            return

    async def release(self, event_ids: list[str]) -> None:
        """Let go of leases; if the store is away they run out by themselves."""
        if not self._store_watch.is_here:
            return
        try:
            await release(self._store, consumer=self._consumer, event_ids=event_ids, owner=self._owner)
        except StoreUnavailableError:
            self._store_watch.report_away()

    async def _claim(self, event_ids: list[str]) -> dict[str, Claim]:
        return await claim(
            self._store, consumer=self._consumer, event_ids=event_ids, owner=self._owner, lease_s=self._lease_s
        )
