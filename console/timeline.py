"""The time line of a recording as data that a template draws as SVG: bars, marks, an axis and a table. Pure; no I/O.

The axis is the time of day. A video is drawn where its part of the class was, so that one that was joined has gaps
where the recording was paused. All that comes of a callback may be any number of 64 bits: what cannot be true is drawn
at an edge or left out, and a remark says so. Every coordinate lies within the drawing.
"""

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from archive import kind_of
from console.rendering import event_name, event_word, plain
from console.requests import Translate
from schemas import (
    OnlineRecordFinished,
    OnlineRecordLongPauseForceStopped,
    OnlineRecordLongPauseWarning,
    OnlineRecordStarted,
    OnlineRecordStopped,
    RecordingStatus,
)
from store import EventOutcome, Recording, RecordingEventRef, ShownVideo

#: In units of the drawing, which is scaled to the page.
WIDTH: Final = 900.0
_LABEL_WIDTH = 224.0
_RIGHT = 16.0
_AXIS_HEIGHT = 56.0
_ROW_HEIGHT = 24.0
_GROUP_GAP = 8.0
_LEAST_BAR = 2.0
_MARK_WIDTH = 8.0

#: More rows of one group than these are only in the table, and more than that many only in the JSON form.
MOST_ROWS: Final = 24
MOST_TABLE_ROWS: Final = 200

#: Letters of a label that fit; a wide one counts twice.
_LABEL_LETTERS = 33

_S = 1_000_000
_HOUR = 3600 * _S
_DAY = 24 * _HOUR

#: Before this there was no such service; a clock that says so is not set.
_EARLIEST_US = 946_684_800 * _S

#: The vendor ends a recording after 24 hours; with its pauses it lasts longer, never so long.
_LONGEST_US = 7 * _DAY
_LONGEST_OPEN_US = _DAY

#: What comes later than this, as a part of the class's length and at least, is drawn at the edge: a callback that came
#: days later would leave no room for the class.
_AFTER, _AFTER_LEAST_US = 1.5, 60 * _S
_BEFORE, _BEFORE_LEAST_US = 0.1, 10 * _S

_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800)
_MOST_TICKS = 8

Group: TypeAlias = Literal["class", "videos", "callbacks", "consumers", "archive"]


class Bar(Struct, frozen=True, kw_only=True):
    """A stretch; `kind` is the class of its style. `is_open`: its end is not known."""

    x: float
    width: float
    kind: str
    title: str
    is_open: bool = False


class Mark(Struct, frozen=True, kw_only=True):
    """A moment; with `off` it lies outside the axis and is drawn at its edge."""

    x: float
    kind: str
    title: str
    off: Literal["", "before", "after"] = ""


class Row(Struct, frozen=True, kw_only=True):
    """A line of the drawing; `y` is its upper edge. `line` joins two marks."""

    group: Group
    y: float
    height: float
    label: str
    title: str
    bars: tuple[Bar, ...] = ()
    marks: tuple[Mark, ...] = ()
    line: tuple[float, float] | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of its bars and marks."""
        return (*(bar.kind for bar in self.bars), *(mark.kind for mark in self.marks))


class Tick(Struct, frozen=True, kw_only=True):
    """A place of the axis: how long after the start of the class, and when that was."""

    x: float
    label: str
    at_us: int
    has_seconds: bool


class TableRow(Struct, frozen=True, kw_only=True):
    """The same in words: what, of whom, from when until when; `until_us` is None for a moment, or if nobody knows."""

    what: str
    who: str
    from_us: int | None
    until_us: int | None
    note: str


class Drawing(Struct, frozen=True, kw_only=True):
    """The whole; `remarks` are sentences about what could not be drawn as it was told, `legend` has (kind, text)."""

    width: float
    height: float
    left: float
    right: float
    axis_y: float
    rows: tuple[Row, ...]
    ticks: tuple[Tick, ...]
    legend: tuple[tuple[str, str], ...]
    remarks: tuple[str, ...]
    table: tuple[TableRow, ...]
    title: str
    description: str


def draw(recording: Recording, *, outcomes: Sequence[EventOutcome], now_us: int, t: Translate) -> Drawing:
    """Return the time line of a recording; `outcomes` is what consumers did with its events."""
    return _Line(recording, outcomes, now_us, t).draw()


def elapsed(us: int) -> str:
    """Return a length of time as `1:02:03`."""
    seconds = abs(us) // _S
    shown = f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"-{shown}" if us < 0 and seconds else shown


class _Pause(Struct, frozen=True):
    """A stretch that joined videos leave out: where in them, and for how long."""

    at_us: int
    length_us: int


class _Planned(Struct):
    """A row before the axis is known. Bars are (from, until, kind, title, is open); marks are (at, kind, title)."""

    group: Group
    label: str
    title: str
    bars: list[tuple[int, int, str, str, bool]]
    marks: list[tuple[int, str, str]]


class _Line:
    """One drawing in the making."""

    def __init__(self, recording: Recording, outcomes: Sequence[EventOutcome], now_us: int, t: Translate) -> None:
        self._recording = recording
        self._outcomes = outcomes
        self._t = t
        self._now_us = now_us
        self._received = {event.event_id: _instant_us(event.received_at) for event in recording.events}
        known = [at_us for at_us in self._received.values() if at_us is not None]
        # A Timestamp more than a day ahead makes no event of a recording; a pause may end later still.
        self._latest_us = max([now_us, *known]) + 2 * _DAY
        self._remarks: list[str] = []
        self._table: list[TableRow] = []
        self._start_us = self._find_start_us()
        self._pauses = self._find_omitted()
        self._stop_us, self._is_open = self._find_stop_us()

    def draw(self) -> Drawing:
        planned = [
            self._class(),
            *self._most(self._recording.videos, self._video, "timeline.more_videos"),
            *self._most(self._recording.events, self._event, "timeline.more_events"),
            *self._consumers(),
            *self._archive(),
        ]
        axis = self._axis(planned)
        rows, y, group = [], _AXIS_HEIGHT, planned[0].group
        for row in planned:
            if row.group != group:
                y, group = y + _GROUP_GAP, row.group
            rows.append(self._placed(row, axis, y))
            y += _ROW_HEIGHT
        kinds = dict.fromkeys(kind for row in rows for kind in row.kinds)
        if len(self._table) > MOST_TABLE_ROWS:
            self._remarks.append(self._t("timeline.table_cut", count=MOST_TABLE_ROWS))
        return Drawing(
            width=WIDTH,
            height=round(y + _GROUP_GAP, 1),
            left=_LABEL_WIDTH,
            right=WIDTH - _RIGHT,
            axis_y=_AXIS_HEIGHT - 6,
            rows=tuple(rows),
            ticks=tuple(axis.ticks(self._start_us)),
            legend=tuple((kind, self._t(f"timeline.kind_{kind.replace('-', '_')}")) for kind in kinds),
            remarks=tuple(dict.fromkeys(self._remarks)),
            table=tuple(self._table[:MOST_TABLE_ROWS]),
            title=self._t("timeline.title"),
            description=self._t(
                "timeline.description",
                length=elapsed(self._stop_us - self._start_us),
                videos=len(self._recording.videos),
                events=len(self._recording.events),
                consumers=len({outcome.consumer for outcome in self._outcomes}),
            ),
        )

    # What is known of the class itself.

    def _usable_us(self, seconds: int | None, name: str) -> int | None:
        """Return a moment that is told in Unix seconds; None, with a remark, if it cannot be one."""
        if seconds is None or (seconds == 0 and name != "timestamp"):
            return None
        at_us = seconds * _S
        if _EARLIEST_US <= at_us <= self._latest_us:
            return at_us
        self._remarks.append(self._t("timeline.no_moment", what=self._t(f"timeline.field_{name}"), value=seconds))
        return None

    def _told_us(self, *events: type) -> int | None:
        """Return the latest usable Timestamp of events of these types."""
        names = {event.__name__ for event in events}
        told = [event.timestamp * _S for event in self._recording.events if event.event_type in names]
        return max((at_us for at_us in told if _EARLIEST_US <= at_us <= self._latest_us), default=None)

    def _find_start_us(self) -> int:
        told_us = self._usable_us(self._recording.record_start_time, "record_start_time")
        if told_us is None:
            told_us = self._told_us(OnlineRecordStarted)
        if told_us is not None:
            return told_us
        stamps = [event.timestamp * _S for event in self._recording.events]
        usable = [at_us for at_us in stamps if _EARLIEST_US <= at_us <= self._latest_us]
        received = [at_us for at_us in self._received.values() if at_us is not None]
        self._remarks.append(self._t("timeline.no_start"))
        return min(usable or received, default=self._now_us)

    def _find_stop_us(self) -> tuple[int, bool]:
        """Return when the class ended, and whether that is not known."""
        recording, start_us = self._recording, self._start_us
        for seconds, name in (
            (recording.record_stop_time, "record_stop_time"),
            (recording.force_stop_time, "force_stop_time"),
        ):
            told_us = self._usable_us(seconds, name)
            if told_us is not None and start_us <= told_us <= start_us + _LONGEST_US:
                return told_us, False
            if told_us is not None:
                self._remarks.append(self._t("timeline.odd_stop"))
        ended = self._told_us(OnlineRecordStopped, OnlineRecordLongPauseForceStopped)
        if ended is None:
            ended = self._told_us(OnlineRecordFinished)
        if ended is not None and start_us <= ended <= start_us + _LONGEST_US:
            return ended, False
        total_ms = recording.total_time_ms
        if total_ms is not None and 0 < total_ms * 1000 <= _LONGEST_US:
            return start_us + total_ms * 1000, False
        if recording.status in (RecordingStatus.FINISHED, RecordingStatus.STOPPED):
            return start_us, True
        if self._now_us - start_us > _LONGEST_OPEN_US:
            self._remarks.append(self._t("timeline.no_stop"))
        return max(start_us, min(self._now_us, start_us + _LONGEST_OPEN_US)), True

    def _find_omitted(self) -> list[_Pause]:
        """Return what joined videos leave out, in order, where it can be true."""
        pauses = []
        for one in self._recording.omitted_durations:
            if one.video_time_ms is None or one.pause_time_ms is None or one.resume_time_ms is None:
                self._remarks.append(self._t("timeline.odd_omission"))
                continue
            at_us, length_us = one.video_time_ms * 1000, (one.resume_time_ms - one.pause_time_ms) * 1000
            if 0 <= at_us <= _LONGEST_US and 0 <= length_us <= _LONGEST_US:
                pauses.append(_Pause(at_us, length_us))
            else:
                self._remarks.append(self._t("timeline.odd_omission"))
        if len(pauses) > MOST_TABLE_ROWS:
            self._remarks.append(self._t("timeline.odd_omission"))
        return sorted(pauses, key=lambda pause: pause.at_us)[:MOST_TABLE_ROWS]

    # The rows.

    def _class(self) -> _Planned:
        t, bars = self._t, []
        title = t("timeline.class_title", length=elapsed(self._stop_us - self._start_us))
        bars.append((self._start_us, self._stop_us, "class", title, self._is_open))
        until_us = None if self._is_open else self._stop_us
        self._table.append(
            TableRow(what=t("timeline.class"), who="", from_us=self._start_us, until_us=until_us, note="")
        )
        omitted_us = 0
        for pause in self._pauses:
            from_us = self._start_us + pause.at_us + omitted_us
            omitted_us = min(omitted_us + pause.length_us, _LONGEST_US)
            title = t("timeline.omitted_title", length=elapsed(pause.length_us))
            bars.append((from_us, from_us + pause.length_us, "omitted", title, False))
            self._table.append(
                TableRow(
                    what=t("timeline.kind_omitted"),
                    who="",
                    from_us=from_us,
                    until_us=from_us + pause.length_us,
                    note=title,
                )
            )
        bars += self._long_pause()
        return _Planned("class", t("timeline.class"), t("timeline.class"), bars, [])

    def _long_pause(self) -> Iterator[tuple[int, int, str, str, bool]]:
        t, recording = self._t, self._recording
        from_us = self._usable_us(recording.pause_time, "pause_time")
        if from_us is None:
            return
        until_us, is_open, title = self._usable_us(recording.force_stop_time, "force_stop_time"), False, ""
        if until_us is not None:
            title = t("timeline.pause_forced")
        elif recording.status is RecordingStatus.PAUSED:
            stops_us = self._usable_us(recording.estimate_stop_time, "estimate_stop_time")
            until_us, is_open = min(self._now_us, stops_us or self._now_us), True
            title = t("timeline.pause_now")
        else:
            # No callback says when it was resumed: it was not before the warning.
            until_us, is_open = self._told_us(OnlineRecordLongPauseWarning) or from_us, True
            title = t("timeline.pause_resumed")
        until_us = min(max(from_us, until_us), from_us + _LONGEST_US)
        self._table.append(
            TableRow(
                what=t("timeline.kind_pause"),
                who="",
                from_us=from_us,
                until_us=None if is_open else until_us,
                note=title,
            )
        )
        yield from_us, until_us, "pause", title, is_open

    def _video(self, number: int, video: ShownVideo) -> _Planned:
        t = self._t
        kind = kind_of(video.video_type)
        name = t(f"timeline.kind_{kind}")
        who = video.user_id or ""
        starts_us = self._length_us(video.video_play_time_ms, number, "video_play_time")
        lasts_us = self._length_us(video.video_duration_ms, number, "video_duration")
        from_us = self._at_class_us(starts_us or 0)
        until_us = self._stop_us if lasts_us is None else self._at_class_us((starts_us or 0) + lasts_us, is_end=True)
        until_us = max(from_us, until_us)
        state = "unplanned" if video.archive is None else video.archive.state
        archived = t(f"recording.file_{state}")
        title = t(
            "timeline.video_title",
            kind=name,
            who=who or t("timeline.nobody"),
            start=elapsed(from_us - self._start_us),
            length=elapsed(until_us - from_us) if lasts_us is not None else t("timeline.unknown"),
            archive=archived,
        )
        bars = [
            (begin, end, f"{kind} {state}", title, lasts_us is None)
            for begin, end in self._without_pauses(from_us, until_us)
        ]
        self._table.append(
            TableRow(
                what=name, who=who, from_us=from_us, until_us=None if lasts_us is None else until_us, note=archived
            )
        )
        label = f"{number}. {name} {who}".strip()
        return _Planned("videos", label, title, bars, [])

    def _length_us(self, length_ms: int | None, number: int, name: str) -> int | None:
        """Return a length that a video tells; one that cannot be true is drawn as the nearest that can."""
        if length_ms is None:
            self._remarks.append(self._t("timeline.no_length", number=number, what=self._t(f"timeline.field_{name}")))
            return None
        length_us = min(max(0, length_ms * 1000), _LONGEST_US)
        if length_us != length_ms * 1000:
            self._remarks.append(
                self._t("timeline.odd_length", number=number, what=self._t(f"timeline.field_{name}"), value=length_ms)
            )
        return length_us

    def _at_class_us(self, video_us: int, *, is_end: bool = False) -> int:
        """Return when a place on the time line of the videos was."""
        before = sum(
            pause.length_us
            for pause in self._pauses
            if pause.at_us < video_us or (pause.at_us == video_us and not is_end and video_us > 0)
        )
        return self._start_us + video_us + min(before, _LONGEST_US)

    def _without_pauses(self, from_us: int, until_us: int) -> Iterator[tuple[int, int]]:
        """Yield the parts of a stretch in which nothing was left out."""
        omitted_us = 0
        for pause in self._pauses:
            pause_us = self._start_us + pause.at_us + omitted_us
            omitted_us += pause.length_us
            resume_us = pause_us + pause.length_us
            if from_us < pause_us < until_us:
                yield from_us, pause_us
            if from_us < resume_us and pause_us < until_us:
                from_us = max(from_us, min(resume_us, until_us))
        yield from_us, max(from_us, until_us)

    def _event(self, number: int, event: RecordingEventRef) -> _Planned:
        del number
        t = self._t
        sent_us = self._usable_us(event.timestamp, "timestamp")
        received_us = self._received[event.event_id]
        how = self._how(event)
        marks = []
        late = t("timeline.unknown")
        if sent_us is not None and received_us is not None:
            late = elapsed(received_us - sent_us)
        name = event_name(event.event_type, t)
        title = t(f"timeline.event_{how}", event=name, late=late)
        if sent_us is not None:
            marks.append((sent_us, "sent", t("timeline.sent_title", event=name)))
        if received_us is not None:
            marks.append((received_us, how, title))
        self._table.append(
            TableRow(what=name, who=t(f"timeline.kind_{how}"), from_us=sent_us, until_us=received_us, note=title)
        )
        label = event_word(event.event_type, t) or plain(event.event_type, 120)
        return _Planned("callbacks", label, title, [], marks)

    @staticmethod
    def _how(event: RecordingEventRef) -> str:
        if event.verified is False:
            return "contradicted"
        return {"": "received", "archive": "announced", "test": "test"}.get(event.source, "found")

    def _consumers(self) -> Iterator[_Planned]:
        by_consumer: dict[str, list[EventOutcome]] = {}
        for outcome in self._outcomes:
            by_consumer.setdefault(outcome.consumer, []).append(outcome)
        yield from self._most(sorted(by_consumer.items()), self._consumer, "timeline.more_consumers")

    def _consumer(self, number: int, of_consumer: tuple[str, list[EventOutcome]]) -> _Planned:
        del number
        t = self._t
        consumer, outcomes = of_consumer
        names = {event.event_id: event_name(event.event_type, t) for event in self._recording.events}
        marks = []
        for outcome in outcomes:
            event = names.get(outcome.event_id, outcome.event_id)
            for at_us, kind in (
                (outcome.completed_at_us, "done"),
                (outcome.last_failed_at_us, "dead" if outcome.dead else "failed"),
                (outcome.replayed_at_us, "replayed"),
            ):
                if at_us is not None:
                    title = t(f"timeline.{kind}_title", event=event, consumer=consumer, count=outcome.attempts or 0)
                    marks.append((at_us, kind, title))
                    self._table.append(
                        TableRow(
                            what=t(f"timeline.kind_{kind}"), who=consumer, from_us=at_us, until_us=None, note=title
                        )
                    )
        return _Planned("consumers", consumer, consumer, [], marks)

    def _archive(self) -> Iterator[_Planned]:
        t = self._t
        marks = []
        for number, video in enumerate(self._recording.videos, 1):
            if video.archive is None or video.archive.archived_at is None:
                continue
            at_us = _instant_us(video.archive.archived_at)
            if at_us is not None:
                title = t("timeline.archived_title", number=number)
                marks.append((at_us, "archived", title))
                self._table.append(
                    TableRow(
                        what=t("timeline.kind_archived"), who=str(number), from_us=at_us, until_us=None, note=title
                    )
                )
        if marks:
            yield _Planned("archive", t("timeline.archive"), t("timeline.archive"), [], marks[:MOST_TABLE_ROWS])

    def _most(self, ones: Iterable, make: Callable[..., _Planned], text: str) -> Iterator[_Planned]:  # type: ignore[type-arg]
        """Yield a row for each of the first; the others are counted, and those that fit stand in the table."""
        rest = 0
        for number, one in enumerate(ones, 1):
            if number <= MOST_ROWS:
                yield make(number, one)
            elif len(self._table) < MOST_TABLE_ROWS:
                make(number, one)
                rest += 1
            else:
                rest += 1
        if rest:
            self._remarks.append(self._t(text, count=rest))

    # The axis.

    def _axis(self, planned: Sequence[_Planned]) -> "_Axis":
        bars = [bar for row in planned for bar in row.bars]
        lo_us = min(self._start_us, *(from_us for from_us, *_ in bars))
        lo_us = max(lo_us, self._start_us - _LONGEST_US)
        hi_us = max(self._stop_us, *(until_us for _, until_us, *_ in bars))
        hi_us = max(lo_us + _S, min(hi_us, self._start_us + 2 * _LONGEST_US))
        span_us = hi_us - lo_us
        moments = [at_us for row in planned for at_us, _, _ in row.marks]
        before_us = lo_us - max(round(span_us * _BEFORE), _BEFORE_LEAST_US)
        after_us = hi_us + max(round(span_us * _AFTER), _AFTER_LEAST_US)
        if any(not before_us <= at_us <= after_us for at_us in moments):
            self._remarks.append(self._t("timeline.off_the_axis"))
        from_us = min([lo_us, *(at_us for at_us in moments if at_us >= before_us)])
        until_us = max([hi_us, *(at_us for at_us in moments if at_us <= after_us)])
        pad_us = (until_us - from_us) // 60
        return _Axis(from_us - pad_us, until_us + pad_us)

    def _placed(self, row: _Planned, axis: "_Axis", y: float) -> Row:
        bars = []
        for from_us, until_us, kind, title, is_open in row.bars:
            x, end = axis.x(from_us), axis.x(until_us)
            width = max(_LEAST_BAR, end - x)
            bars.append(
                Bar(
                    x=round(min(x, WIDTH - _RIGHT - width), 1),
                    width=round(width, 1),
                    kind=kind.split()[0],
                    title=title,
                    is_open=is_open,
                )
            )
        marks = tuple(
            Mark(x=round(axis.x(at_us), 1), kind=kind, title=title, off=axis.off(at_us))
            for at_us, kind, title in row.marks
        )
        if row.group == "callbacks" and len({round(mark.x / _MARK_WIDTH) for mark in marks}) == 1:
            # Received as soon as it was sent, as it should be: one sign, whose text says both.
            marks = marks[-1:]
        xs = [mark.x for mark in marks]
        line = (min(xs), max(xs)) if row.group == "callbacks" and xs else None
        return Row(
            group=row.group,
            y=round(y, 1),
            height=_ROW_HEIGHT,
            label=_cut(row.label),
            title=row.title,
            bars=tuple(bars),
            marks=marks,
            line=line,
        )


class _Axis:
    """Where a moment lies."""

    def __init__(self, from_us: int, until_us: int) -> None:
        self._from_us = from_us
        self._until_us = max(until_us, from_us + 1)

    def x(self, at_us: int) -> float:
        at_us = min(max(at_us, self._from_us), self._until_us)
        part = (at_us - self._from_us) / (self._until_us - self._from_us)
        return _LABEL_WIDTH + part * (WIDTH - _RIGHT - _LABEL_WIDTH)

    def off(self, at_us: int) -> Literal["", "before", "after"]:
        return "before" if at_us < self._from_us else "after" if at_us > self._until_us else ""

    def ticks(self, start_us: int) -> Iterator[Tick]:
        span_s = (self._until_us - self._from_us) / _S
        step_s = next((step_s for step_s in _STEPS_S if span_s / step_s <= _MOST_TICKS), None)
        if step_s is None:
            step_s = 86_400 * (int(span_s / _MOST_TICKS) // 86_400 + 1)
        step_us = step_s * _S
        number = -((start_us - self._from_us) // step_us)
        while (at_us := start_us + number * step_us) <= self._until_us:
            has_seconds = step_s % 60 != 0
            label = _tick_label(number * step_s, has_seconds=has_seconds)
            yield Tick(x=round(self.x(at_us), 1), label=label, at_us=at_us, has_seconds=has_seconds)
            number += 1


def _tick_label(seconds: int, *, has_seconds: bool) -> str:
    shown = elapsed(seconds * _S)
    return shown if has_seconds else shown.rpartition(":")[0]


def _instant_us(text: str) -> int | None:
    """Return the moment that our own ISO 8601 text names."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    at = at.replace(tzinfo=at.tzinfo or UTC)
    return round((at - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * _S)


def _cut(label: str) -> str:
    """Return as much of a label as there is room for: text in SVG is never broken into lines."""
    room = _LABEL_LETTERS
    for place, letter in enumerate(label):
        room -= 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        if room < 0:
            return f"{label[: max(0, place - 1)]}…"
    return label
