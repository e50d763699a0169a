"""What a simulation comes to."""

from collections.abc import Mapping

from msgspec import Struct


class SimulationCounts(Struct, frozen=True, kw_only=True):
    """The result in numbers, as `tiw simulate` prints it.

    `sent` and `accepted` count distinct callbacks, that is distinct event_ids, however often each was sent.
    `gave_up` counts those of which no send was ever answered 200: sent = accepted + gave_up. `retries` counts
    further tries over all sends. The percentiles are of the tries that were answered 200, None if there were none.
    """

    sent: int
    accepted: int
    gave_up: int
    retries: int
    p50_ms: float | None
    p99_ms: float | None


class SimulationReport(SimulationCounts, frozen=True, kw_only=True):
    """The counts, and which callbacks are behind them. It holds neither key nor Sign nor address.

    `duplicates` counts sends beyond the first of a callback; `failures` the tries that failed, by reason.
    """

    duplicates: int
    elapsed_s: float
    accepted_ids: frozenset[str]
    given_up_ids: frozenset[str]
    failures: Mapping[str, int]

    @property
    def counts(self) -> SimulationCounts:
        """The counts alone."""
        return SimulationCounts(
            sent=self.sent,
            accepted=self.accepted,
            gave_up=self.gave_up,
            retries=self.retries,
            p50_ms=self.p50_ms,
            p99_ms=self.p99_ms,
        )


class SimulationProgress(Struct, frozen=True, kw_only=True):
    """How far a simulation is. Callbacks are counted as in `SimulationCounts`; `classes_done` ends at `classes`."""

    classes: int
    classes_done: int
    sent: int
    accepted: int
    gave_up: int
    retries: int
    duplicates: int
