"""Lists and settings of the vendor: an odd item is left out, the others count."""

import json
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vendor_api.api_answers import APP, answer
from tests.vendor_api.api_edge import answering, client_of
from vendor_api import BucketConfig, RunningTask, SearchedRecord, SeenRoom, VendorError
from vendor_api.listings import bucket_config, callback_config, room_usages, running_tasks, searched_records, seen_rooms

#: As the vendor's examples have it.
ITEM = {
    "TaskID": "bj0mt2l23osdj300hl31",
    "TaskType": "OnlineRecord",
    "CreateTime": "2023-03-14 15:00:00",
    "CancelTime": "",
    "Status": "PROCESSING",
    "Progress": 11,
    "RoomID": 12345,
    "FileURL": "",
    "SdkAppID": APP,
}
TASK = RunningTask(task_id="bj0mt2l23osdj300hl31", room_id=12345, created_at=1_678_777_200)


def test_a_running_task_is_read_as_the_vendors_example_has_it() -> None:
    assert running_tasks({"Tasks": [ITEM]}, APP) == [TASK]


@pytest.mark.parametrize(
    "item",
    [
        *(None, "task", [], {}, ITEM | {"TaskID": None}, ITEM | {"TaskID": ""}, ITEM | {"TaskID": "a\0"}),
        *(ITEM | {"TaskID": "x" * 256}, ITEM | {"RoomID": 2**64}, ITEM | {"RoomID": {}}, ITEM | {"SdkAppID": "x"}),
        *(ITEM | {"SdkAppID": APP + 1}, ITEM | {"TaskType": "WhiteboardPush"}),
    ],
)
def test_an_odd_or_foreign_item_is_left_out_and_the_others_count(item: Any) -> None:
    assert running_tasks({"Tasks": [item, ITEM]}, APP) == [TASK]


def test_numbers_may_be_texts_and_what_is_not_needed_may_be_missing() -> None:
    assert running_tasks({"Tasks": [ITEM | {"RoomID": "12345", "SdkAppID": str(APP)}]}, APP) == [TASK]
    assert running_tasks({"Tasks": [{"TaskID": "t"}]}, APP) == [RunningTask(task_id="t", room_id=None, created_at=None)]


@pytest.mark.parametrize(
    "text", ["yesterday", "", None, "0001-01-01 00:00:00", "9999-12-31T23:59:59-23:59", "1" * 10**5]
)
def test_a_time_that_cannot_be_read_is_no_time(text: str | None) -> None:
    (task,) = running_tasks({"Tasks": [ITEM | {"CreateTime": text}]}, APP)
    assert task.created_at is None or isinstance(task.created_at, int)


def test_a_searched_record_is_read_as_the_vendors_example_has_it() -> None:
    item = {
        "CreateTime": "2020-08-24T21:53:56+08:00",
        "RoomId": 880528,
        "TaskId": "gvft1qbrvs2331tcs1tb",
        "Status": "FINISHED",
        "SdkAppId": APP,
        "Result": {"VideoInfos": []},
    }
    found = searched_records({"RecordTaskSet": [item, item | {"SdkAppId": 7}]}, APP)
    assert found == [
        SearchedRecord(task_id="gvft1qbrvs2331tcs1tb", room_id=880528, status="FINISHED", created_at=1_598_277_236)
    ]


def test_rooms_whose_ids_are_texts_are_read() -> None:
    item = {"RoomId": "108594741", "StartTime": 1614851243268, "EndTime": 1614851284952, "UserNumber": 1}
    assert seen_rooms({"RoomList": [item, {"RoomId": "hall"}]}) == [
        SeenRoom(room_id=108594741, started_at_ms=1614851243268, ended_at_ms=1614851284952)
    ]


def test_a_bucket_is_that_of_recordings() -> None:
    transcode = {"TaskType": "transcode", "BucketName": "other-1250000000"}
    recording = {"TaskType": "recording", "BucketName": "classes-1250000000", "BucketLocation": "ap-nanjing"}
    assert bucket_config({"Configs": [transcode, recording]}).name == "classes-1250000000"
    assert bucket_config({"Configs": [transcode]}) == BucketConfig(name="", location="", prefix="", result_domain="")
    assert bucket_config({"Configs": None}).name == ""


async def test_usage_of_one_room_in_several_lines_is_one_number() -> None:
    usage = {"Time": "2026-11-01", "SdkAppId": APP, "SubProduct": "sp_tiw_ric", "RoomID": 5, "Value": 7}
    lines = [usage, usage | {"Value": 3}, usage | {"SubProduct": "sp_tiw_board"}, usage | {"RoomID": 6, "Value": 0}]
    async with client_of(answering(answer(Total=4, Usages=lines))) as client:
        (room,) = await client.daily_usage(APP, date(2026, 11, 1))
    assert (room.room_id, room.minutes) == (5, 10)


async def test_settings_that_are_not_what_is_documented_are_no_settings() -> None:
    async with client_of(answering(answer(Callback=7))) as client:
        with pytest.raises(VendorError, match="not what is documented"):
            await client.describe_callback(APP)


@pytest.mark.parametrize("tasks", [{}, {"Tasks": None}, {"Tasks": {}, "Total": 0}, {"Tasks": None, "Total": 1}])
async def test_a_list_that_is_not_there_is_no_empty_list(tasks: dict[str, Any]) -> None:
    async with client_of(answering(answer(**tasks))) as client:
        with pytest.raises(VendorError, match="it has no Tasks"):
            await client.describe_running_tasks(APP)


async def test_an_empty_list_may_be_null_where_its_length_is_said() -> None:
    async with client_of(answering(answer(Tasks=None, Total=0))) as client:
        assert await client.describe_running_tasks(APP) == []


async def test_settings_of_which_nothing_is_said_are_not_taken_for_unset() -> None:
    nulls = {"Callback": None, "CallbackKey": None, "RequestId": None, "Configs": None}
    async with client_of(answering(answer(**nulls))) as client:
        with pytest.raises(VendorError, match="not what is documented"):
            await client.describe_callback(APP)
        with pytest.raises(VendorError, match="it has no Configs"):
            await client.bucket_config(APP)


_anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*ITEM, "TaskId", "Value"]), inner),
    max_leaves=6,
)


@given(
    st.dictionaries(st.sampled_from(["Tasks", "RecordTaskSet", "RoomList", "Usages", "Configs", "Callback"]), _anything)
)
def test_no_list_fails_to_be_read(response: dict[str, Any]) -> None:
    json.dumps(response)
    running_tasks(response, APP)
    searched_records(response, APP)
    seen_rooms(response)
    room_usages(response, APP, "sp_tiw_ric")
    bucket_config(response)
    callback_config(response)
