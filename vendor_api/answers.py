"""What the vendor's answers mean, and the callback bodies that say the same. Pure: no I/O.

Answers are hostile input: what does not fit is left out, and an answer from which nothing can be concluded is `Again`.

Sources: https://cloud.tencent.com/document/product/1137/40049 (limits, errors),
https://www.tencentcloud.com/document/product/1176/55181 (`DescribeOnlineRecord`), and the models of the vendor's SDK,
https://github.com/TencentCloud/tencentcloud-sdk-python/tree/master/tencentcloud/tiw/v20190919.
"""

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, cast

import msgspec
from msgspec import Struct

from schemas import FinishReason, OmittedDuration, OnlineRecordFinished, VideoInfo, decode
from vendor_api.explaining import CLOCK_OFF, Explanation, pause_reason

#: A larger answer is refused. 100 tasks take 30 KB, and a recording's longest list of videos well under 1 MB.
MAX_ANSWER_BYTES = 4 * 1024 * 1024

#: Objects and lists of one answer, so that a small text does not become a large heap: one of 4 MiB with videos in it
#: has 14,000.
_MAX_PARTS = 65_536

_MAX_CODE_CHARACTERS = 128
_MAX_MESSAGE_CHARACTERS = 2_000

#: A Timestamp further ahead than this is not taken for an event's, see schemas.
_MAX_AHEAD_S = 86_400

#: The members of an answer that a Finished callback has, too.
_DESCRIBED = (
    *("RoomId", "GroupId", "RecordUserId", "FinishReason", "RecordStartTime", "RecordStopTime", "TotalTime"),
    *("ExceptionCnt", "OmittedDurations", "VideoInfos"),
)


class OnlineRecord(Struct, frozen=True, kw_only=True):
    """A recording as the vendor describes it; members have the names and units of `OnlineRecordFinished`.

    `odd_members` names what was left out because it is not what the vendor documents.
    """

    task_id: str
    room_id: int | None = None
    group_id: str | None = None
    record_user_id: str | None = None
    finish_reason: FinishReason | None = None
    record_start_time: int | None = None
    record_stop_time: int | None = None
    total_time_ms: int | None = None
    exception_count: int | None = None
    omitted_durations: tuple[OmittedDuration, ...] = ()
    video_infos: tuple[VideoInfo, ...] = ()
    odd_members: tuple[str, ...] = ()


RunningStatus: TypeAlias = Literal["PREPARED", "RECORDING", "PAUSED"]


class Running(Struct, frozen=True, kw_only=True, tag=True):
    """The recording goes on."""

    status: RunningStatus
    record: OnlineRecord


class Stopped(Struct, frozen=True, kw_only=True, tag=True):
    """It was stopped, and its files are being processed."""

    record: OnlineRecord


class Finished(Struct, frozen=True, kw_only=True, tag=True):
    """It ended, and this is the result. Final."""

    record: OnlineRecord


class Failed(Struct, frozen=True, kw_only=True, tag=True):
    """It failed, with the `Error` that its callback has. Final."""

    code: str
    message: str


class NotFound(Struct, frozen=True, kw_only=True, tag=True):
    """The vendor does not know the TaskId. Final, once it says so a few times."""

    message: str


class AppPaused(Struct, frozen=True, kw_only=True, tag=True):
    """Nothing can be asked for this application until a person acts: credentials, permission, arrears.

    `detail` is the vendor's own text.
    """

    code: str
    explanation: Explanation
    detail: str

    @property
    def reason(self) -> str:
        """What is wrong and what to do, in English, with the vendor's code."""
        return f"{self.explanation.en} ({self.code})"


class ClockOff(Struct, frozen=True, kw_only=True, tag=True):
    """Our clock is so wrong that the vendor refuses our signatures."""

    detail: str
    explanation: Explanation = CLOCK_OFF

    @property
    def reason(self) -> str:
        """What is wrong and what to do, in English."""
        return self.explanation.en


class Again(Struct, frozen=True, kw_only=True, tag=True):
    """Nothing was learned: ask again later, with growing gaps. `after_s` is the shortest wait that makes sense."""

    reason: str
    after_s: float = 0.0


#: No answer to what was asked, whatever it was.
Refusal: TypeAlias = AppPaused | ClockOff | Again
Answer: TypeAlias = Running | Stopped | Finished | Failed | NotFound | Refusal


class VendorError(Exception):
    """Raised when the vendor did not answer what was asked. `refusal` says what to do about it."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal


#: Of a limit per second, so that the next second is another.
_AFTER_LIMIT_S = 2.0


def judge_error(code: str, message: str) -> Failed | NotFound | Refusal:
    """Return what an error of the API means. Both texts are cut, and made to fit SQL and JSON."""
    code, message = _cut(code, _MAX_CODE_CHARACTERS), _cut(message, _MAX_MESSAGE_CHARACTERS)
    if code == "FailedOperation.Record":
        return Failed(code=code, message=message)
    if code == "InvalidParameter.TaskNotFound":
        return NotFound(message=message)
    if code == "AuthFailure.SignatureExpire":
        return ClockOff(detail=message)
    explanation = pause_reason(code)
    if explanation is not None:
        return AppPaused(code=code, explanation=explanation, detail=message)
    after_s = _AFTER_LIMIT_S if code.partition(".")[0] == "RequestLimitExceeded" else 0.0
    return Again(reason=f"{code}: {message}" if message else code, after_s=after_s)


def _cut(text: str, length: int) -> str:
    """Return of a text what is shown, stored and sent; of what neither SQL nor UTF-8 takes, a mark."""
    return "".join("\N{REPLACEMENT CHARACTER}" if c == "\0" or "\ud800" <= c <= "\udfff" else c for c in text[:length])


class _UnusableError(Exception):
    """Raised when nothing can be concluded from an answer; its text says why."""


class _ErrorMember(Struct, frozen=True, kw_only=True):
    Code: str = ""
    Message: str = ""


_envelope = msgspec.json.Decoder(dict[str, Any])


def read_response(content: bytes, *, with_messages: bool = True) -> dict[str, Any] | Failed | NotFound | Refusal:
    """Return the members of `Response`, or what its `Error` means; `Again` where it is no answer of the API at all.

    The vendor's SDK looks for an `Error` under two Content-Types only, and takes it for a success under others; here
    it counts wherever it stands. Without messages, of an error there is its code alone. Raises nothing.
    """
    try:
        response = _response(content)
        if response.get("Error") is None:
            return response
        error = msgspec.convert(response["Error"], _ErrorMember)
    except (_UnusableError, msgspec.ValidationError) as unusable:
        return Again(reason=f"the answer is not what is documented: {_cut(str(unusable), _MAX_CODE_CHARACTERS)}")
    return judge_error(error.Code, error.Message if with_messages else "")


def _response(content: bytes) -> dict[str, Any]:
    if len(content) > MAX_ANSWER_BYTES:
        raise _UnusableError(f"it is larger than {MAX_ANSWER_BYTES} bytes")
    if content.count(b"{") + content.count(b"[") > _MAX_PARTS:
        raise _UnusableError(f"it has more than {_MAX_PARTS} objects and lists")
    try:
        response = _envelope.decode(content).get("Response")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _UnusableError("it is not a JSON object") from None
    if type(response) is not dict:
        raise _UnusableError("it has no Response")
    return cast("dict[str, Any]", response)


def judge(content: bytes, *, sdk_app_id: int, task_id: str, now_s: float) -> Answer:
    """Return what an answer to `DescribeOnlineRecord` means: `content` is its body, as it came. Raises nothing."""
    response = read_response(content)
    if not isinstance(response, dict):
        return response
    try:
        return _judge_status(response, sdk_app_id, task_id, now_s)
    except _UnusableError as unusable:
        return Again(reason=f"the answer is not what is documented: {unusable}")


def _judge_status(response: Mapping[str, Any], sdk_app_id: int, task_id: str, now_s: float) -> Answer:
    status = response.get("Status")
    if status is None:
        raise _UnusableError("it has no Status")
    if response.get("TaskId") not in (None, "", task_id):
        raise _UnusableError("it is about another TaskId")
    record = _record(response, sdk_app_id, task_id)
    match status:
        case "PREPARED" | "RECORDING" | "PAUSED":
            return Running(status=status, record=record)
        case "STOPPED":
            return Stopped(record=record)
        case "FINISHED":
            # As a result without files, or one that no later event could correct, it would be final.
            if "VideoInfos" in record.odd_members:
                raise _UnusableError("its VideoInfos is not a list")
            if (record.record_stop_time or 0) > now_s + _MAX_AHEAD_S:
                raise _UnusableError("its RecordStopTime lies in the future")
            return Finished(record=record)
    raise _UnusableError(f"its Status is {_cut(str(status), _MAX_CODE_CHARACTERS)!r}")


def _record(response: Mapping[str, Any], sdk_app_id: int, task_id: str) -> OnlineRecord:
    """Read an answer exactly as a callback is read, with all that is forgiven there."""
    members = {name: response[name] for name in _DESCRIBED if response.get(name) is not None}
    decoded = decode(_body("OnlineRecordFinished", sdk_app_id, 0, {"TaskId": task_id} | members), received_at_us=0)
    event = decoded.event
    if not isinstance(event, OnlineRecordFinished):
        raise _UnusableError("it describes no recording")
    return OnlineRecord(
        task_id=event.task_id,
        room_id=event.room_id,
        group_id=event.group_id,
        record_user_id=event.record_user_id,
        finish_reason=event.finish_reason,
        record_start_time=event.record_start_time,
        record_stop_time=event.record_stop_time,
        total_time_ms=event.total_time_ms,
        exception_count=event.exception_count,
        omitted_durations=event.omitted_durations,
        video_infos=event.video_infos,
        odd_members=decoded.odd_members,
    )


def finished_body(sdk_app_id: int, record: OnlineRecord) -> bytes:
    """Return the body of the Finished callback that says what `record` says: the same bytes for the same record.

    Timestamp is RecordStopTime, so that a real callback wins the merge (0 where the vendor gives none). What the vendor
    left out is left out. `schemas.decode` makes of it the event that the vendor's callback makes, but for Timestamp.
    """
    data = {
        "TaskId": record.task_id,
        "RoomId": record.room_id,
        "GroupId": record.group_id,
        "RecordUserId": record.record_user_id,
        "FinishReason": record.finish_reason,
        "RecordStartTime": record.record_start_time,
        "RecordStopTime": record.record_stop_time,
        "TotalTime": record.total_time_ms,
        "ExceptionCnt": record.exception_count,
        "OmittedDurations": [_members(one) for one in record.omitted_durations],
        "VideoInfos": [_members(one) for one in record.video_infos],
    }
    return _body("OnlineRecordFinished", sdk_app_id, record.record_stop_time or 0, data)


def failed_body(
    sdk_app_id: int,
    task_id: str,
    failed: Failed,
    *,
    timestamp: int,
    room_id: int | None = None,
    record_user_id: str | None = None,
) -> bytes:
    """Return the body of the Finished callback of a recording that failed.

    The vendor's answer has nothing but the error: `timestamp` (which must be the same each time, such as that of the
    last event known), `room_id` and `record_user_id` are the caller's.
    """
    data: dict[str, Any] = {
        "TaskId": task_id,
        "RoomId": room_id,
        "RecordUserId": record_user_id,
        "Error": {"Code": failed.code, "Message": failed.message},
        "OmittedDurations": [],
        "VideoInfos": [],
    }
    return _body("OnlineRecordFinished", sdk_app_id, timestamp, data)


def started_body(
    sdk_app_id: int, task_id: str, *, timestamp: int, room_id: int | None = None, record_user_id: str | None = None
) -> bytes:
    """Return the body of the callback that says that a recording has begun; `timestamp` must be the same each time."""
    data = {"TaskId": task_id, "RoomId": room_id, "RecordUserId": record_user_id}
    return _body("OnlineRecordStarted", sdk_app_id, timestamp, data)


def stopped_body(
    sdk_app_id: int, task_id: str, *, timestamp: int, room_id: int | None = None, record_user_id: str | None = None
) -> bytes:
    """Return the body of the callback that says that a recording was stopped; as for `started_body`."""
    data = {"TaskId": task_id, "RoomId": room_id, "RecordUserId": record_user_id}
    return _body("OnlineRecordStopped", sdk_app_id, timestamp, data)


def _members(part: Struct) -> dict[str, Any]:
    return {name: value for name, value in msgspec.to_builtins(part).items() if value is not None}


def _body(event_type: str, sdk_app_id: int, timestamp: int, data: Mapping[str, Any]) -> bytes:
    """Return a callback's body without Sign and ExpireTime: nobody signed it."""
    return msgspec.json.encode(
        {
            "EventType": event_type,
            "SdkAppId": sdk_app_id,
            "Timestamp": timestamp,
            "EventData": {name: value for name, value in data.items() if value is not None},
        }
    )
