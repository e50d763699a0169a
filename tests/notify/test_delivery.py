"""Notices at real sinks: each once, in as many processes as there are, within what channels take."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from notify import (
    LANGUAGES,
    TEMPLATE_FIELDS,
    Alert,
    Channel,
    Notifier,
    Wording,
    delivery,
    load_templates,
    look_for_broker,
    look_for_spool,
    parse_channels,
)
from notify.channels import PACES, Pace
from notify.watching import SpoolUse
from schemas import (
    Event,
    OnlineRecordFinished,
    OnlineRecordLongPauseForceStopped,
    OnlineRecordLongPauseWarning,
    OnlineRecordStopped,
    RecordingError,
)
from store import (
    DeadLetter,
    KeptEvent,
    NoticeResult,
    NoticeRow,
    Store,
    UnaccountedRoom,
    apply_events,
    find_channel_states,
    keep_dead_letters,
    keep_unaccounted,
    list_notices,
    mark_verified,
    migrate,
    pause_app,
)
from telemetry import metrics
from tests.notify.sinks import MailSink, WebSink
from workers import Ack, run_batch, run_consumer

pytestmark = pytest.mark.usefixtures("_in_a_hurry")

WORDING = Wording(languages=LANGUAGES["both"], templates=load_templates(TEMPLATE_FIELDS).templates)
APP = 1400000001


def channels(*addresses: str) -> tuple[Channel, ...]:
    return parse_channels("\n".join(addresses))


def notifier(store: Store, *addresses: str, **options: Any) -> Notifier:
    return Notifier(channels(*addresses), store=store, wording=WORDING, look_every_s=0.05, **options)


def alert(number: int, rule: str = "force_stopped", *, due_in_s: float = 0.0, for_s: float = 3600.0) -> Alert:
    data: dict[str, str | int | None] = {"task_id": f"task-{number}", "room_id": number, "sdk_app_id": APP}
    now_s = time.time()
    return Alert(
        rule=rule,
        thing=f"{number}",
        recording=(APP, f"task-{number}"),
        data=data,
        due_at_s=now_s + due_in_s,
        deadline_s=now_s + for_s,
    )


async def eventually(condition: Callable[[], Any], within_s: float = 15.0) -> None:
    async with asyncio.timeout(within_s):
        while True:
            found = condition()
            if await found if asyncio.iscoroutine(found) else found:
                return
            await asyncio.sleep(0.01)


async def results(store: Store) -> Counter[NoticeResult | None]:
    return Counter(row.result for row in await list_notices(store, limit=0))


async def all_ended(store: Store, count: int) -> bool:
    if any(state.waiting for state in (await find_channel_states(store)).values()):
        return False
    return (await results(store)).total() == count


async def rows(store: Store) -> list[NoticeRow]:
    return sorted(await list_notices(store, limit=0), key=lambda row: row.notice_id)


async def test_what_an_event_tells_reaches_every_channel_once_however_often_it_comes(
    store: Store, web_sink: WebSink, mail_sink: MailSink
) -> None:
    addresses = (
        f"wecom={web_sink.url}/wecom/send?key=1",
        f"webhook={web_sink.url}/hook",
        f"email=smtp://127.0.0.1:{mail_sink.port}/?to=a@example.com",
    )
    event = OnlineRecordFinished(task_id="t", room_id=7, sdk_app_id=APP, timestamp=1, error=RecordingError(code="c"))
    async with notifier(store, *addresses) as one:
        for _ in range(3):
            assert await run_consumer(one.consumer, event, store=store) == Ack()
        await eventually(lambda: all_ended(store, 3))
    assert await results(store) == {NoticeResult.SENT: 3}
    assert [text.splitlines()[0] for text in web_sink.texts()] == ["房间 7：录制失败"]
    assert [request.path for request in web_sink.requests].count("/hook") == 1
    assert len(mail_sink.mails) == 1


async def test_each_notice_is_told_once_by_three_replicas_that_come_and_go(
    store: Store, web_sink: WebSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PACES, "webhook", Pace(every_s=0.001, burst=1000))
    monkeypatch.setattr(delivery, "MAX_DIGEST", 4)
    web_sink.before = lambda _: asyncio.sleep(0.01)
    for start in range(0, 60, 20):
        async with Store(store.url) as second, Store(store.url) as third:
            replicas = [notifier(each, f"webhook={web_sink.url}/hook") for each in (store, second, third)]
            for replica in replicas:
                await replica.__aenter__()
            await asyncio.gather(*(replica.tell([alert(n) for n in range(start, start + 20)]) for replica in replicas))
            # Stopped in the middle of it, again and again.
            await eventually(lambda start=start: len(web_sink.requests) > start / 4)  # type: ignore[misc]
            for replica in replicas:
                await replica.__aexit__(None, None, None)
    async with notifier(store, f"webhook={web_sink.url}/hook"):
        await eventually(lambda: all_ended(store, 60))
    told = Counter(fact["room_id"] for request in web_sink.requests for fact in request.json["data"]["notices"])
    assert told == dict.fromkeys(range(60), 1)
    assert set(await results(store)) <= {NoticeResult.SENT, NoticeResult.DIGESTED}


async def test_who_dies_between_sending_and_writing_it_down_lets_it_be_told_again_and_that_is_said(
    store: Store, web_sink: WebSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "LEASE_S", 0.3)
    reached = asyncio.Event()

    async def never_answer(_: object) -> None:
        reached.set()
        await asyncio.sleep(60)

    web_sink.before = never_answer
    dying = notifier(store, f"webhook={web_sink.url}/hook")
    await dying.__aenter__()
    await dying.tell([alert(1)])
    await reached.wait()
    dying._tasks[0].cancel()
    (row,) = await rows(store)
    assert row.begun_at is not None
    assert row.result is None
    web_sink.before = lambda _: None
    structlog.reset_defaults()
    with capture_logs() as logs:
        async with notifier(store, f"webhook={web_sink.url}/hook"):
            await eventually(lambda: all_ended(store, 1))
    assert "notice_may_repeat" in [line["event"] for line in logs]
    first, second = web_sink.requests
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    await dying.__aexit__(None, None, None)


async def test_a_thousand_notices_at_once_become_digests_within_the_robots_limits(
    store: Store, web_sink: WebSink
) -> None:
    async with notifier(store, f"wecom={web_sink.url}/wecom/send?key=1") as one:
        await one.tell([alert(number) for number in range(1000)])
        await eventually(lambda: all_ended(store, 1000), within_s=30)
    assert await results(store) == {NoticeResult.DIGESTED: 1000}
    assert len(web_sink.texts()) == len(web_sink.requests) == 5
    for text in web_sink.texts():
        assert text.count("同时有 200 条通知") == 1
        assert text.count("200 notices at once") == 1
        # Some lines have their place, and the others are counted.
        shown = text.count("\n- Room ")
        assert shown == 200 or f"... and {200 - shown} more" in text
        assert shown > 3


async def test_a_few_notices_have_a_message_each_while_the_pace_allows_it(
    store: Store, web_sink: WebSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PACES, "wecom", Pace(every_s=600, burst=3))
    monkeypatch.setattr(delivery, "MAX_WAIT_S", 0.05)
    async with notifier(store, f"wecom={web_sink.url}/wecom/send?key=1") as one:
        await one.tell([alert(1), alert(2)])
        await eventually(lambda: all_ended(store, 2))
        # One turn is left: what comes now is told in one message, and then nothing for a while.
        await one.tell([alert(3), alert(4), alert(5)])
        await eventually(lambda: all_ended(store, 5))
        await one.tell([alert(6)])
        await asyncio.sleep(0.3)
    assert await results(store) == {NoticeResult.SENT: 2, NoticeResult.DIGESTED: 3, None: 1}
    assert len(web_sink.texts()) == 3
    assert "3 notices at once" in web_sink.texts()[2]


async def test_one_address_has_one_pace_whatever_channels_and_processes_use_it(
    store: Store, web_sink: WebSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PACES, "wecom", Pace(every_s=600, burst=2))
    monkeypatch.setattr(delivery, "MAX_WAIT_S", 0.05)
    robot = f"wecom={web_sink.url}/wecom/send?key=1"
    async with (
        Store(store.url) as other,
        notifier(store, f"{robot}#name=one", f"{robot}#name=two") as one,
        notifier(other, f"{robot}#name=three") as another,
    ):
        await one.tell([alert(1)])
        await another.tell([alert(1)])
        await eventually(lambda: len(web_sink.texts()) == 2)
        await asyncio.sleep(0.3)
    assert len(web_sink.requests) == 2


async def test_a_robot_that_answers_200_with_an_error_code_is_not_counted_as_sent(
    store: Store, web_sink: WebSink
) -> None:
    web_sink.body = b'{"errcode":310000,"errmsg":"keywords not in content"}'
    sent = metrics.NOTICES.labels("dingtalk", "sent")._value.get()
    refused = metrics.NOTICES.labels("dingtalk", "refused")._value.get()
    structlog.reset_defaults()
    with capture_logs() as logs:
        addresses = (f"dingtalk={web_sink.url}/robot/very-secret-1", f"webhook={web_sink.url}/hook")
        async with notifier(store, *addresses) as one:
            await one.tell([alert(1)])
            await eventually(lambda: all_ended(store, 2))
    by_channel = {row.channel: row for row in await rows(store)}
    assert by_channel["dingtalk"].result == NoticeResult.REFUSED
    assert "310000: the robot's security settings refuse it" in (by_channel["dingtalk"].detail or "")
    assert metrics.NOTICES.labels("dingtalk", "sent")._value.get() == sent
    assert metrics.NOTICES.labels("dingtalk", "refused")._value.get() == refused + 1
    # It is loud, and stops nothing else.
    (line,) = [line for line in logs if line["event"] == "notice_refused"]
    assert (line["log_level"], line["code"]) == ("error", "310000")
    assert "very-secret" not in repr(logs)
    assert by_channel["webhook"].result == NoticeResult.SENT


async def test_a_channel_that_hangs_delays_no_other(store: Store, web_sink: WebSink, mail_sink: MailSink) -> None:
    web_sink.before = lambda _: asyncio.sleep(60)
    one = notifier(store, f"webhook={web_sink.url}/hook", f"email=smtp://127.0.0.1:{mail_sink.port}/?to=a@example.com")
    one._sender._timeout_s = 1.0
    async with one:
        await one.tell([alert(number) for number in range(3)])
        await eventually(lambda: len(mail_sink.mails) == 3)


async def test_what_is_not_taken_is_tried_again(
    store: Store, web_sink: WebSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notify.channels._AGAIN_S", 0.05)
    web_sink.status = 503
    async with notifier(store, f"webhook={web_sink.url}/hook") as one:
        await one.tell([alert(1)])
        await eventually(lambda: len(web_sink.requests) >= 3)
        web_sink.status = 200
        await eventually(lambda: all_ended(store, 1))
    assert await results(store) == {NoticeResult.SENT: 1}
    assert len({request.headers["webhook-id"] for request in web_sink.requests}) == 1


async def test_what_would_be_tried_again_too_late_is_given_up(store: Store, web_sink: WebSink) -> None:
    web_sink.status, web_sink.headers = 503, {"Retry-After": "600"}
    async with notifier(store, f"webhook={web_sink.url}/hook") as one:
        await one.tell([alert(1), alert(2, for_s=300)])
        await eventually(lambda: any_result(store, NoticeResult.GAVE_UP))
    assert await results(store) == {NoticeResult.GAVE_UP: 1, None: 1}
    assert {row.detail for row in await rows(store)} == {"it answered 503"}


async def test_a_robot_that_says_too_fast_is_left_alone_for_as_long_as_it_says(store: Store, web_sink: WebSink) -> None:
    web_sink.status, web_sink.headers = 429, {"Retry-After": "600"}
    async with notifier(store, f"slack={web_sink.url}/hook") as one:
        await one.tell([alert(1)])
        await eventually(lambda: len(web_sink.requests) == 1)
        await one.tell([alert(2)])
        await asyncio.sleep(0.3)
    assert len(web_sink.requests) == 1
    assert await results(store) == {None: 2}


async def test_a_notice_whose_time_is_past_is_dropped_and_counted_and_not_sent_late(
    store: Store, web_sink: WebSink
) -> None:
    expired = metrics.NOTICES.labels("webhook", "expired")._value.get()
    async with notifier(store, f"webhook={web_sink.url}/hook") as one:
        await one.tell([alert(1, for_s=-1.0), alert(2)])
        await eventually(lambda: all_ended(store, 2))
    assert await results(store) == {NoticeResult.EXPIRED: 1, NoticeResult.SENT: 1}
    assert metrics.NOTICES.labels("webhook", "expired")._value.get() == expired + 1
    assert len(web_sink.requests) == 1


async def test_a_notice_that_is_not_due_yet_waits(store: Store, web_sink: WebSink) -> None:
    async with notifier(store, f"webhook={web_sink.url}/hook") as one:
        began_s = time.monotonic()
        await one.tell([alert(1, due_in_s=0.5)])
        await eventually(lambda: len(web_sink.requests) == 1)
    assert time.monotonic() - began_s >= 0.45


async def keep(store: Store, *given: Event, ago_s: float = 0.0) -> None:
    received_at_us = round((time.time() - ago_s) * 1_000_000)
    await apply_events(
        store,
        [
            KeptEvent(event=event, event_id=f"{number:032}", received_at_us=received_at_us, body=b"{}")
            for number, event in enumerate(given)
        ],
    )


def warning(stops_in_s: float, task_id: str = "t") -> OnlineRecordLongPauseWarning:
    now = int(time.time())
    return OnlineRecordLongPauseWarning(
        task_id=task_id,
        room_id=7,
        sdk_app_id=APP,
        timestamp=now,
        pause_time=now - 60,
        estimate_stop_time=now + int(stops_in_s),
    )


async def test_a_pause_that_is_over_is_told_no_more(store: Store, web_sink: WebSink) -> None:
    event = warning(600)
    forced = OnlineRecordLongPauseForceStopped(
        task_id="t", room_id=7, sdk_app_id=APP, timestamp=event.timestamp + 5, stop_time=event.timestamp + 5
    )
    await keep(store, event, forced)
    clock_s = time.time
    async with notifier(store, f"webhook={web_sink.url}/hook", clock_s=clock_s) as one:
        assert await run_batch(one.consumer, [event, forced], store=store) == [Ack(), Ack()]
        await eventually(lambda: len(web_sink.requests) == 1)
    told = {row.rule: row.result for row in await rows(store) if row.result is not None}
    assert told == {"long_pause": NoticeResult.OVER, "force_stopped": NoticeResult.SENT}
    assert len([row for row in await rows(store) if row.rule == "long_pause"]) == 2


async def test_a_later_pause_takes_the_place_of_an_earlier_one(store: Store, web_sink: WebSink) -> None:
    await keep(store, warning(1800))
    async with notifier(store, f"webhook={web_sink.url}/hook") as one:
        await run_consumer(one.consumer, warning(600), store=store)
        await eventually(lambda: any_result(store, NoticeResult.OVER))
    assert web_sink.requests == []


async def any_result(store: Store, result: NoticeResult) -> bool:
    return (await results(store))[result] > 0


async def test_a_failure_that_a_result_overtook_is_told_no_more(store: Store, web_sink: WebSink) -> None:
    well = OnlineRecordFinished(task_id="t", sdk_app_id=APP, timestamp=1)
    failed = OnlineRecordFinished(task_id="t", sdk_app_id=APP, timestamp=2, error=RecordingError(code="c"))
    await keep(store, well, failed)
    async with notifier(store, f"webhook={web_sink.url}/hook") as one:
        await run_consumer(one.consumer, failed, store=store)
        await eventually(lambda: all_ended(store, 1))
    assert await results(store) == {NoticeResult.OVER: 1}


def told_rules(sink: WebSink) -> Counter[str]:
    return Counter(fact["rule"] for request in sink.requests for fact in request.json["data"]["notices"])


async def test_what_no_event_tells_is_found_in_the_store(store: Store, web_sink: WebSink) -> None:
    stopped = OnlineRecordStopped(task_id="stopped", room_id=7, sdk_app_id=APP, timestamp=1)
    await keep(store, stopped, ago_s=7200)
    forged = OnlineRecordFinished(task_id="forged", room_id=8, sdk_app_id=APP, timestamp=1)
    now_us = round(time.time() * 1_000_000)
    body = {
        "EventType": "OnlineRecordFinished",
        "Timestamp": 1,
        "SdkAppId": APP,
        "EventData": {"TaskId": "forged", "RoomId": 8},
    }
    kept = KeptEvent(event=forged, event_id="f" * 32, received_at_us=now_us, body=json.dumps(body).encode())
    await apply_events(store, [kept])
    await mark_verified(store, "f" * 32, verified=False)
    await pause_app(store, APP, for_s=600, reason="arrears")
    yesterday = (datetime.now(UTC) - timedelta(days=1)).date().isoformat()
    await keep_unaccounted(store, [UnaccountedRoom(sdk_app_id=APP, day=yesterday, room_id=9, minutes=45)])
    await keep_dead_letters(
        store,
        [
            DeadLetter(
                consumer="archive",
                event_id="d" * 32,
                event_type="OnlineRecordFinished",
                sdk_app_id=APP,
                attempts=8,
                reason="OSError: no space left",
                first_failed_at_us=now_us,
                last_failed_at_us=now_us,
                body=b"{}",
                routing_key="OnlineRecordFinished",
                received_at_us=now_us,
            ),
            DeadLetter(
                consumer="tried",
                event_id="a" * 32,
                event_type="OnlineRecordFinished",
                sdk_app_id=APP,
                attempts=8,
                reason="somebody sent a test",
                first_failed_at_us=now_us,
                last_failed_at_us=now_us,
                body=b"{}",
                routing_key="OnlineRecordFinished",
                received_at_us=now_us,
                source="test",
            ),
        ],
    )
    looks = (
        look_for_spool(lambda: SpoolUse(count=3, since_s=time.time() - 120)),
        look_for_spool(lambda: None),
    )
    async with notifier(store, f"webhook={web_sink.url}/hook", looks=looks):
        await eventually(lambda: all_ended(store, 6))
        # However often it is looked at, by however many.
        async with Store(store.url) as other, notifier(other, f"webhook={web_sink.url}/hook", looks=looks):
            await asyncio.sleep(0.3)
    assert told_rules(web_sink) == {
        "overdue": 1,
        "contradicted": 1,
        "unaccounted": 1,
        "app_paused": 1,
        "dead_letters": 1,
        "spool": 1,
    }
    facts = {fact["rule"]: fact for request in web_sink.requests for fact in request.json["data"]["notices"]}
    assert (facts["overdue"]["task_id"], facts["overdue"]["status"]) == ("stopped", "STOPPED")
    assert (facts["contradicted"]["task_id"], facts["contradicted"]["room_id"]) == ("forged", 8)


async def test_a_broker_that_is_away_for_long_is_told(store: Store) -> None:
    is_ready = True
    look = look_for_broker(lambda: is_ready)
    assert await look(store, 1000.0) == []
    is_ready = False
    assert await look(store, 1010.0) == []
    assert await look(store, 1100.0) == []
    (told,) = await look(store, 1131.0)
    assert (told.rule, told.data["since_at"]) == ("broker_away", 1010)
    is_ready = True
    assert await look(store, 1140.0) == []
    is_ready = False
    assert await look(store, 1141.0) == []


async def test_a_look_that_fails_takes_nothing_from_the_others(store: Store, web_sink: WebSink) -> None:
    async def broken(store: Store, now_s: float) -> list[Alert]:
        raise RuntimeError("a defect")

    looks = (broken, look_for_spool(lambda: SpoolUse(count=3, since_s=time.time() - 120)))
    async with notifier(store, f"webhook={web_sink.url}/hook", looks=looks):
        await eventually(lambda: all_ended(store, 1))


async def test_a_store_without_its_tables_is_waited_for(web_sink: WebSink, tmp_path: Path) -> None:
    async with (
        Store(f"sqlite+aiosqlite:///{tmp_path}/new.db") as empty,
        notifier(empty, f"webhook={web_sink.url}/hook") as one,
    ):
        await asyncio.sleep(0.1)
        await migrate(empty)
        await one.tell([alert(1)])
        await eventually(lambda: all_ended(empty, 1))


async def test_it_ends_at_once_while_the_store_is_away(tmp_path: Path) -> None:
    began_s = time.monotonic()
    # A store whose tables nobody makes.
    async with (
        Store(f"sqlite+aiosqlite:///{tmp_path}/new.db") as empty,
        notifier(empty, "webhook=http://127.0.0.1:1/hook"),
    ):
        await asyncio.sleep(0.05)
    assert time.monotonic() - began_s < 5


async def test_on_postgresql_three_replicas_tell_each_notice_once(
    postgres_url: str, web_sink: WebSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PACES, "webhook", Pace(every_s=0.001, burst=1000))
    monkeypatch.setattr(delivery, "MAX_DIGEST", 5)
    async with Store(postgres_url) as one, Store(postgres_url) as two, Store(postgres_url) as three:
        await migrate(one)
        replicas = [notifier(each, f"webhook={web_sink.url}/hook") for each in (one, two, three)]
        async with replicas[0], replicas[1], replicas[2]:
            await asyncio.gather(*(replica.tell([alert(n) for n in range(60)]) for replica in replicas))
            await eventually(lambda: all_ended(one, 60))
    told = Counter(fact["room_id"] for request in web_sink.requests for fact in request.json["data"]["notices"])
    assert told == dict.fromkeys(range(60), 1)
