"""What people are told of: each rule, what makes an alert of it, how long it is worth telling, and when it is over.

An alert is what somebody should know; a notice is an alert on its way to one channel. An alert has an identity, so that
however often it comes up, and in however many processes, there is one notice of it for each channel.
"""

import hashlib
import math
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Final, Literal, TypeAlias

from msgspec import Struct, structs

from notify.texts import one_line
from schemas import (
    OnlineRecordFinished,
    OnlineRecordLongPauseForceStopped,
    OnlineRecordLongPauseWarning,
    RecordingEvent,
)
from store import TEST_SOURCE

Severity: TypeAlias = Literal["critical", "warning"]

#: What a row of the store takes: texts, numbers, or nothing.
Data: TypeAlias = Mapping[str, str | int | None]


class Rule(Struct, frozen=True, kw_only=True):
    """A kind of alert, and the values that its templates may use."""

    severity: Severity
    fields: frozenset[str]


_OF_A_RECORDING = ("task_id", "room_id", "sdk_app_id")

#: All rules. Templates, texts, documents and tests follow from this table.
_TABLE: tuple[tuple[str, Severity, tuple[str, ...]], ...] = (
    ("long_pause", "critical", (*_OF_A_RECORDING, "paused_at", "stops_at", "minutes_left")),
    ("force_stopped", "critical", (*_OF_A_RECORDING, "paused_at", "stopped_at")),
    ("failed", "critical", (*_OF_A_RECORDING, "error_code", "error_message", "explanation")),
    ("overdue", "warning", (*_OF_A_RECORDING, "status", "since_at", "duration")),
    ("found", "warning", (*_OF_A_RECORDING, "event_type", "happened_at", "late")),
    ("unaccounted", "critical", ("room_id", "sdk_app_id", "day", "minutes")),
    ("contradicted", "critical", (*_OF_A_RECORDING, "event_type", "event_id", "received_at")),
    ("app_paused", "critical", ("sdk_app_id", "reason", "until_at")),
    ("dead_letters", "warning", ("consumer", "count", "reason")),
    ("spool", "critical", ("count", "since_at", "duration")),
    ("broker_away", "critical", ("since_at", "duration")),
    ("archive_failing", "critical", ("reason", "count", "since_at", "duration")),
    ("file_expiring", "critical", (*_OF_A_RECORDING, "file", "expires_at", "hours_left")),
    ("test", "critical", ("channel", "sent_at")),
)

RULES: dict[str, Rule] = {name: Rule(severity=severity, fields=frozenset(fields)) for name, severity, fields in _TABLE}

#: What is not a rule and has a template: many notices in one message.
DIGEST: Final = "digest"

#: The values of every template, by what it is for.
TEMPLATE_FIELDS: dict[str, frozenset[str]] = {
    **{name: rule.fields for name, rule in RULES.items()},
    DIGEST: frozenset({"count", "more"}),
}

_MINUTE_S = 60
_HOUR_S = 3600
_DAY_S = 86_400

#: The vendor keeps files for 3 days: https://cloud.tencent.com/document/product/1137/49831
FILES_LAST_S = 3 * _DAY_S

#: A recording lasts for 24 hours at most; a pause that ends later than this has no end that anybody can wait for.
_LONGEST_PAUSE_S = 2 * _DAY_S

#: A second reminder that comes so soon after the first tells nothing.
_SHORTEST_REMINDER_S = 2 * _MINUTE_S


class Alert(Struct, frozen=True, kw_only=True):
    """What somebody should know. `thing` and `step` tell it from all others of its rule.

    It is told from `due_at_s` on, in Unix seconds, and no more after `deadline_s`. `data` has what its texts need;
    `recording` is the SdkAppId and TaskId of the recording that it is about, if it is about one.
    """

    rule: str
    thing: str
    step: str = ""
    recording: tuple[int, str] | None = None
    data: Data
    due_at_s: float
    deadline_s: float

    def notice_id(self, channel: str) -> str:
        """Return the identity of the notice to a channel of this name: the same in every process, at any time."""
        identity = f"{self.rule}\n{self.thing}\n{self.step}\n{channel}"
        return hashlib.sha256(identity.encode()).hexdigest()[:32]


def alerts_of(
    event: RecordingEvent, *, event_id: str, source: str, received_at_s: float, now_s: float | None = None
) -> list[Alert]:
    """Return what an event is worth telling. `source` is empty for the vendor's callback, else who found it.

    The same event gives alerts of the same identities, whenever and however often it comes. A test gives none: whom it
    wakes would look for a class that there never was.
    """
    if source == TEST_SOURCE:
        return []
    now_s = time.time() if now_s is None else now_s
    alerts: list[Alert] = []
    if isinstance(event, OnlineRecordLongPauseWarning):
        alerts += _long_pause(event, event_id=event_id, received_at_s=received_at_s, now_s=now_s)
    elif isinstance(event, OnlineRecordLongPauseForceStopped):
        data = _recording(event) | {"paused_at": event.pause_time, "stopped_at": event.stop_time}
        alerts.append(_of_event("force_stopped", event, data, received_at_s, for_s=_DAY_S))
    elif isinstance(event, OnlineRecordFinished) and event.error is not None:
        data = _recording(event) | {
            "error_code": one_line(event.error.code) or None,
            "error_message": one_line(event.error.message) or None,
        }
        failed = _of_event("failed", event, data, received_at_s, for_s=FILES_LAST_S)
        # An older form of it names no recording.
        alerts.append(failed if event.task_id else structs.replace(failed, thing=event_id))
    if source and event.task_id:
        # One for each recording, whatever was lost of it.
        data = _recording(event) | {
            "event_type": type(event).__name__,
            "happened_at": event.timestamp,
            "late_s": max(0, round(received_at_s) - event.timestamp),
        }
        alerts.append(_of_event("found", event, data, received_at_s, for_s=_DAY_S))
    return alerts


def _long_pause(
    event: OnlineRecordLongPauseWarning, *, event_id: str, received_at_s: float, now_s: float
) -> list[Alert]:
    """Return two reminders: at once, and when half of the time that is left has passed."""
    stops_at = event.estimate_stop_time
    if stops_at is not None and stops_at > received_at_s + _LONGEST_PAUSE_S:
        stops_at = None
    data = _recording(event) | {"paused_at": event.pause_time, "stops_at": stops_at}
    # A recording can be paused more than once, and a pause told more than once.
    pause = event_id if event.pause_time is None else str(event.pause_time)
    first = Alert(
        rule="long_pause",
        thing=f"{_thing(event)} {pause}",
        recording=(event.sdk_app_id, event.task_id),
        data=data,
        due_at_s=received_at_s,
        deadline_s=received_at_s + _HOUR_S if stops_at is None else stops_at,
    )
    half_s = (first.deadline_s - now_s) / 2
    if stops_at is None or half_s < _SHORTEST_REMINDER_S:
        return [first]
    return [first, structs.replace(first, step="half", due_at_s=now_s + half_s)]


def overdue(*, sdk_app_id: int, task_id: str, room_id: int | None, status: str, since_s: float, now_s: float) -> Alert:
    """Return the alert that nothing has been heard of a recording since it came to `status`."""
    data: Data = {**_named(sdk_app_id, task_id, room_id), "status": status, "since_at": round(since_s)}
    thing = f"{sdk_app_id} {task_id} {status}"
    return Alert(
        rule="overdue",
        thing=thing,
        recording=(sdk_app_id, task_id),
        data=data,
        due_at_s=now_s,
        deadline_s=since_s + FILES_LAST_S + _DAY_S,
    )


def contradicted(
    *, sdk_app_id: int, task_id: str, room_id: int | None, event_type: str, event_id: str, received_at_s: float
) -> Alert:
    """Return the alert that the vendor says otherwise than an event that came with a right signature."""
    data: Data = {
        **_named(sdk_app_id, task_id, room_id),
        "event_type": event_type,
        "event_id": event_id,
        "received_at": round(received_at_s),
    }
    alert = _now("contradicted", event_id, data, received_at_s, for_s=FILES_LAST_S)
    return structs.replace(alert, recording=(sdk_app_id, task_id))


def unaccounted(*, sdk_app_id: int, room_id: int, day: str, minutes: int, now_s: float) -> Alert:
    """Return the alert that the vendor bills recorded minutes of a room of which nothing is known; once a day and room.

    `day` is `YYYY-MM-DD`. Raises ValueError for another text.
    """
    data: Data = {"sdk_app_id": sdk_app_id, "room_id": room_id, "day": day, "minutes": minutes}
    over_s = datetime.fromisoformat(f"{day}T23:59:59+08:00").timestamp()
    return Alert(
        rule="unaccounted",
        thing=f"{sdk_app_id} {room_id} {day}",
        data=data,
        due_at_s=now_s,
        deadline_s=over_s + FILES_LAST_S,
    )


def app_paused(*, sdk_app_id: int, reason: str, until_s: float, now_s: float) -> Alert:
    """Return the alert that the vendor is not asked about an application for now; one a day while it lasts."""
    data: Data = {"sdk_app_id": sdk_app_id, "reason": one_line(reason), "until_at": round(until_s)}
    return _now("app_paused", f"{sdk_app_id} {_slot(now_s, _DAY_S)}", data, now_s, for_s=_DAY_S)


def dead_letters(*, consumer: str, count: int, reason: str, last_failed_s: float) -> Alert:
    """Return the alert that a consumer has given events up; one an hour while more come."""
    data: Data = {"consumer": consumer, "count": count, "reason": one_line(reason)}
    thing = f"{consumer} {_slot(last_failed_s, _HOUR_S)}"
    return _now("dead_letters", thing, data, last_failed_s, for_s=_DAY_S)


def spool(*, count: int, since_s: float, now_s: float) -> Alert:
    """Return the alert that callbacks wait in a spool since then; one for each time that it is in use."""
    data: Data = {"count": count, "since_at": round(since_s)}
    return _now("spool", f"{_slot(since_s, _HOUR_S)}", data, now_s, for_s=_HOUR_S)


def broker_away(*, since_s: float, now_s: float) -> Alert:
    """Return the alert that the broker has not been reached since then; one an hour, from however many processes."""
    return _now("broker_away", f"{_slot(since_s, _HOUR_S)}", {"since_at": round(since_s)}, now_s, for_s=_HOUR_S)


def archive_failing(*, reason: str, count: int, since_s: float, now_s: float) -> Alert:
    """Return the alert that files cannot be placed where they are to be kept; one every six hours while it lasts."""
    data: Data = {"reason": one_line(reason), "count": count, "since_at": round(since_s)}
    return _now("archive_failing", f"{_slot(now_s, 6 * _HOUR_S)}", data, now_s, for_s=6 * _HOUR_S)


#: When a file that is about to be deleted is told of, in hours before.
EXPIRY_STEPS_H: tuple[int, ...] = (24, 6)


def file_expiring(
    *, sdk_app_id: int, task_id: str, room_id: int | None, file: str, expires_at_s: float, now_s: float
) -> Alert | None:
    """Return the alert that a file is deleted soon and is not archived: the step that is due, or None."""
    left_s = expires_at_s - now_s
    steps = [step for step in EXPIRY_STEPS_H if 0 < left_s <= step * _HOUR_S]
    if not steps:
        return None
    data: Data = {**_named(sdk_app_id, task_id, room_id), "file": one_line(file), "expires_at": round(expires_at_s)}
    next_steps = [step for step in EXPIRY_STEPS_H if step < min(steps)]
    deadline_s = expires_at_s - max(next_steps, default=0) * _HOUR_S
    thing = f"{sdk_app_id} {task_id} {file}"
    return Alert(
        rule="file_expiring",
        thing=thing,
        step=f"{min(steps)}h",
        recording=(sdk_app_id, task_id),
        data=data,
        due_at_s=now_s,
        deadline_s=deadline_s,
    )


def _now(rule: str, thing: str, data: Data, at_s: float, *, for_s: float) -> Alert:
    return Alert(rule=rule, thing=thing, data=data, due_at_s=at_s, deadline_s=at_s + for_s)


def _of_event(rule: str, event: RecordingEvent, data: Data, at_s: float, *, for_s: float) -> Alert:
    """Return an alert that there is once for each recording."""
    alert = _now(rule, _thing(event), data, at_s, for_s=for_s)
    return structs.replace(alert, recording=(event.sdk_app_id, event.task_id) if event.task_id else None)


def _thing(event: RecordingEvent) -> str:
    return f"{event.sdk_app_id} {event.task_id}"


def _recording(event: RecordingEvent) -> dict[str, str | int | None]:
    return _named(event.sdk_app_id, event.task_id, event.room_id)


def _named(sdk_app_id: int, task_id: str, room_id: int | None) -> dict[str, str | int | None]:
    # A row of JSON holds no U+0000: https://www.postgresql.org/docs/current/datatype-json.html
    return {"sdk_app_id": sdk_app_id, "task_id": one_line(task_id), "room_id": room_id}


def _slot(at_s: float, every_s: int) -> int:
    return math.floor(at_s / every_s)
