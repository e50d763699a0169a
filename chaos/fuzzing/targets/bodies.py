"""Callbacks from strangers and from the vendor: what is let in, what of it is kept, and what is made of it.

As `ingest.lenient` documents its own: an object with an optional byte order mark; names are strings; a value is a
string, a word of `-+.0-9A-Za-z`, or anything between matching brackets, in which quotes delimit strings.
"""

import json
import re
import zlib
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import msgspec
from msgspec import Struct

from chaos.fuzzing.outcome import promise
from chaos.fuzzing.serving import ALLOW_UNSIGNED, EXPIRE_TIME, KEYS, NOW_US, SDK_APP_ID, sign, signature
from ingest.admission import Admitted, admit, admit_anything, admit_plain
from ingest.lenient import NAMES, find_members
from ingest.refusals import Refusal, RefusedError
from schemas import (
    EVENT_TYPES,
    UNRECOGNIZED,
    CallbackEvent,
    NotStrictError,
    RecordingEvent,
    Unrecognized,
    decode,
    read_object,
    redecode,
)

_SPACE = b" \t\r\n"
_NO_WORD = re.compile(rb"[^-+.0-9A-Za-z]")
_IN_STRING = re.compile(rb'["\\]')
_IN_NESTED = re.compile(rb'["\[\]{}]')
_lax = json.JSONDecoder(strict=False)
_CLOSING = {ord("["): ord("]"), ord("{"): ord("}")}
_QUOTE, _BACKSLASH, _COLON, _COMMA, _END = b'"\\:,}'
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Member(Struct, frozen=True, kw_only=True):
    """A member of the top level: `name` as JSON reads it, its bytes where JSON cannot; and where its value stands."""

    name: str | bytes
    value_start: int
    end: int
    value: bytes


class _UnreadableError(Exception):
    """Raised when the grammar is broken."""


def read_top_level(body: bytes) -> list[Member] | None:
    """Return the members in their order, those with one name included; None if `body` is no object."""
    try:
        return _object(body)
    except (_UnreadableError, IndexError):
        return None


def _object(body: bytes) -> list[Member]:
    at = _after_space(body, len(_BYTE_ORDER_MARK) if body.startswith(_BYTE_ORDER_MARK) else 0)
    if body[at] != ord("{"):
        raise _UnreadableError
    at = _after_space(body, at + 1)
    members: list[Member] = []
    while body[at] != _END or members:
        name_start, at = at, _string_end(body, at)
        name = _name(body[name_start:at])
        at = _after_space(body, at)
        if body[at] != _COLON:
            raise _UnreadableError
        value_start = _after_space(body, at + 1)
        end = _value_end(body, value_start)
        members.append(Member(name=name, value_start=value_start, end=end, value=body[value_start:end]))
        at = _after_space(body, end)
        if body[at] == _END:
            break
        if body[at] != _COMMA:
            raise _UnreadableError
        at = _after_space(body, at + 1)
    if _after_space(body, at + 1) != len(body):
        raise _UnreadableError
    return members


def _after_space(body: bytes, at: int) -> int:
    while at < len(body) and body[at] in _SPACE:
        at += 1
    return at


def _next(wanted: re.Pattern[bytes], body: bytes, at: int) -> int:
    """Return where the next of some bytes stands."""
    found = wanted.search(body, at)
    if found is None:
        raise _UnreadableError
    return found.start()


def _string_end(body: bytes, at: int) -> int:
    if body[at] != _QUOTE:
        raise _UnreadableError
    at = _next(_IN_STRING, body, at + 1)
    while body[at] == _BACKSLASH:
        at = _next(_IN_STRING, body, at + 2)
    return at + 1


def _value_end(body: bytes, at: int) -> int:
    if body[at] == _QUOTE:
        return _string_end(body, at)
    if body[at] in _CLOSING:
        return _nested_end(body, at)
    end = _next(_NO_WORD, body, at)
    if end == at:
        raise _UnreadableError
    return end


def _nested_end(body: bytes, at: int) -> int:
    expected: list[int] = []
    while True:
        at = _next(_IN_NESTED, body, at)
        byte = body[at]
        if byte == _QUOTE:
            at = _string_end(body, at)
            continue
        if byte in _CLOSING:
            expected.append(_CLOSING[byte])
        elif expected.pop() != byte:
            raise _UnreadableError
        elif not expected:
            return at + 1
        at += 1


def _name(raw: bytes) -> str | bytes:
    try:
        text = raw.decode()
        return str(_lax.decode(text)) if "\\" in text else text[1:-1]
    except ValueError:
        return raw


#: Everything that a body can be refused for.
REFUSALS = frozenset(
    {
        *(Refusal.NOT_AN_OBJECT, Refusal.AMBIGUOUS, Refusal.UNKNOWN_APP, Refusal.MISSING_SIGN),
        *(Refusal.MALFORMED_SIGN, Refusal.MALFORMED_EXPIRE_TIME, Refusal.WRONG_SIGN, Refusal.EXPIRED),
    }
)

_DROPPED = frozenset({"Sign", "ExpireTime"})
_SKEW_S = 300
_INTEGER = re.compile(rb"0|[1-9][0-9]{0,18}")
_EVENT_ID = re.compile(r"[0-9a-f]{32}")
_SQL_INTEGERS = range(-(2**63), 2**63)
_MAX_TASK_ID_CHARACTERS = 255
_DAY_S = 86_400

#: What `growth` blows its patterns up to.
GROWN_BYTES = 64 * 1024

_CLAIMED = tuple(EVENT_TYPES)

Verdict = TypeVar("Verdict")

_Named: TypeAlias = list[tuple[str | bytes, bytes]]


def admission(body: bytes) -> None:
    """Whoever sent it: let in all that is authentic, and nothing else."""
    _checked(body)


def signed_admission(rest: bytes) -> None:
    """Whatever an authentic callback contains: let it in, as the same event however it was signed."""
    first, again = (_sign_body(rest, signature(KEYS[SDK_APP_ID][n], EXPIRE_TIME + n)) for n in range(2))
    kept, kept_again = _kept(_checked(first)), _kept(admitted(again))
    promise(kept == kept_again, "an event signed anew is the same event, and kept with the same bytes")


def decoding(body: bytes) -> None:
    """Whatever a body holds: make an event of it with an id that does not change."""
    decoded = decode(body, received_at_us=NOW_US)
    promise(_EVENT_ID.fullmatch(decoded.event_id), "an event_id is 32 hexadecimal digits")
    event = decoded.event
    promise(
        redecode(body, routing_key=_routing_key(event), received_at_us=NOW_US) == event,
        "a second look finds the same event",
    )
    claimed = _CLAIMED[len(body) % len(_CLAIMED)]
    redecode(body, routing_key=claimed, received_at_us=NOW_US)  # a foreign message may claim anything
    promise(isinstance(event, RecordingEvent) or not _says_which_recording(body), "an odd member costs no recording")
    if isinstance(event, RecordingEvent):
        _check_storable(event)
        _check_same_for_all_writers(body, decoded.event_id)
    else:
        promise(event.reason, "what is not recognized says why")
        promise(event.event_type is None or event.event_type.isprintable(), "an EventType that is shown can be shown")
        promise(event.sdk_app_id in _SQL_INTEGERS, "an SdkAppId can be stored")
        promise(event.timestamp is None or event.timestamp in _SQL_INTEGERS, "a Timestamp can be stored")


def lenient(body: bytes) -> None:
    """Find the same members as a slow reading does, and as the strict one does where there is one."""
    found = _find(body)
    members = read_top_level(body)
    if members is None:
        promise(isinstance(found, Refusal), "what is no object is refused")
        return
    named = [member for member in members if member.name in NAMES]
    expected = {str(member.name): body[member.value_start : member.end] for member in named}
    if len(expected) < len(named):
        promise(found is Refusal.AMBIGUOUS, "a name that stands twice is refused")
        return
    promise(found == expected, "the lenient reading finds what is there")
    try:
        strict = read_object(body).members
    except NotStrictError:
        return
    values = {name: bytes(strict[name]) for name in NAMES & strict.keys()}
    promise(values == expected, "the strict and the lenient reading agree")


def growth(pattern: bytes) -> None:
    """Settle a body of 64 KiB that repeats itself, authentic or not."""
    start, _, unit = pattern.partition(b"\n")
    body = start + unit * (GROWN_BYTES // max(len(unit), 1))
    admitted(body)
    admitted(_sign_body(body, signature(KEYS[SDK_APP_ID][0], EXPIRE_TIME)))
    decode(body, received_at_us=NOW_US)


def admitted(body: bytes) -> Admitted | Refusal:
    """Return what becomes of `body` at ingest."""
    verdict = _verdict(admit, body)
    promise(isinstance(verdict, Admitted) or verdict in REFUSALS, "a body is refused for a reason that is documented")
    return verdict


def _verdict(look: Callable[..., Verdict], body: bytes) -> Verdict | Refusal:
    try:
        return look(body, keys=KEYS, allow_unsigned=ALLOW_UNSIGNED, received_at_us=NOW_US)
    except RefusedError as error:
        return error.refusal


def _routing_key(event: CallbackEvent) -> str:
    return UNRECOGNIZED if isinstance(event, Unrecognized) else type(event).__name__


def _checked(body: bytes) -> Admitted | Refusal:
    verdict = admitted(body)
    plain = _verdict(admit_plain, body)
    promise(plain in {None, _verdict(admit_anything, body)}, "what is plain is admitted as anything is")
    members = read_top_level(_without_mark(body))
    promise(isinstance(verdict, Admitted) == _is_authentic(members), "what is let in is what is authentic")
    if isinstance(verdict, Admitted) and members is not None:
        _check_kept(verdict, members)
    return verdict


def _without_mark(body: bytes) -> bytes:
    """Return a body as UTF-8 without its byte order mark, where it has one and can be read by it."""
    for mark, encoding in ((_BYTE_ORDER_MARK, "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if body.startswith(mark):
            rest = body[len(mark) :]
            try:
                return rest if encoding == "utf-8" else rest.decode(encoding).encode()
            except UnicodeError:
                return body
    return body


def _kept(verdict: Admitted | Refusal) -> Admitted | None:
    """Return what is kept, whoever signed it."""
    return msgspec.structs.replace(verdict, pair=None) if isinstance(verdict, Admitted) else None


def _find(body: bytes) -> dict[str, bytes] | Refusal:
    try:
        return {name: body[span.value_start : span.end] for name, span in find_members(body).items()}
    except RefusedError as error:
        return error.refusal


def _sign_body(rest: bytes, members: bytes) -> bytes:
    """Put `members` first or last into the object that `rest` may be; which, depends on `rest` alone."""
    if zlib.crc32(rest) & 1 and rest.endswith(b"}") and b":" in rest:
        return b"%b,%b}" % (rest[:-1], members)
    inner = rest[1:] if rest.startswith(b"{") else rest
    return b"{%b%b%b" % (members, b"" if inner.lstrip().startswith(b"}") else b",", inner)


def _is_authentic(members: list[Member] | None) -> bool:
    if members is None:
        return False
    named = [(member.name, member.value) for member in members if member.name in NAMES]
    values = dict(named)
    if len(values) < len(named):
        return False
    app = values.get("SdkAppId", b"0")
    if not _INTEGER.fullmatch(app):
        return False
    expire_time, given = values.get("ExpireTime"), values.get("Sign")
    if int(app) not in KEYS:
        return int(app) in ALLOW_UNSIGNED and expire_time is None and given is None
    if expire_time is None or given is None or not _INTEGER.fullmatch(expire_time):
        return False
    right = {sign(key, expire_time).decode() for key in KEYS[int(app)]}
    return _string(given) in right and int(expire_time) >= NOW_US / 1_000_000 - _SKEW_S


def _string(raw: bytes) -> str | None:
    try:
        value = json.loads(raw)
    except ValueError:
        return None
    return value if isinstance(value, str) else None


def _check_kept(verdict: Admitted, members: list[Member]) -> None:
    sent: _Named = [(member.name, member.value) for member in members if member.name not in _DROPPED]
    kept: _Named = [(member.name, member.value) for member in read_top_level(verdict.body) or []]
    promise(kept == sent, "everything but Sign and ExpireTime is kept, each value byte for byte")
    apps = [int(value) for name, value in sent if name == "SdkAppId"]
    promise(verdict.sdk_app_id == (apps or [0])[0], "the callback is of the app that signed it")
    decoded = decode(verdict.body, received_at_us=NOW_US)
    promise(
        (verdict.routing_key, verdict.event_id, verdict.odd_members)
        == (_routing_key(decoded.event), decoded.event_id, decoded.odd_members),
        "the kept body is the event that was seen",
    )


def _says_which_recording(body: bytes) -> bool:
    """Say whether a body is of a recording event beyond doubt, whatever else it says."""
    try:
        read_object(body)
        values = json.loads(body, parse_int=lambda digits: int(digits[:25]))
    except ValueError:
        return False
    data, timestamp, app = values.get("EventData"), values.get("Timestamp"), values.get("SdkAppId", 0)
    if values.get("EventType") not in _CLAIMED or type(data) is not dict or type(timestamp) is not int:
        return False
    task_id = data.get("TaskId")
    return (
        type(app) is int
        and app in _SQL_INTEGERS
        and -(2**63) <= timestamp <= NOW_US // 1_000_000 + _DAY_S
        and type(task_id) is str
        and len(task_id) <= _MAX_TASK_ID_CHARACTERS
        and "\0" not in task_id
    )


def _check_storable(event: RecordingEvent) -> None:
    promise(len(event.task_id) <= _MAX_TASK_ID_CHARACTERS, "a TaskId can be indexed")
    _check_values(msgspec.to_builtins(event))


def _check_values(value: Any) -> None:
    if isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            _check_values(item)
    elif isinstance(value, int):
        promise(value in _SQL_INTEGERS, "an event's numbers can be stored")
    elif isinstance(value, str):
        is_text = "\0" not in value and not any("\ud800" <= character <= "\udfff" for character in value)
        promise(is_text, "an event's texts can be stored")


def _check_same_for_all_writers(body: bytes, event_id: str) -> None:
    try:
        values = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return  # a number that no float holds: it cannot be written anew
    rewritten = msgspec.json.encode(values, order="sorted")
    again = decode(rewritten, received_at_us=NOW_US).event_id
    promise(again == event_id, "an event_id depends on no white space and no order")
