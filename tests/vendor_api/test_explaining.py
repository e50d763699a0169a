"""A person reads what is wrong, in English and in Chinese."""

import pytest

from vendor_api import AppPaused, ClockOff, explain_failure, judge_error


@pytest.mark.parametrize(
    ("message", "en", "zh"),
    [
        (
            "code: 40004, msg: 2019-09-23 10:31:47, im login failed with code 6206, desc serSig expired\n",
            "expired",
            "过期",
        ),
        ("code: 40001, msg: 2020-05-21 15:20:06, invalid userid\\n", "RecordUserId is not valid", "RecordUserId 无效"),
        ("code: 40004, msg: im login failed with code 70013, desc x", "another user", "其他用户"),
        ("code: 40004, msg: im login failed with code 99999, desc x", "could not log in", "登录失败"),
        ("code: 40004", "could not log in", "登录失败"),
    ],
)
def test_the_innermost_number_that_is_known_is_explained(message: str, en: str, zh: str) -> None:
    found = explain_failure(message)
    assert found is not None
    assert en in found.en
    assert zh in found.zh


@pytest.mark.parametrize("message", [None, "", "code: 49999, msg: x", "barcode: 40001", "code: " + "4" * 100_000, "\0"])
def test_what_is_not_known_is_not_explained(message: str | None) -> None:
    assert explain_failure(message) is None


@pytest.mark.parametrize(
    "code",
    [
        *("AuthFailure", "AuthFailure.SecretIdNotFound", "AuthFailure.SignatureFailure", "AuthFailure.MFAFailure"),
        *("AuthFailure.UnauthorizedOperation", "UnauthorizedOperation", "UnauthorizedOperation.SdkAppId"),
        *("ResourceUnavailable", "ResourceUnavailable.NotRegistered", "ResourceUnavailable.ServiceExpired"),
        *("ResourceUnavailable.InterfaceUnAuthorized", "InvalidParameter.SdkAppIdNotFound"),
        *("AuthFailure.SignatureExpire",),
    ],
)
def test_every_reason_to_pause_says_what_to_do_in_both_languages(code: str) -> None:
    found = judge_error(code, "m")
    assert isinstance(found, AppPaused | ClockOff)
    assert ": " in found.explanation.en
    assert "请" in found.explanation.zh


def test_the_reason_of_a_wrong_key_names_the_variable_and_no_more() -> None:
    found = judge_error("AuthFailure.SignatureFailure", "m")
    assert isinstance(found, AppPaused)
    assert "TIW_VENDOR_SECRET_KEY" in found.reason
