"""The time line says what is known of a recording, and is never broken by what a callback says."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.rendering import Texts, render
from console.timeline import MOST_ROWS, MOST_TABLE_ROWS, WIDTH, Drawing, draw, elapsed
from schemas import RecordingStatus
from store import (
    EventOutcome,
    Recording,
    RecordingEventRef,
    RecordingOmission,
    ShownVideo,
    VideoArchive,
    iso8601,
)
from tests.archive.recordings import recording
from tests.console.world import elements, text_of

START = 1_795_971_600
NOW_US = (START + 7200) * 1_000_000
EN = Texts().translator("en")
ZH = Texts().translator("zh")

HOSTILE = [-(2**63), -1, 0, 1, 999, 2**31, 2**53, 2**63 - 1, None]


def event(kind: str = "OnlineRecordFinished", timestamp: int = START, **changes: Any) -> RecordingEventRef:
    values: dict[str, Any] = {
        "event_id": f"{kind}-{timestamp}",
        "event_type": kind,
        "timestamp": timestamp,
        "received_at": iso8601((START + 5) * 1_000_000),
        "source": "",
        "verified": None,
    }
    return RecordingEventRef(**values | changes)


def video(**changes: Any) -> ShownVideo:
    values: dict[str, Any] = {
        "video_type": 0,
        "video_play_time_ms": 0,
        "video_duration_ms": 60_000,
        "user_id": "teacher",
    }
    return ShownVideo(**values | changes)


def drawn(*outcomes: EventOutcome, t: Any = EN, now_us: int = NOW_US, **changes: Any) -> Drawing:
    return draw(recording(**changes), outcomes=outcomes, now_us=now_us, t=t)


def kinds(drawing: Drawing) -> list[str]:
    return [mark.kind for row in drawing.rows for mark in row.marks]


def check(drawing: Drawing) -> None:
    """Nothing lies outside of the drawing, and every number is one."""
    assert drawing.width == WIDTH
    assert 0 < drawing.height < 10_000
    for row in drawing.rows:
        assert 0 <= row.y < row.y + row.height <= drawing.height
        assert len(row.label) <= 40
        for bar in row.bars:
            assert drawing.left <= bar.x <= bar.x + bar.width <= WIDTH
            assert bar.width >= 2
        for mark in row.marks:
            assert drawing.left <= mark.x <= WIDTH
    assert 1 <= len(drawing.ticks) <= 12
    assert all(drawing.left <= tick.x <= WIDTH for tick in drawing.ticks)
    assert len(drawing.table) <= MOST_TABLE_ROWS


def test_each_stream_is_a_bar_of_its_kind_at_its_time() -> None:
    drawing = drawn(
        videos=(
            video(video_type=0, video_play_time_ms=0, video_duration_ms=30_000),
            video(video_type=2, video_play_time_ms=30_000, video_duration_ms=30_000, user_id=""),
        )
    )
    check(drawing)
    camera, whiteboard = (row.bars[0] for row in drawing.rows if row.group == "videos")
    assert (camera.kind, whiteboard.kind) == ("camera", "whiteboard")
    assert camera.width == pytest.approx(whiteboard.width, abs=0.2)
    assert camera.x + camera.width == pytest.approx(whiteboard.x, abs=0.2)
    assert "teacher" in camera.title
    assert drawing.remarks == ()


def test_a_joined_video_has_a_gap_where_the_recording_was_paused() -> None:
    omitted = RecordingOmission(
        video_time_ms=20_000, pause_time_ms=(START + 20) * 1000, resume_time_ms=(START + 40) * 1000
    )
    drawing = drawn(
        omitted_durations=(omitted,),
        record_stop_time=START + 80,
        videos=(video(video_duration_ms=60_000),),
    )
    check(drawing)
    (row,) = [row for row in drawing.rows if row.group == "videos"]
    before, after = row.bars
    (omission,) = [bar for row in drawing.rows for bar in row.bars if bar.kind == "omitted"]
    assert before.x + before.width == pytest.approx(omission.x, abs=0.2)
    assert omission.x + omission.width == pytest.approx(after.x, abs=0.2)
    assert after.width == pytest.approx(2 * before.width, abs=0.3)


def test_a_callback_has_a_mark_where_it_was_sent_and_one_where_it_was_received() -> None:
    late = event("OnlineRecordStopped", START + 30, received_at=iso8601((START + 50) * 1_000_000))
    drawing = drawn(events=(late,))
    check(drawing)
    (row,) = [row for row in drawing.rows if row.group == "callbacks"]
    sent, received = row.marks
    assert (sent.kind, received.kind) == ("sent", "received")
    assert sent.x < received.x
    assert row.line == (sent.x, received.x)
    assert "0:00:20" in received.title


@pytest.mark.parametrize(
    ("changes", "kind"),
    [({"source": "reconcile"}, "found"), ({"verified": False}, "contradicted"), ({"source": "test"}, "test")],
)
def test_what_was_not_told_by_a_true_callback_has_a_sign_of_its_own(changes: dict[str, Any], kind: str) -> None:
    assert kind in kinds(drawn(events=(event(**changes),)))


def test_a_callback_of_days_later_stands_at_the_edge_and_that_is_said() -> None:
    late = event("OnlineRecordStopped", START + 30, received_at=iso8601((START + 86_400) * 1_000_000))
    drawing = drawn(events=(late,), now_us=(START + 90_000) * 1_000_000)
    check(drawing)
    assert [mark.off for row in drawing.rows for mark in row.marks] == ["", "after"]
    assert any("edge" in remark for remark in drawing.remarks)
    # The class itself keeps its room.
    assert drawing.rows[0].bars[0].width > 300


def test_what_consumers_did_is_a_row_for_each() -> None:
    one = event(timestamp=START + 60)
    drawing = drawn(
        EventOutcome(event_id=one.event_id, consumer="store", completed_at_us=(START + 61) * 1_000_000),
        EventOutcome(
            event_id=one.event_id,
            consumer="mail",
            dead=True,
            attempts=8,
            reason="it failed",
            last_failed_at_us=(START + 70) * 1_000_000,
        ),
        events=(one,),
    )
    check(drawing)
    rows = [(row.label, [mark.kind for mark in row.marks]) for row in drawing.rows if row.group == "consumers"]
    assert rows == [("mail", ["dead"]), ("store", ["done"])]
    assert "8 attempts" in next(mark.title for row in drawing.rows for mark in row.marks if mark.kind == "dead")


def test_the_archive_is_a_row_with_a_mark_for_each_file() -> None:
    archived = VideoArchive(
        state="archived", location="/srv/1.mp4", sha256="0" * 64, archived_at=iso8601((START + 70) * 1_000_000)
    )
    drawing = drawn(videos=(video(archive=archived), video(archive=VideoArchive(state="lost"))))
    check(drawing)
    (row,) = [row for row in drawing.rows if row.group == "archive"]
    assert [mark.kind for mark in row.marks] == ["archived"]
    assert "lost" in [row.title for row in drawing.rows if row.group == "videos"][1]


@pytest.mark.parametrize(
    ("changes", "is_open"),
    [
        ({"status": RecordingStatus.STOPPED, "force_stop_time": START + 50}, False),
        ({"status": RecordingStatus.PAUSED, "estimate_stop_time": START + 90}, True),
        ({"status": RecordingStatus.FINISHED}, True),
    ],
)
def test_a_pause_is_open_where_nobody_tells_its_end(changes: dict[str, Any], is_open: bool) -> None:
    drawing = drawn(pause_time=START + 20, **changes)
    check(drawing)
    (pause,) = [bar for bar in drawing.rows[0].bars if bar.kind == "pause"]
    assert pause.is_open is is_open


def test_a_recording_that_goes_on_is_drawn_until_now_and_open() -> None:
    drawing = drawn(
        status=RecordingStatus.RECORDING,
        record_start_time=None,
        record_stop_time=None,
        total_time_ms=None,
        events=(event("OnlineRecordStarted"),),
    )
    check(drawing)
    bar = drawing.rows[0].bars[0]
    assert bar.is_open
    assert "2:00:00" in bar.title


def test_a_failed_recording_is_drawn_from_its_callbacks() -> None:
    drawing = drawn(
        record_start_time=0,
        total_time_ms=0,
        record_stop_time=START + 30,
        events=(event("OnlineRecordStarted"), event(timestamp=START + 30)),
    )
    check(drawing)
    assert drawing.remarks == ()


def test_without_any_event_and_time_there_is_still_a_drawing() -> None:
    check(drawn(record_start_time=None, record_stop_time=None, total_time_ms=None))


@pytest.mark.parametrize(
    "name",
    ["record_start_time", "record_stop_time", "pause_time", "estimate_stop_time", "force_stop_time", "total_time_ms"],
)
@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("status", RecordingStatus)
def test_a_time_that_cannot_be_true_breaks_nothing(name: str, value: int | None, status: RecordingStatus) -> None:
    changes: dict[str, Any] = {"status": status, name: value}
    check(drawn(events=(event("OnlineRecordStarted"),), **changes))


@pytest.mark.parametrize("starts", HOSTILE)
@pytest.mark.parametrize("lasts", HOSTILE)
def test_a_stream_that_cannot_be_true_is_drawn_at_an_edge_and_that_is_said(
    starts: int | None, lasts: int | None
) -> None:
    drawing = drawn(videos=(video(video_play_time_ms=starts, video_duration_ms=lasts),))
    check(drawing)
    can_be = all(value is not None and 0 <= value <= 7 * 86_400_000 for value in (starts, lasts))
    assert bool(drawing.remarks) is not can_be


@pytest.mark.parametrize("value", HOSTILE)
def test_a_timestamp_that_cannot_be_true_leaves_the_arrival(value: int | None) -> None:
    drawing = drawn(events=(event(timestamp=value or 0),))
    check(drawing)
    assert [mark.kind for row in drawing.rows for mark in row.marks] == ["received"]
    assert drawing.remarks


numbers = st.none() | st.integers(-(2**63), 2**63 - 1) | st.integers(START - 100, START + 100) | st.integers(-5, 90_000)


@given(st.data())
def test_nothing_that_events_say_breaks_it(data: st.DataObject) -> None:
    def some(kind: type, *names: str) -> Any:
        return kind(**{name: data.draw(numbers) for name in names})

    text = st.text(max_size=40)
    videos = tuple(
        video(
            video_type=data.draw(numbers),
            video_play_time_ms=data.draw(numbers),
            video_duration_ms=data.draw(numbers),
            user_id=data.draw(text),
        )
        for _ in range(data.draw(st.integers(0, 3)))
    )
    omitted = tuple(
        some(RecordingOmission, "video_time_ms", "pause_time_ms", "resume_time_ms")
        for _ in range(data.draw(st.integers(0, 3)))
    )
    events = tuple(
        event(
            data.draw(
                st.sampled_from(["OnlineRecordStarted", "OnlineRecordLongPauseWarning", "OnlineRecordStopped", "Other"])
            ),
            data.draw(numbers) or 0,
            received_at=iso8601(data.draw(st.integers(0, 4_000_000_000)) * 1_000_000),
        )
        for _ in range(data.draw(st.integers(0, 3)))
    )
    outcomes = tuple(
        EventOutcome(
            event_id=one.event_id,
            consumer=data.draw(text),
            completed_at_us=data.draw(numbers),
            dead=True,
            last_failed_at_us=data.draw(numbers),
        )
        for one in events
    )
    times = {
        name: data.draw(numbers)
        for name in (
            "record_start_time",
            "record_stop_time",
            "total_time_ms",
            "pause_time",
            "estimate_stop_time",
            "force_stop_time",
        )
    }
    whole: Recording = recording(
        videos=videos,
        omitted_durations=omitted,
        events=events,
        status=data.draw(st.sampled_from(RecordingStatus)),
        **times,
    )
    drawing = draw(whole, outcomes=outcomes, now_us=data.draw(st.integers(START, 2 * START)) * 1_000_000, t=EN)
    check(drawing)
    assert "<svg" in page(drawing)


def page(drawing: Drawing, t: Any = EN) -> str:
    return render("_timeline.html", {"drawing": drawing, "t": t})


def test_many_streams_and_events_are_counted_and_not_all_drawn() -> None:
    drawing = drawn(
        videos=tuple(video(user_id=f"u{number}") for number in range(300)),
        events=tuple(event("OnlineRecordStarted", START + number) for number in range(60)),
    )
    check(drawing)
    assert len([row for row in drawing.rows if row.group == "videos"]) == MOST_ROWS
    assert any(f"{300 - MOST_ROWS} more files" in remark for remark in drawing.remarks)


@pytest.mark.parametrize("t", [EN, ZH])
def test_the_picture_has_a_name_a_text_and_a_table_and_no_style_of_its_own(t: Any) -> None:
    html = page(drawn(videos=(video(user_id="<script>alert(1)</script>\u202e\0"),), events=(event(),)), t)
    svg = elements(html, "svg")[0]
    assert svg["role"] == "img"
    assert svg["aria-labelledby"] == "timeline-title timeline-text"
    assert {one.get("id") for tag in ("title", "desc") for one in elements(html, tag)} >= {
        "timeline-title",
        "timeline-text",
    }
    assert elements(html, "table")
    assert elements(html, "script") == []
    assert "style=" not in html
    assert not {"\u202e", "\0"} & set(html)
    assert "<script>alert(1)</script>" in text_of(html)


def test_the_axis_has_the_time_of_day_and_the_time_since_the_start() -> None:
    drawing = drawn(record_stop_time=START + 3600, total_time_ms=3_600_000)
    assert [(tick.label, tick.at_us) for tick in drawing.ticks[:2]] == [
        ("0:00", START * 1_000_000),
        ("0:10", (START + 600) * 1_000_000),
    ]
    clocks = [one for one in elements(page(drawing), "text") if "data-clock" in one]
    assert clocks[1]["data-clock"] == "2026-11-29T17:10:00Z"
    assert "17:10" in text_of(page(drawing))
    assert [tick.label for tick in drawn(record_stop_time=START + 5, total_time_ms=5_000).ticks][:2] == [
        "0:00:00",
        "0:00:01",
    ]


def test_a_length_of_time_is_read_at_once() -> None:
    assert [elapsed(seconds * 1_000_000) for seconds in (0, 59, 3723, -61)] == [
        "0:00:00",
        "0:00:59",
        "1:02:03",
        "-0:01:01",
    ]
