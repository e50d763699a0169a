import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from random import Random
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import ApiError, ClassKind, Day, SimulatedClass, Vendor, VendorApi, make_class, make_classes
from simulator.sending import SYSTEM_CLOCK
from simulator.vendor_answers import BEIJING
from tests.simulator.fake_clock import FakeClock
from tests.simulator.vendor_sdk import Sdk, SdkError, sdk_of

# The SDK signs by a call that Python 3.12 deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcfromtimestamp:DeprecationWarning")

APP = 1_400_000_001
#: The first of November 2026, nine in the morning in Beijing.
NINE = int(datetime(2026, 11, 1, 9, tzinfo=BEIJING).timestamp())


class Now:
    """The time of the classes, moved by the test."""

    def __init__(self, at: float = NINE) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


def held(kind: ClassKind, *, room_id: int = 880528, started_at: int = NINE, seed: int = 7) -> SimulatedClass:
    return make_class(kind, Random(f"{seed}"), sdk_app_id=APP, room_id=room_id, started_at=started_at)


def at(cls: SimulatedClass, event_type: str) -> int:
    return next(c.timestamp for c in cls.callbacks if c.event_type == event_type)


def data(cls: SimulatedClass, event_type: str) -> dict[str, Any]:
    return dict(json.loads(next(c.event_data for c in cls.callbacks if c.event_type == event_type)))


@asynccontextmanager
async def asking(
    *classes: SimulatedClass, now: Now | None = None, **options: Any
) -> AsyncIterator[tuple[VendorApi, Sdk]]:
    async with VendorApi(classes, clock=now or Now(), **{"per_second": 1_000, **options}) as api:
        yield api, sdk_of(api)


async def test_a_finished_recording_is_answered_with_what_its_callback_said() -> None:
    cls = held(ClassKind.SEVERAL_STREAMS)
    finished = data(cls, "OnlineRecordFinished")
    async with asking(cls, now=Now(at(cls, "OnlineRecordFinished"))) as (_, sdk):
        answer = await sdk.call("DescribeOnlineRecord", SdkAppId=APP, TaskId=cls.task_id)

    assert answer["Status"] == "FINISHED"
    assert answer.pop("RequestId")
    for name in set(finished) - {"VideoInfos"}:
        assert answer[name] == finished[name], name
    # The SDK's model has Width and Height whether they were there or not.
    sizes = {"Width": None, "Height": None}
    assert answer["VideoInfos"] == [sizes | video for video in finished["VideoInfos"]]


async def test_a_recording_goes_through_its_states_by_the_clock() -> None:
    cls = held(ClassKind.LONG_PAUSE_RESUMED)
    paused_at, resumed_at = cls.pauses[0]
    moments = [
        (cls.created_at, "PREPARED"),
        (NINE, "RECORDING"),
        (paused_at, "PAUSED"),
        (at(cls, "OnlineRecordLongPauseWarning"), "PAUSED"),
        (resumed_at, "RECORDING"),
        (at(cls, "OnlineRecordStopped"), "STOPPED"),
        (at(cls, "OnlineRecordFinished"), "FINISHED"),
    ]
    now = Now()
    async with asking(cls, now=now) as (_, sdk):
        for moment, status in moments:
            now.at = moment
            answer = await sdk.call("DescribeOnlineRecord", SdkAppId=APP, TaskId=cls.task_id)
            assert (answer["Status"], answer["TaskId"], answer["RoomId"]) == (status, cls.task_id, cls.room_id)
            assert bool(answer["VideoInfos"]) == (status == "FINISHED")


@pytest.mark.parametrize("kind", [ClassKind.FAILED, ClassKind.ERROR_ONLY])
async def test_a_failed_recording_is_answered_as_an_error(kind: ClassKind) -> None:
    cls = held(kind)
    async with asking(cls, now=Now(at(cls, "OnlineRecordFinished"))) as (_, sdk):
        error = await sdk.refused("DescribeOnlineRecord", SdkAppId=APP, TaskId=cls.task_id)

    assert error.code == "FailedOperation.Record"
    assert error.message == data(cls, "OnlineRecordFinished")["Error"]["Message"]
    assert error.message.startswith("code: 4000")


async def test_a_task_is_not_found_before_it_exists_nor_if_nobody_has_it_nor_when_it_is_forgotten() -> None:
    cls = held(ClassKind.NORMAL)
    now = Now(cls.created_at - 1)
    async with asking(cls, now=now, forgets_after_s=3 * 86_400, sdk_app_ids=[7]) as (_, sdk):
        early = await sdk.refused("DescribeOnlineRecord", SdkAppId=APP, TaskId=cls.task_id)
        now.at = NINE
        unknown = await sdk.refused("DescribeOnlineRecord", SdkAppId=APP, TaskId="nobody-has-this")
        of_another = await sdk.refused("DescribeOnlineRecord", SdkAppId=7, TaskId=cls.task_id)
        foreign = await sdk.refused("DescribeOnlineRecord", SdkAppId=8, TaskId=cls.task_id)
        now.at += 4 * 86_400
        late = await sdk.refused("DescribeOnlineRecord", SdkAppId=APP, TaskId=cls.task_id)

    not_found = "InvalidParameter.TaskNotFound"
    assert [early.code, unknown.code, of_another.code, late.code] == [not_found] * 4
    assert foreign.code == "UnauthorizedOperation.SdkAppId"


async def test_running_tasks_are_listed_in_pages_and_no_longer_once_they_stop() -> None:
    classes = [held(ClassKind.NORMAL, room_id=1_000 + n, started_at=NINE + n, seed=n) for n in range(7)]
    now = Now(NINE + 10)
    async with asking(*classes, now=now) as (api, sdk):
        pages = [
            await sdk.call("DescribeRunningTasks", SdkAppID=APP, TaskType="OnlineRecord", Offset=offset, Limit=3)
            for offset in (0, 3, 6)
        ]
        other = await sdk.call("DescribeRunningTasks", SdkAppID=APP, TaskType="WhiteboardPush")
        first = classes[0]
        now.at = at(first, "OnlineRecordStopped")
        later = await sdk.call("DescribeRunningTasks", SdkAppID=APP, TaskType="OnlineRecord")
        api.vendor.lists_stopped = True
        with_stopped = await sdk.call("DescribeRunningTasks", SdkAppID=APP, TaskType="OnlineRecord")

    tasks = [task for page in pages for task in page["Tasks"]]
    assert [page["Total"] for page in pages] == [7, 7, 7]
    assert [task["TaskID"] for task in tasks] == [cls.task_id for cls in classes]
    assert tasks[0] == {
        "SdkAppID": APP,
        "TaskID": first.task_id,
        "TaskType": "OnlineRecord",
        "CreateTime": "2026-11-01 08:59:55",
        "CancelTime": "",
        "Status": "PROCESSING",
        "Progress": 0,
        "FileURL": "",
        "RoomID": 1_000,
    }
    assert other["Total"] == 0
    assert first.task_id not in [task["TaskID"] for task in later["Tasks"]]
    assert first.task_id in [task["TaskID"] for task in with_stopped["Tasks"]]


async def test_a_call_exists_on_the_sites_that_have_it_and_is_spelled_as_there() -> None:
    async with asking(sdk_app_ids=[APP]) as (_, sdk):
        search = await sdk.refused("DescribeRecordSearch", RoomId=1)
        spelled = await sdk.refused("DescribeRunningTasks", SdkAppId=APP, TaskType="OnlineRecord")
        missing = await sdk.refused("DescribeOnlineRecord", SdkAppId=APP)
        mistyped = await sdk.refused("DescribeOnlineRecord", SdkAppId=APP, TaskId=1)
    async with asking(sdk_app_ids=[APP], site="international") as (api, sdk):
        running = await sdk.refused("DescribeRunningTasks", SdkAppID=APP, TaskType="OnlineRecord")
        region = await sdk_of(api, region="ap-nowhere").refused("DescribeOnlineRecord", SdkAppId=APP, TaskId="x")

    assert [search.code, running.code] == ["InvalidAction", "InvalidAction"]
    assert [spelled.code, missing.code] == ["UnknownParameter", "MissingParameter"]
    assert mistyped.code == "InvalidParameter.BodyParameterTypeUnmatched"
    assert region.code == "UnsupportedRegion"


@given(kind=st.sampled_from(ClassKind), seed=st.integers(), share=st.floats(-0.01, 1.01))
def test_what_is_listed_is_what_is_not_over(kind: ClassKind, seed: int, share: float) -> None:
    cls = held(kind, seed=seed)
    finished_at = cls.callbacks[-1].timestamp
    moment = cls.created_at + share * (finished_at - cls.created_at)
    vendor = Vendor([cls])

    listed = vendor.answer("DescribeRunningTasks", {"SdkAppID": APP, "TaskType": "OnlineRecord"}, moment)
    try:
        asked = vendor.answer("DescribeOnlineRecord", {"SdkAppId": APP, "TaskId": cls.task_id}, moment)["Status"]
    except ApiError as error:
        asked = error.code

    assert bool(listed["Tasks"]) == (asked in ("PREPARED", "RECORDING", "PAUSED"))
    assert (asked == "InvalidParameter.TaskNotFound") == (moment < cls.created_at)
    assert (asked in ("FINISHED", "FailedOperation.Record")) == (moment >= finished_at)


async def test_recordings_are_found_by_room_on_the_international_site() -> None:
    day = Day(starts_at=NINE, rooms=2)
    kinds = [ClassKind.NORMAL, ClassKind.NORMAL, ClassKind.FAILED]
    classes = list(make_classes(6, sdk_app_id=APP, seed=3, kinds=kinds, day=day))
    room_id = classes[0].room_id
    async with asking(*classes, now=Now(NINE + 2 * 86_400), site="international") as (_, sdk):
        newest = await sdk.call_json("DescribeRecordSearch", RoomId=room_id, Offset=0, Limit=2)
        oldest = await sdk.call_json("DescribeRecordSearch", RoomId=room_id, Offset=2, Limit=2)

    found = [*newest["RecordTaskSet"], *oldest["RecordTaskSet"]]
    expected = [cls for cls in classes if cls.room_id == room_id][::-1]
    assert newest["TotalCount"] == 3
    assert [task["TaskId"] for task in found] == [cls.task_id for cls in expected]
    assert found[-1]["Result"]["VideoInfos"] == data(expected[-1], "OnlineRecordFinished")["VideoInfos"]
    assert {task["Result"]["ErrorCode"] for task in found} == {0, 40001}
    assert found[0]["CreateTime"].endswith("+08:00")


async def test_minutes_are_billed_per_room_and_day_from_seven_the_next_morning() -> None:
    midnight = NINE - 9 * 3_600
    over_midnight = make_class(
        ClassKind.NORMAL, Random(1), sdk_app_id=APP, room_id=5, started_at=midnight + 86_400 - 90, length_s=240
    )
    failed = held(ClassKind.FAILED, room_id=6)
    now = Now(midnight + 86_400 + 7 * 3_600 - 1)
    asked = {"SdkAppId": APP, "SubProduct": "sp_tiw_ric", "StartTime": "2026-11-01", "EndTime": "2026-11-02"}
    async with asking(over_midnight, failed, now=now) as (_, sdk):
        too_early = await sdk.call_json("DescribeTIWRoomDailyUsage", **asked)
        now.at += 1
        first_day = await sdk.call_json("DescribeTIWRoomDailyUsage", **asked)
        now.at += 86_400
        second_page = await sdk.call_json("DescribeTIWRoomDailyUsage", **asked, Offset=1)
        too_long = await sdk.refused("DescribeTIWRoomDailyUsage", **{**asked, "EndTime": "2026-12-02"})

    assert too_early["Usages"] == []
    assert first_day["Usages"] == [
        {"Time": "2026-11-01", "SdkAppId": APP, "SubProduct": "sp_tiw_ric", "Value": 2, "RoomID": 5}
    ]
    assert second_page["Total"] == 2
    assert [(usage["Time"], usage["Value"]) for usage in second_page["Usages"]] == [("2026-11-02", 3)]
    assert too_long.code == "InvalidParameter"


async def test_rooms_that_were_in_use_are_listed_with_strings_for_ids() -> None:
    classes = [held(ClassKind.NORMAL, room_id=n, started_at=NINE + n * 86_400, seed=n) for n in (1, 2, 3)]
    span = [(NINE + 86_400) * 1_000, (NINE + 2 * 86_400) * 1_000]
    async with asking(*classes, now=Now(NINE + 4 * 86_400)) as (_, sdk):
        answer = await sdk.call_json("DescribeRoomList", SdkAppId=APP, TimeRange=span)

    assert [room["RoomId"] for room in answer["RoomList"]] == ["1", "2"]
    assert answer["RoomList"][0]["StartTime"] == span[0]


async def test_address_and_key_are_kept_until_they_are_deleted() -> None:
    async with asking(sdk_app_ids=[APP]) as (api, sdk):
        await sdk.call("SetOnlineRecordCallback", SdkAppId=APP, Callback="https://class.example/callbacks/tiw")
        await sdk.call("SetOnlineRecordCallbackKey", SdkAppId=APP, CallbackKey="k" * 64)
        callback = await sdk.call("DescribeOnlineRecordCallback", SdkAppId=APP)
        config = await sdk.call_json("DescribeWhiteboardApplicationConfig", SdkAppId=APP, TaskTypes=["recording"])
        too_long = await sdk.refused("SetOnlineRecordCallbackKey", SdkAppId=APP, CallbackKey="k" * 65)
        no_address = await sdk.refused("SetOnlineRecordCallback", SdkAppId=APP, Callback="class.example")
        await sdk.call("SetOnlineRecordCallback", SdkAppId=APP, Callback="")
        deleted = await sdk.call("DescribeOnlineRecordCallback", SdkAppId=APP)
        api.vendor.applications[APP].bucket_name = "classes-1250000000"
        bucket = await sdk.call_json("DescribeWhiteboardApplicationConfig", SdkAppId=APP, TaskTypes=["recording"])

    assert callback["Callback"] == "https://class.example/callbacks/tiw"
    assert callback["CallbackKey"] == "k" * 64
    assert config["Configs"][0]["BucketName"] == ""
    assert config["Configs"][0]["Callback"] == callback["Callback"]
    assert too_long.code == "InvalidParameter"
    assert no_address.code == "InvalidParameter.CallbackAddressFormatError"
    assert deleted["Callback"] == ""
    assert bucket["Configs"][0]["BucketName"] == "classes-1250000000"


async def test_a_started_recording_is_known_and_ends_when_it_is_stopped() -> None:
    now = Now()
    user = {"RecordUserId": "tic_record_user_5_01", "RecordUserSig": "x"}
    async with asking(sdk_app_ids=[APP], now=now) as (api, sdk):
        task_id = (await sdk.call("StartOnlineRecord", SdkAppId=APP, RoomId=5, **user))["TaskId"]
        twice = await sdk.refused("StartOnlineRecord", SdkAppId=APP, RoomId=5, **user)
        now.at += 65
        await sdk.call("StopOnlineRecord", SdkAppId=APP, TaskId=task_id)
        stopped = await sdk.call("DescribeOnlineRecord", SdkAppId=APP, TaskId=task_id)
        again = await sdk.refused("StopOnlineRecord", SdkAppId=APP, TaskId=task_id)
        now.at += 1_000
        finished = await sdk.call("DescribeOnlineRecord", SdkAppId=APP, TaskId=task_id)

    assert twice.code == "ResourceInUse.RecordUserId"
    assert stopped["Status"] == "STOPPED"
    assert again.code == "UnsupportedOperation.TaskHasAlreadyStopped"
    assert finished["RecordStopTime"] - finished["RecordStartTime"] == 60
    assert [cls.task_id for cls in api.vendor.classes] == [task_id]


async def test_only_the_right_key_of_the_right_id_opens() -> None:
    async with asking(sdk_app_ids=[APP]) as (api, sdk):
        wrong_key = await sdk_of(api, secret_key="x" * 32).refused("DescribeOnlineRecordCallback", SdkAppId=APP)
        wrong_id = await sdk_of(api, secret_id="AKIDnobody").refused("DescribeOnlineRecordCallback", SdkAppId=APP)
        await sdk.call("DescribeOnlineRecordCallback", SdkAppId=APP)

    assert wrong_key.code == "AuthFailure.SignatureFailure"
    assert wrong_id.code == "AuthFailure.SecretIdNotFound"
    assert [request.answer for request in api.requests.all] == [wrong_key.code, wrong_id.code, "ok"]


async def test_a_client_whose_clock_is_more_than_five_minutes_off_is_told_so() -> None:
    async with asking(sdk_app_ids=[APP]) as (api, sdk):
        for offset_s in (310, -310):
            api.faults.clock_ahead_s = offset_s
            error = await sdk.refused("DescribeOnlineRecordCallback", SdkAppId=APP)
            assert error.code == "AuthFailure.SignatureExpire"
        for offset_s in (290, -290):
            api.faults.clock_ahead_s = offset_s
            await sdk.call("DescribeOnlineRecordCallback", SdkAppId=APP)


async def test_unsigned_and_malformed_requests_are_refused_as_json_of_exactly_one_type() -> None:
    async with asking(sdk_app_ids=[APP]) as (api, _), aiohttp.ClientSession() as session:
        headers = {"Content-Type": "application/json", "X-TC-Action": "DescribeOnlineRecord"}
        async with session.post(api.url, data=b"{", headers=headers) as response:
            answer = await response.json()
            assert response.status == 200
            # With a charset the SDK would not see the error.
            assert response.headers["Content-Type"] == "application/json"

    assert answer["Response"]["Error"]["Code"] == "AuthFailure.InvalidAuthorization"
    assert answer["Response"]["RequestId"]


async def test_more_than_so_many_a_second_are_refused_per_action_and_counted() -> None:
    time = FakeClock(now_s=SYSTEM_CLOCK.unix_s())
    async with asking(sdk_app_ids=[APP], per_second=5, system_clock=time.clock) as (api, sdk):
        answers = []
        for _ in range(8):
            try:
                answers.append((await sdk.call("DescribeOnlineRecordCallback", SdkAppId=APP))["Callback"])
            except SdkError as error:
                answers.append(error.code)
            time.now_s += 0.1
        await sdk.call_json("DescribeWhiteboardApplicationConfig", SdkAppId=APP)
        time.now_s += 0.3
        await sdk.call("DescribeOnlineRecordCallback", SdkAppId=APP)

    assert answers == [""] * 5 + ["RequestLimitExceeded"] * 3
    assert api.requests.most_per_second("DescribeOnlineRecordCallback") == 8
    assert api.requests.most_per_second("DescribeWhiteboardApplicationConfig") == 1
    assert api.requests.most_per_second() == 8
