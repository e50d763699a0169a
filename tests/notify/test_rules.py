"""What events are worth telling, as whom, and for how long."""

from typing import Any

import pytest

from notify import (
    LANGUAGES,
    RULES,
    TEMPLATE_FIELDS,
    Alert,
    Content,
    Wording,
    alerts_of,
    compose,
    file_expiring,
    load_templates,
)
from notify.messages import duration, moment
from notify.rules import (
    app_paused,
    archive_failing,
    broker_away,
    contradicted,
    dead_letters,
    overdue,
    spool,
    unaccounted,
)
from schemas import (
    OnlineRecordFinished,
    OnlineRecordLongPauseForceStopped,
    OnlineRecordLongPauseWarning,
    OnlineRecordStarted,
    OnlineRecordStopped,
    RecordingError,
    RecordingEvent,
)
from vendor_api import AppPaused
from vendor_api.explaining import pause_reason

#: 2026-11-23 10:45 UTC.
NOW_S = 1_795_430_700.0
OF: dict[str, Any] = {"task_id": "task-1", "room_id": 880528, "sdk_app_id": 1400000001}
TEMPLATES = load_templates(TEMPLATE_FIELDS).templates


def told(event: RecordingEvent, *, source: str = "", now_s: float = NOW_S, event_id: str = "e") -> list[Alert]:
    return alerts_of(event, event_id=event_id, source=source, received_at_s=NOW_S, now_s=now_s)


def long_pause(stops_in_s: int | None, pause_time: int | None = int(NOW_S) - 600) -> OnlineRecordLongPauseWarning:
    stops_at = None if stops_in_s is None else int(NOW_S) + stops_in_s
    return OnlineRecordLongPauseWarning(**OF, timestamp=1, pause_time=pause_time, estimate_stop_time=stops_at)


def test_a_long_pause_is_told_at_once_and_at_half_of_what_is_left_and_not_once_it_is_over() -> None:
    first, half = told(long_pause(1800))
    assert (first.due_at_s, first.deadline_s) == (NOW_S, NOW_S + 1800)
    assert (half.due_at_s, half.deadline_s) == (NOW_S + 900, NOW_S + 1800)
    assert first.notice_id("a") != half.notice_id("a")


def test_half_is_counted_from_when_the_event_is_handled() -> None:
    _, half = told(long_pause(1800), now_s=NOW_S + 600)
    assert half.due_at_s == NOW_S + 1200


def test_a_pause_that_ends_soon_or_at_no_known_time_is_told_once() -> None:
    assert len(told(long_pause(180))) == 1
    (alert,) = told(long_pause(None))
    assert alert.data["stops_at"] is None
    (alert,) = told(long_pause(10**15))
    assert (alert.data["stops_at"], alert.deadline_s) == (None, NOW_S + 3600)


def test_each_pause_of_a_recording_is_told_and_each_once() -> None:
    ids = [alert.notice_id("a") for alert in told(long_pause(1800))]
    assert ids == [alert.notice_id("a") for alert in told(long_pause(1790), event_id="again", now_s=NOW_S + 5)]
    assert not {*ids} & {alert.notice_id("a") for alert in told(long_pause(1800, pause_time=int(NOW_S) - 10))}
    assert not {*ids} & {alert.notice_id("b") for alert in told(long_pause(1800))}


def test_a_recording_that_failed_or_was_stopped_by_force_is_told_once_whoever_says_so() -> None:
    error = RecordingError(code="40004", message="login\x00 failed\u202e")
    failed = OnlineRecordFinished(**OF, timestamp=1, error=error)
    forced = OnlineRecordLongPauseForceStopped(**OF, timestamp=1, pause_time=5, stop_time=9)
    for event, rule in ((failed, "failed"), (forced, "force_stopped")):
        (alert,) = told(event)
        assert alert.rule == rule
        assert alert.recording == (1400000001, "task-1")
        assert alert.notice_id("a") == told(event, event_id="another", now_s=NOW_S + 9)[0].notice_id("a")
    assert told(failed)[0].data["error_message"] == "login failed"


def test_a_failure_that_names_no_recording_is_told_too() -> None:
    event = OnlineRecordFinished(timestamp=1, error=RecordingError(code="1", message="x"))
    (alert,) = told(event)
    assert alert.recording is None
    assert alert.notice_id("a") != told(event, event_id="another")[0].notice_id("a")


@pytest.mark.parametrize(
    "event",
    [
        OnlineRecordStarted(**OF, timestamp=1),
        OnlineRecordStopped(**OF, timestamp=1),
        OnlineRecordFinished(**OF, timestamp=1),
    ],
)
def test_what_goes_well_is_told_only_where_it_was_found_by_asking(event: RecordingEvent) -> None:
    assert told(event) == []
    (alert,) = told(event, source="reconcile")
    assert alert.rule == "found"
    # One for each recording, whatever was lost of it.
    assert alert.notice_id("a") == told(OnlineRecordStarted(**OF, timestamp=5), source="reconcile")[0].notice_id("a")


def test_a_file_is_told_of_a_day_and_six_hours_before_it_is_deleted() -> None:
    def expiring(left_h: float) -> Alert | None:
        expires_at_s = NOW_S + left_h * 3600
        return file_expiring(**OF, file="f", expires_at_s=expires_at_s, now_s=NOW_S)

    assert expiring(24.1) is None
    assert expiring(-0.1) is None
    day, hours = expiring(23.9), expiring(5.9)
    assert day is not None
    assert hours is not None
    assert day.step != hours.step
    assert day.deadline_s == NOW_S + 17.9 * 3600
    assert hours.deadline_s == NOW_S + 5.9 * 3600


#: An alert of every rule, with all that it may know.
EXAMPLES: dict[str, Alert] = {
    alert.rule: alert
    for alert in (
        told(long_pause(1380))[0],
        *told(OnlineRecordLongPauseForceStopped(**OF, timestamp=1, pause_time=int(NOW_S) - 900, stop_time=int(NOW_S))),
        *told(
            OnlineRecordFinished(
                **OF,
                timestamp=1,
                error=RecordingError(code="FailedOperation.Record", message="login failed with code 6206"),
            )
        ),
        overdue(**OF, status="STOPPED", since_s=NOW_S - 7200, now_s=NOW_S),
        *told(OnlineRecordStarted(**OF, timestamp=int(NOW_S) - 700), source="reconcile"),
        contradicted(**OF, event_type="OnlineRecordFinished", event_id="0" * 32, received_at_s=NOW_S),
        unaccounted(sdk_app_id=1400000001, room_id=880528, day="2026-11-22", minutes=45, now_s=NOW_S),
        app_paused(sdk_app_id=1400000001, reason="the service is in arrears", until_s=NOW_S + 600, now_s=NOW_S),
        dead_letters(consumer="archive", count=3, reason="OSError: no space left", last_failed_s=NOW_S),
        spool(count=12, since_s=NOW_S - 300, now_s=NOW_S),
        broker_away(since_s=NOW_S - 180, now_s=NOW_S),
        archive_failing(reason="AccessDenied", count=4, since_s=NOW_S - 4000, now_s=NOW_S),
        file_expiring(**OF, file="a.mp4", expires_at_s=NOW_S + 80_000, now_s=NOW_S),
        Alert(rule="test", thing="t", data={"channel": "wecom", "sent_at": int(NOW_S)}, due_at_s=0, deadline_s=0),
    )
    if alert is not None
}


def words(rule: str, language: str, **data: Any) -> str:
    alert = EXAMPLES[rule]
    content = Content(notice_id="1", rule=rule, data={**alert.data, **data}, created_at_s=NOW_S)
    wording = Wording(languages=LANGUAGES[language], templates=TEMPLATES)
    (part,) = compose([content], "wecom", wording, now_s=NOW_S).parts
    return "\n".join((part.title, *part.lines))


@pytest.mark.parametrize("rule", sorted(RULES))
@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_rule_is_told_in_whole_sentences(rule: str, language: str) -> None:
    text = words(rule, language)
    assert "?" not in text.replace("Forged?", "")
    assert "{" not in text
    assert "None" not in text


@pytest.mark.parametrize("rule", sorted(RULES))
def test_what_is_not_known_leaves_no_hole(rule: str) -> None:
    text = words(rule, "en", **dict.fromkeys(EXAMPLES[rule].data))
    assert "None" not in text
    assert all(line.strip() for line in text.splitlines())


def test_a_text_says_what_to_do_until_when(monkeypatch: pytest.MonkeyPatch) -> None:
    assert words("long_pause", "en").splitlines()[0] == ("Room 880528: recording paused, it will be stopped in 23 min")
    assert "before 2026-11-23 11:08 UTC" in words("long_pause", "en")
    assert "Why: the RecordUserSig had expired: make a new one" in words("failed", "en")
    assert "RecordUserSig 已过期" in words("failed", "zh")
    assert "Why" not in words("failed", "en", error_message="nobody knows this")
    explanation = pause_reason("ResourceUnavailable")
    assert explanation is not None
    paused = AppPaused(code="ResourceUnavailable", explanation=explanation, detail="")
    assert "原因：该应用当前不可用" in words("app_paused", "zh", reason=paused.reason)
    assert f"Why: {paused.reason}" in words("app_paused", "en", reason=paused.reason)
    assert "原因：OSError" in words("archive_failing", "zh", reason="OSError")


@pytest.mark.parametrize(
    ("length_s", "english", "chinese"),
    [
        (0, "0 min", "0 分钟"),
        (59 * 60, "59 min", "59 分钟"),
        (3600, "1 h", "1 小时"),
        (3600 * 25 + 60, "1 d 1 h", "1 天 1 小时"),
        (86400, "1 d", "1 天"),
        (-5, "0 min", "0 分钟"),
    ],
)
def test_a_length_of_time_is_said_in_its_two_largest_units(length_s: float, english: str, chinese: str) -> None:
    assert (duration(length_s, "en"), duration(length_s, "zh")) == (english, chinese)


def test_a_time_that_is_no_date_is_shown_as_it_is() -> None:
    assert moment(NOW_S) == "2026-11-23 10:45 UTC"
    assert moment(2**63 - 1) == str(2**63 - 1)


def test_nobody_is_told_of_a_test() -> None:
    finished = OnlineRecordFinished(**OF, timestamp=1, error=RecordingError(code="x", message="y"))
    assert [one.rule for one in told(finished, source="reconcile")] == ["failed", "found"]
    assert told(finished, source="test") == told(long_pause(1800), source="test") == []
