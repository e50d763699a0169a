"""What needs somebody: told in plain words, the urgent first, each with one thing to do; and nothing else."""

from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec import structs

from broker import QueueState
from console.attention import Finding, find_attention
from console.live import BrokerSeen, Known, Situation, StoreSeen
from console.peers import PeerMetrics
from console.rates import Rates
from console.rendering import Texts
from store import (
    ArchiveCounts,
    Count,
    ExpiringFile,
    ListedRecording,
    OverdueDelivery,
    Overview,
    ReconciledApp,
    RecordingStatus,
    RecordingSummary,
)
from tests.console.nodes import silent, told

NOW_S = datetime(2026, 11, 30, 12, tzinfo=UTC).timestamp()

NOTHING = Overview(
    by_status={},
    failed=Count(),
    contradicted=Count(),
    found_late=Count(),
    not_archived=Count(),
    events_last_minute=Count(),
    events_last_hour=Count(),
    events_last_day=Count(),
    unrecognized_last_day=Count(),
    tests_last_day=Count(),
    dead_letters={},
)


def queue(consumer: str = "started", **values: Any) -> QueueState:
    given = {"exists": True, "ready": 0, "unacked": 0, "connected": 1, "dead": 0, "retrying": 0}
    return QueueState(consumer=consumer, **given | values)


def store_seen(**values: Any) -> StoreSeen:
    given: dict[str, Any] = {
        "consumers": {"started": ("OnlineRecordStarted",)},
        "overview": NOTHING,
        "overdue": (),
        "archive": ArchiveCounts(),
        "expiring": None,
        "apps": (),
        "contradicted": 0,
    }
    return StoreSeen(**given | values)


def listed(status: RecordingStatus, *, room: int | None = 880528, active_s: float, stops_s: int | None = None) -> Any:
    values: dict[str, Any] = dict.fromkeys(RecordingSummary.__struct_fields__)
    values |= {"sdk_app_id": 1, "task_id": "a&b", "room_id": room, "status": status, "omitted_durations": ()}
    summary = RecordingSummary(**values | {"estimate_stop_time": stops_s})
    return ListedRecording(
        summary=summary,
        active_at_us=round(active_s * 1e6),
        archive=None,
        found_late=False,
        contradicted=False,
        is_test=False,
    )


def situation(
    *queues: QueueState, peers: tuple[PeerMetrics, ...] = (), store: StoreSeen | None = None, **values: Any
) -> Situation:
    rates = Rates()
    rates.look(0, [structs.replace(peer, samples={}) if peer.ok else peer for peer in peers])
    rates.look(10, peers)
    return Situation(
        at_s=NOW_S,
        peers=Known(value=peers, at_s=NOW_S),
        broker=Known(value=BrokerSeen(states=queues or (queue(),), **values), at_s=NOW_S),
        store=Known(value=store or store_seen(), at_s=NOW_S),
        rates=rates,
        rates_at_s=10,
    )


def kinds(now: Situation) -> list[str]:
    return [one.kind for one in find_attention(now)]


def test_where_all_is_well_nothing_is_told() -> None:
    peer = told(
        {"tiw_ready": 1.0, "tiw_callbacks_in_flight": 0.0, "tiw_spool_callbacks": 0.0, "tiw_archive_target_up": 1.0}
    )
    assert kinds(situation(queue(ready=5, oldest_received_at_us=round((NOW_S - 3) * 1e6)), peers=(peer,))) == []


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ({"tiw_ready": 0.0, "tiw_callbacks_in_flight": 0.0}, ["not_ready"]),
        ({"tiw_callbacks_not_kept_total": {"no_room": 3.0}}, ["not_kept"]),
        ({"tiw_spool_callbacks": 5.0, "tiw_spool_oldest_age_seconds": 200.0}, ["spool"]),
        ({"tiw_spool_callbacks": 5.0, "tiw_spool_oldest_age_seconds": 2.0}, []),
        ({"tiw_breaker_open": 1.0}, ["breaker"]),
        ({"tiw_spool_set_aside_callbacks": 2.0}, ["set_aside"]),
        ({"tiw_callbacks_refused_total": {"wrong_sign": 2.0, "wrong_path": 9.0}}, ["refused"]),
        # Programs that search the internet for holes.
        ({"tiw_callbacks_refused_total": {"wrong_path": 9.0, "malformed_http": 1.0}}, []),
        ({"tiw_questions_overdue_seconds": 4000.0}, ["not_asked"]),
        ({"tiw_rooms_unaccounted": 1.0}, ["rooms"]),
        ({"tiw_archive_target_up": 0.0}, ["archive_target"]),
        # So many there cannot be.
        ({"tiw_spool_callbacks": 1e300, "tiw_spool_oldest_age_seconds": 1e300}, []),
    ],
)
def test_what_processes_tell_is_judged(peer: dict[str, Any], expected: list[str]) -> None:
    assert kinds(situation(peers=(told(peer),))) == expected


def test_processes_that_do_not_answer_are_named_and_many_are_counted() -> None:
    found = find_attention(situation(peers=tuple(silent(f"http://n{number}:9080") for number in range(9))))
    assert [one.kind for one in found] == ["process_away"] * 5 + ["processes_away"]
    assert found[0].values == {"address": "http://n0:9080", "reason": "Connection refused"}
    assert found[5].values == {"count": 4}


def test_queues_are_judged_by_who_works_and_how_long_the_first_waits() -> None:
    old_us = round((NOW_S - 900) * 1e6)
    assert kinds(situation(queue(connected=0))) == ["no_consumer"]
    found = find_attention(situation(queue(), queue("mine", connected=0, ready=3), queue("other", connected=0)))
    assert [(one.kind, one.severity, one.link) for one in found] == [
        ("abandoned", "critical", "/consumer?name=mine"),
        ("abandoned", "warning", "/consumer?name=other"),
    ]
    assert kinds(situation(queue(ready=1, oldest_received_at_us=old_us))) == ["late"]
    still = situation(queue(ready=1, oldest_received_at_us=old_us), still_since_s={"started": NOW_S - 130})
    assert [(one.kind, one.values["minutes"]) for one in find_attention(still)] == [("still", 2)]


def test_what_the_store_tells_is_judged_and_the_urgent_comes_first() -> None:
    seen = store_seen(
        overview=structs.replace(NOTHING, dead_letters={"mine & yours": Count(count=2)}),
        overdue=(OverdueDelivery(consumer="mine", event_id="e", lease_holder="h/1/2", unsettled_s=900.0),),
        archive=ArchiveCounts(waiting=3, failing=1, next_deletion_in_s=7300.0),
        expiring=ExpiringFile(sdk_app_id=1, task_id="a&b", room_id=1, name="x", expires_at_s=int(NOW_S) + 7300),
        apps=(ReconciledApp(sdk_app_id=7, pause_reason="no such key"), ReconciledApp(sdk_app_id=8)),
        contradicted=1,
    )
    found = find_attention(situation(store=seen))
    assert [(one.kind, one.severity) for one in found] == [
        ("stuck", "critical"),
        ("expiring", "critical"),
        ("contradicted", "critical"),
        ("app_paused", "critical"),
        ("archive_failing", "warning"),
        ("dead_letters", "warning"),
    ]
    assert found[1].link == "/recording?app=1&task=a%26b"
    assert found[1].values == {"hours": 3, "count": 3}
    assert found[5].link == "/dead-letters?consumer=mine+%26+yours"


def test_classes_that_pause_are_told_before_the_vendor_stops_them_and_failed_ones_while_they_can_be_made_again() -> (
    None
):
    paused = [
        listed(RecordingStatus.PAUSED, active_s=NOW_S - 60, stops_s=int(NOW_S) + 330),
        listed(RecordingStatus.PAUSED, active_s=NOW_S - 9000, stops_s=int(NOW_S) - 61),
        # Nothing is concluded from a number that is no time.
        listed(RecordingStatus.PAUSED, active_s=NOW_S - 60, stops_s=2**62),
        listed(RecordingStatus.PAUSED, active_s=NOW_S - 60),
    ]
    failed = [listed(RecordingStatus.FINISHED, room=None, active_s=NOW_S - 7000 * number) for number in range(7)]
    found = find_attention(situation(store=store_seen(paused=tuple(paused), failed=tuple(failed))))
    assert [(one.kind, one.values["count"]) for one in found] == [
        ("paused", 6),
        ("paused_over", 2),
        *[("failed", hours) for hours in (1, 2, 4, 6, 8)],
        ("failed_more", 2),
    ]
    assert found[0].values["room"] == "880528"
    assert found[2].values["room"] == "a&b"
    assert found[0].link == "/recording?app=1&task=a%26b"
    assert found[-1].link == "/recordings?failed=1"


def test_a_class_that_is_about_to_be_stopped_comes_before_a_file_that_is_deleted_in_hours() -> None:
    seen = store_seen(
        paused=(listed(RecordingStatus.PAUSED, active_s=NOW_S - 60, stops_s=int(NOW_S) + 330),),
        archive=ArchiveCounts(waiting=3, failing=1, next_deletion_in_s=7300.0),
        contradicted=1,
    )
    found = find_attention(situation(store=seen))
    assert [one.kind for one in found] == ["paused", "expiring", "contradicted", "archive_failing"]
    assert found[3].link == "/recordings?not_archived=1"


def test_what_does_not_answer_is_told_and_nothing_is_made_of_its_old_numbers() -> None:
    now = situation(queue(connected=0), store=store_seen(contradicted=1))
    now = structs.replace(
        now, broker=now.broker.failed("gone", NOW_S), store=now.store.failed("away", NOW_S), peers=now.peers
    )
    assert kinds(now) == ["store_away", "broker_away"]


def every_finding() -> list[Finding]:
    seen = store_seen(
        overview=structs.replace(NOTHING, dead_letters={"c": Count(count=2)}),
        overdue=(OverdueDelivery(consumer="c", event_id="e", lease_holder="h/1/2", unsettled_s=900.0),),
        archive=ArchiveCounts(waiting=3, failing=2, next_deletion_in_s=7300.0),
        apps=(ReconciledApp(sdk_app_id=7, pause_reason="no such key"),),
        contradicted=2,
        paused=tuple(listed(RecordingStatus.PAUSED, active_s=NOW_S, stops_s=int(NOW_S) + at) for at in (60, -60)),
        failed=(listed(RecordingStatus.FINISHED, active_s=NOW_S),) * 6,
    )
    peer = told(
        {
            "tiw_ready": 0.0,
            "tiw_callbacks_in_flight": 0.0,
            "tiw_callbacks_not_kept_total": {"no_room": 3.0},
            "tiw_spool_callbacks": 5.0,
            "tiw_spool_oldest_age_seconds": 200.0,
            "tiw_spool_set_aside_callbacks": 2.0,
            "tiw_callbacks_refused_total": {"wrong_sign": 2.0},
            "tiw_questions_overdue_seconds": 4000.0,
            "tiw_rooms_unaccounted": 2.0,
            "tiw_archive_target_up": 0.0,
        }
    )
    away = tuple(silent(f"http://n{number}:9080") for number in range(7))
    old_us = round((NOW_S - 900) * 1e6)
    queues = (
        queue("a", connected=0, ready=2),
        queue("b", ready=2, oldest_received_at_us=old_us),
        queue("c", ready=2),
    )
    everything = situation(*queues, peers=(peer, *away), store=seen, still_since_s={"c": NOW_S - 130})
    nothing = structs.replace(
        situation(peers=(told({"tiw_breaker_open": 1.0}),)),
        store=Known[StoreSeen]().failed("away", NOW_S),
        broker=Known[BrokerSeen]().failed("gone", NOW_S),
    )
    return [
        *find_attention(everything),
        *find_attention(nothing),
        *find_attention(situation(queue(connected=0))),
    ]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_each_is_told_in_both_languages_with_something_to_do(language: Any) -> None:
    texts = Texts()
    t = texts.translator(language)
    found = every_finding()
    told_kinds = {key.removeprefix("now.warn.") for key in texts.texts if key.startswith("now.warn.")}
    assert {one.kind for one in found} == told_kinds
    for one in found:
        sentence = t(f"now.warn.{one.kind}", **one.values)
        assert sentence.endswith((".", ":", "。", "："))
        # A sentence that ends with a colon leads to a command or a page.
        assert not sentence.endswith((":", "：")) or one.command or one.link, one.kind
