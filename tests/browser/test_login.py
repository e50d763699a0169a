"""Who gets in, by which ways, and who does not."""

from playwright.sync_api import expect

from tests.browser.chromium import Visits
from tests.browser.pipeline import READ_TOKEN, TOKEN, Pipeline
from tests.browser.visiting import PAGES, log_in, operator, reader

#: Chromium looks up every name of this kind here, see `chromium.running`.
ELSEWHERE = "http://elsewhere.example"


def test_whoever_logs_in_gets_where_they_wanted_to_go(visits: Visits, school: Pipeline) -> None:
    page = visits.page(school.url)
    page.goto("/recordings?status=PAUSED")
    expect(page.get_by_role("heading", level=1)).to_have_text("Log in")
    expect(page.get_by_label("Console token")).to_be_focused()
    page.keyboard.type(TOKEN)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{school.url}/recordings?status=PAUSED")
    (session,) = [cookie for cookie in page.context.cookies() if cookie["name"] == "tiw_console"]
    assert (session["httpOnly"], session["sameSite"]) == (True, "Strict")
    assert TOKEN not in session["value"]


def test_a_wrong_token_is_told_and_asked_for_again(visits: Visits, school: Pipeline) -> None:
    page, watch = visits.watched(school.url)
    watch.expect("401")
    page.goto("/login")
    page.get_by_label("Console token").fill("not-the-token-of-anybody")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_contain_text("This is not the token")
    expect(page.get_by_label("Console token")).to_have_value("")


def test_the_link_that_is_printed_lets_in_and_leaves_no_token_in_the_address(visits: Visits, school: Pipeline) -> None:
    page, _ = visits.watched(school.url)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"/login#{TOKEN}")
    page.wait_for_url(f"{school.url}/")
    expect(page.get_by_role("navigation", name="Pages")).to_be_visible()
    assert not [url for url in asked if TOKEN in url]
    page.go_back()
    assert TOKEN not in page.url


def test_the_link_lets_in_also_where_the_page_to_log_in_is_open_already(visits: Visits, school: Pipeline) -> None:
    page = visits.page(school.url)
    page.goto("/login")
    page.goto(f"/login#{TOKEN}")
    page.wait_for_url(f"{school.url}/")


def test_whoever_may_only_look_sees_every_page_and_no_button_that_changes_something(
    visits: Visits, school: Pipeline
) -> None:
    page = reader(visits, school)
    expect(page.get_by_text("may look")).to_be_visible()
    for path in PAGES:
        page.goto(path)
        buttons = page.locator("form[method=post]:not([action='/logout']) button:not([disabled])")
        assert buttons.all_inner_texts() == [], path


def test_logging_out_in_one_tab_ends_the_other_one_too(visits: Visits, school: Pipeline) -> None:
    page = operator(visits, school, "/events")
    other = page.context.new_page()
    other.goto("/recordings")
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Log in")
    other.get_by_role("link", name="Events").click()
    expect(other.get_by_role("heading", level=1)).to_have_text("Log in")
    other.get_by_label("Console token").fill(READ_TOKEN)
    other.keyboard.press("Enter")
    # As far as the one wanted to go.
    other.wait_for_url(f"{school.url}/events")


def test_no_page_of_others_shows_the_console_in_a_frame_or_sends_its_forms(visits: Visits, school: Pipeline) -> None:
    page, watch = visits.watched(school.url)
    log_in(page)
    watch.expect("frame-ancestors", "chrome-error://", "ERR_BLOCKED_BY_RESPONSE")
    page.route(
        f"{ELSEWHERE}/",
        lambda route: route.fulfill(
            content_type="text/html",
            body=f"""<iframe src="{school.url}/"></iframe>
                     <form method="post" action="{school.url}/logout"><button>You have won</button></form>""",
        ),
    )
    page.goto(f"{ELSEWHERE}/")
    assert page.frame_locator("iframe").locator("nav").count() == 0
    page.get_by_role("button", name="You have won").click()
    page.wait_for_url(f"{school.url}/**")
    page.goto("/events")
    expect(page.get_by_role("button", name="Log out")).to_be_visible()


def test_a_name_of_others_that_leads_here_gets_nothing(visits: Visits, school: Pipeline) -> None:
    page, watch = visits.watched(f"{ELSEWHERE}:{school.port}")
    watch.expect("421", "403")
    answer = page.goto("/login")
    assert answer is not None
    assert answer.status in (403, 421)
    expect(page.get_by_label("Console token")).to_have_count(0)
