"""What needs somebody now, in an order: each with the one thing to do."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import urlencode

from msgspec import Struct

from console.live import BrokerSeen, Situation, StoreSeen
from console.peers import PeerMetrics
from console.rates import values_of
from console.rendering import command_line
from store import ListedRecording

Severity: TypeAlias = Literal["critical", "warning"]

#: A spool drains within seconds once the broker is back.
SPOOL_AFTER_S: Final = 60.0

#: An event that waits for longer is late.
LATE_AFTER_S: Final = 300.0

#: From a queue out of which nothing is taken for so long, nothing is taken.
STILL_AFTER_S: Final = 60.0

#: A file that is deleted sooner than this and is not archived is a problem, whatever the reason.
MIN_HOURS_LEFT: Final = 24

#: A question that could have been asked for so long: nobody asks.
QUESTIONS_AFTER_S: Final = 1800.0

#: No pause may last for longer: a time that is later is none.
LONGEST_PAUSE_S: Final = 86_400.0

_DOCTOR: Final = command_line("tiw", "doctor")

#: So many of one kind are told one by one.
_ONE_BY_ONE: Final = 5


class Finding(Struct, frozen=True, kw_only=True):
    """Something that needs somebody. `kind` names its text, which takes `values`.

    What to do is behind `link`, or is `command`, or the text says it.
    """

    kind: str
    severity: Severity = "warning"
    values: Mapping[str, Any] = {}
    link: str | None = None
    command: str | None = None


def find_attention(now: Situation) -> list[Finding]:
    """Return what needs somebody, what cannot wait first."""
    found = [*_of_parts(now), *_of_peers(now)]
    if now.broker.value is not None and now.broker.is_current:
        found += _of_broker(now, now.broker.value)
    if now.store.value is not None and now.store.is_current:
        found += _of_store(now, now.store.value)
    # Stable: within one severity in the order in which they stand here.
    return sorted(found, key=lambda finding: finding.severity != "critical")


def _of_parts(now: Situation) -> Iterator[Finding]:
    if now.store.reason:
        values = {"reason": now.store.reason}
        yield Finding(kind="store_away", severity="critical", values=values, command=_DOCTOR)
    if now.broker.reason:
        values = {"reason": now.broker.reason}
        yield Finding(kind="broker_away", severity="critical", values=values, command=_DOCTOR)


def _of_peers(now: Situation) -> Iterator[Finding]:
    peers = now.peers.value or ()
    if not now.peers.is_current:
        return
    away = [peer for peer in peers if not peer.ok and not peer.is_absent]
    for peer in away[:_ONE_BY_ONE]:
        yield Finding(kind="process_away", values={"address": peer.address, "reason": peer.reason})
    if len(away) > _ONE_BY_ONE:
        yield Finding(kind="processes_away", values={"count": len(away) - _ONE_BY_ONE})
    for peer in peers:
        if 0.0 in values_of([peer], "tiw_ready"):
            yield Finding(kind="not_ready", severity="critical", values={"address": peer.address}, command=_DOCTOR)
    yield from _of_ingest(now, peers)
    yield from _of_vendor(peers)


def _of_ingest(now: Situation, peers: Sequence[PeerMetrics]) -> Iterator[Finding]:
    not_kept = now.rates.grown("tiw_callbacks_not_kept_total")
    if not_kept:
        yield Finding(kind="not_kept", severity="critical", values={"count": not_kept}, command=_DOCTOR)
    spooled = round(sum(values_of(peers, "tiw_spool_callbacks")))
    oldest_s = max(values_of(peers, "tiw_spool_oldest_age_seconds"), default=0.0)
    if spooled > 0 and oldest_s > SPOOL_AFTER_S:
        values = {"count": spooled, "minutes": math.ceil(oldest_s / 60)}
        yield Finding(kind="spool", severity="critical", values=values, command=_DOCTOR)
    elif max(values_of(peers, "tiw_breaker_open"), default=0.0) > 0:
        yield Finding(kind="breaker", command=_DOCTOR)
    aside = round(max(values_of(peers, "tiw_spool_set_aside_callbacks"), default=0.0))
    if aside > 0:
        command = command_line("tiw", "spool", "drain", "--set-aside")
        yield Finding(kind="set_aside", values={"count": aside}, command=command)
    refused = now.rates.grown_by("tiw_callbacks_refused_total", "reason")
    count = sum(refused[reason] for reason in refused.keys() & SENDERS_OWN)
    if count:
        yield Finding(kind="refused", values={"count": count}, link="/rejected")


def _of_vendor(peers: Sequence[PeerMetrics]) -> Iterator[Finding]:
    if max(values_of(peers, "tiw_questions_overdue_seconds"), default=0.0) > QUESTIONS_AFTER_S:
        yield Finding(kind="not_asked", command=command_line("tiw", "reconcile"))
    rooms = round(max(values_of(peers, "tiw_rooms_unaccounted"), default=0.0))
    if rooms > 0:
        command = command_line("tiw", "reconcile", "audit")
        yield Finding(kind="rooms", severity="critical", values={"count": rooms}, command=command)
    if min(values_of(peers, "tiw_archive_target_up"), default=1.0) < 1:
        yield Finding(kind="archive_target", severity="critical", command=_DOCTOR)


#: Refusals behind which a class of one's own may be. Others are programs that search the internet for holes.
SENDERS_OWN: Final = frozenset(
    {
        *("unknown_app", "missing_sign", "malformed_sign", "malformed_expire_time", "wrong_sign", "expired"),
        *("too_large", "too_slow", "hung_up", "encoded", "ambiguous"),
    }
)


def _of_broker(now: Situation, broker: BrokerSeen) -> Iterator[Finding]:
    states = [state for state in broker.states if state.exists]
    idle = [state for state in states if not state.connected]
    if states and len(idle) == len(states):
        yield Finding(kind="no_consumer", severity="critical", command=command_line("tiw", "work"))
        return
    for state in idle:
        values = {"consumer": state.consumer, "count": state.ready}
        severity: Severity = "critical" if state.ready else "warning"
        yield Finding(kind="abandoned", severity=severity, values=values, link=_page("/consumer", name=state.consumer))
    for state in states:
        since_s = broker.still_since_s.get(state.consumer)
        still_s = 0.0 if since_s is None else now.at_s - since_s
        if state.connected and state.ready and still_s > STILL_AFTER_S:
            values = {"consumer": state.consumer, "count": state.ready, "minutes": math.floor(still_s / 60)}
            yield Finding(kind="still", values=values, link=_page("/consumer", name=state.consumer))
            continue
        age_s = oldest_age_s(state.oldest_received_at_us, now.at_s)
        if state.connected and age_s is not None and age_s > LATE_AFTER_S:
            values = {"consumer": state.consumer, "count": state.ready, "minutes": math.floor(age_s / 60)}
            yield Finding(kind="late", values=values, link=_page("/consumer", name=state.consumer))


def oldest_age_s(received_at_us: int | None, now_s: float) -> float | None:
    """Return how long ago something was received."""
    return None if received_at_us is None else max(0.0, now_s - received_at_us / 1_000_000)


def _of_store(now: Situation, store: StoreSeen) -> Iterator[Finding]:
    for consumer, count in Counter(one.consumer for one in store.overdue).items():
        values = {"consumer": consumer, "count": count}
        yield Finding(kind="stuck", severity="critical", values=values, link=_page("/consumer", name=consumer))
    # A class that is about to be stopped has minutes, a file that is about to be deleted hours.
    yield from _of_recordings(now, store)
    archive = store.archive
    waiting = archive.waiting + archive.staged
    if archive.next_deletion_in_s is not None and archive.next_deletion_in_s < MIN_HOURS_LEFT * 3600:
        hours = max(1, math.ceil(archive.next_deletion_in_s / 3600))
        values = {"hours": hours, "count": waiting}
        link = None
        if store.expiring is not None:
            link = _page("/recording", app=store.expiring.sdk_app_id, task=store.expiring.task_id)
        command = None if link else command_line("tiw", "archive", "list")
        yield Finding(kind="expiring", severity="critical", values=values, link=link, command=command)
    if archive.failing:
        link = _page("/recordings", not_archived=1)
        yield Finding(kind="archive_failing", values={"count": archive.failing}, link=link)
    if store.contradicted:
        link = _page("/recordings", contradicted=1)
        yield Finding(kind="contradicted", severity="critical", values={"count": store.contradicted}, link=link)
    for app in store.apps:
        if app.pause_reason is not None:
            values = {"app": app.sdk_app_id, "reason": app.pause_reason}
            yield Finding(kind="app_paused", severity="critical", values=values)
    for consumer, letters in store.overview.dead_letters.items():
        values = {"consumer": consumer, "count": letters.count}
        yield Finding(kind="dead_letters", values=values, link=_page("/dead-letters", consumer=consumer))


def _of_recordings(now: Situation, store: StoreSeen) -> Iterator[Finding]:
    for listed in store.paused:
        recording = listed.summary
        left_s = math.inf if recording.estimate_stop_time is None else recording.estimate_stop_time - now.at_s
        if left_s < LONGEST_PAUSE_S:
            is_over = left_s <= 0
            values = {"room": _room(listed), "count": max(1, math.ceil(abs(left_s) / 60))}
            yield Finding(
                kind="paused_over" if is_over else "paused",
                severity="warning" if is_over else "critical",
                values=values,
                link=_recording(listed),
            )
    for listed in store.failed[:_ONE_BY_ONE]:
        hours = max(1, math.ceil((now.at_s - listed.active_at_us / 1_000_000) / 3600))
        yield Finding(kind="failed", values={"room": _room(listed), "count": hours}, link=_recording(listed))
    if len(store.failed) > _ONE_BY_ONE:
        values = {"count": len(store.failed) - _ONE_BY_ONE}
        yield Finding(kind="failed_more", values=values, link=_page("/recordings", failed=1))


def _room(listed: ListedRecording) -> str:
    """Return what a person calls a recording by."""
    room_id = listed.summary.room_id
    return listed.summary.task_id if room_id is None else str(room_id)


def _recording(listed: ListedRecording) -> str:
    return _page("/recording", app=listed.summary.sdk_app_id, task=listed.summary.task_id)


def _page(path: str, **query: object) -> str:
    return f"{path}?{urlencode(query)}"
