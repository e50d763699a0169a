"""`tiw rejected`: what a listing shows, and who is let in once the key is mended."""

import argparse
import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from broker import BrokerError, EmbeddedTransport, Message
from ingest import KeysError, Rejected, read_rejected, sign
from ingest.rejected import keep_rejected
from schemas import decode
from tiw.commands.rejected import list_all, reverify
from tiw.doctor import check_rejected
from tiw.settings import FailedError, Settings

APP = 1400000001
KEY = "the vendor's own key, 32 or more"


def callback(task_id: str, *, key: str = KEY, expires_in_s: int = 60, **members: Any) -> bytes:
    expire_time = int(time.time()) + expires_in_s
    data = {"TaskId": task_id, "RoomId": 1253, "RecordUserId": "tic_record_user_1253_01"}
    content = {"EventType": "OnlineRecordStarted", "Timestamp": 1575545412, "SdkAppId": APP, "EventData": data}
    return json.dumps(content | {"ExpireTime": expire_time, "Sign": sign(key, expire_time)} | members).encode()


def rejected(body: bytes, *, age_s: float, reason: str = "wrong_sign", app: int = APP) -> Rejected:
    return Rejected(received_at_us=round((time.time() - age_s) * 1e6), reason=reason, sdk_app_id=app, body=body)


def keep(settings: Settings, *many: Rejected) -> None:
    keep_rejected(settings.data_dir / "rejected", many, now_us=time.time_ns() // 1000)


def left(settings: Settings) -> list[bytes]:
    return [one.rejected.body for one in read_rejected(settings.data_dir / "rejected", now_us=time.time_ns() // 1000)]


def arguments(**values: Any) -> argparse.Namespace:
    return argparse.Namespace(
        **{"json": True, "wide": False, "dry_run": False, "since": None, "app": None, "reason": None, "limit": 1000}
        | values
    )


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        database_url=f"sqlite+aiosqlite:///{tmp_path}/store.db",
        data_dir=tmp_path,
        callback_keys=json.dumps({APP: [KEY]}),
    )


def listed(settings: Settings, capsys: pytest.CaptureFixture[str], **values: Any) -> list[dict[str, Any]]:
    assert list_all(settings, arguments(**values)) == 0
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return rows


def reverified(settings: Settings, capsys: pytest.CaptureFixture[str], **values: Any) -> dict[str, Any]:
    assert asyncio.run(reverify(settings, arguments(**values))) == 0
    counts: dict[str, Any] = json.loads(capsys.readouterr().out)
    return counts


def waiting(folder: Path, consumer: str) -> int:
    async def ready() -> int:
        async with EmbeddedTransport(folder) as transport:
            (state,) = await transport.inspect([consumer])
            return state.ready

    return asyncio.run(ready())


def test_a_listing_tells_what_it_is_without_sign_and_body(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    body = callback("class-1")
    keep(settings, rejected(body, age_s=60), rejected(body, age_s=50), rejected(b"\xff", age_s=10, app=0))
    latest, earliest = listed(settings, capsys)
    assert earliest | {"id": 0, "received_at": ""} == {
        "id": 0,
        "received_at": "",
        "reason": "wrong_sign",
        "sdk_app_id": APP,
        "event_type": "OnlineRecordStarted",
        "task_id": "class-1",
        "size": len(body),
        "tries": 2,
        "sign": "***",
    }
    assert earliest["received_at"].endswith("Z")
    assert (latest["event_type"], latest["task_id"], latest["sign"]) == (None, None, None)
    assert list_all(settings, arguments(json=False)) == 0
    shown = capsys.readouterr().out
    assert "class-1" in shown
    assert json.loads(body)["Sign"] not in shown


def test_a_listing_can_be_narrowed(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    keep(settings, *(rejected(callback(f"t{age_s}"), age_s=age_s, app=age_s % 2) for age_s in (5, 500, 5000)))
    assert [row["task_id"] for row in listed(settings, capsys)] == ["t5", "t500", "t5000"]
    assert [row["task_id"] for row in listed(settings, capsys, limit=1)] == ["t5"]
    assert [row["task_id"] for row in listed(settings, capsys, limit=0, app=0)] == ["t500", "t5000"]
    assert [row["task_id"] for row in listed(settings, capsys, since="10m")] == ["t5", "t500"]


def test_a_listing_is_empty_where_nothing_was_refused(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert listed(settings, capsys) == []
    assert list_all(settings, arguments(json=False)) == 0
    assert "No refused callback" in capsys.readouterr().out


def test_hostile_text_does_not_reach_the_terminal(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    keep(settings, rejected(callback("\x1b[2J\u202e", EventType="\x07bell"), age_s=1))
    assert list_all(settings, arguments(json=False)) == 0
    shown = capsys.readouterr().out
    assert not {"\x1b", "\u202e", "\x07"} & set(shown)


def test_who_was_authentic_when_it_came_is_let_in_and_the_others_remain(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    # Judged as of its arrival: by now the first has expired.
    authentic = [callback("t1", expires_in_s=-10_000), callback("t2")]
    forged, late = callback("t3", key="not ours"), callback("t4", expires_in_s=-20_000)
    keep(settings, *(rejected(body, age_s=9_800) for body in (*authentic, forged, late)))
    dry = {"authentic": 2, "let_in": 0, "remaining": 4, "refused": {"expired": 1, "wrong_sign": 1}}
    assert reverified(settings, capsys, dry_run=True) == dry
    assert len(left(settings)) == 4
    assert reverified(settings, capsys) == dry | {"let_in": 2, "remaining": 2}
    assert set(left(settings)) == {forged, late}
    assert waiting(settings.data_dir, "started") == 2
    assert reverified(settings, capsys) == {
        "authentic": 0, "let_in": 0, "remaining": 2, "refused": {"expired": 1, "wrong_sign": 1}
    }  # fmt: skip
    assert asyncio.run(reverify(settings, arguments(json=False))) == 0
    assert "2 are still refused with the keys of now: " in capsys.readouterr().out


async def test_what_is_not_confirmed_is_not_removed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    published: list[Message] = []

    async def publish(self: object, message: Message) -> None:
        del self
        if published:
            raise BrokerError("no confirm")
        published.append(message)

    monkeypatch.setattr(EmbeddedTransport, "publish", publish)
    bodies = [callback(f"t{number}") for number in range(3)]
    first, *others = (rejected(body, age_s=30 - number) for number, body in enumerate(bodies))
    keep(settings, first, *others)
    with pytest.raises(FailedError, match="stopped after 1 callbacks: no confirm: run it again"):
        await reverify(settings, arguments())
    # The oldest first, with the time of its arrival.
    assert set(left(settings)) == set(bodies[1:])
    assert [message.received_at_us for message in published] == [first.received_at_us]
    assert [decode(message.body, received_at_us=0).event_id for message in published] == [published[0].event_id]


def test_the_doctor_tells_those_that_would_be_let_in_now(settings: Settings) -> None:
    assert check_rejected(settings).detail == "none in the last 24 hours"
    keep(settings, rejected(callback("t1", key="not ours"), age_s=1))
    found = check_rejected(settings)
    assert (found.ok, found.detail) == (True, "wrong_sign 1")
    assert "tiw rejected list" in found.remedy
    keep(settings, rejected(callback("t2"), age_s=1))
    found = check_rejected(settings)
    assert (found.ok, found.remedy) == (False, "run `tiw rejected reverify`")
    assert found.detail == "1 of the 2 that are kept would be let in with the keys of now"
    (settings.data_dir / "rejected" / "rejected.db").write_bytes(b"no database at all" * 100)
    assert "is damaged" in check_rejected(settings).detail


@pytest.mark.parametrize("keys", ["{}", "nonsense"])
async def test_keys_that_cannot_be_used_are_named(settings: Settings, keys: str) -> None:
    keep(settings, rejected(callback("t1"), age_s=1))
    broken = Settings(database_url=settings.database_url, data_dir=settings.data_dir, callback_keys=keys)
    with pytest.raises(KeysError, match="TIW_CALLBACK_KEYS: "):
        await reverify(broken, arguments())
    assert check_rejected(broken).ok
