"""What is put right in the browser, on both transports: it happens, it is told, and it is kept who did it."""

import json
import time
from random import Random

from playwright.sync_api import Page, expect

from simulator import ClassKind, SimulatedClass, make_class
from tests.browser.chromium import Visits, keys_until
from tests.browser.pipeline import WRONG_KEY, Pipeline
from tests.browser.school import DAY_S, contents
from tests.browser.visiting import expect_done, operator, recording_address
from tests.end_to_end.programs import eventually
from tests.end_to_end.sending import APP, KEY, callback, post, send, signed

DEAD = (
    "SELECT count(*) FROM dead_letters WHERE resolved_at_us IS NULL AND event_id IN (SELECT event_id FROM events WHERE "
)


def a_class(pipeline: Pipeline, kind: ClassKind, seed: int) -> SimulatedClass:
    """Play a class that ended yesterday, and return it once it is recorded."""
    cls = make_class(
        kind, Random(1000 + seed), sdk_app_id=APP, room_id=881_000 + seed, started_at=int(time.time()) - DAY_S
    )
    send(pipeline.deployment.address, *contents(cls))
    recorded = f"SELECT count(*) FROM recordings WHERE status = 'FINISHED' AND task_id = '{cls.task_id}'"  # noqa: S608
    eventually(lambda: pipeline.one(recorded) == ("1",))
    return cls


def a_dead_letter(pipeline: Pipeline, seed: int) -> str:
    """Play a class whose end the consumer `copies` gives up, and return the TaskId."""
    cls = a_class(pipeline, ClassKind.FAILED, seed)
    eventually(lambda: dead_letters_of(pipeline, cls.task_id) == 1)
    return cls.task_id


def dead_letters_of(pipeline: Pipeline, task_id: str) -> int:
    return int(pipeline.one(f"{DEAD} task_id = '{task_id}')")[0])


def copied(pipeline: Pipeline, task_id: str) -> int:
    return len(pipeline.deployment.logged("copied", task_id=task_id))


def open_letter(page: Page, task_id: str) -> None:
    """Go from the list of dead letters to that of a recording."""
    page.goto("/dead-letters")
    page.get_by_role("navigation", name="Views").get_by_role("link", name="One by one").click()
    page.locator("tr", has_text=task_id).get_by_role("link").last.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Dead letter")


def expect_noted(page: Page, action: str, *parts: str) -> None:
    """Expect the newest change to be this one."""
    page.goto("/changes")
    newest = page.locator("tbody tr").first
    expect(newest).to_contain_text(action)
    for part in parts:
        expect(newest).to_contain_text(part)


def test_a_dead_letter_says_why_and_is_handled_once_it_is_mended_and_replayed(
    visits: Visits, pipeline: Pipeline
) -> None:
    task_id = a_dead_letter(pipeline, 1)
    page = operator(visits, pipeline)
    open_letter(page, task_id)
    expect(page.get_by_role("heading", name="PermissionError: the share of the school is read-only")).to_be_visible()
    expect(page.get_by_text("the traceback says where")).to_be_visible()
    expect(page.locator("pre", has_text="Traceback")).to_contain_text("in copy_to_share")
    pipeline.open_share(task_id)
    page.get_by_role("link", name="Replay…").click()
    expect(page.get_by_text("1 goes back to copies")).to_be_visible()
    assert dead_letters_of(pipeline, task_id) == 1, "a preview changes nothing"
    page.get_by_role("button", name="Replay this dead letter").click()
    expect_done(page, "1 dead letter went back to its consumer.")
    # It follows by itself what becomes of it.
    expect(page.locator(".card", has_text="handled")).to_contain_text("1")
    expect(page.locator(".card", has_text="still on their way")).to_contain_text("0")
    assert copied(pipeline, task_id) == 1
    assert dead_letters_of(pipeline, task_id) == 0
    expect_noted(page, "Replay dead letters", "copies")


def test_a_dead_letter_that_is_replayed_too_early_is_told_to_have_failed_again(
    visits: Visits, pipeline: Pipeline
) -> None:
    task_id = a_dead_letter(pipeline, 5)
    page = operator(visits, pipeline)
    open_letter(page, task_id)
    page.get_by_role("link", name="Replay…").click()
    page.get_by_role("button", name="Replay this dead letter").click()
    expect_done(page, "1 dead letter went back to its consumer.")
    page.get_by_role("link", name="Why they failed again").click(timeout=60_000)
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator("tbody tr")).to_contain_text(task_id)


def test_two_tabs_replay_a_dead_letter_once(visits: Visits, pipeline: Pipeline) -> None:
    task_id = a_dead_letter(pipeline, 2)
    pipeline.open_share(task_id)
    page = operator(visits, pipeline)
    other = page.context.new_page()
    for tab in (page, other):
        open_letter(tab, task_id)
        tab.get_by_role("link", name="Replay…").click()
    page.get_by_role("button", name="Replay this dead letter").click()
    expect_done(page, "1 dead letter went back to its consumer.")
    eventually(lambda: copied(pipeline, task_id) == 1)
    other.get_by_role("button", name="Replay this dead letter").click()
    expect_done(other, "Nothing was left to do")
    assert copied(pipeline, task_id) == 1


def test_a_dead_letter_is_deleted_only_after_a_confirmation(visits: Visits, pipeline: Pipeline) -> None:
    task_id = a_dead_letter(pipeline, 3)
    page = operator(visits, pipeline)
    open_letter(page, task_id)
    page.get_by_role("link", name="Delete…").click()
    page.get_by_role("button", name="Delete this dead letter for good").click()
    # The browser itself asks for the tick.
    assert page.evaluate("document.activeElement.name") == "count"
    assert dead_letters_of(pipeline, task_id) == 1
    page.get_by_label("Yes, delete it for good").check()
    page.get_by_role("button", name="Delete this dead letter for good").click()
    expect_done(page, "1 dead letter was deleted for good.")
    assert dead_letters_of(pipeline, task_id) == 0
    expect_noted(page, "Delete dead letters", "copies")


def test_a_dead_letter_is_replayed_with_the_keyboard_alone(visits: Visits, pipeline: Pipeline) -> None:
    task_id = a_dead_letter(pipeline, 4)
    pipeline.open_share(task_id)
    (event_id,) = pipeline.one(
        "SELECT event_id FROM dead_letters WHERE resolved_at_us IS NULL AND event_id IN "  # noqa: S608 - ids of ours
        f"(SELECT event_id FROM events WHERE task_id = '{task_id}')"
    )
    page = visits.page(pipeline.url)
    page.goto("/")
    page.keyboard.type(pipeline.token)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{pipeline.url}/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    for link in (
        "nav.pages a[href='/dead-letters']",
        "a[href*='all=1']",
        f"td a[href*='/dead-letter?'][href*='{event_id}']",
        "a[href^='/dead-letters/replay']",
    ):
        keys_until(page, "Tab", link)
        # What has the focus is seen to have it.
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
        with page.expect_navigation():
            page.keyboard.press("Enter")
    keys_until(page, "Tab", "form[action='/dead-letters/replay'] button")
    page.keyboard.press("Enter")
    expect_done(page, "1 dead letter went back to its consumer.")
    eventually(lambda: copied(pipeline, task_id) == 1)


def test_what_was_refused_for_a_wrong_key_is_let_in_once_the_key_is_known(visits: Visits, pipeline: Pipeline) -> None:
    lost = callback("OnlineRecordStarted", "let-in-later", RoomId=881_500)
    assert post(pipeline.deployment.address, signed(lost, key=WRONG_KEY)) == 401
    page = operator(visits, pipeline, "/rejected")

    def is_kept() -> bool:
        # A node keeps what it refused in a moment of its own.
        page.reload()
        return page.locator("tr", has_text="let-in-later").count() == 1

    eventually(is_kept, every_s=0.5)
    page.get_by_role("link", name="Check again").click()
    expect(page.get_by_text("None would be let in")).to_be_visible()
    pipeline.set_keys(KEY, WRONG_KEY)

    def is_known() -> bool:
        page.goto("/rejected/reverify")
        return page.get_by_role("button", name="Let them in").count() == 1

    eventually(is_known, every_s=0.5)
    page.get_by_role("button", name="Let them in").click()
    expect_done(page, "let in")
    eventually(lambda: pipeline.select("SELECT status FROM recordings WHERE task_id = 'let-in-later'") != [])
    page.goto("/recordings?task=let-in-later")
    expect(page.locator("tbody tr")).to_have_count(1)
    expect_noted(page, "Check rejected callbacks again")


def test_a_test_callback_reaches_all_and_is_marked_as_a_test_everywhere(visits: Visits, pipeline: Pipeline) -> None:
    page = operator(visits, pipeline, "/test")
    page.get_by_label("What happened").select_option(label="Recording failed (OnlineRecordFinished)")
    page.get_by_label("Room").fill("881600")
    page.get_by_role("button", name="Send", exact=True).click()
    expect_done(page, "The test callback was sent.")
    # It follows by itself what becomes of it.
    expect(page.locator("tr", has_text="finished").get_by_text("kept here")).to_be_visible()
    expect(page.locator("tr", has_text="copies").get_by_text("dead letter")).to_be_visible()
    page.goto("/recordings?room=881600")
    expect(page.locator("tbody tr .badge.test")).to_be_visible()
    page.locator("tbody tr td a").first.click()
    expect(page.locator("main .badge.test").first).to_be_visible()
    expect_noted(page, "Send a test callback", "failed")


def test_a_test_callback_reaches_one_consumer_alone(visits: Visits, pipeline: Pipeline) -> None:
    before = pipeline.one("SELECT count(*) FROM events")
    page = operator(visits, pipeline, "/consumer?name=copies")
    page.get_by_role("link", name="Send it a test callback").click()
    expect(page.get_by_label("To whom")).to_have_value("copies")
    page.get_by_label("What happened").select_option(label="Recording finished, with two files (OnlineRecordFinished)")
    page.get_by_role("button", name="Send", exact=True).click()
    expect_done(page, "The test callback was sent.")
    expect(page.locator("tr", has_text="copies").get_by_text("dead letter")).to_be_visible()
    assert pipeline.one("SELECT count(*) FROM events") == before, "no other consumer got it"


def test_a_kept_event_is_given_to_a_consumer_again(visits: Visits, pipeline: Pipeline) -> None:
    cls = pipeline.school.archived
    before = copied(pipeline, cls.task_id)
    page = operator(visits, pipeline, f"/events?task={cls.task_id}")
    page.locator("tbody tr", has_text="OnlineRecordFinished").locator("a[href^='/event?']").first.click()
    row = page.locator("tr", has_text="copies")
    expect(row).to_contain_text("handled")
    row.get_by_role("link", name="Replay…").click()
    expect(page.get_by_text("It has handled this event already")).to_be_visible()
    assert copied(pipeline, cls.task_id) == before, "a preview changes nothing"
    page.get_by_role("button", name="Replay it for copies").click()
    expect_done(page, "The event was replayed for copies.")
    eventually(lambda: copied(pipeline, cls.task_id) == before + 1)
    expect_noted(page, "Replay an event", "copies")


def test_the_vendor_is_asked_about_a_recording_at_once(visits: Visits, pipeline: Pipeline) -> None:
    cls = pipeline.school.running
    asked = f"SELECT attempts FROM recording_questions WHERE task_id = '{cls.task_id}'"  # noqa: S608 - ids of ours
    before = sum(one.task_id == cls.task_id for one in pipeline.api.requests.all)
    page = operator(visits, pipeline, recording_address(cls.task_id))
    page.get_by_role("button", name="Ask the vendor now").click()
    expect(page.locator("p.done.ok")).to_be_visible()
    eventually(lambda: sum(one.task_id == cls.task_id for one in pipeline.api.requests.all) > before)
    assert pipeline.select(asked)
    expect_noted(page, "Ask the vendor about a recording", cls.task_id)


def test_files_are_fetched_at_once(visits: Visits, pipeline: Pipeline) -> None:
    page = operator(visits, pipeline, recording_address(pipeline.school.archived.task_id))
    expect(page.get_by_role("button", name="Fetch")).to_be_disabled()
    expect(page.get_by_text("Every file is archived.")).to_be_visible()
    cls = pipeline.school.normal
    page.goto(recording_address(cls.task_id))
    before = len(pipeline.files.requests)
    page.get_by_role("button", name="Fetch").click()
    expect(page.locator("p.done")).to_be_visible()
    expect_noted(page, "Fetch files of a recording at once", cls.task_id)
    assert len(pipeline.files.requests) >= before


def test_an_action_of_a_page_that_is_too_old_does_nothing(visits: Visits, pipeline: Pipeline) -> None:
    page, watch = visits.watched(pipeline.url)
    watch.expect("403")
    page.goto(f"/login#{pipeline.token}")
    page.wait_for_url(f"{pipeline.url}/")
    page.goto("/test")
    page.evaluate("document.querySelectorAll('[name=form_token]').forEach((one) => { one.value = 'x'.repeat(43) })")
    changes = json.loads(page.request.get("/changes?format=json").text())
    page.get_by_role("button", name="Send", exact=True).click()
    expect(page.get_by_text("This form is too old")).to_be_visible()
    assert json.loads(page.request.get("/changes?format=json").text()) == changes
