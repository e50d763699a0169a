"""The plain look: whatever it admits or refuses, the thorough one admits or refuses equally."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st

import schemas.plain
from ingest import sign
from ingest.admission import Admitted, admit, admit_anything, admit_plain
from ingest.refusals import Refusal, RefusedError
from schemas import EVENT_TYPES, decode
from tests.ingest.callback_bodies import KEY, KEYS, SAMPLES, SDK_APP_ID
from tests.profiles import examples

NOW_US = 1_600_000_000_000_000
EXPIRE_TIME = 1_600_000_000
SIGN = sign(KEY, EXPIRE_TIME)
UNSIGNED = 7

#: The samples in which everything is as documented, and named as now: the older forms are for the thorough look.
PLAIN = ("finished", "finished-error", "long-pause-force-stopped", "long-pause-warning", "started", "started-unsigned")


def verdict(look: Callable[..., Admitted | None], body: bytes) -> Admitted | Refusal | None:
    try:
        return look(body, keys=KEYS, allow_unsigned=frozenset({0, UNSIGNED}), received_at_us=NOW_US)
    except RefusedError as error:
        return error.refusal


def check(body: bytes) -> Admitted | Refusal | None:
    """Return what the plain look says of `body`, None included; fail if the thorough look says something else."""
    plain, thorough = verdict(admit_plain, body), verdict(admit_anything, body)
    assert plain in (None, thorough)
    assert verdict(admit, body) == thorough
    if isinstance(plain, Admitted):
        decoded = decode(plain.body, received_at_us=NOW_US)
        assert (plain.routing_key, plain.event_id) == (type(decoded.event).__name__, decoded.event_id)
        assert plain.odd_members == decoded.odd_members == ()
    return plain


def signed(content: dict[str, Any]) -> dict[str, Any]:
    return {**content, "ExpireTime": EXPIRE_TIME, "SdkAppId": SDK_APP_ID, "Sign": SIGN}


def content_of(sample: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(next(path for path in SAMPLES if path.stem == sample).read_bytes())
    return signed(content) if "Sign" in content else content


def as_the_vendor_writes(content: dict[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ": "), ensure_ascii=False).encode()


@pytest.mark.parametrize("sample", PLAIN)
@pytest.mark.parametrize(
    "write",
    [
        as_the_vendor_writes,
        lambda content: json.dumps(content).encode(),
        lambda content: json.dumps(content, separators=(",", ":")).encode(),
        lambda content: json.dumps(content, indent=4).encode() + b"\n",
        lambda content: json.dumps(content).replace("/", "\\/").replace("&", "\\u0026").encode(),
    ],
    ids=["vendor", "spaced", "compact", "indented", "escaped"],
)
def test_what_the_vendor_documents_is_plain_in_any_layout(sample: str, write: Callable[[Any], bytes]) -> None:
    assert isinstance(check(write(content_of(sample))), Admitted)


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_is_admitted_equally(path: Any) -> None:
    plain = check(as_the_vendor_writes(signed(json.loads(path.read_bytes()))))
    assert path.stem not in PLAIN or isinstance(plain, Admitted)


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_who_is_not_authentic_is_refused_for_the_same_reason(path: Any) -> None:
    content = signed(json.loads(path.read_bytes()))
    for changed in (
        {"Sign": "0" * 32}, {"Sign": SIGN.upper()}, {"Sign": 1}, {"Sign": ""}, {"ExpireTime": EXPIRE_TIME - 301},
        {"ExpireTime": "1"}, {"ExpireTime": 1.5}, {"SdkAppId": 3}, {"SdkAppId": -1}, {"SdkAppId": None},
    ):  # fmt: skip
        assert not isinstance(check(as_the_vendor_writes(content | changed)), Admitted)
    for missing in ("Sign", "ExpireTime", "SdkAppId"):
        assert not isinstance(check(as_the_vendor_writes({k: v for k, v in content.items() if k != missing})), Admitted)


STARTED = as_the_vendor_writes(content_of("started"))
FINISHED = as_the_vendor_writes(content_of("finished"))
DEEP = b"[" * 65 + b"]" * 65


def changed(body: bytes, old: bytes, new: bytes) -> bytes:
    assert body.count(old) == 1
    return body.replace(old, new)


@pytest.mark.parametrize(
    "body",
    [
        changed(STARTED, b'"RoomId": 1253', b'"RoomId": 1253,"RoomId": 1253'),
        changed(STARTED, b'"RoomId": 1253', b'"RoomId": 1,"RoomId": 1253'),
        changed(STARTED, b'"RoomId": 1253', b'"Room\\u0049d": 1,"RoomId": 1253'),
        changed(STARTED, b'"RoomId": 1253', b'"RoomId":1,"RoomId":1253'),
        changed(STARTED, b'"RoomId": 1253', b'"RecordUserId": ": ","RoomId": 1253'),
        changed(STARTED, b'"Timestamp": ', b'"Timestamp": 1,"Timestamp": '),
        changed(STARTED, b'"Sign": ', b'"Sign": 1,"Sign": '),
        changed(STARTED, b'"EventData": {', b'"EventData": {},"EventData": {'),
        changed(FINISHED, b'"VideoType": 0', b'"VideoType": 0,"VideoType": 0'),
        changed(FINISHED, b'"OmittedDurations": []', b'"OmittedDurations": [[]]'),
        changed(FINISHED, b'"OmittedDurations": []', b'"OmittedDurations": ' + DEEP),
        changed(FINISHED, b'"UserId": ""', b'"UserId": "","New": 1'),
        changed(STARTED, b'"Sign"', b'"New": 1,"Sign"'),
        changed(STARTED, b'"Sign"', b'"New": %b,"Sign"' % DEEP),
        changed(STARTED, b'"RoomId": 1253', b'"RoomId": 1253.0'),
        changed(STARTED, b'"RoomId": 1253', b'"RoomId": "1253"'),
        changed(STARTED, b'"RoomId": 1253', b'"RoomId": 9223372036854775808'),
        changed(STARTED, b'"RoomId": 1253', b'"RoomId": 1e999'),
        changed(STARTED, b'"tic_record', b'"\\u0000tic_record'),
        changed(STARTED, b'"tic_record', b'"\\ud800tic_record'),
        changed(STARTED, b'"tic_record', b'"\xfftic_record'),
        changed(STARTED, b'"tic_record', b'"\\"tic_record'),
        changed(STARTED, b'"Timestamp": 1575545412', b'"Timestamp": %d' % (NOW_US // 10**6 + 86_401)),
        changed(STARTED, b'"Timestamp": 1575545412', b'"Timestamp": -1'),
        changed(STARTED, b'"Timestamp": 1575545412', b'"Timestamp": 1.0'),
        changed(STARTED, b'"Timestamp": 1575545412', b'"Timestamp": "1575545412"'),
        changed(STARTED, b'"OnlineRecordStarted"', b'"RecordingArchived"'),
        changed(STARTED, b'"OnlineRecordStarted"', b'"Online\\u0052ecordStarted"'),
        changed(STARTED, b'"TaskId"', b'"taskId"'),
        changed(STARTED, b'"bj0mt2l23osdj300hl30"', b'"%b"' % (b"t" * 256)),
        STARTED + b"{}",
        b"\xef\xbb\xbf" + STARTED,
    ],
)
def test_anything_else_is_for_the_thorough_look(body: bytes) -> None:
    assert check(body) is None


@pytest.mark.parametrize(
    "body",
    [
        changed(STARTED, b'"RoomId": 1253', b'"RoomId": -0'),
        changed(STARTED, b'"RoomId": 1253', b'"RoomId": 9223372036854775807'),
        changed(STARTED, b'"RoomId": 1253', b'"RoomId": null'),
        changed(STARTED, b'"tic_record', b'": tic_record'),
        changed(STARTED, b'"Timestamp"', b'"Time\\u0073tamp"'),
        changed(FINISHED, b'"USER_CALL"', '"\u4e0b\u8bfe"'.encode()),
        changed(FINISHED, b'"VideoType": 2', b'"VideoType": -9223372036854775808'),
        b'{"SdkAppId":7,"EventType":"OnlineRecordStarted","EventData":{"TaskId":"t"},"Timestamp":0}',
    ],
)
def test_what_is_unusual_but_as_documented_is_plain(body: bytes) -> None:
    assert isinstance(check(body), Admitted)


# Texts near the plain case: JSON in any layout, in which nearly everything is as documented.

spaces = st.sampled_from(["", "", "", " ", "\n", "\t ", "\r"])
characters = st.sampled_from(["a", ":", ": ", ",", "{", "]", "\u8bfe", "\x7f", "\u2028"])
characters |= st.sampled_from(
    ['\\"', '\\": ', "\\u0022", "\\\\", "\\/", "\\n", "\\u0000", "\\ud800", "\\u8bfe", "\\uD83C\\uDFA5"]
)
strings = st.lists(characters, max_size=4).map(lambda parts: '"' + "".join(parts) + '"')
plain_strings = st.sampled_from(['"t1"', '"AUTO"', '""', '": "', '"\u8bfe"', '"https://a/b.mp4?c&d"'])
integers = st.integers(0, 2**31).map(str)
numbers = st.sampled_from(["-1", "-0", "00", "1.0", "1.5", "1e3", "1E+2", "1e15", "1e-7", "5e-324", "1e999"])
numbers |= st.sampled_from([str(2**63 - 1), str(2**63), str(2**64), str(-(2**63) - 1), "9" * 30])
odd = (
    numbers | strings | st.sampled_from(["null", "true", "{}", "[]", "[[]]", '{"a":1}', "[" * 70 + "]" * 70, "NaN", ""])
)


def usually(usual: st.SearchStrategy[str], unusual: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.integers(0, 29).flatmap(lambda number: unusual if number == 29 else usual)


@st.composite
def names(draw: st.DrawFn, name: str) -> str:
    """Return a name as it may be written: rarely with an escape, or another one."""
    kind = draw(st.integers(0, 59))
    if kind == 59:
        return draw(strings)
    if kind == 58:
        at = draw(st.integers(0, len(name) - 1))
        return f'"{name[:at]}\\u{ord(name[at]):04x}{name[at + 1 :]}"'
    return f'"{name}"'


@st.composite
def objects(draw: st.DrawFn, members: dict[str, st.SearchStrategy[str]], needed: tuple[str, ...] = ()) -> str:
    """Return an object with some of these members, in any order; now and then with one of them twice, or a new one."""
    optional = [name for name in members if name not in needed]
    chosen = [*needed, *draw(st.lists(st.sampled_from(optional), unique=True) if optional else st.just([]))]
    chosen = draw(st.permutations(chosen))
    oddity = draw(st.integers(0, 39))
    if oddity == 39 and chosen:
        chosen = [*chosen, draw(st.sampled_from(chosen))]
    written = [(draw(names(name)), draw(usually(members[name], odd))) for name in chosen]
    if oddity == 38:
        written.append(('"New"', draw(odd)))
    layout = draw(st.sampled_from(["vendor", "vendor", "compact", "spaced", "any"]))
    if layout == "any":
        parts = [f"{draw(spaces)}{name}{draw(spaces)}:{draw(spaces)}{value}{draw(spaces)}" for name, value in written]
        return "{" + ",".join(parts) + "}"
    comma, colon = {"vendor": (",", ": "), "compact": (",", ":"), "spaced": (", ", ": ")}[layout]
    return "{" + comma.join(f"{name}{colon}{value}" for name, value in written) + "}"


def lists(items: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(items, max_size=3).map(lambda written: "[" + ",".join(written) + "]")


def of_type(kind: str) -> st.SearchStrategy[str]:
    return {"text": plain_strings | strings, "number": integers}[kind]


video = objects(
    {
        **dict.fromkeys(["VideoId", "VideoUrl", "VideoFormat", "UserId"], of_type("text")),
        **dict.fromkeys(["VideoType", "VideoSize", "VideoPlayTime", "VideoDuration", "Width", "Height"], integers),
    }
)
common = {"TaskId": plain_strings, "RoomId": integers, "RecordUserId": plain_strings}
pause = {**common, "PauseTime": integers}
event_data = {
    "OnlineRecordStarted": objects(common, ("TaskId",)),
    "OnlineRecordStopped": objects(common, ("TaskId",)),
    "OnlineRecordLongPauseWarning": objects({**pause, "EstimateStopTime": integers}, ("TaskId",)),
    "OnlineRecordLongPauseForceStopped": objects({**pause, "StopTime": integers}, ("TaskId",)),
    "OnlineRecordFinished": objects(
        {
            **common,
            **dict.fromkeys(["GroupId", "FinishReason"], plain_strings),
            **dict.fromkeys(["RecordStartTime", "RecordStopTime", "TotalTime", "ExceptionCnt"], integers),
            "OmittedDurations": lists(objects(dict.fromkeys(["VideoTime", "PauseTime", "ResumeTime"], integers))),
            "VideoInfos": lists(video),
            "Error": objects({"Code": plain_strings, "Message": plain_strings | strings}),
        },
        ("TaskId",),
    ),
}
assert event_data.keys() == EVENT_TYPES.keys()


def envelopes(event_type: str) -> st.SearchStrategy[str]:
    members = {
        "EventType": st.just(f'"{event_type}"'),
        "EventData": event_data[event_type],
        "Timestamp": usually(st.integers(0, 2 * 10**9).map(str), numbers),
        "SdkAppId": st.just(str(SDK_APP_ID)),
        "ExpireTime": st.just(str(EXPIRE_TIME)),
        "Sign": st.just(f'"{SIGN}"'),
    }
    return objects(members, tuple(members)) | objects(members, ("EventType", "EventData", "Timestamp"))


near_plain = (
    st.sampled_from(sorted(EVENT_TYPES)).flatmap(envelopes).map(lambda text: text.encode("utf-8", "surrogatepass"))
)


@given(body=near_plain)
@examples(quick=40, thorough=10_000)
@example(
    body=b'{"EventType":"OnlineRecordStarted","EventData":{"TaskId":"t"},"Timestamp":1,"SdkAppId":9223372036854775808}'
)
def test_near_the_plain_case_both_looks_say_the_same(body: bytes) -> None:
    plain = check(body)
    event("left to the thorough look" if plain is None else type(plain).__name__)


tokens = st.sampled_from(
    [b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b" ", b"\n", b"\x00", b"\xff", b"0", b"-", b'": ']
)
tokens |= st.sampled_from(
    [b'"":0,', b'"TaskId": "",', b"null", b"1e999", b"\\u0000", b"\\ud800", b"\xef\xbb\xbf", b"[" * 70]
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Return a callback that was plain before some of its bytes were dropped, doubled, moved or added."""
    body = as_the_vendor_writes(content_of(draw(st.sampled_from(PLAIN))))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(body)))
        end = min(len(body), start + draw(st.integers(0, 30)))
        at = draw(st.integers(0, len(body)) | st.just(end))
        inserted = draw(tokens | st.binary(max_size=3) | st.just(body[start:end]))
        body = draw(
            st.sampled_from(
                [body[:start] + body[end:], body[:at] + inserted + body[at:], body[:start] + inserted + body[end:]]
            )
        )
    return body


@given(body=mutated())
@examples(quick=40, thorough=10_000)
def test_whatever_happens_to_a_plain_callback_both_looks_say_the_same(body: bytes) -> None:
    plain = check(body)
    event("left to the thorough look" if plain is None else type(plain).__name__)


def test_a_plain_look_that_passes_over_a_name_that_stands_twice_would_be_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(schemas.plain, "_is_all", lambda *_: True)
    with pytest.raises(AssertionError):
        check(changed(STARTED, b'"RoomId": 1253', b'"RoomId": 1,"RoomId": 1253'))
