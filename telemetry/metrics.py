"""Metrics for Prometheus. Labels come from fixed sets: nobody who sends requests can make a new time series.

They live in a registry of our own. With PROMETHEUS_MULTIPROC_DIR in the environment, set before this module is
imported, each process writes its values into that folder, and `render_metrics` in any of them sums all:
https://prometheus.github.io/client_python/multiprocess/

To count something in prometheus-client takes a lock, and with several processes a write into a shared file: as long as
it takes to check a signature. So what happens thousands of times a second is counted in plain numbers, and flushed.
"""

import os
from bisect import bisect_left
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead


class BufferedCounter(Counter):
    """A counter that shows what was counted only after the next `flush`; with labels, each child alone.

    For the thread of the event loop alone.
    """

    def _metric_init(self) -> None:
        super()._metric_init()
        self._counted = 0.0

    def inc(self, amount: float = 1, exemplar: dict[str, str] | None = None) -> None:
        """Count `amount`."""
        del exemplar
        if not self._counted:
            _unflushed.append(self)
        self._counted += amount

    def flush(self) -> None:
        """Let what was counted be seen."""
        super().inc(self._counted)
        self._counted = 0.0


class BufferedHistogram(Histogram):
    """A histogram that shows what was observed only after the next `flush`; with labels, each child alone.

    For the thread of the event loop alone.
    """

    def _metric_init(self) -> None:
        super()._metric_init()
        self._observed = [0] * len(self._upper_bounds)
        self._observed_sum = 0.0
        self._is_unflushed = False

    def observe(self, amount: float, exemplar: Any = None) -> None:
        """Observe `amount`."""
        del exemplar
        if not self._is_unflushed:
            self._is_unflushed = True
            _unflushed.append(self)
        self._observed[bisect_left(self._upper_bounds, amount)] += 1
        self._observed_sum += amount

    def flush(self) -> None:
        """Let what was observed be seen."""
        for bucket, count in enumerate(self._observed):
            if count:
                self._buckets[bucket].inc(count)
                self._observed[bucket] = 0
        self._sum.inc(self._observed_sum)
        self._observed_sum = 0.0
        self._is_unflushed = False


#: What has something to show.
_unflushed: list[BufferedCounter | BufferedHistogram] = []


def flush() -> None:
    """Let everything that was counted and observed be seen, by whoever counts thousands of times a second."""
    unflushed, _unflushed[:] = _unflushed[:], []
    for metric in unflushed:
        metric.flush()


#: What prometheus-client reads, too.
MULTIPROCESS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# A time of creation beside each series tells nothing here and doubles their number.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library leaves it untyped

REGISTRY = CollectorRegistry(auto_describe=True)

_FAST_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 8)
_SLOW_S = (0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800)
_LAG_S = (0.01, 0.05, 0.1, 0.5, 1, 5, 30, 120, 600, 3600, 21600, 86400)

# ingest -------------------------------------------------------------------------------------------------------------
CALLBACKS_ACCEPTED = BufferedCounter(
    "tiw_callbacks_accepted", "Callbacks answered 200, by routing key.", ["routing_key"], registry=REGISTRY
)
CALLBACKS_REFUSED = Counter("tiw_callbacks_refused", "Requests answered 4xx, by reason.", ["reason"], registry=REGISTRY)
CALLBACKS_NOT_KEPT = Counter(
    "tiw_callbacks_not_kept",
    "Callbacks answered 503 or 500, by reason: the receiver could not keep them.",
    ["reason"],
    registry=REGISTRY,
)
CALLBACKS_PARTLY_UNDERSTOOD = Counter(
    "tiw_callbacks_partly_understood",
    "Callbacks of the recording events of which some members are not what the vendor documents; the rest counts.",
    registry=REGISTRY,
)
CALLBACKS_PAIR_REUSED = BufferedCounter(
    "tiw_callbacks_pair_reused",
    "Authentic callbacks signed with an ExpireTime that had signed another one before: soon, or late, after 120 s.",
    ["when"],
    registry=REGISTRY,
)
REJECTED_KEPT = Counter(
    "tiw_rejected_kept", "Refused callbacks that were kept apart, to be looked at with other keys.", registry=REGISTRY
)
REJECTED_NOT_KEPT = Counter(
    "tiw_rejected_not_kept",
    "Refused callbacks that were not kept apart: too_many (at once), or disk.",
    ["reason"],
    registry=REGISTRY,
)
ANSWER_SECONDS = BufferedHistogram(
    "tiw_answer_seconds", "From a request's complete headers to its answer.", buckets=_FAST_S, registry=REGISTRY
)
PUBLISH_SECONDS = BufferedHistogram(
    "tiw_publish_seconds", "Until the transport said that a callback is durable.", buckets=_FAST_S, registry=REGISTRY
)
CALLBACKS_IN_FLIGHT = Gauge(
    "tiw_callbacks_in_flight",
    "Callbacks not answered yet, a moment ago.",
    multiprocess_mode="livesum",
    registry=REGISTRY,
)
CONNECTIONS = Gauge(
    "tiw_connections",
    "Connections that are open to ingest, a moment ago.",
    multiprocess_mode="livesum",
    registry=REGISTRY,
)
CONNECTIONS_EVICTED = Counter(
    "tiw_connections_evicted",
    "Connections closed because there were too many, those first that had waited longest for the sender.",
    registry=REGISTRY,
)
BYTES_IN_FLIGHT = Gauge(
    "tiw_bytes_in_flight",
    "Bytes of callbacks not answered yet, a moment ago.",
    multiprocess_mode="livesum",
    registry=REGISTRY,
)

CALLBACKS_SPOOLED = Counter(
    "tiw_callbacks_spooled", "Callbacks kept in the spool, as the broker did not confirm in time.", registry=REGISTRY
)
SPOOL_DRAINED = Counter(
    "tiw_spool_drained", "Callbacks brought from the spool to the broker, repetitions included.", registry=REGISTRY
)
SPOOL_SET_ASIDE = Counter(
    "tiw_spool_set_aside", "Callbacks set aside, as the broker refused them again and again.", registry=REGISTRY
)
SPOOL_SET_ASIDE_NOW = Gauge(
    "tiw_spool_set_aside_callbacks",
    "Callbacks that are set aside now, in the folder that the processes share.",
    multiprocess_mode="livemax",
    registry=REGISTRY,
)
SPOOL_CALLBACKS = Gauge(
    "tiw_spool_callbacks", "Callbacks that wait in the spool.", multiprocess_mode="livesum", registry=REGISTRY
)
SPOOL_BYTES = Gauge(
    "tiw_spool_bytes", "How large the spool's files are.", multiprocess_mode="livesum", registry=REGISTRY
)
SPOOL_OLDEST_AGE_SECONDS = Gauge(
    "tiw_spool_oldest_age_seconds",
    "How long ago the oldest callback in the spool was received; 0 if it is empty.",
    multiprocess_mode="livemax",
    registry=REGISTRY,
)
BREAKER_OPEN = Gauge(
    "tiw_breaker_open",
    "1 while callbacks go straight to the spool, without trying the broker.",
    multiprocess_mode="livemax",
    registry=REGISTRY,
)

READY = Gauge(
    "tiw_ready",
    "1 while `/readyz` answers 200; the least of all processes.",
    multiprocess_mode="livemin",
    registry=REGISTRY,
)

# workers; a consumer's name is code, so there are few -----------------------------------------------------------------
DELIVERIES = BufferedCounter(
    "tiw_deliveries", "Deliveries by consumer and what became of them.", ["consumer", "outcome"], registry=REGISTRY
)
HANDLER_SECONDS = BufferedHistogram(
    "tiw_handler_seconds", "One run of a handler.", ["consumer"], buckets=_SLOW_S, registry=REGISTRY
)
LAG_SECONDS = BufferedHistogram(
    "tiw_lag_seconds",
    "From a callback's arrival until it was handled.",
    ["consumer"],
    buckets=_LAG_S,
    registry=REGISTRY,
)
RUNNING = Gauge("tiw_running", "Handlers that run now.", ["consumer"], multiprocess_mode="livesum", registry=REGISTRY)
OVERDUE = Gauge(
    "tiw_deliveries_overdue",
    "Deliveries that stand unsettled longer than their time-out and a minute: something is stuck.",
    ["consumer"],
    multiprocess_mode="livesum",
    registry=REGISTRY,
)
RETRIES_SCHEDULED = BufferedCounter(
    "tiw_retries_scheduled", "Deliveries that wait for a retry delay.", ["consumer"], registry=REGISTRY
)
SILENT_CONSUMERS = Counter(
    "tiw_silent_consumers",
    "Times a consumer was subscribed anew because its queue had events and none came.",
    ["queue"],
    registry=REGISTRY,
)
DEAD_LETTERS_MOVED = Counter(
    "tiw_dead_letters_moved", "Dead letters moved from a queue into the store.", ["consumer"], registry=REGISTRY
)
EXPIRED = Counter(
    "tiw_events_expired",
    "Events that a policy of the broker took out of a consumer's queue, and that were put back.",
    ["consumer"],
    registry=REGISTRY,
)
LOOP_STALLS = Counter(
    "tiw_loop_stalls", "Times the event loop stood still for over a second.", ["consumer"], registry=REGISTRY
)
PRUNED = Counter("tiw_pruned", "Rows deleted from the store because of their age.", ["what"], registry=REGISTRY)
STORE_AWAY = Gauge(
    "tiw_store_away", "1 while the store does not answer.", multiprocess_mode="livemax", registry=REGISTRY
)

# vendor_api; actions and outcomes are code ----------------------------------------------------------------------------
VENDOR_REQUESTS = Counter(
    "tiw_vendor_requests",
    "Requests to the vendor's API, by action and outcome: answered, again, paused or clock_off.",
    ["action", "outcome"],
    registry=REGISTRY,
)
VENDOR_SECONDS = Histogram(
    "tiw_vendor_seconds", "One request to the vendor's API, answered or not.", buckets=_SLOW_S, registry=REGISTRY
)

# notify; the names of channels are the operator's, so there are few --------------------------------------------------
NOTICES = Counter(
    "tiw_notices",
    "Notices by channel and what became of them: sent, digested (told along with others), refused (for good), gave_up "
    "(the channel was not reached in time); expired and over: dropped, as their time was past, or what they tell over.",
    ["channel", "result"],
    registry=REGISTRY,
)

# reconcile ------------------------------------------------------------------------------------------------------------
RECORDINGS_FOUND = Counter(
    "tiw_recordings_found",
    "Events that no callback had told of, by the call that did. Above zero, callbacks are lost.",
    ["by"],
    registry=REGISTRY,
)
EVENTS_CONTRADICTED = Counter(
    "tiw_events_contradicted",
    "Finished events that the vendor contradicts: somebody may be forging callbacks.",
    registry=REGISTRY,
)
RECORDINGS_NOT_FOUND = Counter(
    "tiw_recordings_not_found", "Recordings that the vendor does not know, asked several times.", registry=REGISTRY
)
QUESTIONS_ASKED = Counter(
    "tiw_questions_asked", "Questions about recordings, by what the vendor answered.", ["answer"], registry=REGISTRY
)
QUESTIONS_DUE = Gauge(
    "tiw_questions_due",
    "Questions about recordings that could be asked now.",
    multiprocess_mode="livemax",
    registry=REGISTRY,
)
QUESTIONS_OVERDUE_SECONDS = Gauge(
    "tiw_questions_overdue_seconds",
    "For how long the first of them could have been asked; 0 if there is none.",
    multiprocess_mode="livemax",
    registry=REGISTRY,
)
APPS_PAUSED = Gauge(
    "tiw_apps_paused",
    "Applications about which the vendor answers nothing until a person acts.",
    multiprocess_mode="livemax",
    registry=REGISTRY,
)
LISTING_AGE_SECONDS = Gauge(
    "tiw_listing_age_seconds",
    "How long ago the application whose recordings were listed longest ago was listed; 0 if none ever was.",
    multiprocess_mode="livemax",
    registry=REGISTRY,
)
LISTINGS_FAILED = Counter(
    "tiw_listings_failed", "Tries to list the recordings of an application that failed.", registry=REGISTRY
)
ROOMS_UNACCOUNTED = Counter(
    "tiw_rooms_unaccounted_found",
    "Rooms that the vendor's bill names for a day, and of which nothing was known when it was audited.",
    registry=REGISTRY,
)
ROOMS_UNACCOUNTED_NOW = Gauge(
    "tiw_rooms_unaccounted",
    "Those of which nothing is known yet.",
    multiprocess_mode="livemax",
    registry=REGISTRY,
)
REGISTRATIONS = Counter(
    "tiw_registrations", "Requests to register a recording: accepted, or why not.", ["result"], registry=REGISTRY
)

# archive; targets are named by the operator, and there is one. Processes that do not archive have no such series ------
ARCHIVE_FILES = Gauge(
    "tiw_archive_files",
    "Files of recordings: waiting to be fetched, staged (fetched and not placed), failing (of these two, those whose "
    "last try failed), archived, lost (deleted by the vendor before), refused (their address, or their size).",
    ["state"],
    multiprocess_mode="livemax",
    registry=REGISTRY,
)
ARCHIVE_NEXT_DELETION_SECONDS = Gauge(
    "tiw_archive_next_deletion_seconds",
    "How long until the vendor deletes a file that is not archived; 1e9 if there is none.",
    ["target"],
    multiprocess_mode="livemin",
    registry=REGISTRY,
)
#: There is none. Not +Inf, which tests of alerting rules cannot be given.
NO_DELETION_S = 1e9
ARCHIVE_TARGET_UP = Gauge(
    "tiw_archive_target_up",
    "Whether files can be placed where they are to be kept.",
    ["target"],
    multiprocess_mode="livemax",
    registry=REGISTRY,
)
ARCHIVE_STAGING_FREE_BYTES = Gauge(
    "tiw_archive_staging_free_bytes",
    "What may still be written to the staging disk before nothing more is fetched; negative below that.",
    ["target"],
    multiprocess_mode="livemin",
    registry=REGISTRY,
)
ARCHIVED_FILES = Counter(
    "tiw_archived_files", "Files that are settled: archived, lost or refused.", ["outcome"], registry=REGISTRY
)
ARCHIVED_RECORDINGS = Counter(
    "tiw_archived_recordings", "Recordings all of whose files are archived.", registry=REGISTRY
)
ARCHIVE_FAILURES = Counter(
    "tiw_archive_failures", "Tries that failed: fetching or placing a file.", ["at"], registry=REGISTRY
)
ARCHIVE_FETCHED_BYTES = Counter(
    "tiw_archive_fetched_bytes", "Bytes of files that were fetched whole.", registry=REGISTRY
)

ProcessCollector(registry=REGISTRY)


def render_metrics() -> bytes:
    """Return all metrics in Prometheus' text format: of this process, or of all that share the multiprocess folder."""
    flush()
    if not os.environ.get(MULTIPROCESS_VARIABLE):
        return generate_latest(REGISTRY)
    summed = CollectorRegistry()
    MultiProcessCollector(summed)  # type: ignore[no-untyped-call]  # the library leaves it untyped
    return generate_latest(summed)


def are_ready(pids: Iterable[int]) -> bool:
    """Say whether each of these processes, which share the multiprocess folder, has announced that it is ready."""
    folder = Path(os.environ.get(MULTIPROCESS_VARIABLE, ""))
    # A process that has not come so far as to import this module says nothing yet.
    if not all((folder / f"gauge_livemin_{pid}.db").exists() for pid in pids):
        return False
    # The least of all counts: one's own must not be less than theirs.
    READY.set(1)
    summed = CollectorRegistry()
    MultiProcessCollector(summed)  # type: ignore[no-untyped-call]  # the library leaves it untyped
    return summed.get_sample_value("tiw_ready") == 1


def forget_process(pid: int) -> None:
    """Take the gauges of a process that ended out of the sum; its counters stay.

    Does nothing without the multiprocess folder.
    """
    if os.environ.get(MULTIPROCESS_VARIABLE):
        mark_process_dead(pid)  # type: ignore[no-untyped-call]  # the library leaves it untyped
