"""`tiw vendor` and what `tiw doctor` says of the vendor, against the fake of its API."""

import argparse
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from simulator import ApiFaults, VendorApi
from tiw.commands import vendor
from tiw.doctor import Check
from tiw.key_rotation import ROTATIONS_FILE
from tiw.parser import build_parser, main
from tiw.settings import FailedError, Settings, UsageError, read_settings
from tiw.vendor import check_vendor, shown_address

APP = 1400000001
KEY = "4fd1c0a96b7e4c7f8a2e5d3b1c9f7a6e"
TOKEN = "b3f1a7c94e6d4f0c8a25" + "9d7e"
ADDRESS = f"https://school.example/callbacks/tiw/{TOKEN}"


@pytest_asyncio.fixture
async def api() -> AsyncIterator[VendorApi]:
    async with VendorApi(sdk_app_ids=[APP], per_second=1_000, faults=ApiFaults()) as api:
        api.vendor.applications[APP].callback_key = KEY
        yield api


@pytest.fixture(autouse=True)
def _hastily(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vendor, "KEYS_READ_WITHIN_S", 0.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "callback_keys.json").write_text(json.dumps({APP: [KEY]}), encoding="utf-8")
    return tmp_path


def settings_of(api: VendorApi, folder: Path, **environ: str) -> Settings:
    credentials = {"TIW_VENDOR_SECRET_ID": api.secret_id, "TIW_VENDOR_SECRET_KEY": api.secret_key}
    place = {"TIW_DATA_DIR": str(folder), "TIW_VENDOR_ENDPOINT": api.url, "TIW_PATH_TOKEN": TOKEN}
    return read_settings({**credentials, **place, **environ}, is_terminal=False)


def arguments(*line: str) -> argparse.Namespace:
    return build_parser().parse_args(["vendor", *line])


def keys(folder: Path) -> list[str]:
    found: list[str] = json.loads((folder / "callback_keys.json").read_bytes())[str(APP)]
    return found


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def checks(settings: Settings) -> dict[str, Check]:
    return {check.check: check async for check in check_vendor(settings)}


async def test_the_address_is_set_after_saying_so(
    api: VendorApi, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api.vendor.applications[APP].callback = "http://old.example/callbacks/tiw"
    assert await vendor.set_callback(settings_of(api, folder), arguments("set-callback", ADDRESS)) == 0
    assert api.vendor.applications[APP].callback == ADDRESS
    printed = capsys.readouterr().out
    assert f"{APP}: the vendor is told to send callbacks to https://school.example/callbacks/tiw/***" in printed
    assert "instead of http://old.example/callbacks/tiw" in printed
    assert TOKEN not in printed
    assert await vendor.set_callback(settings_of(api, folder), arguments("set-callback", ADDRESS)) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert len(api.requests.of("SetOnlineRecordCallback")) == 1


async def test_a_dry_run_only_asks(api: VendorApi, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = settings_of(api, folder)
    assert await vendor.set_callback(settings, arguments("set-callback", ADDRESS, "--dry-run")) == 0
    assert await vendor.rotate_key(settings, arguments("rotate-key", "--dry-run")) == 0
    assert {request.action for request in api.requests.all} == {"DescribeOnlineRecordCallback"}
    assert names(folder) == ["callback_keys.json"]
    assert keys(folder) == [KEY]
    assert "  1. a new key is accepted, too" in capsys.readouterr().out


async def test_an_address_that_leads_elsewhere_is_set_with_a_warning(
    api: VendorApi, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await vendor.set_callback(settings_of(api, folder), arguments("set-callback", "http://school.example/hooks"))
    assert api.vendor.applications[APP].callback == "http://school.example/hooks"
    printed = capsys.readouterr().out
    assert "right only if a proxy writes it anew" in printed
    assert "without HTTPS" in printed


@pytest.mark.parametrize(
    "url", ["", "school.example", "ftp://h/x", "https://", "https://h/ x", "https://h:port", "https://数/"]
)
async def test_what_is_no_address_is_not_sent(api: VendorApi, folder: Path, url: str) -> None:
    with pytest.raises(UsageError, match="must be https"):
        await vendor.set_callback(settings_of(api, folder), arguments("set-callback", url))
    assert api.requests.all == []


async def test_a_key_is_rotated_in_two_runs(api: VendorApi, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = settings_of(api, folder)
    assert await vendor.rotate_key(settings, arguments("rotate-key")) == 0
    old, new = keys(folder)
    assert (old, api.vendor.applications[APP].callback_key) == (KEY, new)
    assert await vendor.rotate_key(settings, arguments("rotate-key")) == 0
    assert keys(folder) == [old, new], "too early"
    assert await vendor.rotate_key(settings, arguments("rotate-key", "--wait", "0", "--dry-run")) == 0
    assert keys(folder) == [old, new], "only said"
    assert await vendor.rotate_key(settings, arguments("rotate-key", "--wait", "0")) == 0
    assert keys(folder) == [new]
    printed = capsys.readouterr().out
    assert "key 1, the old one, is accepted no more" in printed
    assert old not in printed
    assert new not in printed
    assert len(api.requests.of("SetOnlineRecordCallbackKey")) == 1


@pytest.mark.parametrize("broken_at", ["before", "set", "lost answer"])
async def test_a_rotation_that_was_broken_off_goes_on_with_the_same_key(
    api: VendorApi, folder: Path, broken_at: str
) -> None:
    settings = settings_of(api, folder)
    action = "DescribeOnlineRecordCallback" if broken_at == "before" else "SetOnlineRecordCallbackKey"
    failure = "lost answer" if broken_at == "lost answer" else "reset"
    api.faults.fail_next(failure, when=lambda request: request.action == action)
    with pytest.raises(FailedError, match="the vendor did not do it"):
        await vendor.rotate_key(settings, arguments("rotate-key"))
    assert len(keys(folder)) == (1 if broken_at == "before" else 2)
    assert await vendor.rotate_key(settings, arguments("rotate-key")) == 0
    old, new = keys(folder)
    assert (old, api.vendor.applications[APP].callback_key) == (KEY, new)
    assert await vendor.rotate_key(settings, arguments("rotate-key", "--wait", "0")) == 0
    assert keys(folder) == [new]


async def test_a_key_that_somebody_else_set_meanwhile_is_left_alone(api: VendorApi, folder: Path) -> None:
    settings = settings_of(api, folder)
    await vendor.rotate_key(settings, arguments("rotate-key"))
    api.vendor.applications[APP].callback_key = "somebody-elses-key"
    with pytest.raises(FailedError, match="another key meanwhile"):
        await vendor.rotate_key(settings, arguments("rotate-key", "--wait", "0"))
    assert len(keys(folder)) == 2
    assert api.vendor.applications[APP].callback_key == "somebody-elses-key"


async def test_the_first_key_of_all_is_made_and_set(api: VendorApi, tmp_path: Path) -> None:
    api.vendor.applications[APP].callback_key = ""
    await vendor.rotate_key(settings_of(api, tmp_path), arguments("rotate-key", "--app", str(APP)))
    assert keys(tmp_path) == [api.vendor.applications[APP].callback_key]


async def test_keys_that_come_from_a_variable_are_not_rotated(api: VendorApi, folder: Path) -> None:
    settings = settings_of(api, folder, TIW_CALLBACK_KEYS=json.dumps({APP: [KEY]}))
    with pytest.raises(UsageError, match="change the variable"):
        await vendor.rotate_key(settings, arguments("rotate-key"))
    assert api.requests.all == []


async def test_of_several_applications_one_is_to_be_named(api: VendorApi, folder: Path) -> None:
    (folder / "callback_keys.json").write_text(json.dumps({APP: [KEY], APP + 1: [KEY]}), encoding="utf-8")
    with pytest.raises(UsageError, match=f"Give --app SDKAPPID; there are callback keys of: {APP}, {APP + 1}"):
        await vendor.rotate_key(settings_of(api, folder), arguments("rotate-key"))
    with pytest.raises(FailedError, match="SdkAppId is not one of the account"):
        await vendor.rotate_key(settings_of(api, folder), arguments("rotate-key", "--app", str(APP + 1)))
    assert keys(folder) == [KEY]
    assert not (folder / ROTATIONS_FILE).exists()


def test_without_credentials_the_commands_say_which(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TIW_DATA_DIR", str(folder))
    for line in (["set-callback", ADDRESS], ["rotate-key"]):
        assert main(["vendor", *line]) == 2
        assert "set TIW_VENDOR_SECRET_ID and TIW_VENDOR_SECRET_KEY" in capsys.readouterr().err
    assert names(folder) == ["callback_keys.json"]


async def test_doctor_finds_address_key_and_bucket_as_they_should_be(api: VendorApi, folder: Path) -> None:
    application = api.vendor.applications[APP]
    application.callback, application.bucket_name, application.bucket_location = ADDRESS, "classes-125", "ap-nanjing"
    found = await checks(settings_of(api, folder))
    assert {check.ok for check in found.values()} == {True}
    assert found["vendor's address"].detail == f"{APP}: https://school.example/callbacks/tiw/***"
    assert found["vendor's key"].detail == f"{APP}: it is key 1 of our 1"
    assert found["vendor's bucket"].detail == f"{APP}: classes-125 in ap-nanjing"


async def test_doctor_says_what_is_not_as_it_should_be_and_shows_no_secret(api: VendorApi, folder: Path) -> None:
    application = api.vendor.applications[APP]
    application.callback, application.callback_key = (
        "https://school.example/callbacks/tiw/not-ours-but-secret",
        "their-key",
    )
    found = await checks(settings_of(api, folder))
    assert not found["vendor's address"].ok
    assert "path is not the one" in found["vendor's address"].detail
    assert not found["vendor's key"].ok
    assert f"tiw keys add --app {APP} --stdin" in found["vendor's key"].remedy
    assert found["vendor's bucket"].detail == f"{APP}: no bucket: files die after 3 days"
    shown = repr(found)
    for secret in ("not-ours-but-secret", "their-key", KEY, TOKEN, api.secret_id, api.secret_key):
        assert secret not in shown


async def test_doctor_misses_what_is_not_set(api: VendorApi, folder: Path) -> None:
    api.vendor.applications[APP].callback_key = ""
    found = await checks(settings_of(api, folder))
    assert f"tiw vendor set-callback URL --app {APP}" in found["vendor's address"].remedy
    assert "unsigned" in found["vendor's key"].detail
    assert not found["vendor's key"].ok
    unsigned = await checks(settings_of(api, folder / "none", TIW_ALLOW_UNSIGNED=str(APP)))
    assert unsigned["vendor's key"].ok


async def test_doctor_says_why_the_vendor_does_not_answer(api: VendorApi, folder: Path) -> None:
    wrong = await checks(settings_of(api, folder, TIW_VENDOR_SECRET_KEY="not-the-one"))
    assert wrong["vendor"].detail == (
        f"{APP}: TIW_VENDOR_SECRET_KEY does not belong to TIW_VENDOR_SECRET_ID (AuthFailure.SignatureFailure)"
    )
    assert wrong["vendor"].remedy == "set both from the same pair"
    away = await checks(settings_of(api, folder, TIW_VENDOR_ENDPOINT="http://127.0.0.1:9"))
    assert "ClientNetworkError" in away["vendor"].detail
    assert not away["vendor"].ok


async def test_doctor_asks_about_no_other_application_when_the_vendor_is_away(api: VendorApi, folder: Path) -> None:
    (folder / "callback_keys.json").write_text(json.dumps({APP + n: [KEY] for n in range(5)}), encoding="utf-8")
    api.faults.fail_next("http 502", 100)
    found = [check async for check in check_vendor(settings_of(api, folder))]
    assert len(found) == len(api.requests.all) == 1


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://school.example/callbacks/tiw", "https://school.example/callbacks/tiw"),
        ("https://school.example:8443/callbacks/tiw/short", "https://school.example:8443/callbacks/tiw/***"),
        ("https://user:secret@school.example/hooks?token=secret#f", "https://school.example/hooks?***"),
        ("https://school.example/0123456789abcdef/x", "https://school.example/***/x"),
        ("https://[::1", "an address that cannot be read"),
        ("https://h/\x1b[31m", "https://h/\N{REPLACEMENT CHARACTER}[31m"),
        ("https://h/" + "a/" * 500, "https://h/" + "a/" * 95),
    ],
)
def test_of_an_address_nothing_secret_is_shown(url: str, shown: str) -> None:
    assert shown_address(url) == shown


async def test_the_whole_doctor_asks_the_vendor_only_with_credentials(
    api: VendorApi, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert os.environ.get("TIW_VENDOR_SECRET_ID") is None
    from tiw.commands.doctor import doctor  # noqa: PLC0415 - this test alone needs it

    args = build_parser().parse_args(["doctor", "--json"])
    await doctor(read_settings({"TIW_DATA_DIR": str(folder)}, is_terminal=False), args)
    assert api.requests.all == []
    await doctor(settings_of(api, folder), args)
    assert {request.action for request in api.requests.all} == {
        "DescribeOnlineRecordCallback",
        "DescribeWhiteboardApplicationConfig",
    }
