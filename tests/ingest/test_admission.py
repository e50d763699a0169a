"""Admission: an answer for every body, at a cost that grows with its size alone."""

import json

import pytest

from ingest.admission import Admitted, admit
from ingest.refusals import Refusal, RefusedError
from schemas import UNRECOGNIZED
from tests.ingest.callback_bodies import KEYS, SAMPLES, callback, signed_anew

NOW_US = 1_600_000_000_000_000
MEGABYTE = 1_000_000


def admitted(body: bytes, *, unsigned: bool = False) -> Admitted | Refusal:
    """Return what becomes of `body`; with `unsigned` it is authentic."""
    try:
        return admit(body, keys=KEYS, allow_unsigned=frozenset({0}) if unsigned else frozenset(), received_at_us=NOW_US)
    except RefusedError as error:
        return error.refusal


@pytest.mark.parametrize("sample", [path.read_bytes() for path in SAMPLES], ids=[path.stem for path in SAMPLES])
def test_a_sample_keeps_its_event_data_byte_for_byte(sample: bytes) -> None:
    result = admitted(signed_anew(sample), unsigned=True)
    assert isinstance(result, Admitted)
    start = sample.index(b'"EventData": ') + len(b'"EventData": ')
    text = sample[start:].decode()
    event_data = text[: json.JSONDecoder().raw_decode(text)[1]].encode()
    assert b'"EventData":' + event_data in result.body


def test_a_recognized_event_says_which_one_it_is() -> None:
    result = admitted(callback())
    assert isinstance(result, Admitted)
    assert result.routing_key == "OnlineRecordStarted"


@pytest.mark.parametrize(
    ("unit", "repeated"),
    [
        (b'"a%d":[[[]]],', False), (b'"a%d":"",', False), (b'"\\u0061%d":0,', False), (b'"a%d":[[[[[[]]]]]],', False),
        (b"[", True), (b"[[],", True), (b'[{"a":', True), (b'["",', True), (b"[[[[[[]]]]]],", True), (b'"",', True),
    ],
)  # fmt: skip
def test_a_megabyte_made_to_hurt_is_settled_authentic_or_not(unit: bytes, repeated: bool) -> None:
    # In quadratic time each of these would take minutes: the suite's own time limit is the assertion on time.
    count = MEGABYTE // len(unit)
    hostile = b'"a":[' + unit * count + b"0]," if repeated else b"".join(unit % number for number in range(count))
    for body in (b"{" + hostile + b'"z":1}', b"{" + hostile, hostile):
        assert admitted(body) in {Refusal.UNKNOWN_APP, Refusal.NOT_AN_OBJECT}
        result = admitted(body, unsigned=True)
        assert result is Refusal.NOT_AN_OBJECT or (isinstance(result, Admitted) and result.routing_key == UNRECOGNIZED)
