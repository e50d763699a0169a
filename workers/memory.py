"""What a consumer remembers of its events in the store: which are being handled, by whom, and which were handled.

An event is claimed before its handler is called, under a lease, and completed or released after it. A consumer that
does not remember has a `MemoryOff`, which claims everything at once.
"""

import asyncio
import math
import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import ClassVar, Protocol, Self, TypeAlias

import structlog

from store import Claim, Store, StoreError, claim, complete, lease_holders, release, release_holder
from workers.api import Ack, Drop, Outcome, Retry, describe
from workers.job import Group, Job
from workers.store_watch import AWAY_ERRORS, StoreWatch

_log = structlog.get_logger()


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

_LEASE_HOLDER = re.compile(r"(?P<host>.*)/(?P<namespace>[^/]*)/(?P<pid>[0-9]+)/[0-9a-f]+")


def new_lease_holder() -> str:
    """Return a name that no other process has, and that tells where this one runs."""
    name = f"{socket.gethostname()}/{_namespace()}/{os.getpid()}/{secrets.token_hex(4)}"
    _OURS.add(name)
    return name


def is_dead(lease_holder: str) -> bool:
    """Say whether the process that made this name has certainly ended; False where that cannot be seen from here."""
    match = _LEASE_HOLDER.fullmatch(lease_holder)
    # Containers can share a host's name but not its process ids; without namespaces to compare, nothing is certain.
    if lease_holder in _OURS or match is None or not _namespace():
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


async def release_leases_of_dead_holders(store: Store, *, is_dead: Callable[[str], bool] = is_dead) -> int:
    """Let go of what killed processes of this host held, so that it need not run out first; return how much it was.

    Raises `StoreUnavailableError`.
    """
    dead = [name for name in await lease_holders(store) if is_dead(name)]
    return sum([await release_holder(store, name) for name in dead])


def _namespace() -> str:
    """Return which process ids this process sees; empty where the kernel does not tell."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


class Claims:
    """Claims and completions of one consumer, each call for a group of events in one transaction.

    `lease_holder` is this process's name in the leases, which last for `lease_s` unless they are renewed; `leases`
    tells whether they still do.
    """

    def __init__(
        self,
        consumer: str,
        *,
        store: Store,
        store_watch: StoreWatch,
        lease_holder: str,
        lease_s: float,
        is_dead: Callable[[str], bool] = is_dead,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._consumer = consumer
        self._store = store
        self._store_watch = store_watch
        self._lease_holder = lease_holder
        self._lease_s = lease_s
        self._is_dead = is_dead
        self.leases = Leases(lease_s, monotonic_s=monotonic_s)
        #: Leases that nobody here needs, but the store was away when they should have been released.
        self._owed: set[str] = set()
        #: What is released late must not be what is claimed anew at the same moment.
        self._claiming = asyncio.Lock()

    async def claim(self, event_ids: list[str]) -> dict[str, Claim]:
        """Ask to handle events; what processes of this host held that have died is free. Raises `StoreError`."""
        async with self._claiming:
            self._owed.difference_update(event_ids)
            claims = await self._claim(event_ids)
            leased = [event_id for event_id, claimed in claims.items() if claimed is Claim.LEASED]
            if leased and await release_leases_of_dead_holders(self._store, is_dead=self._is_dead):
                claims |= await self._claim(leased)
            return claims

    async def complete(self, event_ids: list[str]) -> None:
        """Remember completions, however long the store is away: the handler has done its work."""
        while True:
            await self._store_watch.wait()
            try:
                await complete(
                    self._store, consumer=self._consumer, event_ids=event_ids, lease_holder=self._lease_holder
                )
            except AWAY_ERRORS as error:
                self._store_watch.report_away(error)
                continue
            return

    async def release(self, event_ids: list[str]) -> None:
        """Let go of leases; if the store is away, `release_owed` does it later."""
        if not self._store_watch.is_here:
            self._owed.update(event_ids)
            return
        try:
            await self._release(event_ids)
        except AWAY_ERRORS as error:
            self._owed.update(event_ids)
            self._store_watch.report_away(error)

    async def release_owed(self) -> None:
        """Release what could not be released before. Raises `StoreError`.

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
        await release(self._store, consumer=self._consumer, event_ids=event_ids, lease_holder=self._lease_holder)

    async def _claim(self, event_ids: list[str]) -> dict[str, Claim]:
        return await claim(
            self._store,
            consumer=self._consumer,
            event_ids=event_ids,
            lease_holder=self._lease_holder,
            lease_s=self._lease_s,
        )


class Remembering(Protocol):
    """Whose events a memory looks after; it is told what came of each."""

    @property
    def must_wait(self) -> bool:
        """Whether nothing can be claimed now."""

    def admit(self, job: Job) -> bool:
        """Say whether a job is worth claiming; one that is not is settled."""

    def claimed(self, job: Job) -> None:
        """Handle a job: its event is ours."""

    def not_claimed(self, job: Job, claim: Claim) -> None:
        """Settle a job whose event was handled, or is being handled elsewhere."""

    def concluded(self, job: Job, outcome: Outcome | None) -> None:
        """Settle a job: its outcome is remembered. None: as if nobody had seen it."""

    def found_away(self, jobs: Sequence[Job], error: BaseException | None = None) -> None:
        """Requeue jobs: the store that they need is away, as `error` says."""


class Memory:
    """Claims jobs and remembers their outcomes, many in one transaction; an async context manager.

    Leaving cuts short what waits for the store, and leaves it unsettled.
    """

    needs_store: ClassVar = True

    def __init__(self, consumer: str, claims: Claims) -> None:
        self._consumer = consumer
        self._claims = claims
        self._claiming = Group(self._claim, name=f"claims of {consumer}")
        self._completing = Group(self._complete, name=f"completions of {consumer}")
        self._releasing = Group(self._release, name=f"releases of {consumer}")
        self._user: Remembering
        self._stack = AsyncExitStack()

    def serve(self, user: Remembering) -> None:
        """Tell `user` what comes of jobs; before this is entered."""
        self._user = user

    async def __aenter__(self) -> Self:
        for group in (self._completing, self._releasing, self._claiming):
            await self._stack.enter_async_context(group)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    def claim(self, job: Job) -> None:
        """Claim the event of a job, so that nobody else handles it meanwhile."""
        self._claiming.add(job)

    def conclude(self, job: Job, outcome: Outcome | None) -> None:
        """Remember what came of a job; None: nothing did, and somebody else may handle its event."""
        (self._completing if isinstance(outcome, Ack | Drop) else self._releasing).add((job, outcome))

    def holds(self, job: Job) -> bool:
        """Say whether the event of a claimed job is certainly still ours.

        After this process stood still another may have handled it.
        """
        return self._claims.leases.hold(job.came_s)

    async def release(self, jobs: Sequence[Job]) -> None:
        """Let go of what is going to be requeued."""
        if jobs:
            await self._claims.release([job.event_id for job in jobs])

    def renewed(self, *, began_s: float) -> None:
        """Take note that the leases of this process were renewed, by a statement that was begun then."""
        self._claims.leases.renewed(began_s=began_s)

    async def release_owed(self) -> None:
        """Let go of what could not be released while the store was away. Raises `StoreError`."""
        await self._claims.release_owed()

    async def _claim(self, arrived: list[Job]) -> None:
        jobs = [job for job in arrived if self._user.admit(job)]
        if jobs and self._user.must_wait:
            self._user.found_away(jobs)
        elif jobs:
            await self._claim_admitted(jobs)

    async def _claim_admitted(self, jobs: list[Job]) -> None:
        try:
            claims = await self._claims.claim([job.event_id for job in jobs])
        except StoreError as error:
            self._user.found_away(jobs, error)
        except Exception as error:  # noqa: BLE001 - logged below; one bad event must not fail its neighbours
            if len(jobs) > 1:
                for job in jobs:
                    await self._claim_admitted([job])
                return
            _log.exception("claim_failed", consumer=self._consumer, event_id=jobs[0].event_id)
            self.conclude(jobs[0], Retry(reason=describe(error)))
        else:
            for job in jobs:
                found = claims[job.event_id]
                if found is Claim.CLAIMED:
                    self._user.claimed(job)
                else:
                    self._user.not_claimed(job, found)

    async def _complete(self, concluded: list[tuple[Job, Outcome | None]]) -> None:
        """Remember completions in one transaction, then let the outcomes take effect."""
        try:
            await self._claims.complete([job.event_id for job, _ in concluded])
        except Exception as error:  # noqa: BLE001 - logged below; one bad event must not fail its neighbours
            if len(concluded) > 1:
                for one in concluded:
                    await self._complete([one])
                return
            _log.exception("completion_failed", consumer=self._consumer)
            concluded = [(job, Retry(reason=describe(error))) for job, _ in concluded]
        for job, outcome in concluded:
            self._user.concluded(job, outcome)

    async def _release(self, concluded: list[tuple[Job, Outcome | None]]) -> None:
        """Let go of leases in one transaction, then let the outcomes take effect."""
        try:
            await self._claims.release([job.event_id for job, _ in concluded])
        except Exception:  # noqa: BLE001 - leases run out by themselves
            _log.exception("release_failed", consumer=self._consumer)
        for job, outcome in concluded:
            self._user.concluded(job, outcome)


class MemoryOff:
    """The memory of a consumer that does not remember: claims everything, at once, and needs no store."""

    needs_store: ClassVar = False

    def __init__(self) -> None:
        self._user: Remembering

    def serve(self, user: Remembering) -> None:
        """Tell `user` what comes of jobs."""
        self._user = user

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None: ...

    def claim(self, job: Job) -> None:
        """Let a job be handled."""
        self._user.claimed(job)

    def conclude(self, job: Job, outcome: Outcome | None) -> None:
        """Let what came of a job take effect."""
        self._user.concluded(job, outcome)

    def holds(self, job: Job) -> bool:
        """Say yes: nobody else can have claimed it."""
        del job
        return True

    async def release(self, jobs: Sequence[Job]) -> None:
        """Let go of nothing."""

    def renewed(self, *, began_s: float) -> None:
        """Have no leases to renew."""

    async def release_owed(self) -> None:
        """Owe nothing."""


AnyMemory: TypeAlias = Memory | MemoryOff
