"""From the bytes of a callback, Sign and ExpireTime taken out, to an event and its id."""

import hashlib
import json
import math
from typing import Any, get_args, get_origin

import msgspec
from msgspec import Raw, Struct, structs

from schemas.archiving import RECORDING_ARCHIVED, Event, RecordingArchived
from schemas.events import EVENT_TYPES, CallbackEvent, OmittedDuration, RecordingError, Unrecognized, VideoInfo
from schemas.strict_json import NotStrictError, StrictObject, encode_sorted, read_object

#: A Timestamp further ahead of its arrival than this would win every merge: such content is not recognized.
MAX_AHEAD_S = 86_400

#: 2020-01-01: nothing arrived before. A clock that says so is wrong, such as that of a machine that has just started
#: and not found the time yet, and what it says of an arrival is no measure of a Timestamp.
EARLIEST_ARRIVAL_S = 1_577_836_800

#: More of an unknown EventType than this is not shown; the whole is in the body.
MAX_EVENT_TYPE_CHARACTERS = 128

_text = msgspec.json.Decoder(str)
_integer = msgspec.json.Decoder(int)
_members = msgspec.json.Decoder(dict[str, Raw])
_anything = msgspec.json.Decoder()
# Takes the numbers that msgspec refuses for an infinite one, as they are larger than any that can be stored.
_with_any_number = json.JSONDecoder(parse_int=lambda digits: int(digits) if len(digits) <= _MAX_DIGITS else math.inf)

_BACKSLASH = ord("\\")

#: More than any number of 64 bits has, and fewer than Python refuses to convert.
_MAX_DIGITS = 20

#: What says which recording it is, and when: where one of these does not fit, nothing is made of the rest.
_IDENTITY = frozenset({"SdkAppId", "Timestamp", "TaskId"})


class Decoded(Struct, frozen=True, kw_only=True):
    """An event and its identity.

    `odd_members` names the members of EventData that are not what the vendor documents, such as `VideoInfos[1].Width`:
    the event is without them, the body has them.
    """

    event: CallbackEvent
    event_id: str
    odd_members: tuple[str, ...] = ()


class _Envelope(Struct, frozen=True, kw_only=True):
    """What makes an event, by the vendor's names."""

    SdkAppId: int = 0
    EventType: str
    Timestamp: int
    EventData: Any


class _UnfittingError(ValueError):
    """Raised when a member is missing or is not what the vendor documents."""


def decode(body: bytes, *, received_at_us: int) -> Decoded:
    """Make an event of a callback's body, and never fail: what fits no event is `Unrecognized`.

    `received_at_us` is when the callback came in, in microseconds since the Unix epoch. The same body gives the
    same event_id whenever it is decoded; see `event_id`.
    """
    try:
        found = read_object(body)
    except NotStrictError as error:
        return Decoded(event=_unrecognized(_readable_members(body), str(error)), event_id=_digest(body))
    return decode_object(found, body, received_at_us=received_at_us)


def decode_object(found: StrictObject, body: bytes, *, received_at_us: int) -> Decoded:
    """Do as `decode` for a body that was read already: `found` is what `read_object(body)` returns.

    It may have members that `body` lost since, if they are none of those that make an event.
    """
    try:
        envelope, data = _envelope(found)
    except _UnfittingError as error:
        return Decoded(event=_unrecognized(found.members, str(error)), event_id=_digest(body))
    identity = (
        _digest(body) if data is None else event_id_of(envelope.SdkAppId, envelope.EventType, envelope.Timestamp, data)
    )
    try:
        event, odd_members = _fit(envelope, received_at_us, may_hold_nul=may_hold_nul(body))
    except _UnfittingError as error:
        return Decoded(event=_unrecognized(found.members, str(error)), event_id=identity)
    return Decoded(event=event, event_id=identity, odd_members=odd_members)


def event_id(sdk_app_id: int, event_type: str, timestamp: int, event_data: dict[str, Any]) -> str:
    """Return 32 hex digits that are the same for every repetition of an event, however it was signed.

    SHA-256 over SdkAppId, EventType, Timestamp and EventData as compact JSON with sorted names, joined by line
    feeds. Raises nothing for values that `msgspec.json.decode` returned.
    """
    return event_id_of(sdk_app_id, event_type, timestamp, encode_sorted(event_data))


def event_id_of(sdk_app_id: int, event_type: str, timestamp: int, sorted_event_data: bytes) -> str:
    """Do as `event_id` where EventData is compact JSON with sorted names already."""
    digest = hashlib.sha256(b"%d\n%s\n%d\n" % (sdk_app_id, event_type.encode(), timestamp))
    digest.update(sorted_event_data)
    return digest.hexdigest()[:32]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _readable_members(body: bytes) -> dict[str, Raw]:
    """Return what can be read of a body that is not strict, so that it shows whose it is; possibly nothing."""
    try:
        return _members.decode(body)
    except (ValueError, RecursionError):
        return {}


def _member(members: dict[str, Raw], name: str, decoder: msgspec.json.Decoder[Any]) -> Any:
    raw = members.get(name)
    if raw is None:
        raise _UnfittingError(f"{name} is missing")
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _UnfittingError(f"{name}: {error}") from error


def _envelope(found: StrictObject) -> tuple[_Envelope, bytes | None]:
    """Return what makes an event, and EventData as the event_id is made of it; None if that cannot be formed."""
    try:
        envelope, data = msgspec.convert(found.values, _Envelope), found.event_data
    except msgspec.ValidationError:
        # One by one: they may be there although `values` are not, and if not, the reason names the first that is wrong.
        members = found.members
        sdk_app_id = _member(members, "SdkAppId", _integer) if "SdkAppId" in members else 0
        event_type, timestamp = _member(members, "EventType", _text), _member(members, "Timestamp", _integer)
        event_data, data = _event_data(members)
        envelope = _Envelope(SdkAppId=sdk_app_id, EventType=event_type, Timestamp=timestamp, EventData=event_data)
    if type(envelope.EventData) is not dict:
        raise _UnfittingError("EventData is not an object")
    return envelope, data


def _event_data(members: dict[str, Raw]) -> tuple[Any, bytes | None]:
    try:
        event_data = _member(members, "EventData", _anything)
    except _UnfittingError:
        if "EventData" not in members:
            raise
        # A number that is out of range. It is one odd member; the body was found to be JSON before.
        return _with_any_number.decode(bytes(members["EventData"]).decode()), None
    return event_data, encode_sorted(event_data)


def _fit(envelope: _Envelope, received_at_us: int, *, may_hold_nul: bool) -> tuple[CallbackEvent, tuple[str, ...]]:
    """Return the event, and the names of the members that it is without."""
    kind = EVENT_TYPES.get(envelope.EventType)
    if kind is None:
        raise _UnfittingError("EventType is none of the five recording events")
    if lies_ahead(envelope.Timestamp, received_at_us):
        raise _UnfittingError("Timestamp lies more than a day ahead of the arrival")
    # The envelope wins over members of the same name in EventData.
    flat = envelope.EventData | {"Timestamp": envelope.Timestamp, "SdkAppId": envelope.SdkAppId}
    if not may_hold_nul:
        try:
            return msgspec.convert(flat, kind, strict=False), ()
        except msgspec.ValidationError:
            pass
    task_id = flat.get("TaskId")
    if type(task_id) is str and "\0" in task_id:
        raise _UnfittingError("TaskId holds the character U+0000, which SQL text cannot")
    odd_members: list[str] = []
    try:
        return msgspec.convert(_understood(flat, kind, "", odd_members), kind, strict=False), tuple(odd_members)
    except msgspec.ValidationError as error:
        raise _UnfittingError(f"EventData: {error}") from error


def may_hold_nul(body: bytes) -> bool:
    """Say whether a text in `body` may hold U+0000, which SQL text cannot."""
    return _BACKSLASH in body and b"\\u0000" in body  # in JSON that character is only ever written like this


def lies_ahead(timestamp: int, received_at_us: int) -> bool:
    """Say whether a Timestamp lies too far ahead of its arrival for an event to be made of it."""
    received_at_s = received_at_us // 1_000_000
    return timestamp > received_at_s + MAX_AHEAD_S and received_at_s >= EARLIEST_ARRIVAL_S


class _Member(Struct, frozen=True, kw_only=True):
    """A member of an object on the wire: `part` is the kind of object that it is, or is a list of."""

    name: str
    kind: Any
    part: type[Struct] | None
    is_list: bool


def _members_of(kind: type[Struct]) -> tuple[_Member, ...]:
    return tuple(
        _Member(
            name=field.encode_name,
            kind=field.type,
            part=next((one for one in get_args(field.type) if isinstance(one, type) and issubclass(one, Struct)), None),
            is_list=get_origin(field.type) is tuple,
        )
        for field in structs.fields(kind)
    )


_known_members: dict[type[Struct], tuple[_Member, ...]] = {
    kind: _members_of(kind) for kind in (*EVENT_TYPES.values(), VideoInfo, OmittedDuration, RecordingError)
}


def _understood(value: Any, kind: type[Struct], place: str, odd_members: list[str]) -> dict[str, Any]:
    """Return of an object the members that fit; note in `odd_members` where the others stand.

    What should be an object and is none becomes one without members: a list keeps its length and order, so that it
    shows how many files there are, and a recording that failed is seen to have failed. Null is an absent member, and a
    number a GroupId.
    """
    if type(value) is not dict:
        odd_members.append(place)
        return {}
    understood: dict[str, Any] = {}
    for member in _known_members[kind]:
        item = value.get(member.name)
        if item is None:
            continue
        at = f"{place}.{member.name}" if place else member.name
        if member.name == "GroupId" and type(item) is int:
            item = str(item)
        if member.is_list and member.part is not None and type(item) is list:
            understood[member.name] = [
                _understood(one, member.part, f"{at}[{number}]", odd_members) for number, one in enumerate(item)
            ]
        elif member.part is not None and not member.is_list:
            understood[member.name] = _understood(item, member.part, at, odd_members)
        elif member.name in _IDENTITY or _fits(item, member.kind):
            understood[member.name] = item
        else:
            odd_members.append(at)
    return understood


def _fits(value: Any, kind: Any) -> bool:
    if type(value) is str and "\0" in value:
        return False  # SQL text cannot hold it
    try:
        msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError:
        return False
    return True


def _unrecognized(members: dict[str, Raw], reason: str) -> Unrecognized:
    """Keep of the envelope what can be shown and stored."""
    return Unrecognized(
        reason=reason,
        event_type=_presentable_event_type(members),
        timestamp=_bigint(members.get("Timestamp")),
        sdk_app_id=_bigint(members.get("SdkAppId")) or 0,
    )


def _presentable_event_type(members: dict[str, Raw]) -> str | None:
    try:
        event_type = str(_member(members, "EventType", _text))
    except _UnfittingError:
        return None
    return "".join(
        c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in event_type[:MAX_EVENT_TYPE_CHARACTERS]
    )


def _bigint(raw: Raw | None) -> int | None:
    if raw is None:
        return None
    try:
        number = _integer.decode(raw)
    except msgspec.DecodeError:
        return None
    return number if -(2**63) <= number < 2**63 else None


def encode_archived(event: RecordingArchived) -> tuple[bytes, str]:
    """Return the body that `redecode` makes this event of, and its event_id."""
    members: dict[str, Any] = msgspec.to_builtins(event)
    timestamp, sdk_app_id = members.pop("Timestamp"), members.pop("SdkAppId")
    content = {"EventType": RECORDING_ARCHIVED, "Timestamp": timestamp, "SdkAppId": sdk_app_id, "EventData": members}
    return msgspec.json.encode(content), event_id(sdk_app_id, RECORDING_ARCHIVED, timestamp, members)


_typed: dict[str, msgspec.json.Decoder[Any]] = {
    name: msgspec.json.Decoder(kind, strict=False)
    for name, kind in {**EVENT_TYPES, RECORDING_ARCHIVED: RecordingArchived}.items()
}


class _KnownEnvelope(Struct, frozen=True, kw_only=True):
    SdkAppId: int = 0
    EventType: str
    Timestamp: int
    EventData: Raw


_known_envelope = msgspec.json.Decoder(_KnownEnvelope)


def redecode(body: bytes, *, routing_key: str, received_at_us: int) -> Event:
    """Return the event that `decode(body, received_at_us=received_at_us)` returns, or our own `RecordingArchived`.

    For what a transport delivers, once per delivery: `routing_key` and `received_at_us` are those of the message. The
    event_id is in its header and need not be computed again. That a body under the routing key of one of the five
    events is strict JSON was seen to when it was accepted, and is relied on here: of a foreign message with a name
    twice, the last counts. Under any other key, and where its content is not quite what the vendor documents, it takes
    as long as `decode`. No callback comes under the routing key of `RecordingArchived`: one that claims this EventType
    is unrecognized, and comes under that key. Raises nothing.
    """
    event = _redecode(body, routing_key, received_at_us) if routing_key in _typed else None
    return decode(body, received_at_us=received_at_us).event if event is None else event


def _redecode(body: bytes, routing_key: str, received_at_us: int) -> Event | None:
    """Return the event if it is one at first sight."""
    if may_hold_nul(body):
        return None
    try:
        envelope = _known_envelope.decode(body)
        if envelope.EventType != routing_key or lies_ahead(envelope.Timestamp, received_at_us):
            return None
        # An event is flat: what the envelope says stands behind the members of EventData, and so wins over them.
        event_data = bytes(envelope.EventData)
        flat = b'%b,"Timestamp":%d,"SdkAppId":%d}' % (event_data[:-1], envelope.Timestamp, envelope.SdkAppId)
        event: Event = _typed[routing_key].decode(flat)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return event
