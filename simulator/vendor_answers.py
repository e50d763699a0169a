"""What the vendor's API would answer: the states of simulated classes at a moment, and an application's settings.

Pure but for the settings that a caller changes; nothing of HTTP is here. Names, types and examples are those of
https://cloud.tencent.com/document/product/1137/40049 (China), https://www.tencentcloud.com/document/product/1176/55181
(international) and https://github.com/TencentCloud/tencentcloud-cli/tree/master/tccli/examples/tiw/v20190919. What no
page says is said here where it is decided.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from enum import StrEnum
from math import ceil
from random import Random
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from msgspec import Struct

from simulator.classes import DEFAULT_BUCKET, Bucket, ClassKind, SimulatedClass, make_class

Params: TypeAlias = Mapping[str, Any]
Answer: TypeAlias = dict[str, Any]

#: Days of bills and times without a zone are Beijing's; no page says so, the examples are.
BEIJING = timezone(timedelta(hours=8))

_DAY_S = 86_400
_LONGEST_KEY = 64
_MOST_CONCURRENT_TASKS = 100
_MOST_DAYS = 31
_MOST_RUNNING_TASKS = 500
#: From seven in the morning on yesterday's minutes can be asked for.
_BILLED_AFTER_S = _DAY_S + 7 * 3_600


class Site(StrEnum):
    """Which of the vendor's two sites: they know different calls."""

    CHINA = "china"
    INTERNATIONAL = "international"


class ApiError(Exception):
    """An answer that is an error, as the vendor words it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class Application(Struct, kw_only=True):
    """What the vendor's console holds of one application; a caller or a test changes it. No bucket: files die."""

    callback: str = ""
    callback_key: str = ""
    bucket_name: str = ""
    bucket_location: str = ""
    bucket_prefix: str = ""
    result_domain: str = ""


class Timeline(Struct, frozen=True, kw_only=True):
    """When a class changes its state, in Unix seconds; None: it never does. `result` is what Finished reports."""

    cls: SimulatedClass
    started_at: int | None
    stopped_at: int | None
    finished_at: int | None
    result: dict[str, Any]

    def status_at(self, now: float) -> str | None:
        """Return the Status of the recording at `now`; None before it exists."""
        if now < self.cls.created_at:
            return None
        if self.finished_at is not None and now >= self.finished_at:
            return "FINISHED"
        if self.stopped_at is not None and now >= self.stopped_at:
            return "STOPPED"
        if any(since <= now < until for since, until in self.cls.pauses):
            return "PAUSED"
        return "PREPARED" if self.started_at is None or now < self.started_at else "RECORDING"


def timeline(cls: SimulatedClass) -> Timeline:
    """Read the times off the callbacks of a class, which are the truth, sent or not."""
    at = {callback.event_type: callback.timestamp for callback in cls.callbacks}
    results = [json.loads(c.event_data) for c in cls.callbacks if c.event_type == "OnlineRecordFinished"]
    return Timeline(
        cls=cls,
        started_at=at.get("OnlineRecordStarted"),
        stopped_at=at.get("OnlineRecordStopped", at.get("OnlineRecordLongPauseForceStopped")),
        finished_at=at.get("OnlineRecordFinished"),
        result=results[-1] if results else {},
    )


class Vendor:
    """All classes and applications of one account, and what the API answers about them at a given moment."""

    def __init__(
        self,
        classes: Iterable[SimulatedClass] = (),
        *,
        site: Site = Site.CHINA,
        sdk_app_ids: Iterable[int] = (),
        lists_stopped: bool = False,
        forgets_after_s: float | None = None,
        bucket: Bucket = DEFAULT_BUCKET,
        seed: int = 0,
    ) -> None:
        """Know `classes`, and the applications `sdk_app_ids` beside theirs.

        Two things no page says: whether a stopped recording is listed as running until it is finished
        (`lists_stopped`), and how long a finished one can be asked for (`forgets_after_s`, None: for ever).
        What a caller starts is made of `seed`, and its files lie in `bucket`.
        """
        self.site = site
        self.lists_stopped = lists_stopped
        self.forgets_after_s = forgets_after_s
        self.applications: dict[int, Application] = {sdk_app_id: Application() for sdk_app_id in sdk_app_ids}
        self._timelines: dict[tuple[int, str], Timeline] = {}
        self._bucket = bucket
        self._seed = seed
        #: What StartOnlineRecord made, by task: what StopOnlineRecord needs to make it again, shorter.
        self._begun: dict[str, tuple[int, int, int]] = {}
        self.add(classes)

    def add(self, classes: Iterable[SimulatedClass]) -> None:
        """Know these classes as well; one that is known by its task is replaced."""
        for cls in classes:
            self._timelines[cls.sdk_app_id, cls.task_id] = timeline(cls)
            self.applications.setdefault(cls.sdk_app_id, Application())

    @property
    def classes(self) -> tuple[SimulatedClass, ...]:
        """All that are known, also those that a caller started."""
        return tuple(line.cls for line in self._timelines.values())

    def knows(self, action: str) -> bool:
        """Whether this site has the call."""
        return action in _ACTIONS and self.site in _ACTIONS[action].sites

    def answer(self, action: str, params: Params, now: float) -> Answer:
        """Return the members of the answer to a call at `now` (Unix seconds), all but RequestId.

        Raises ApiError for what the vendor refuses, and for a failed recording, which it answers as an error.
        """
        if not self.knows(action):
            raise ApiError("InvalidAction", "The request `Action` is invalid or not found.")
        call = _ACTIONS[action]
        params = _checked(call, params)
        sdk_app_id = params.get("SdkAppId", params.get("SdkAppID"))
        if sdk_app_id is not None and sdk_app_id not in self.applications:
            raise ApiError("UnauthorizedOperation.SdkAppId", "SdkAppId unauthorized")
        return call.answer(self, params, now)

    def record(self, params: Params, now: float) -> Answer:
        """DescribeOnlineRecord."""
        line, status = self._task(params, now)
        cls = line.cls
        if status == "FINISHED" and "Error" in line.result:
            raise ApiError("FailedOperation.Record", line.result["Error"]["Message"])
        stopped_at = line.stopped_at if status in ("STOPPED", "FINISHED") else None
        # What a recording that is not finished has in the other members is said nowhere: the zeros of their types.
        facts = line.result if status == "FINISHED" else {"RecordStopTime": stopped_at or 0}
        started_at = line.started_at if status != "PREPARED" else None
        return {
            "FinishReason": facts.get("FinishReason", ""),
            "TaskId": cls.task_id,
            "Status": status,
            "RoomId": cls.room_id,
            "GroupId": facts.get("GroupId", str(cls.room_id)),
            "RecordUserId": cls.record_user_id,
            "RecordStartTime": facts.get("RecordStartTime", started_at or 0),
            "RecordStopTime": facts["RecordStopTime"],
            "TotalTime": facts.get("TotalTime", 0),
            "ExceptionCnt": facts.get("ExceptionCnt", 0),
            "OmittedDurations": facts.get("OmittedDurations", []),
            "VideoInfos": facts.get("VideoInfos", []),
            "ReplayUrl": None,
            "Interrupts": [],
        }

    def running_tasks(self, params: Params, now: float) -> Answer:
        """DescribeRunningTasks: what runs and was created within three days, oldest first."""
        limit, offset = params.get("Limit", 100), params.get("Offset", 0)
        if not 1 <= limit <= _MOST_RUNNING_TASKS:
            raise ApiError("InvalidParameter", "The value of parameter `Limit` is not valid.")
        running = [
            (line.cls, status)
            for line, status in self._existing(now)
            if params["TaskType"] == "OnlineRecord"
            and line.cls.sdk_app_id == params["SdkAppID"]
            and status != "FINISHED"
            and (status != "STOPPED" or self.lists_stopped)
            and line.cls.created_at > now - 3 * _DAY_S
        ]
        running.sort(key=lambda task: (task[0].created_at, task[0].task_id))
        tasks = [
            {
                "SdkAppID": cls.sdk_app_id,
                "TaskID": cls.task_id,
                "TaskType": "OnlineRecord",
                "CreateTime": datetime.fromtimestamp(cls.created_at, BEIJING).strftime("%Y-%m-%d %H:%M:%S"),
                "CancelTime": "",
                "Status": "QUEUED" if status == "PREPARED" else "PROCESSING",
                "Progress": 0,
                "FileURL": "",
                "RoomID": cls.room_id,
            }
            for cls, status in running[offset : offset + limit]
        ]
        return {"Total": len(running), "Tasks": tasks}

    def record_search(self, params: Params, now: float) -> Answer:
        """DescribeRecordSearch: the recordings of a room in all applications of the account, newest first."""
        limit, offset = params.get("Limit", 20), params.get("Offset", 0)
        found = [(line, status) for line, status in self._existing(now) if line.cls.room_id == params["RoomId"]]
        found.sort(key=lambda task: (-task[0].cls.created_at, task[0].cls.task_id))
        tasks = [
            {
                "CreateTime": datetime.fromtimestamp(line.cls.created_at, BEIJING).isoformat(),
                "RoomId": line.cls.room_id,
                "TaskId": line.cls.task_id,
                "Status": status,
                "SdkAppId": line.cls.sdk_app_id,
                "Result": _search_result(line, status),
            }
            for line, status in found[offset : offset + limit]
        ]
        return {"RecordTaskSet": tasks, "TotalCount": len(found)}

    def room_list(self, params: Params, now: float) -> Answer:
        """DescribeRoomList: the rooms that were in use within TimeRange; their ids are strings here."""
        if len(params["TimeRange"]) != 2:  # noqa: PLR2004 - from and until
            raise ApiError("InvalidParameter", "The value of parameter `TimeRange` is not valid.")
        begin_ms, end_ms = params["TimeRange"]
        rooms: dict[int, tuple[int, int]] = {}
        for line, _ in self._existing(now):
            cls = line.cls
            left_at = line.stopped_at or line.finished_at or int(now)
            first_ms = max(begin_ms, cls.created_at * 1_000)
            last_ms = min(end_ms, left_at * 1_000, int(now * 1_000))
            if cls.sdk_app_id == params["SdkAppId"] and first_ms <= last_ms:
                known_first_ms, known_last_ms = rooms.get(cls.room_id, (first_ms, last_ms))
                rooms[cls.room_id] = (min(known_first_ms, first_ms), max(known_last_ms, last_ms))
        items = [
            {"RoomId": str(room_id), "StartTime": first_ms, "EndTime": last_ms, "UserNumber": 2 + room_id % 30}
            for room_id, (first_ms, last_ms) in sorted(rooms.items())
        ]
        return {"RoomList": items[: params.get("MaxSize", 1_000)]}

    def room_daily_usage(self, params: Params, now: float) -> Answer:
        """DescribeTIWRoomDailyUsage: begun minutes of recording per room and day; never of today, pages of 20."""
        first, last = _day(params, "StartTime"), _day(params, "EndTime")
        if not 0 <= (last - first).days < _MOST_DAYS:
            raise ApiError("InvalidParameter", "The period must be from 1 to 31 days.")
        rooms = set(params.get("RoomIDs", ()))
        seconds: dict[tuple[str, int], float] = {}
        for line, _ in self._existing(now):
            cls = line.cls
            if params["SubProduct"] != "sp_tiw_ric" or cls.sdk_app_id != params["SdkAppId"]:
                continue
            if rooms and cls.room_id not in rooms:
                continue
            for day, recorded_s in _recorded_s_per_day(line):
                if first <= day <= last and now >= day.timestamp() + _BILLED_AFTER_S:
                    key = (f"{day:%Y-%m-%d}", cls.room_id)
                    seconds[key] = seconds.get(key, 0) + recorded_s
        usages = [
            {
                "Time": day,
                "SdkAppId": params["SdkAppId"],
                "SubProduct": params["SubProduct"],
                "Value": ceil(recorded_s / 60),
                "RoomID": room_id,
            }
            for (day, room_id), recorded_s in sorted(seconds.items())
        ]
        offset, limit = params.get("Offset", 0), params.get("Limit", 20)
        return {"Usages": usages[offset : offset + limit], "Total": len(usages)}

    def application_config(self, params: Params, now: float) -> Answer:  # noqa: ARG002 - settings have no time
        """DescribeWhiteboardApplicationConfig: bucket and callback, for each of the task types asked for."""
        application = self.applications[params["SdkAppId"]]
        configs = []
        for task_type in params.get("TaskTypes", ("recording", "transcode")):
            if task_type not in ("recording", "transcode"):
                raise ApiError("InvalidParameter.InvalidTaskType", "Invalid task type.")
            known = application if task_type == "recording" else Application()
            configs.append(
                {
                    "TaskType": task_type,
                    "BucketName": known.bucket_name,
                    "BucketLocation": known.bucket_location,
                    "BucketPrefix": known.bucket_prefix,
                    "ResultDomain": known.result_domain,
                    "Callback": known.callback,
                    "CallbackKey": known.callback_key,
                    "SdkAppId": params["SdkAppId"],
                }
            )
        return {"SdkAppId": params["SdkAppId"], "Configs": configs}

    def callback(self, params: Params, now: float) -> Answer:  # noqa: ARG002 - settings have no time
        """DescribeOnlineRecordCallback."""
        application = self.applications[params["SdkAppId"]]
        return {"Callback": application.callback, "CallbackKey": application.callback_key}

    def set_callback(self, params: Params, now: float) -> Answer:  # noqa: ARG002 - settings have no time
        """SetOnlineRecordCallback: an http or https address; an empty one deletes it."""
        url = urlsplit(params["Callback"])
        if params["Callback"] and (url.scheme not in ("http", "https") or not url.hostname):
            raise ApiError("InvalidParameter.CallbackAddressFormatError", "Invalid callback address.")
        self.applications[params["SdkAppId"]].callback = params["Callback"]
        return {}

    def set_callback_key(self, params: Params, now: float) -> Answer:  # noqa: ARG002 - settings have no time
        """SetOnlineRecordCallbackKey: at most 64 characters; an empty one deletes it."""
        if len(params["CallbackKey"]) > _LONGEST_KEY:
            raise ApiError("InvalidParameter", "The value of parameter `CallbackKey` is not valid.")
        self.applications[params["SdkAppId"]].callback_key = params["CallbackKey"]
        return {}

    def start(self, params: Params, now: float) -> Answer:
        """StartOnlineRecord: a class like any other, which begins in a moment and whose callbacks can be sent."""
        app, room_id = params["SdkAppId"], params["RoomId"]
        active = [
            line.cls
            for line, status in self._existing(now)
            if line.cls.sdk_app_id == app and status in ("PREPARED", "RECORDING", "PAUSED")
        ]
        if any(cls.room_id == room_id for cls in active):
            raise ApiError("ResourceInUse.RecordUserId", "RecordUserId is in use.")
        if len(active) >= _MOST_CONCURRENT_TASKS:
            raise ApiError("LimitExceeded.TaskConcurrency", "Too many tasks run at the same time.")
        number = len(self._begun)
        cls = self._begin(app, number, room_id, int(now) + 5)
        self._begun[cls.task_id] = (number, room_id, int(now) + 5)
        return {"TaskId": cls.task_id}

    def stop(self, params: Params, now: float) -> Answer:
        """StopOnlineRecord: it ends now. A class that was not started by a call keeps to its script."""
        line, status = self._task(params, now)
        if status in ("STOPPED", "FINISHED"):
            raise ApiError("UnsupportedOperation.TaskHasAlreadyStopped", "Task has already stopped.")
        if line.cls.task_id in self._begun:
            number, room_id, started_at = self._begun[line.cls.task_id]
            self._begin(line.cls.sdk_app_id, number, room_id, started_at, length_s=max(1, int(now) - started_at))
        return {}

    def _begin(
        self, sdk_app_id: int, number: int, room_id: int, started_at: int, *, length_s: int | None = None
    ) -> SimulatedClass:
        rng = Random(f"{self._seed} {sdk_app_id} started {number}")  # noqa: S311 - to be reproducible is the point
        cls = make_class(
            ClassKind.NORMAL,
            rng,
            sdk_app_id=sdk_app_id,
            room_id=room_id,
            started_at=started_at,
            length_s=length_s,
            bucket=self._bucket,
        )
        self.add([cls])
        return cls

    def _existing(self, now: float) -> Iterator[tuple[Timeline, str]]:
        for line in self._timelines.values():
            if (status := line.status_at(now)) is not None and not self._is_forgotten(line, now):
                yield line, status

    def _task(self, params: Params, now: float) -> tuple[Timeline, str]:
        line = self._timelines.get((params["SdkAppId"], params["TaskId"]))
        status = None if line is None else line.status_at(now)
        if line is None or status is None or self._is_forgotten(line, now):
            raise ApiError("InvalidParameter.TaskNotFound", "Task not found.")
        return line, status

    def _is_forgotten(self, line: Timeline, now: float) -> bool:
        if self.forgets_after_s is None or line.finished_at is None:
            return False
        return now > line.finished_at + self.forgets_after_s


def _search_result(line: Timeline, status: str) -> dict[str, Any]:
    facts = line.result if status == "FINISHED" else {}
    message = facts.get("Error", {"Message": ""})["Message"]
    code = message.removeprefix("code: ").partition(",")[0]
    return {
        "FinishReason": facts.get("FinishReason", ""),
        "ExceptionCnt": facts.get("ExceptionCnt", 0),
        "RoomId": line.cls.room_id,
        "GroupId": str(line.cls.room_id),
        "RecordStartTime": facts.get("RecordStartTime", 0),
        "RecordStopTime": facts.get("RecordStopTime", 0),
        "TotalTime": facts.get("TotalTime", 0),
        "VideoInfos": facts.get("VideoInfos", []),
        "OmittedDurations": facts.get("OmittedDurations", []),
        "Details": "",
        "ErrorCode": int(code) if code.isdecimal() else 0,
        "ErrorMsg": message,
    }


def _recorded_s_per_day(line: Timeline) -> Iterator[tuple[datetime, float]]:
    """Yield each day of Beijing (its midnight) with the seconds that were recorded then, pauses left out."""
    if line.started_at is None or not line.result.get("RecordStartTime"):
        return
    stopped_at = line.stopped_at or line.finished_at or line.started_at
    midnight = datetime.fromtimestamp(line.started_at, BEIJING).replace(hour=0, minute=0, second=0, microsecond=0)
    while midnight.timestamp() < stopped_at:
        begin = max(line.started_at, midnight.timestamp())
        end = min(stopped_at, midnight.timestamp() + _DAY_S)
        paused_s = sum(max(0, min(end, until) - max(begin, since)) for since, until in line.cls.pauses)
        if end - begin > paused_s:
            yield midnight, end - begin - paused_s
        midnight += timedelta(days=1)


def _day(params: Params, name: str) -> datetime:
    try:
        return datetime.strptime(params[name], "%Y-%m-%d").replace(tzinfo=BEIJING)
    except ValueError as error:
        raise ApiError("InvalidParameter", f"The value of parameter `{name}` is not valid.") from error


class _Call(Struct, frozen=True, kw_only=True):
    """A call of the API: which sites have it, and what it takes."""

    answer: Callable[[Vendor, Params, float], Answer]
    required: Mapping[str, type]
    optional: Mapping[str, type]
    sites: frozenset[Site]


def _checked(call: _Call, params: Params) -> dict[str, Any]:
    """Return `params` as the call takes them; decimal strings are integers, as an example of the vendor's has it."""
    known = {**call.required, **call.optional}
    for name in params:
        if name not in known:
            raise ApiError("UnknownParameter", f"The parameter `{name}` is not recognized.")
    checked: dict[str, Any] = {}
    for name, kind in known.items():
        value = params.get(name)
        if value is None:
            if name in call.required:
                raise ApiError("MissingParameter", f"The request is missing a required parameter `{name}`.")
            continue
        if kind is int and isinstance(value, str) and value.isdecimal():
            value = int(value)
        if type(value) is not kind:
            code = "InvalidParameter.BodyParameterTypeUnmatched"
            raise ApiError(code, f"The value type of parameter `{name}` is not valid.")
        checked[name] = value
    return checked


def _call(
    answer: Callable[[Vendor, Params, float], Answer],
    required: Mapping[str, type],
    *,
    optional: Mapping[str, type] | None = None,
    sites: Iterable[Site] = Site,
) -> _Call:
    return _Call(answer=answer, required=required, optional=optional or {}, sites=frozenset(sites))


_TASK = {"SdkAppId": int, "TaskId": str}
_PAGE = {"Offset": int, "Limit": int}

_ACTIONS: dict[str, _Call] = {
    "DescribeOnlineRecord": _call(Vendor.record, _TASK),
    # Here, and only here, ID is in capitals.
    "DescribeRunningTasks": _call(
        Vendor.running_tasks, {"SdkAppID": int, "TaskType": str}, optional=_PAGE, sites=[Site.CHINA]
    ),
    "DescribeRecordSearch": _call(Vendor.record_search, {"RoomId": int}, optional=_PAGE, sites=[Site.INTERNATIONAL]),
    "DescribeRoomList": _call(
        Vendor.room_list, {"SdkAppId": int, "TimeRange": list}, optional={"Query": str, "MaxSize": int}
    ),
    "DescribeTIWRoomDailyUsage": _call(
        Vendor.room_daily_usage,
        {"SdkAppId": int, "SubProduct": str, "StartTime": str, "EndTime": str},
        optional={"RoomIDs": list, **_PAGE},
    ),
    "DescribeWhiteboardApplicationConfig": _call(
        Vendor.application_config, {"SdkAppId": int}, optional={"TaskTypes": list}
    ),
    "DescribeOnlineRecordCallback": _call(Vendor.callback, {"SdkAppId": int}),
    "SetOnlineRecordCallback": _call(Vendor.set_callback, {"SdkAppId": int, "Callback": str}),
    "SetOnlineRecordCallbackKey": _call(Vendor.set_callback_key, {"SdkAppId": int, "CallbackKey": str}),
    "StartOnlineRecord": _call(
        Vendor.start,
        {"SdkAppId": int, "RoomId": int, "RecordUserId": str, "RecordUserSig": str},
        optional={
            **dict.fromkeys(("GroupId", "ChatGroupId", "RecordMode", "TRTCRoomIdStr"), str),
            **dict.fromkeys(("AutoStopTimeout", "TRTCRoomId"), int),
            **dict.fromkeys(("Concat", "Whiteboard", "MixStream", "RecordControl"), dict),
            "Extras": list,
            "AudioFileNeeded": bool,
        },
    ),
    "StopOnlineRecord": _call(Vendor.stop, _TASK),
}
