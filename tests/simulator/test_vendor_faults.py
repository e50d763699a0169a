import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest

from simulator import (
    EVERY_FAILURE,
    PASSING_FAILURES,
    ApiFaults,
    ClassKind,
    Failure,
    SimulatedClass,
    VendorApi,
    make_class,
)
from tests.simulator.vendor_sdk import Sdk, SdkError, sdk_of

# The SDK signs by a call that Python 3.12 deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcfromtimestamp:DeprecationWarning")

APP = 1_400_000_001
CLASS = make_class(ClassKind.NORMAL, Random(7), sdk_app_id=APP, room_id=880528, started_at=1_793_500_000)
QUESTION = {"SdkAppId": APP, "TaskId": CLASS.task_id}


@asynccontextmanager
async def asking(*classes: SimulatedClass, **faults: Any) -> AsyncIterator[tuple[VendorApi, Sdk]]:
    """Ask about classes that are all over."""
    api = VendorApi(
        classes or (CLASS,), clock=lambda: 1_793_600_000, per_second=10_000, faults=ApiFaults(slow_s=0.1, **faults)
    )
    async with api:
        yield api, sdk_of(api)


async def outcome(sdk: Sdk) -> str:
    """Return what the SDK makes of one question: the Status, or the code of its error."""
    try:
        return str((await sdk.call("DescribeOnlineRecord", **QUESTION))["Status"])
    except SdkError as error:
        return error.code


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (Failure.SLOW, "FINISHED"),
        (Failure.HTTP_500, "ServerNetworkError"),
        (Failure.HTTP_502, "ServerNetworkError"),
        (Failure.RESET, "ClientNetworkError"),
        (Failure.LOST_ANSWER, "ClientNetworkError"),
        (Failure.NULLS, "None"),
        (Failure.TRUNCATED, "JSONDecodeError"),
        (Failure.CUT_OFF, "ChunkedEncodingError"),
        (Failure.CHARSET, "FINISHED"),
        (Failure.HUGE, "FINISHED"),
    ],
)
async def test_the_sdk_sees_each_way_in_which_an_answer_goes_wrong(failure: Failure, expected: str) -> None:
    async with asking(huge_bytes=1_000_000) as (api, sdk):
        api.faults.fail_next(failure)
        first, second = await outcome(sdk), await outcome(sdk)

    assert (first, second) == (expected, "FINISHED")
    assert [request.answer for request in api.requests.all] == [failure, "ok"]


@pytest.mark.parametrize("code", [code for code in EVERY_FAILURE if code not in set(Failure)])
async def test_every_error_of_the_api_arrives_by_its_code(code: str) -> None:
    async with asking() as (api, sdk):
        api.faults.fail_next(code, when=lambda request: request.action == "DescribeOnlineRecord")
        error = await sdk.refused("DescribeOnlineRecord", **QUESTION)

    assert error.code == code
    assert error.message


async def test_with_a_charset_an_error_reads_as_an_answer_without_anything() -> None:
    failed = make_class(ClassKind.FAILED, Random(7), sdk_app_id=APP, room_id=1, started_at=1_793_500_000)
    async with asking(failed) as (api, sdk):
        api.faults.fail_next(Failure.CHARSET)
        answer = await sdk.call("DescribeOnlineRecord", SdkAppId=APP, TaskId=failed.task_id)

    assert answer["Status"] is None


async def test_a_lost_answer_has_had_its_effect() -> None:
    async with asking() as (api, sdk):
        api.faults.fail_next(Failure.RESET)
        api.faults.fail_next(Failure.LOST_ANSWER)
        keys = []
        for key in ("first", "second"):
            with pytest.raises(SdkError):
                await sdk.call("SetOnlineRecordCallbackKey", SdkAppId=APP, CallbackKey=key)
            keys.append(api.vendor.applications[APP].callback_key)

    assert keys == ["", "second"]


async def test_a_share_of_all_requests_fails_in_every_way() -> None:
    async with asking(share=0.5, failures=EVERY_FAILURE, huge_bytes=10_000, rng=Random(3)) as (api, sdk):
        api.faults.slow_s = 0.0
        await asyncio.gather(*(outcome(sdk) for _ in range(150)))

    answers = Counter(request.answer for request in api.requests.all)
    assert 50 < answers.pop("ok") < 100
    assert set(answers) == set(EVERY_FAILURE)


async def test_the_first_rule_that_says_something_decides() -> None:
    async with asking(share=1.0, failures=["InternalError"]) as (api, sdk):
        api.faults.rules.append(lambda _: None)
        api.faults.rules.append(lambda request: "AuthFailure" if request.task_id == CLASS.task_id else None)
        told = await outcome(sdk)
        other = await sdk.refused("DescribeOnlineRecordCallback", SdkAppId=APP)

    assert (told, other.code) == ("AuthFailure", "InternalError")


async def test_credentials_are_revoked_and_given_back() -> None:
    async with asking() as (api, sdk):
        api.faults.is_revoked = True
        revoked = await outcome(sdk)
        api.faults.is_revoked = False
        given_back = await outcome(sdk)

    assert (revoked, given_back) == ("AuthFailure.SecretIdNotFound", "FINISHED")


async def test_only_the_application_in_arrears_is_refused() -> None:
    other = make_class(ClassKind.NORMAL, Random(8), sdk_app_id=7, room_id=1, started_at=1_793_500_000)
    async with asking(CLASS, other) as (api, sdk):
        api.faults.in_arrears.add(APP)
        refused = await outcome(sdk)
        answer = await sdk.call("DescribeOnlineRecord", SdkAppId=7, TaskId=other.task_id)

    assert refused == "ResourceUnavailable.ServiceExpired"
    assert answer["Status"] == "FINISHED"


def test_what_passes_by_itself_asks_for_nothing_but_another_try() -> None:
    assert "AuthFailure" not in json.dumps(PASSING_FAILURES)
    assert set(PASSING_FAILURES) < set(EVERY_FAILURE)
    assert "FailedOperation.Record" not in EVERY_FAILURE
