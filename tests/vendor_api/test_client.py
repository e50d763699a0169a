"""The vendor's SDK asked over HTTP, against the fake of its API: signatures, states, pages, errors, settings."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from random import Random
from typing import Any

import msgspec
import pytest

from schemas import OnlineRecordFinished
from simulator import EVERY_FAILURE, ApiFaults, ClassKind, Failure, SimulatedClass, VendorApi, make_class, render
from tests.schemas.bodies import decoded
from tests.vendor_api.api_edge import SECRET_KEY
from vendor_api import (
    Again,
    AppPaused,
    BucketConfig,
    ClockOff,
    Credentials,
    Failed,
    Finished,
    NotFound,
    RoomUsage,
    Running,
    Stopped,
    VendorClient,
    VendorError,
    VendorSite,
    finished_body,
    parse_endpoint,
)

APP = 1_400_000_001

#: 2026-11-01 09:00 in Beijing.
NINE = 1_793_494_800


class Now:
    """The time of the classes, moved by the test."""

    def __init__(self, at: float = NINE + 1) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


@asynccontextmanager
async def asking(
    *classes: SimulatedClass,
    now: Now | None = None,
    site: VendorSite = VendorSite.CHINA,
    secret_key: str | None = None,
    **options: Any,
) -> AsyncIterator[tuple[VendorApi, VendorClient]]:
    now = now or Now()
    async with VendorApi(classes, clock=now, site=site.value, **{"per_second": 1_000, **options}) as api:
        credentials = Credentials(secret_id=api.secret_id, secret_key=secret_key or api.secret_key)
        async with VendorClient(credentials, site=site, endpoint=parse_endpoint(api.url), now_s=now) as client:
            yield api, client


def held(kind: ClassKind = ClassKind.NORMAL, *, room_id: int = 880528, started_at: int = NINE) -> SimulatedClass:
    return make_class(kind, Random(f"{kind} {room_id}"), sdk_app_id=APP, room_id=room_id, started_at=started_at)


@pytest.mark.parametrize("kind", [ClassKind.NORMAL, ClassKind.SEVERAL_STREAMS, ClassKind.JOINED_VIDEOS])
async def test_a_recording_is_followed_to_the_event_that_its_callback_is(kind: ClassKind) -> None:
    cls = held(kind)
    *_, stopped, finished = cls.callbacks
    now = Now()
    async with asking(cls, now=now) as (_, client):
        answers = []
        for now.at in (cls.created_at, NINE + 1, stopped.timestamp, finished.timestamp):
            answers.append(await client.describe_online_record(APP, cls.task_id))
    prepared, running, stopping, result = answers
    assert isinstance(prepared, Running)
    assert isinstance(running, Running)
    assert (prepared.status, running.status, running.record.room_id) == ("PREPARED", "RECORDING", cls.room_id)
    assert isinstance(stopping, Stopped)
    assert isinstance(result, Finished)
    theirs = decoded(render(finished)).event
    assert isinstance(theirs, OnlineRecordFinished)
    ours = decoded(finished_body(APP, result.record)).event
    assert ours == msgspec.structs.replace(theirs, timestamp=theirs.record_stop_time or 0)


async def test_a_recording_that_failed_is_failed_and_not_asked_again() -> None:
    cls = held(ClassKind.FAILED)
    async with asking(cls, now=Now(cls.callbacks[-1].timestamp)) as (api, client):
        found = await client.describe_online_record(APP, cls.task_id)
    assert isinstance(found, Failed)
    assert found.message.startswith("code: 40001")
    assert len(api.requests.all) == 1


async def test_a_task_that_nobody_has_is_not_found() -> None:
    async with asking(sdk_app_ids=[APP]) as (_, client):
        assert isinstance(await client.describe_online_record(APP, "nobody-has-this"), NotFound)


async def test_wrong_credentials_and_foreign_applications_pause_with_a_reason() -> None:
    async with asking(sdk_app_ids=[APP], secret_key=SECRET_KEY) as (_, client):
        wrong_key = await client.describe_online_record(APP, "task")
    async with asking(sdk_app_ids=[APP]) as (_, client):
        foreign = await client.describe_online_record(APP + 1, "task")
    assert isinstance(wrong_key, AppPaused)
    assert "does not belong to TIW_VENDOR_SECRET_ID" in wrong_key.reason
    assert isinstance(foreign, AppPaused)
    assert "not one of the account" in foreign.reason


async def test_a_clock_that_is_off_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    import tencentcloud.common.abstract_client as sdk  # noqa: PLC0415 - not for every test

    class Slow:
        @staticmethod
        def time() -> float:
            return 1_700_000_000.0

    async with asking(sdk_app_ids=[APP]) as (_, client):
        monkeypatch.setattr(sdk, "time", Slow)
        assert isinstance(await client.describe_online_record(APP, "task"), ClockOff)


async def test_over_the_limit_the_question_is_to_be_asked_again() -> None:
    async with asking(sdk_app_ids=[APP], per_second=1) as (_, client):
        await client.describe_online_record(APP, "task")
        found = await client.describe_online_record(APP, "task")
    assert isinstance(found, Again)
    assert found.after_s > 1


async def test_all_running_tasks_are_listed_whatever_the_number_of_pages() -> None:
    classes = [held(room_id=room_id) for room_id in range(1, 700)]
    async with asking(*classes) as (api, client):
        found = await client.describe_running_tasks(APP)
    assert {task.task_id for task in found} == {cls.task_id for cls in classes}
    assert {task.room_id for task in found} == set(range(1, 700))
    assert {task.created_at for task in found} == {cls.created_at for cls in classes}
    assert len(api.requests.all) == 2


async def test_the_recordings_of_a_room_are_found_by_their_room() -> None:
    classes = [held(started_at=NINE), held(ClassKind.SEVERAL_STREAMS, started_at=NINE), held(room_id=2)]
    async with asking(*classes, now=Now(NINE + 90_000), site=VendorSite.INTERNATIONAL) as (_, client):
        found = await client.search_records(APP, 880528)
        assert await client.search_records(APP + 1, 880528) == []
    assert {record.task_id for record in found} == {cls.task_id for cls in classes[:2]}
    assert {(record.status, record.created_at) for record in found} == {("FINISHED", classes[0].created_at)}


async def test_a_call_that_the_site_does_not_have_is_no_answer() -> None:
    async with asking(sdk_app_ids=[APP], site=VendorSite.INTERNATIONAL) as (_, client):
        with pytest.raises(VendorError, match="InvalidAction"):
            await client.describe_running_tasks(APP)


async def test_rooms_and_the_minutes_recorded_in_them_are_listed() -> None:
    classes = [held(room_id=room_id) for room_id in range(1, 131)]
    async with asking(*classes, now=Now(NINE + 90_000)) as (_, client):
        rooms = await client.rooms_seen(APP, since_s=NINE - 60, until_s=NINE + 86_400)
        usages = await client.daily_usage(APP, date(2026, 11, 1))
        assert await client.daily_usage(APP, date(2026, 10, 31)) == []
    assert {room.room_id for room in rooms} == set(range(1, 131))
    assert {usage.room_id for usage in usages} == set(range(1, 131))
    assert all(usage.minutes > 0 for usage in usages)
    assert isinstance(usages[0], RoomUsage)


async def test_the_vendors_settings_are_read_and_written() -> None:
    async with asking(sdk_app_ids=[APP]) as (api, client):
        before = await client.describe_callback(APP)
        await client.set_callback(APP, "https://example.com/callbacks/tiw")
        await client.set_callback_key(APP, "a-key")
        after = await client.describe_callback(APP)
        no_bucket = await client.bucket_config(APP)
        application = api.vendor.applications[APP]
        application.bucket_name, application.bucket_location = "classes-1250000000", "ap-nanjing"
        bucket = await client.bucket_config(APP)
        with pytest.raises(VendorError, match="CallbackAddressFormatError"):
            await client.set_callback(APP, "ftp://example.com")
    assert (before.url, before.key) == ("", "")
    assert (after.url, after.key) == ("https://example.com/callbacks/tiw", "a-key")
    assert no_bucket.name == ""
    assert bucket == BucketConfig(name="classes-1250000000", location="ap-nanjing", prefix="", result_domain="")


#: What a request that fails in this way is taken for; all others are `Again`.
FINAL: dict[str, type] = {
    **dict.fromkeys((Failure.SLOW, Failure.CHARSET), Finished),
    **dict.fromkeys(
        (code for code in EVERY_FAILURE if code.startswith(("AuthFailure", "Unauth", "Resource"))), AppPaused
    ),
    "AuthFailure.SignatureExpire": ClockOff,
    "InvalidParameter.TaskNotFound": NotFound,
    "FailedOperation.Record": Failed,
}


@pytest.mark.parametrize("failure", [*EVERY_FAILURE, "FailedOperation.Record"])
async def test_every_way_to_fail_is_known_for_what_it_is_and_nothing_is_asked_twice(failure: str) -> None:
    cls = held()
    faults = ApiFaults(rules=[lambda _: failure], slow_s=0.1)
    async with asking(cls, now=Now(cls.callbacks[-1].timestamp), faults=faults) as (api, client):
        found = await client.describe_online_record(APP, cls.task_id)
        assert type(found) is FINAL.get(failure, Again)
        assert len(api.requests.all) == 1
        if type(found) in (Finished, Failed, NotFound):
            return
        with pytest.raises(VendorError):
            await client.describe_running_tasks(APP)


async def test_what_is_asked_and_read_is_what_the_sdks_models_have() -> None:
    from tencentcloud.tiw.v20190919 import models  # noqa: PLC0415 - not for every test

    cls = held()
    async with asking(cls) as (api, client):
        await client.describe_online_record(APP, cls.task_id)
        await client.describe_running_tasks(APP)
        await client.set_callback(APP, "https://example.com")
        await client.set_callback_key(APP, "key")
        await client.describe_callback(APP)
    for request in api.requests.all:
        known = {name for name in vars(getattr(models, f"{request.action}Request")()) if name.startswith("_")}
        assert {f"_{name}" for name in request.params} <= known
        assert request.answer == "ok"
