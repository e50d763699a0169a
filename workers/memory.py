"""What a consumer remembers of its events in the store: who is handling them, and which were handled.

Whether leases still hold: a process that stood still may have lost them to others without noticing.

The name under which a process holds leases, and what to do when the process behind a name is gone.
"""

import asyncio
import math
import os
import re
import secrets
import socket
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from store import Claim, Store, StoreError, claim, complete, lease_owners, release, release_owner
from workers.store_watch import AWAY_ERRORS, StoreWatch


class Leases:
    """The leases of one process, as far as it can know without asking: each lasts `lease_s` from its last renewal."""

    def __init__(self, lease_s: float, *, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._lease_s = lease_s
        self._monotonic_s = monotonic_s
        self._renewed_at_s = monotonic_s()
        self._lost_at_s = -math.inf

    def renewed(self, *, began_s: float) -> None:
        """Take note that all were renewed, by a statement that was begun then, on the monotonic clock.

        One that came too late renews only what nobody had taken by then: what was claimed before it counts as lost.
        """
        if began_s - self._renewed_at_s > self._lease_s:
            self._lost_at_s = began_s
        self._renewed_at_s = began_s

    def hold(self, since_s: float) -> bool:
        """Say whether a lease that was asked for at `since_s` or later cannot have run out since then."""
        proved_s = max(since_s, self._renewed_at_s)
        return since_s > self._lost_at_s and self._monotonic_s() - proved_s <= self._lease_s


#: Names that this process made: they are alive as long as it is.
_OURS: set[str] = set()

_OWNER = re.compile(r"(?P<host>.*)/(?P<namespace>[^/]*)/(?P<pid>[0-9]+)/[0-9a-f]+")


def new_owner() -> str:
    """Return a name that no other process has, and that tells where this one runs."""
    owner = f"{socket.gethostname()}/{_namespace()}/{os.getpid()}/{secrets.token_hex(4)}"
    _OURS.add(owner)
    return owner


def is_gone(owner: str) -> bool:
    """Say whether the process that made this name has certainly ended; False where that cannot be seen from here."""
    match = _OWNER.fullmatch(owner)
    # Containers can share a host's name but not its process ids; without namespaces to compare, nothing is certain.
    if owner in _OURS or match is None or not _namespace():
        return False
    if (match["host"], match["namespace"]) != (socket.gethostname(), _namespace()):
        return False
    pid = int(match["pid"])
    if pid == os.getpid():
        # It was given to this process since.
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


async def release_leases_of_the_gone(store: Store) -> int:
    """Let go of what killed processes of this host held, so that it need not run out first; return how much it was.

    Raises `StoreUnavailableError`.
    """
    gone = [owner for owner in await lease_owners(store) if is_gone(owner)]
    return sum([await release_owner(store, owner) for owner in gone])


def _namespace() -> str:
    """Return which process ids this process sees; empty where the kernel does not tell."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


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
