"""Another look at a refused callback: with the keys of now, as of its arrival."""

import time

import pytest

from ingest import RefusedError, Rejected, readmit
from schemas import event_id
from tests.ingest.callback_bodies import KEY, KEYS, SDK_APP_ID, callback, sign_of

NOW_S = 1_700_000_000


def rejected(body: bytes, *, age_s: float = 0) -> Rejected:
    """Return a callback that was refused a while ago."""
    return Rejected(received_at_us=round((NOW_S - age_s) * 1e6), reason="wrong_sign", sdk_app_id=SDK_APP_ID, body=body)


def reason(one: Rejected, **settings: object) -> str:
    with pytest.raises(RefusedError) as error:
        readmit(one, **{"keys": KEYS, "allow_unsigned": frozenset[int](), **settings})  # type: ignore[arg-type]  # as said
    return error.value.refusal.label


def test_it_becomes_the_message_that_it_would_have_been() -> None:
    body = callback(expire_time=NOW_S)
    one = rejected(body, age_s=60)
    message = readmit(one, keys=KEYS, allow_unsigned=frozenset())
    assert message.received_at_us == one.received_at_us
    assert message.routing_key == "OnlineRecordStarted"
    assert message.event_id == event_id(
        SDK_APP_ID,
        "OnlineRecordStarted",
        1575545412,
        {"TaskId": "t1", "RoomId": 1253, "RecordUserId": "tic_record_user_1253_01"},
    )
    assert sign_of(body).encode() not in message.body
    assert b"ExpireTime" not in message.body


def test_it_is_judged_as_of_its_arrival_not_of_now() -> None:
    # Expired long ago by the clock of now, and good when it came.
    assert time.time() > NOW_S + 300
    readmit(rejected(callback(expire_time=NOW_S)), keys=KEYS, allow_unsigned=frozenset())
    assert reason(rejected(callback(expire_time=NOW_S - 301))) == "expired"


def test_what_no_key_signed_stays_out() -> None:
    assert reason(rejected(callback(key="not ours", expire_time=NOW_S))) == "wrong_sign"
    assert reason(rejected(callback(expire_time=NOW_S)), keys={}) == "unknown_app"


def test_what_was_unsigned_is_let_in_if_its_application_is_allowed_to_be() -> None:
    body = callback(expire_time=NOW_S).replace(b'"Sign"', b'"S"').replace(b'"ExpireTime"', b'"E"')
    assert reason(rejected(body)) == "missing_sign"
    allowed = frozenset({SDK_APP_ID})
    assert readmit(rejected(body), keys={}, allow_unsigned=allowed).routing_key == "OnlineRecordStarted"


def test_what_is_not_strict_is_let_in_as_unrecognized() -> None:
    body = callback(expire_time=NOW_S).replace(b'"t1"', b'"\xff"')
    message = readmit(rejected(body), keys={SDK_APP_ID: ("old", KEY)}, allow_unsigned=frozenset())
    assert message.routing_key == "unrecognized"
    assert b"\xff" in message.body
