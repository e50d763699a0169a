"""What each page says, and where it leads: found by what a person reads."""

import re

from playwright.sync_api import Page, expect

from tests.browser.chromium import Visits
from tests.browser.pipeline import Pipeline
from tests.browser.visiting import PAGES, PHONE, addresses_of, operator, recording_address
from tests.console.world import links
from tests.end_to_end.sending import APP


def test_the_navigation_leads_to_every_page_and_says_where_one_is(visits: Visits, school: Pipeline) -> None:
    page = operator(visits, school, "/changes")
    navigation = page.get_by_role("navigation", name="Pages")
    for path, name in PAGES.items():
        navigation.get_by_role("link", name=name, exact=True).click()
        page.wait_for_url(f"{school.url}{path}")
        expect(navigation.locator("[aria-current=page]")).to_have_text(name)
        expect(page.get_by_role("heading", level=1)).to_have_count(1)
    assert navigation.get_by_role("link").count() == len(PAGES)


def test_on_a_phone_the_menu_shows_every_page_and_a_consumer_takes_two_lines(visits: Visits, school: Pipeline) -> None:
    page = operator(visits, school, "/consumers", **PHONE)
    width = PHONE["viewport"]["width"]
    for link in page.get_by_role("navigation", name="Pages").get_by_role("link").all():
        box = link.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert box["y"] + box["height"] < 160, "a page begins high enough to see it"
    row = page.get_by_role("row", name=re.compile("^finished")).bounding_box()
    assert row is not None
    assert row["height"] < 80


def test_the_first_page_says_what_needs_somebody_and_leads_there(visits: Visits, school: Pipeline) -> None:
    page = operator(visits, school, "/")
    needed = page.get_by_role("listitem").filter(has_text="copies gave up")
    expect(needed).to_contain_text("See why, mend it, then replay")
    for name in ("Callbacks a minute", "Answer time", "In the spool", "Dead letters", "Hours left for the archive"):
        expect(page.get_by_role("heading", name=name)).to_be_visible()
    expect(page.get_by_role("row", name=re.compile("^copies"))).to_contain_text("works")
    needed.get_by_role("link", name="Look").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Dead letters")


def test_yesterdays_class_of_a_room_is_found_by_the_room(visits: Visits, school: Pipeline) -> None:
    cls = school.school.normal
    page = operator(visits, school, "/recordings")
    page.get_by_role("searchbox").fill(str(cls.room_id))
    page.keyboard.press("Enter")
    row = page.locator("tbody tr")
    expect(row).to_have_count(1)
    expect(row).to_contain_text("Finished")
    # Whoever is sent the address sees the same.
    assert str(cls.room_id) in page.url
    row.get_by_role("link", name=cls.task_id).click()
    page.wait_for_url(f"{school.url}{recording_address(cls.task_id)}")
    expect(page.get_by_role("heading", name="Events and what became of them")).to_be_visible()


def test_what_failed_is_one_click_away_and_says_why(visits: Visits, school: Pipeline) -> None:
    cls = school.school.failed
    page = operator(visits, school, "/recordings")
    page.get_by_role("link", name="Failed", exact=True).click()
    page.get_by_role("link", name=cls.task_id).click()
    expect(page.get_by_text("Recording failed").first).to_be_visible()
    expect(page.get_by_text("FailedOperation.Record").first).to_be_visible()
    expect(page.get_by_text("What to do")).to_be_visible()


def test_a_recording_tells_its_whole_story(visits: Visits, school: Pipeline) -> None:
    cls = school.school.paused
    page = operator(visits, school, recording_address(cls.task_id))
    expect(page.get_by_role("img").or_(page.locator("svg[role]")).first).to_be_visible()
    for callback in cls.callbacks:
        expect(page.get_by_role("heading", name=callback.event_type)).to_be_visible()
    page.get_by_text("Body", exact=True).first.click()
    expect(page.locator("article pre").first).to_contain_text(cls.task_id)


def test_a_recording_that_is_archived_says_where_and_with_which_digest(visits: Visits, school: Pipeline) -> None:
    cls = school.school.archived
    page = operator(visits, school, recording_address(cls.task_id))
    section = page.locator("section", has=page.get_by_role("heading", name="Files"))
    files = section.locator("tbody tr")
    expect(files).to_have_count(2)
    digests = school.select(f"SELECT sha256, size FROM archived_files WHERE task_id = '{cls.task_id}'")  # noqa: S608
    for row, (sha256, size) in zip(files.all(), sorted(digests), strict=True):
        expect(row).to_contain_text("archived")
        assert int(size) > 0
        assert len(sha256) == 64
    for sha256, _ in digests:
        expect(section.get_by_text(sha256)).to_have_count(1)


def test_what_nobody_understood_says_why(visits: Visits, school: Pipeline) -> None:
    page = operator(visits, school, "/events")
    page.get_by_role("link", name="Unrecognized", exact=True).click()
    expect(page.locator("tbody tr", has_text="OnlineRecordSnapshot")).to_have_count(1)
    page.locator("tbody tr", has_text="OnlineRecordSnapshot").locator("a[href^='/event?']").first.click()
    expect(page.get_by_text("Unrecognized:")).to_be_visible()
    expect(page.locator("pre").first).to_contain_text("OnlineRecordSnapshot")


def test_a_refused_request_says_what_lets_it_in_and_never_its_sign(visits: Visits, school: Pipeline) -> None:
    page = operator(visits, school, "/rejected")
    expect(page.get_by_text("It is signed with another key")).to_be_visible()
    expect(page.locator("tr", has_text="refused-0001")).to_be_visible()
    assert not re.search(r"\b[0-9a-f]{32}\b", page.locator("main").inner_text())


def test_a_page_shows_its_command_and_leads_to_its_json(visits: Visits, school: Pipeline) -> None:
    page = operator(visits, school, "/recordings?failed=1")
    expect(page.get_by_role("contentinfo")).to_contain_text("tiw recordings list --failed")
    link = page.get_by_role("link", name="This page as JSON").get_attribute("href")
    assert school.school.failed.task_id in page.request.get(link or "").text()


def test_every_page_has_its_command_and_its_json(visits: Visits, school: Pipeline) -> None:
    page = operator(visits, school)
    without = set()
    for name, address in addresses_of(school).items():
        # As sent: drawing each takes longer than all else here.
        text = page.request.get(address).text()
        if (command := re.search(r"<footer.*<code>(.*?)</code>", text, re.DOTALL)) is None:
            without.add(name)
        else:
            assert command[1].startswith("tiw "), name
        for link in links(text):
            if "format=json" in link:
                answer = page.request.get(link)
                assert answer.status == 200, name
                assert answer.headers["content-type"].startswith("application/json"), name
                answer.json()
    assert without == set()


def test_a_page_that_is_not_there_says_so_and_leads_back(visits: Visits, school: Pipeline) -> None:
    page, watch = visits.watched(school.url)
    watch.expect("404")
    page.goto(f"/login#{school.token}")
    page.wait_for_url(f"{school.url}/")
    page.goto("/nowhere")
    expect(page.get_by_role("heading", level=1)).to_have_text("Not possible")
    page.get_by_role("link", name="To the first page").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Now")
    page.goto(f"/recording?app={APP}&task=never-heard-of")
    expect(page.get_by_role("heading", level=1)).to_be_visible()


def weight(page: Page, address: str) -> int:
    """Return the bytes that a first visit of a page loads."""
    page.goto(address)
    loaded: int = page.evaluate(
        """performance.getEntriesByType("resource").concat(performance.getEntriesByType("navigation"))
             .filter((one) => !["video", "audio"].includes(one.initiatorType))
             .reduce((sum, one) => sum + one.encodedBodySize, 0)"""
    )
    return loaded


def test_no_page_weighs_more_than_150_kilobytes_without_its_videos(visits: Visits, school: Pipeline) -> None:
    page = operator(visits, school)
    weights = {name: weight(page, address) for name, address in addresses_of(school).items()}
    assert all(weights.values())
    assert {name: count for name, count in weights.items() if count > 150_000} == {}
