"""The vendor's own samples, signed anew, from HTTP to what the command line shows."""

import json
from typing import Any

import pytest

from tests.end_to_end.deployment import Deployment
from tests.end_to_end.programs import eventually
from tests.end_to_end.sending import APP, event_id, post, sample, signed

SIGNED = (
    "started",
    "stopped",
    "long-pause-warning",
    "long-pause-force-stopped",
    "finished",
    "finished-error",
    "transcode-finished",
    "whiteboard-push-stopped",
)
UNSIGNED = ("started-unsigned", "finished-error-only")

#: The five recording events among them; the others are unrecognized.
RECOGNIZED = {*SIGNED, *UNSIGNED} - {"transcode-finished", "whiteboard-push-stopped"}


def content(name: str) -> dict[str, Any]:
    """Return a sample as it is sent, but for its signature: without the printed one, which never was valid."""
    members = sample(name)
    members.pop("Sign", None)
    members.pop("ExpireTime", None)
    if name == "finished-error":
        # It has the TaskId of the finished one: one recording cannot be both.
        members["EventData"]["TaskId"] = "failed-recording"
    return members


@pytest.fixture(scope="module")
def posted(deployment: Deployment) -> Deployment:
    deployment.settings["TIW_ALLOW_UNSIGNED"] = "0"
    deployment.start()
    for name in SIGNED:
        assert post(deployment.address, signed(content(name))) == 200, name
    for name in UNSIGNED:
        assert post(deployment.address, content(name)) == 200, name
    eventually(lambda: deployment.count("events") == len(SIGNED) + len(UNSIGNED))
    return deployment


def references(shown: dict[str, Any], *names: str) -> None:
    """Assert that a recording lists exactly the events of these samples."""
    expected = sorted(
        (content(name)["Timestamp"], content(name)["EventType"], event_id(content(name))) for name in names
    )
    assert [(e["timestamp"], e["event_type"], e["event_id"]) for e in shown["events"]] == expected
    assert all(e["received_at"].endswith("Z") for e in shown["events"])


def test_a_finished_recording_is_shown_field_for_field(posted: Deployment) -> None:
    shown = posted.run("recordings", "show", "ghucnligqtgtvk2624mb", "--json").json
    data = content("finished")["EventData"]
    references(shown, "finished")
    del shown["events"]
    assert shown == {
        "sdk_app_id": APP,
        "task_id": data["TaskId"],
        "room_id": data["RoomId"],
        "group_id": data["GroupId"],
        "record_user_id": data["RecordUserId"],
        "status": "FINISHED",
        "finish_reason": data["FinishReason"],
        "error": None,
        "record_start_time": data["RecordStartTime"],
        "record_stop_time": data["RecordStopTime"],
        "total_time_ms": data["TotalTime"],
        "exception_count": data["ExceptionCnt"],
        "pause_time": None,
        "estimate_stop_time": None,
        "force_stop_time": None,
        "omitted_durations": [],
        "verified": None,
        "found": [],
        "videos": [
            {
                "video_id": video["VideoId"],
                "video_url": video["VideoUrl"],
                "video_format": video["VideoFormat"],
                "video_type": video["VideoType"],
                "video_size": video["VideoSize"],
                "video_play_time_ms": video["VideoPlayTime"],
                "video_duration_ms": video["VideoDuration"],
                "user_id": video["UserId"],
                "width": None,
                "height": None,
                "archive": None,
            }
            for video in data["VideoInfos"]
        ],
    }


def test_a_failed_recording_is_shown_with_its_error(posted: Deployment) -> None:
    shown = posted.run("recordings", "show", "failed-recording", "--json").json
    data = content("finished-error")["EventData"]
    references(shown, "finished-error")
    assert (shown["status"], shown["finish_reason"]) == ("FINISHED", "EXCEPTION")
    assert shown["error"] == {"code": data["Error"]["Code"], "message": data["Error"]["Message"]}
    assert (shown["record_start_time"], shown["record_stop_time"]) == (0, data["RecordStopTime"])
    assert (shown["total_time_ms"], shown["exception_count"]) == (0, 0)
    assert (shown["videos"], shown["omitted_durations"]) == ([], [])
    assert (shown["room_id"], shown["group_id"]) == (data["RoomId"], data["GroupId"])
    assert shown["record_user_id"] == data["RecordUserId"]


def test_a_recording_stopped_after_a_long_pause_is_shown_with_its_times(posted: Deployment) -> None:
    shown = posted.run("recordings", "show", "bj0mt2l23osdj300hl30", "--app", str(APP), "--json").json
    warning, forced = content("long-pause-warning")["EventData"], content("long-pause-force-stopped")["EventData"]
    # Neither the transcoding with this TaskId nor the unsigned application's recording enters it.
    references(shown, "started", "stopped", "long-pause-warning", "long-pause-force-stopped")
    assert shown["status"] == "STOPPED"
    assert shown["pause_time"] == forced["PauseTime"]
    assert shown["estimate_stop_time"] == warning["EstimateStopTime"]
    assert shown["force_stop_time"] == forced["StopTime"]
    assert (shown["room_id"], shown["record_user_id"]) == (1253, "tic_record_user_1253_01")
    absent = ("group_id", "finish_reason", "error", "record_start_time", "record_stop_time", "total_time_ms")
    assert [shown[name] for name in absent] == [None] * len(absent)
    assert (shown["videos"], shown["omitted_durations"], shown["exception_count"]) == ([], [], None)


def test_a_recording_without_application_is_one_of_its_own(posted: Deployment) -> None:
    shown = posted.run("recordings", "show", "bj0mt2l23osdj300hl30", "--app", "0", "--json").json
    references(shown, "started-unsigned")
    assert (shown["sdk_app_id"], shown["status"], shown["room_id"]) == (0, "RECORDING", 1253)


def test_a_task_id_of_two_applications_is_refused_with_their_names(posted: Deployment) -> None:
    refused = posted.run("recordings", "show", "bj0mt2l23osdj300hl30", "--json")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err == (
        f"tiw: several applications have a recording bj0mt2l23osdj300hl30: choose with --app from 0, {APP}\n"
    )


def test_every_sample_is_listed_as_an_event_with_its_body(posted: Deployment) -> None:
    listed = {event["event_id"]: event for event in posted.run("events", "list", "--bodies", "--json").json}
    assert len(listed) == len(SIGNED) + len(UNSIGNED)
    for name in (*SIGNED, *UNSIGNED):
        sent = content(name)
        event = listed[event_id(sent)]
        received_at = event.pop("received_at")
        assert json.loads(event.pop("body")) == sent
        assert received_at.endswith("Z")
        assert event == {
            "event_id": event_id(sent),
            "event_type": sent["EventType"],
            "sdk_app_id": sent.get("SdkAppId", 0),
            "task_id": sent["EventData"].get("TaskId") if name in RECOGNIZED else None,
            "timestamp": sent["Timestamp"],
            "source": "",
            "verified": None,
        }


def test_event_data_is_kept_byte_for_byte(posted: Deployment) -> None:
    (event,) = posted.run("events", "list", "--bodies", "--json", "--app", "0", "--limit", "1").json
    # As it was posted, spaces and all.
    assert json.dumps(content("finished-error-only")["EventData"]) in event["body"]


def test_what_is_none_of_the_five_events_is_listed_as_unrecognized(posted: Deployment) -> None:
    listed = posted.run("events", "list", "--unrecognized", "--json").json
    assert {event["event_type"] for event in listed} == {"TranscodeFinished", "WhiteboardPushStopped"}


def test_recordings_are_listed_without_videos_and_events(posted: Deployment) -> None:
    listed = posted.run("recordings", "list", "--json").json
    assert sorted((r["sdk_app_id"], r["task_id"], r["status"]) for r in listed) == [
        (0, "bj0mt2l23osdj300hl30", "RECORDING"),
        (APP, "bj0mt2l23osdj300hl30", "STOPPED"),
        (APP, "failed-recording", "FINISHED"),
        (APP, "ghucnligqtgtvk2624mb", "FINISHED"),
    ]
    assert not {"videos", "events"} & set(listed[0])
    finished = posted.run("recordings", "list", "--status", "FINISHED", "--json").json
    assert finished == [r for r in listed if r["status"] == "FINISHED"]
