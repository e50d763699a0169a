"""Finding recordings that no callback told of: in the list of those that run, or room by room, as the site allows.

China's site lists what runs (https://cloud.tencent.com/document/product/1137/84432), the international one can search a
room's recordings (https://www.tencentcloud.com/document/product/1176/55179). What a list lacks proves nothing: a
recording that is listed no more is asked about.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from broker import NotPublishedError
from reconcile.entering import Entrance, Publisher
from reconcile.pauses import Pauses
from schemas import RecordingStatus
from store import (
    ListedTask,
    Progress,
    Question,
    Store,
    ask,
    find_progress,
    find_question,
    mark_listed,
    note_listing,
    recent_rooms,
    reserve,
)
from telemetry import Throttle, metrics
from vendor_api import AppPaused, ClockOff, SearchedRecord, VendorClient, VendorError, started_body

RUNNING_TASKS: Final = "DescribeRunningTasks"
RECORD_SEARCH: Final = "DescribeRecordSearch"

#: A recording that began less long ago is left to its callback, which may be on its way or being repeated.
UNDER_WAY_S: Final = 30.0

#: A list that could not be had is asked for again at once, so often: else it would be as late as the next.
_TRIES = 3
_AGAIN_S = 1.0

#: Rooms in which somebody was in this time are searched each time,
_SEEN_WITHIN_S = 3600.0
#: and of the others with a recording in this time, so many each time, in turn.
_KNOWN_WITHIN_S = 7 * 86_400.0
_ROOMS_AT_ONCE = 30

#: What the search calls a recording that goes on: https://www.tencentcloud.com/document/product/1176/55181
_GOES_ON = frozenset({"PREPARED", "RECORDING", "PAUSED"})

_TOLD_EVERY_S = 600.0

_log = structlog.get_logger()


class Listing:
    """Lists the recordings of applications, once in `every_s` by all processes together.

    `now_s` is the time in Unix seconds, and `sleep` lets some pass.
    """

    def __init__(
        self,
        store: Store,
        transport: Publisher,
        vendor: VendorClient,
        pauses: Pauses,
        *,
        every_s: float,
        now_s: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._vendor = vendor
        self._pauses = pauses
        self._every_s = every_s
        self._now_s = now_s
        self._sleep = sleep
        self._entrance = Entrance(store, transport, now_s=now_s)
        self._throttles: dict[int, Throttle] = {}
        #: The room after which the next search of an application's known rooms goes on.
        self._searched: dict[int, int] = {}

    async def list_in_turn(self, sdk_app_id: int) -> bool | None:
        """List an application's recordings if it is time to; see `list_now`. None if it is not."""
        turn_s = await reserve(
            self._store, f"listing of {sdk_app_id}", every_s=self._every_s, burst=1, at_most_wait_s=0.0
        )
        return None if turn_s is None else await self.list_now(sdk_app_id)

    async def list_now(self, sdk_app_id: int) -> bool:
        """List an application's recordings and enter those that no callback told of; say whether all of it was done.

        Raises `StoreError`.
        """
        for tries_left in reversed(range(_TRIES)):
            try:
                if self._vendor.site.lists_running_tasks:
                    await self._list_running(sdk_app_id)
                else:
                    await self._search_rooms(sdk_app_id)
            except VendorError as error:
                if isinstance(error.refusal, AppPaused | ClockOff):
                    await self._refused(sdk_app_id, error.refusal)
                    return False
                if tries_left:
                    await self._sleep(max(_AGAIN_S, error.refusal.after_s))
                else:
                    self._tell(sdk_app_id, str(error))
            except NotPublishedError as error:
                # What is entered in part is found again.
                self._tell(sdk_app_id, str(error))
                return False
            else:
                await self._pauses.answered(sdk_app_id)
                return True
        return False

    async def _list_running(self, sdk_app_id: int) -> None:
        tasks = await self._vendor.describe_running_tasks(sdk_app_id)
        listed = [ListedTask(task_id=task.task_id, room_id=task.room_id, created_at=task.created_at) for task in tasks]
        unknown = await note_listing(self._store, sdk_app_id, listed, found_by=RUNNING_TASKS, is_complete=True)
        for task in unknown:
            await self._enter_started(sdk_app_id, task, by=RUNNING_TASKS)

    async def _enter_started(self, sdk_app_id: int, task: ListedTask, *, by: str) -> None:
        began_at = task.created_at
        now_s = self._now_s()
        if began_at is None or began_at > now_s + _CLOCKS_DIFFER_S:
            # When it was first listed, which is kept: the event must be the same each time.
            question = await find_question(self._store, sdk_app_id, task.task_id)
            began_at = int(now_s) if question is None else question.found_at_us // 1_000_000
        if now_s - began_at < UNDER_WAY_S:
            return
        body = started_body(sdk_app_id, task.task_id, timestamp=began_at, room_id=task.room_id)
        try:
            await self._entrance.enter(body, by=by)
        except ValueError as error:
            _log.warning("listed_task_passed_over", sdk_app_id=sdk_app_id, task_id=task.task_id, reason=str(error))

    async def _search_rooms(self, sdk_app_id: int) -> None:
        missed: VendorError | None = None
        for room_id in await self._rooms_to_search(sdk_app_id):
            try:
                records = await self._vendor.search_records(sdk_app_id, room_id)
            except VendorError as error:
                if isinstance(error.refusal, AppPaused | ClockOff):
                    raise
                # The other rooms are searched all the same.
                missed = error
            else:
                await self._note_records(sdk_app_id, records)
        if missed is not None:
            raise missed
        await mark_listed(self._store, sdk_app_id)

    async def _rooms_to_search(self, sdk_app_id: int) -> list[int]:
        """Return the rooms in use, and some of those known before, in turn."""
        now_s = self._now_s()
        try:
            seen = await self._vendor.rooms_seen(sdk_app_id, since_s=now_s - _SEEN_WITHIN_S, until_s=now_s)
        except VendorError as error:
            if isinstance(error.refusal, AppPaused) and not is_about_one_call(error.refusal):
                raise
            seen = []
        in_use = {room.room_id for room in seen}
        known = [
            room for room in await recent_rooms(self._store, sdk_app_id, within_s=_KNOWN_WITHIN_S) if room not in in_use
        ]
        last = self._searched.get(sdk_app_id, -1)
        in_turn = [*(room for room in known if room > last), *(room for room in known if room <= last)][:_ROOMS_AT_ONCE]
        if in_turn:
            self._searched[sdk_app_id] = in_turn[-1]
        return [*sorted(in_use), *in_turn]

    async def _note_records(self, sdk_app_id: int, records: Sequence[SearchedRecord]) -> None:
        """Enter those that go on and are unknown; have those asked about that ended and are not known to have."""
        since = self._now_s() - _FILES_CAN_BE_THERE_S
        # Of older ones there are no files any more.
        recent = {one.task_id: one for one in records if one.created_at is None or one.created_at >= since}
        going_on = [
            ListedTask(task_id=one.task_id, room_id=one.room_id, created_at=one.created_at)
            for one in recent.values()
            if one.status in _GOES_ON
        ]
        unknown = await note_listing(self._store, sdk_app_id, going_on, found_by=RECORD_SEARCH, is_complete=False)
        for task in unknown:
            await self._enter_started(sdk_app_id, task, by=RECORD_SEARCH)
        ended = {task_id: one for task_id, one in recent.items() if one.status not in _GOES_ON}
        progress = await find_progress(self._store, sdk_app_id, ended)
        questions = [
            Question(
                sdk_app_id=sdk_app_id,
                task_id=task_id,
                why="a search says that it has ended",
                found_by=RECORD_SEARCH,
                room_id=one.room_id,
                created_at=one.created_at,
            )
            for task_id, one in ended.items()
            if _needs_a_question(progress[task_id], one.status)
        ]
        await ask(self._store, questions)

    async def _refused(self, sdk_app_id: int, refusal: AppPaused | ClockOff) -> None:
        if isinstance(refusal, AppPaused) and is_about_one_call(refusal):
            # Other calls may be allowed: recordings that are known are asked about all the same.
            self._tell(sdk_app_id, refusal.reason)
        else:
            await self._pauses.refused(sdk_app_id, refusal)

    def _tell(self, sdk_app_id: int, reason: str) -> None:
        metrics.LISTINGS_FAILED.inc()
        if self._throttles.setdefault(sdk_app_id, Throttle(_TOLD_EVERY_S)).passes():
            _log.warning(
                "listing_failed",
                sdk_app_id=sdk_app_id,
                reason=reason,
                consequence="recordings of which every callback is lost are found later, or by the nightly audit",
            )


#: The vendor's clock may be ahead of ours: requests are refused from 5 minutes on.
_CLOCKS_DIFFER_S = 300.0

#: Files are kept for 3 days (https://cloud.tencent.com/document/product/1137/49831), a recording lasts a day at most.
_FILES_CAN_BE_THERE_S = 4 * 86_400.0

#: A search that says otherwise than the vendor's last answer is not asked about each time.
_ASKED_LATELY_S = 300.0


def _needs_a_question(progress: Progress, status: str) -> bool:
    if progress.is_settled or (progress.asked_ago_s is not None and progress.asked_ago_s < _ASKED_LATELY_S):
        return False
    if status == "STOPPED":
        return progress.status not in (RecordingStatus.STOPPED, RecordingStatus.FINISHED)
    return progress.status is not RecordingStatus.FINISHED


def is_about_one_call(refusal: AppPaused) -> bool:
    """Say whether a refusal is about the permission for one call, and nothing else."""
    return refusal.code in _OF_ONE_CALL


#: https://cloud.tencent.com/document/product/1137/40052, and that of calls that are not open to all.
_OF_ONE_CALL: Final = frozenset(
    {"AuthFailure.UnauthorizedOperation", "UnauthorizedOperation", "ResourceUnavailable.InterfaceUnAuthorized"}
)
