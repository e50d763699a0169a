"""What the vendor's lists and settings hold: running tasks, searches, rooms, usage, callback address, bucket. Pure.

An item that is not what the vendor documents is left out; the others count. Times without a zone are taken for China's.

Sources: the examples of https://github.com/TencentCloud/tencentcloud-cli/tree/master/tccli/examples/tiw/v20190919 and
the models of the vendor's SDK.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta, timezone
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec
from msgspec import Meta, Struct

#: What SQL's BIGINT holds.
_Integer: TypeAlias = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]

#: What can be the identity of a recording.
_TaskId: TypeAlias = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"\A[^\x00]*\Z")]

_CHINA = timezone(timedelta(hours=8))

S = TypeVar("S", bound=Struct)


class RunningTask(Struct, frozen=True, kw_only=True):
    """A recording that goes on, of `DescribeRunningTasks`. `created_at` is in Unix seconds."""

    task_id: str
    room_id: int | None
    created_at: int | None


class SearchedRecord(Struct, frozen=True, kw_only=True):
    """A recording of a room, of `DescribeRecordSearch`; `status` is the vendor's word. `created_at` in Unix seconds."""

    task_id: str
    room_id: int | None
    status: str
    created_at: int | None


class SeenRoom(Struct, frozen=True, kw_only=True):
    """A room in which somebody was, of `DescribeRoomList`."""

    room_id: int
    started_at_ms: int | None
    ended_at_ms: int | None


class RoomUsage(Struct, frozen=True, kw_only=True):
    """The minutes recorded in a room in one day, of `DescribeTIWRoomDailyUsage`."""

    room_id: int
    minutes: int


class CallbackConfig(Struct, frozen=True, kw_only=True):
    """Where the vendor sends callbacks, and the key that it signs them with; empty where none is set."""

    url: str
    key: str

    def __repr__(self) -> str:
        """Hide the key, and the address, which may have a token in its path."""
        return f"CallbackConfig(url={'***' if self.url else ''!r}, key={'***' if self.key else ''!r})"


class BucketConfig(Struct, frozen=True, kw_only=True):
    """The customer's own bucket for recordings; `name` is empty where there is none: files are gone after 3 days."""

    name: str
    location: str
    prefix: str
    result_domain: str


class _RunningTaskItem(Struct, frozen=True, kw_only=True):
    SdkAppID: _Integer | None = None
    TaskID: _TaskId
    TaskType: str | None = None
    CreateTime: str | None = None
    RoomID: _Integer | None = None


def running_tasks(response: Mapping[str, Any], sdk_app_id: int) -> list[RunningTask]:
    """Return the recordings of one page of `DescribeRunningTasks`, without tasks of other applications and kinds."""
    return [
        RunningTask(task_id=item.TaskID, room_id=item.RoomID or None, created_at=_unix_s(item.CreateTime))
        for item in _items(response, "Tasks", _RunningTaskItem)
        if item.TaskType in (None, "OnlineRecord")
        if item.SdkAppID in (None, sdk_app_id)
    ]


class _SearchedItem(Struct, frozen=True, kw_only=True):
    SdkAppId: _Integer | None = None
    TaskId: _TaskId
    RoomId: _Integer | None = None
    Status: str = ""
    CreateTime: str | None = None


def searched_records(response: Mapping[str, Any], sdk_app_id: int) -> list[SearchedRecord]:
    """Return the recordings of one page of `DescribeRecordSearch` that are of this application."""
    return [
        SearchedRecord(
            task_id=item.TaskId, room_id=item.RoomId, status=item.Status[:64], created_at=_unix_s(item.CreateTime)
        )
        for item in _items(response, "RecordTaskSet", _SearchedItem)
        if item.SdkAppId in (None, sdk_app_id)
    ]


class _RoomItem(Struct, frozen=True, kw_only=True):
    RoomId: _Integer
    StartTime: _Integer | None = None
    EndTime: _Integer | None = None


def seen_rooms(response: Mapping[str, Any]) -> list[SeenRoom]:
    """Return the rooms of `DescribeRoomList`."""
    return [
        SeenRoom(room_id=item.RoomId, started_at_ms=item.StartTime, ended_at_ms=item.EndTime)
        for item in _items(response, "RoomList", _RoomItem)
    ]


class _UsageItem(Struct, frozen=True, kw_only=True):
    SdkAppId: _Integer | None = None
    SubProduct: str | None = None
    Time: str | None = None
    RoomID: _Integer
    Value: _Integer


def room_usages(response: Mapping[str, Any], sdk_app_id: int, sub_product: str) -> list[RoomUsage]:
    """Return the rooms of one page of `DescribeTIWRoomDailyUsage` in which something was recorded."""
    return [
        RoomUsage(room_id=item.RoomID, minutes=item.Value)
        for item in _items(response, "Usages", _UsageItem)
        if item.SdkAppId in (None, sdk_app_id)
        if item.SubProduct in (None, sub_product)
        if item.Value > 0
    ]


class _CallbackMembers(Struct, frozen=True, kw_only=True):
    Callback: str | None = None
    CallbackKey: str | None = None
    RequestId: str | None = None


def callback_config(response: Mapping[str, Any]) -> CallbackConfig | None:
    """Return what `DescribeOnlineRecordCallback` says; None if it is not what the vendor documents."""
    try:
        members = msgspec.convert(response, _CallbackMembers)
    except msgspec.ValidationError:
        return None
    if members == _CallbackMembers():
        # Both may be null where none is set, but not the number that each answer has.
        return None
    return CallbackConfig(url=members.Callback or "", key=members.CallbackKey or "")


class _ConfigItem(Struct, frozen=True, kw_only=True):
    TaskType: str | None = None
    BucketName: str | None = None
    BucketLocation: str | None = None
    BucketPrefix: str | None = None
    ResultDomain: str | None = None


def bucket_config(response: Mapping[str, Any]) -> BucketConfig:
    """Return the bucket of `DescribeWhiteboardApplicationConfig` for recordings, without a name if there is none."""
    found = (item for item in _items(response, "Configs", _ConfigItem) if item.TaskType in (None, "recording"))
    item = next(found, _ConfigItem())
    return BucketConfig(
        name=item.BucketName or "",
        location=item.BucketLocation or "",
        prefix=item.BucketPrefix or "",
        result_domain=item.ResultDomain or "",
    )


def total(response: Mapping[str, Any]) -> int | None:
    """Return how many items all pages have together, if the answer says so."""
    for name in ("Total", "TotalCount"):
        value = response.get(name)
        if type(value) is int and value >= 0:
            return value
    return None


def page_length(response: Mapping[str, Any], name: str) -> int | None:
    """Return how many items a page has, odd ones too; None if there is no list, unless all pages have none together."""
    items = response.get(name)
    if type(items) is list:
        return len(items)
    return 0 if items is None and total(response) == 0 else None


def _items(response: Mapping[str, Any], name: str, kind: type[S]) -> Iterator[S]:
    items = response.get(name)
    for item in items if type(items) is list else ():
        try:
            yield msgspec.convert(item, kind, strict=False)
        except msgspec.ValidationError:
            continue


def _unix_s(text: str | None) -> int | None:
    """Read `2023-03-14 15:00:00` and `2020-08-24T21:53:56+08:00`; None for anything else."""
    try:
        when = datetime.fromisoformat((text or "")[:64])
        return int((when if when.tzinfo else when.replace(tzinfo=_CHINA)).timestamp())
    except (ValueError, OverflowError):
        return None
