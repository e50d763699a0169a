"""One recording tells what happened to it in one sentence, and what can be done about it."""

import html
import json
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from console.recording import in_order
from schemas import file_key
from store import (
    Question,
    RecordingVideo,
    apply_events,
    ask,
    claim_questions,
    find_question,
    find_recordings,
    finish_question,
    list_archive_files,
    list_changes,
    mark_listed,
    pause_app,
    postpone_file,
    register_consumers,
)
from tests.console.classes import APP, HOSTILE, archive, given_up, handled, lesson, now_s, of, video
from tests.console.world import READ_TOKEN, Page, World, elements, running, text_of

TASK = "9hmh67vcfhc51qfqrx7l"
ADDRESS = f"/recording?app={APP}&task={TASK}"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running(tmp_path) as opened:
        yield opened


async def said(world: World, address: str = ADDRESS, **options: Any) -> str:
    page = await world.browser.get(address, **options)
    assert page.status == 200, page.text
    found = re.search(r'<p class="lead">(.*?)</p>', page.text, re.DOTALL)
    assert found is not None
    return html.unescape(re.sub("<[^>]+>", "", found[1]))


async def shown(world: World, address: str = ADDRESS, **options: Any) -> tuple[Page, str]:
    page = await world.browser.get(address, **options)
    assert page.status == 200, page.text
    return page, text_of(page.text)


async def test_an_archived_class_is_said_to_be_archived(world: World) -> None:
    await apply_events(world.store, lesson(TASK, start_s=1_795_971_600))
    await archive(world.store, TASK, "archived", "archived")
    assert await said(world) == (
        "The class was recorded from 2026-11-29 17:00:00 to 2026-11-29 18:02:00 and is archived."
    )
    chinese = await said(world, headers={"Accept-Language": "zh"})
    assert chinese == "课堂已录制（2026-11-29 17:00:00 至 2026-11-29 18:02:00），并已归档。"


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        (("archived", None), "1 of 2 files are archived"),
        (("archived", "lost"), "but 1 of 2 files could not be archived"),
        (("lost", "refused"), "but 2 of 2 files could not be archived"),
    ],
)
async def test_files_that_are_missing_are_counted(world: World, outcomes: Any, expected: str) -> None:
    await apply_events(world.store, lesson(TASK))
    await archive(world.store, TASK, *outcomes)
    assert expected in await said(world)


async def test_a_recording_is_called_by_its_room_and_when_it_began(world: World) -> None:
    started = of("Started", "goes_on", at_s=1_795_971_600, RoomId=880528)
    of_none = of("Finished", "no_room", at_s=now_s(), RecordStartTime=1_795_971_600)
    await apply_events(
        world.store, [*lesson(TASK, start_s=1_795_971_600), started, of_none, of("Finished", "bare", at_s=now_s())]
    )
    headings = {}
    for task in (TASK, "goes_on", "no_room", "bare"):
        page = await world.browser.get(f"/recording?app={APP}&task={task}")
        heading = re.search(r"<h1>(.*?)</h1>", page.text, re.DOTALL)
        title = re.search(r"<title>(.*?) · ", page.text)
        assert heading is not None
        assert title is not None
        headings[task] = (text_of(heading[1]).strip(), title[1])
    assert headings == {
        TASK: (f"Room 880528, 2026-11-29 17:00 {TASK}", "Room 880528, 2026-11-29 17:00 UTC"),
        "goes_on": ("Room 880528, 2026-11-29 17:00 goes_on", "Room 880528, 2026-11-29 17:00 UTC"),
        "no_room": (
            "Recording without a room number, 2026-11-29 17:00 no_room",
            "Recording without a room number, 2026-11-29 17:00 UTC",
        ),
        "bare": ("Recording without a room number bare", "Recording without a room number"),
    }
    page = await world.browser.get(ADDRESS)
    # The script of the page puts the reader's zone in, and the day of the week.
    (moment,) = [one for one in elements(page.text, "time") if one.get("data-day")]
    assert moment["datetime"] == "2026-11-29T17:00:00Z"


async def test_files_that_cannot_be_fetched_say_why_and_until_when_there_is_time(world: World) -> None:
    await apply_events(world.store, lesson(TASK))
    await archive(world.store, TASK, "archived", None)
    (file,) = [one for one in await list_archive_files(world.store, task_id=TASK) if one.state != "archived"]
    key = (APP, TASK, file_key(RecordingVideo(video_id="v2", video_size=1_000_000)))
    let_go = {"lease_holder": "h", "reason": f"HTTP 503 {HOSTILE}"}
    assert await postpone_file(world.store, key, after_s=300, failing_at="fetching", **let_go)
    assert "1 of 2 files are archived; fetching the others fails" in await said(world)
    _, text = await shown(world)
    since = r"Fetching has failed since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d : HTTP 503 <img"
    assert re.search(since, text)
    assert re.search(r"It is tried again at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d .", text)
    assert re.search(r"The vendor keeps the files until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d .", text)
    assert "on their way" not in text
    (file,) = [one for one in await list_archive_files(world.store, task_id=TASK) if one.state != "archived"]
    assert file.failing_at == "fetching"
    assert file.failing_since is not None
    assert file.next_at is not None
    assert file.failing_since < file.next_at


async def test_a_failure_of_a_step_says_what_becomes_of_what_was_fetched(world: World) -> None:
    await apply_events(world.store, lesson(TASK))
    await archive(world.store, TASK, None, None)
    key = (APP, TASK, file_key(RecordingVideo(video_id="v2", video_size=1_000_000)))
    await postpone_file(
        world.store, key, lease_holder="h", after_s=-3600, failing_at="placing", reason="the disk is full"
    )
    _, text = await shown(world)
    assert "Putting files into the archive has failed since" in text
    assert "It was to be tried again at" in text
    assert "waits on the staging disk" in text


async def test_files_that_nobody_archives_have_a_day_on_which_they_go(world: World) -> None:
    await apply_events(world.store, lesson(TASK))
    _, text = await shown(world)
    assert "with the vendor alone, which deletes them about" in text
    assert "Set TIW_ARCHIVE" in text
    await apply_events(world.store, lesson("old", start_s=now_s() - 40 * 86_400))
    assert "was to delete them about" in await said(world, f"/recording?app={APP}&task=old")


async def test_a_failure_says_what_it_means_and_what_to_do(world: World) -> None:
    message = "code: 40004, msg: 2019-09-23 10:31:47, im login failed with code 6206, desc serSig expired\n"
    error = {"Code": "FailedOperation.Record", "Message": message}
    await apply_events(
        world.store, [of("Finished", TASK, at_s=now_s(), RecordStartTime=0, Error=error, FinishReason="EXCEPTION")]
    )
    assert (await said(world)).startswith("Recording failed: FailedOperation.Record: code: 40004")
    _, text = await shown(world)
    assert "the RecordUserSig had expired: make a new one for each recording" in text
    assert "Nothing was saved of it" in text
    assert re.search(r"CreateVideoGenerationTask with this TaskId makes a video of it until \d{4}-", text)
    assert "Before the next class, correct what is named" in text
    _, text = await shown(world, headers={"Accept-Language": "zh"})
    assert "RecordUserSig 已过期" in text


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"Code": "X", "Message": "nobody knows"}, "Recording failed: X: nobody knows"),
        ({"Code": "X", "Message": "two\nlines\n"}, "Recording failed: X: two lines"),
        ({"Code": "X", "Message": "invalid userid\\n"}, "Recording failed: X: invalid userid"),
        ({"Code": "X"}, "Recording failed: X"),
        ({}, "Recording failed. The vendor does not say why."),
        ({"Message": "only this"}, "Recording failed: ?: only this"),
    ],
)
async def test_a_failure_of_which_little_is_known_is_told_as_it_is(world: World, error: Any, expected: str) -> None:
    await apply_events(world.store, [of("Finished", TASK, at_s=now_s(), Error=error)])
    assert await said(world) == expected


async def test_a_failure_that_nobody_knows_leads_to_the_vendors_support(world: World) -> None:
    ago_s = now_s() - 4 * 86_400
    error = {"Code": "X", "Message": "nobody knows"}
    await apply_events(world.store, lesson(TASK, start_s=ago_s, Error=error))
    _, text = await shown(world)
    assert "2 files were saved all the same" in text
    assert f"Ask the vendor's support, with the message above and the TaskId {TASK}" in text
    # The three days in which that could be done are over.
    assert "CreateVideoGenerationTask" not in text


async def test_each_state_has_a_sentence(world: World) -> None:
    now = now_s()
    pause = {"PauseTime": now - 600, "EstimateStopTime": now + 600}
    over = {"PauseTime": now - 6000, "EstimateStopTime": now - 3000}
    forced = {"PauseTime": now - 600, "StopTime": now - 60}
    for task, events, expected in (
        ("a", [of("Started", "a", at_s=now - 60)], "has been recorded since"),
        ("b", [of("LongPauseWarning", "b", at_s=now, **pause)], "The vendor stops it at"),
        ("c", [of("LongPauseWarning", "c", at_s=now - 4000, **over)], "No callback came since"),
        ("d", [of("LongPauseWarning", "d", at_s=now)], "No callback tells since when"),
        ("e", [of("Stopped", "e", at_s=now)], "is still making its files"),
        ("f", [of("LongPauseForceStopped", "f", at_s=now, **forced)], "because it had been paused for too long"),
        ("g", lesson("g", VideoInfos=[]), "but no file came of it"),
        ("h", [of("Finished", "h", at_s=now)], "The class was recorded until"),
    ):
        await apply_events(world.store, events)
        assert expected in await said(world, f"/recording?app={APP}&task={task}"), task


async def test_everything_of_it_is_on_the_page(world: World) -> None:
    events = lesson(TASK)
    await apply_events(world.store, events)
    await archive(world.store, TASK, "archived", "lost")
    await handled(world.store, "mail", events[2])
    await given_up(world.store, "excel", events[2], reason="no space left on device")
    page, text = await shown(world)
    assert "tic_record_user_880528_1" in text
    assert "ab" * 32 in text
    assert "/srv/classes/" in text
    assert "it is gone" in text
    assert "mail handled" in text
    assert "excel dead letter after 8 attempts" in text
    assert "no space left on device" in text
    assert f"tiw recordings show {TASK} --app {APP}" in text
    assert '"RecordStopTime"' in text
    assert len(elements(page.text, "svg")) > 1
    letter = f"/dead-letter?id={events[2].event_id}&consumer=excel"
    assert letter in [link["href"] for link in elements(page.text, "a")]
    archived = {link["href"] for link in elements(page.text, "a") if "/media?" in str(link["href"])}
    assert len(archived) == 1
    assert str(archived.pop()).startswith(f"/media?app={APP}&task={TASK}&file=")


async def test_an_event_says_what_was_done_here_and_what_each_consumer_of_ones_own_did(world: World) -> None:
    events = lesson(TASK)
    await apply_events(world.store, events)
    _, text = await shown(world)
    assert "recording finished OnlineRecordFinished" in text
    assert "Kept here, and applied to this recording. None of your consumers takes events of this kind." in text
    await register_consumers(world.store, {"mail": ("OnlineRecordFinished",), "log": ("OnlineRecordFinished",)})
    await handled(world.store, "mail", events[2])
    _, text = await shown(world)
    assert "Kept here, and applied to this recording. log not known mail handled" in text
    forged = of("Finished", TASK, at_s=now_s(), RoomId=13, verified=False)
    await apply_events(world.store, [forged])
    assert "Kept here, but not applied: the vendor contradicts it." in (await shown(world))[1]


async def test_where_the_vendor_contradicts_all_there_is_nothing_is_said_not_to_be_applied(world: World) -> None:
    await apply_events(world.store, [of("Started", TASK, at_s=now_s(), verified=False)])
    _, text = await shown(world)
    assert "The only event says something else than the vendor" in text
    assert "Kept here, and shown as there is nothing else: the vendor contradicts it." in text
    assert "not applied" not in text


async def test_the_json_form_is_the_document_of_the_command(world: World) -> None:
    await apply_events(world.store, lesson(TASK))
    await archive(world.store, TASK, "archived", None)
    answer = await world.browser.get(f"{ADDRESS}&format=json")
    (recording,) = await find_recordings(world.store, TASK)
    assert json.loads(answer.text) == json.loads(msgspec.json.encode(recording))


async def test_several_applications_with_one_task_id_are_a_choice(world: World) -> None:
    await apply_events(world.store, [*lesson(TASK), *lesson(TASK, app=7)])
    page, text = await shown(world, f"/recording?task={TASK}")
    assert "Which one?" in text
    addresses = {link["href"] for link in elements(page.text, "a")}
    assert {ADDRESS, f"/recording?app=7&task={TASK}"} <= addresses
    await apply_events(world.store, lesson("alone"))
    assert "was recorded" in await said(world, "/recording?task=alone")


@pytest.mark.parametrize("address", [f"/recording?task={TASK}", ADDRESS, f"/recording?app=-1&task={quote(HOSTILE)}"])
async def test_a_recording_that_is_not_there_says_how_to_find_it(world: World, address: str) -> None:
    page = await world.browser.get(address)
    assert page.status == 404
    assert "There is no recording" in text_of(page.text)
    assert "tiw register" in text_of(page.text)
    assert (await world.browser.get(f"{address}&format=json")).status == 404


@pytest.mark.parametrize("query", ["", "task=", "task=x&app=y", f"task=x&app={2**63}", "task=x&app=%C2%B2"])
async def test_an_address_that_names_none_is_told(world: World, query: str) -> None:
    assert (await world.browser.get(f"/recording?{query}")).status == 400


async def test_what_the_vendor_contradicts_stands_first_and_is_marked(world: World) -> None:
    forged = of("Finished", TASK, at_s=now_s(), RoomId=13, verified=False)
    await apply_events(world.store, [*lesson(TASK), forged])
    _, text = await shown(world)
    assert "The vendor contradicts a callback" in text
    assert "One event says something else" in text
    assert "contradicted by the vendor" in text
    await apply_events(world.store, [of("Finished", "only", at_s=now_s(), verified=False)])
    assert "as there is nothing else" in (await shown(world, f"/recording?app={APP}&task=only"))[1]


async def test_what_was_found_late_is_told_with_how_late(world: World) -> None:
    at_s = now_s() - 4000
    late = of("Finished", TASK, at_s=at_s, received_s=at_s + 3723, source="reconcile", verified=True)
    await apply_events(world.store, [late])
    _, text = await shown(world)
    assert "No callback told of one thing" in text
    assert "DescribeOnlineRecord" in text
    assert "1:02:03" in text


async def test_a_test_is_marked_as_one(world: World) -> None:
    await apply_events(world.store, [of("Started", TASK, at_s=now_s(), source="test")])
    assert "This is a test" in (await shown(world))[1]


async def test_hostile_text_in_every_field_stays_text(world: World) -> None:
    now = now_s()
    task = f"{TASK}{HOSTILE}".replace("\0", "")
    hostile: dict[str, Any] = {
        "GroupId": HOSTILE,
        "RecordUserId": HOSTILE,
        "FinishReason": HOSTILE,
        "VideoInfos": [
            video(1, VideoId=HOSTILE, UserId=HOSTILE, VideoUrl="javascript:alert(1)", VideoFormat=HOSTILE),
            video(2, VideoUrl=f"https://tiw-1259648581.file.myqcloud.com/{HOSTILE}", VideoType=99),
            video(3, VideoUrl="https://tiw-1259648581.file.myqcloud.com/fine.mp4"),
            {},
            "odd",
        ],
    }
    events = lesson(task, **hostile)
    await apply_events(
        world.store, [*events, of("Finished", task, at_s=now, Error={"Code": HOSTILE, "Message": HOSTILE})]
    )
    await given_up(world.store, HOSTILE.replace("\0", ""), events[2], reason=HOSTILE * 50)
    await ask(world.store, [Question(sdk_app_id=APP, task_id=task, why=HOSTILE, found_by=HOSTILE)])
    for language in ("en", "zh"):
        page, text = await shown(
            world, f"/recording?app={APP}&task={quote(task)}", headers={"Accept-Language": language}
        )
        for tag in ("img", "iframe", "object"):
            assert elements(page.text, tag) == []
        assert all(script.get("src") for script in elements(page.text, "script"))
        assert not re.search(r"<[^>]+\s(style|on[a-z]+)=", re.sub(r'"[^"]*"', '""', page.text))
        addresses = [str(link["href"]) for link in elements(page.text, "a")]
        assert not any(address.startswith(("javascript:", "data:")) for address in addresses)
        assert "https://tiw-1259648581.file.myqcloud.com/fine.mp4" in addresses
        visible = re.sub(r'<input type="hidden"[^>]*>', "", page.text)
        assert not {"\u202e", "\u2066", "\0"} & set(visible)
        assert "7 * 7" in text


async def test_numbers_that_cannot_be_true_break_nothing(world: World) -> None:
    for number, value in enumerate((-(2**63), -1, 0, 2**53, 2**63 - 1)):
        task = f"number{number}"
        await apply_events(
            world.store,
            [
                of("LongPauseWarning", task, at_s=now_s(), PauseTime=value, EstimateStopTime=value),
                of("LongPauseForceStopped", task, at_s=now_s(), PauseTime=value, StopTime=value),
                *lesson(
                    task,
                    RecordStartTime=value,
                    RecordStopTime=value,
                    TotalTime=value,
                    ExceptionCnt=value,
                    RoomId=value,
                    OmittedDurations=[{"VideoTime": value, "PauseTime": value, "ResumeTime": -value}],
                    VideoInfos=[video(1, VideoPlayTime=value, VideoDuration=value, VideoSize=value, VideoType=value)],
                ),
            ],
        )
        page = await world.browser.get(f"/recording?app={APP}&task={task}")
        assert page.status == 200, (value, page.text)
        assert (await world.browser.get("/recordings")).status == 200


async def test_a_body_of_any_kind_is_text_and_a_long_one_is_cut(world: World) -> None:
    long = lesson(TASK, GroupId="x" * 600_000)
    await apply_events(world.store, long)
    page, text = await shown(world)
    assert "Cut after 20000 characters" in text
    assert len(page.text) < 150_000
    many = [of("Started", "many", at_s=now_s() - number) for number in range(60)]
    await apply_events(world.store, many)
    page, text = await shown(world, f"/recording?app={APP}&task=many")
    assert "40 more events" in text
    assert f"/events?app={APP}&task=many" in [link["href"] for link in elements(page.text, "a")]


def test_json_is_put_in_order_and_keeps_its_digits() -> None:
    assert in_order('{"b":1.00,"a":12345678901234567890123}') == '{\n  "b": 1.00,\n  "a": 12345678901234567890123\n}'
    for text in ("not json", "", "[" * 100_000, '{"a":', "\ud800", "{}" * 10):
        assert in_order(text) == text
    assert in_order("[" + "1," * 200_000 + "1]").count("\n") == 0


# What can be done.


async def press(world: World, action: str, *, token: str | None = None) -> str:
    page = await world.browser.act(f"/recording/{action}", {"app": str(APP), "task": TASK}, seen=ADDRESS)
    assert (page.status, page.url.path) == (200, "/recording")
    found = re.search(r'<p class="done[^>]*>(.*?)</p>', page.text, re.DOTALL)
    assert found is not None, page.text
    return text_of(found[1])


async def test_ask_the_vendor_makes_the_question_due_for_whoever_asks(world: World) -> None:
    await apply_events(world.store, lesson(TASK))
    await mark_listed(world.store, APP)
    assert "is asked about" in await press(world, "ask")
    (question,) = await claim_questions(world.store, apps=[APP], lease_holder="h", lease_s=60, limit=9)
    assert (question.task_id, question.why, question.found_by) == (TASK, "somebody asked in the console", "")
    assert "somebody asked in the console" in (await shown(world))[1]


async def test_ask_the_vendor_says_that_nobody_would(world: World) -> None:
    await apply_events(world.store, lesson(TASK))
    _, text = await shown(world)
    assert "Nobody asks for application 1400000001" in text
    # Before it is pressed the button says what comes of it.
    assert "Ask the vendor later" in text
    assert "Ask the vendor now" not in text
    assert "Start `tiw reconcile`" in await press(world, "ask")
    # It is kept all the same, for when somebody does.
    question = await find_question(world.store, APP, TASK)
    assert question is not None
    assert question.state == "due"
    await pause_app(world.store, APP, for_s=60, reason="the vendor does not know TIW_VENDOR_SECRET_ID: it was deleted")
    assert "is paused: the vendor does not know" in await press(world, "ask")


async def test_a_final_answer_is_not_asked_for_again(world: World) -> None:
    events = lesson(TASK)
    await apply_events(world.store, [msgspec.structs.replace(event, verified=True) for event in events])
    await ask(world.store, [Question(sdk_app_id=APP, task_id=TASK, why="its end is not verified")])
    (question,) = await claim_questions(world.store, apps=[APP], lease_holder="h", lease_s=60, limit=9)
    await finish_question(world.store, question, lease_holder="h", answer_status="FINISHED", answer=events[2].body)
    page, text = await shown(world)
    assert "The vendor gave its final answer" in text
    assert "it is finished" in text
    ask_button = re.search(r'action="/recording/ask">.*?<button class="button"([^>]*)>', page.text, re.DOTALL)
    assert ask_button is not None
    assert "disabled" in ask_button[1]


def fetch_button(page: Page) -> str:
    button = re.search(r'action="/recording/fetch">.*?<button class="button"([^>]*)>', page.text, re.DOTALL)
    assert button is not None
    return button[1]


async def test_fetch_now_has_what_is_missing_fetched(tmp_path: Path) -> None:
    async with running(tmp_path, open_place=lambda: None) as world:
        await apply_events(world.store, lesson(TASK))
        page, text = await shown(world)
        assert "disabled" in fetch_button(page)
        assert "by itself as soon as it has seen this recording" in text
        await archive(world.store, TASK, "archived", "lost")
        assert "Fetch now" in (await shown(world))[1]
        assert "One file is fetched now" in await press(world, "fetch")
        states = [file.state for file in await list_archive_files(world.store, task_id=TASK)]
        assert states == ["archived", "waiting"]


async def test_fetch_now_says_what_stands_in_its_way(world: World) -> None:
    await apply_events(world.store, lesson(TASK))
    assert "Set TIW_ARCHIVE and run" in await press(world, "fetch")
    page, _ = await shown(world)
    assert "disabled" in fetch_button(page)
    await archive(world.store, TASK, "archived", "lost")
    page, text = await shown(world)
    assert "disabled" not in fetch_button(page)
    assert "Fetch as soon as an archive runs" in text
    assert "This console knows of no archive" in text
    assert "this console knows of no archive" in await press(world, "fetch")
    await apply_events(world.store, lesson("whole"))
    await archive(world.store, "whole", "archived", "archived")
    page = await world.browser.act("/recording/fetch", {"app": str(APP), "task": "whole"}, seen=ADDRESS)
    assert "every file that is known is archived" in text_of(page.text)


async def test_what_was_pressed_is_in_the_list_of_changes(world: World) -> None:
    await apply_events(world.store, lesson(TASK))
    await press(world, "ask")
    await press(world, "fetch")
    changes = (await list_changes(world.store)).rows
    assert [change.action for change in changes] == ["recording.fetch", "recording.ask"]
    assert all(change.detail["task_id"] == TASK for change in changes)


async def test_a_form_that_names_none_does_nothing(world: World) -> None:
    await apply_events(world.store, lesson(TASK))
    for form in ({}, {"task": TASK, "app": "x"}):
        for action in ("ask", "fetch"):
            assert (await world.browser.act(f"/recording/{action}", form, seen=ADDRESS)).status == 400
    page = await world.browser.act("/recording/ask", {"task": "absent", "app": "1"}, seen=ADDRESS)
    assert page.status == 404
    assert await find_question(world.store, 1, "absent") is None


async def test_who_may_only_look_sees_the_buttons_switched_off(tmp_path: Path) -> None:
    async with running(tmp_path, log_in=False) as world:
        await apply_events(world.store, lesson(TASK))
        await world.browser.log_in(READ_TOKEN)
        page, text = await shown(world)
        assert "You are logged in to look only" in text
        buttons = [one for one in elements(page.text, "button") if one.get("class") == "button"]
        assert buttons
        assert all("disabled" in one for one in buttons)
        form = {"form_token": page.form_token, "app": str(APP), "task": TASK}
        assert (await world.browser.post("/recording/ask", form)).status == 403


async def test_the_page_is_there_while_a_part_of_it_is_not(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*args: object, **options: object) -> None:
        raise TimeoutError

    await apply_events(world.store, lesson(TASK))
    monkeypatch.setattr("console.recording.list_event_outcomes", away)
    monkeypatch.setattr("console.recording.search_events", away)
    monkeypatch.setattr("console.recording.find_reconciled_apps", away)
    _, text = await shown(world)
    assert "Not known right now" in text
    assert "was recorded" in text


async def test_a_page_takes_less_than_a_fifth_of_a_second_of_work(world: World) -> None:
    await apply_events(world.store, lesson(TASK))
    await world.browser.get(ADDRESS)
    before_s = time.process_time()
    await world.browser.get(ADDRESS)
    assert time.process_time() - before_s < 0.2
