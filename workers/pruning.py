"""Letting the store forget what is old, a little at a time, beside the consumers."""

import asyncio
from typing import Final

import structlog

from store import BEFORE_ALL, Place, Store, StoreError, prune_completions, prune_dead_letters, prune_events
from telemetry import metrics
from workers.store_watch import StoreWatch

#: How often it is looked for what is old.
PRUNE_EVERY_S: Final = 3600.0

#: So many rounds go on where the one before ended; then all is looked at again.
_ROUNDS: Final = 24

#: Between two transactions, so that the consumers have the store to themselves most of the time.
_PAUSE_S = 0.1

_DAY_S = 86_400.0

_log = structlog.get_logger()


async def keep_pruning(store: Store, store_watch: StoreWatch, *, retention_days: int) -> None:
    """Prune now and every hour: completions after 7 days; events and dead letters after `retention_days`, 0: never.

    Of events and dead letters only what `store.retention` says: never what a recording is made of, never a dead letter
    that was not replayed. What was looked at once is looked at again a day later: it may be superseded by then.
    """
    while True:
        place = BEFORE_ALL
        for _ in range(_ROUNDS):
            try:
                place = await _prune(store, retention_days=retention_days, after=place)
            except StoreError:
                store_watch.report_away()
            await asyncio.sleep(PRUNE_EVERY_S)


async def _prune(store: Store, *, retention_days: int, after: Place = BEFORE_ALL) -> Place:
    counts = {"completions": await prune_completions(store)}
    if retention_days:
        older_than_s = retention_days * _DAY_S
        counts["dead_letters"] = await prune_dead_letters(store, older_than_s=older_than_s)
        counts["events"] = 0
        async for pruned in prune_events(store, older_than_s=older_than_s, after=after):
            counts["events"] += pruned.deleted
            after = pruned.place
            await asyncio.sleep(_PAUSE_S)
    for what, count in counts.items():
        metrics.PRUNED.labels(what).inc(count)
    if any(counts.values()):
        _log.info("store_pruned", retention_days=retention_days, **counts)
    return after
