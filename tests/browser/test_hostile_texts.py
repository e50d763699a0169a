"""Whatever a callback says stays text: in every field, on every page."""

import base64
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from msgspec import Struct
from playwright.sync_api import Browser, Page

from tests.browser.chromium import Visits, overflowing
from tests.browser.pipeline import Pipeline, prepared
from tests.browser.visiting import PHONE, log_in, operator
from tests.end_to_end.programs import eventually
from tests.end_to_end.sending import APP, NOW, callback, post, send, signed

#: It names what it would become: an element of this class, or a dialog.
MARKUP = """<img class=owned src=x onerror=alert(1)>"'><script class=owned>alert(2)</script><!--{{7*7}}${7*7}"""
#: It would turn what follows around, and end a line.
DIRECTION = "txt.4pm\u202e\u2066gpj\u2029\u200f"
NUL = "a\u0000b\u0007\u001b[31m\ufffe"
SCRIPT_URL = "javascript:alert(3)//"
LONG = "x" * 900_000

ALL = f"{MARKUP}{DIRECTION}{NUL}"


def hostile_callbacks() -> Iterator[dict[str, object]]:
    for number, text in enumerate((MARKUP, DIRECTION, NUL, f"task of {MARKUP}{DIRECTION}", "\u4e2d" * 250)):
        about: dict[str, Any] = {"RoomId": 880_700 + number, "GroupId": text, "RecordUserId": text}
        yield callback("OnlineRecordStarted", text, **about)
        video = {
            "VideoId": text,
            "VideoUrl": f"{SCRIPT_URL}{text}",
            "UserId": text,
            "VideoFormat": text,
            "VideoSize": 2**63 - 1,
            "VideoDuration": 2**62,
            "VideoPlayTime": -5,
            "VideoType": 3,
        }
        yield callback(
            "OnlineRecordFinished",
            text,
            timestamp=NOW + number,
            **about,
            FinishReason=text,
            Error={"Code": text, "Message": text},
            RecordStartTime=-(2**40),
            RecordStopTime=2**40,
            TotalTime=2**62,
            VideoInfos=[video, {**video, "VideoUrl": "//evil.example/x", "VideoType": 99}],
            OmittedDurations=[{"VideoTime": -1, "PauseTime": 2**60, "ResumeTime": 0}],
        )
    yield callback("OnlineRecordFinished", "long", Padding=LONG)
    # Nobody understands it: it is kept, and shown, as it came.
    yield {"EventType": MARKUP, "Timestamp": NOW, "SdkAppId": APP, "EventData": {"TaskId": MARKUP, "Text": ALL}}


@pytest.fixture(scope="module")
def attacked(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """Run a pipeline to which somebody with the key sent whatever he liked."""
    with prepared(tmp_path_factory.mktemp("attacked") / "deployment", None) as pipeline:
        pipeline.start()
        sent = list(hostile_callbacks())
        send(pipeline.deployment.address, *sent)
        refused = signed(callback("OnlineRecordStarted", MARKUP, RecordUserId=ALL), key="0" * 32)
        assert post(pipeline.deployment.address, refused) == 401
        assert post(pipeline.deployment.address, json.dumps({"EventType": ALL}).encode()) in (400, 401)
        eventually(lambda: int(pipeline.one("SELECT count(*) FROM events")[0]) >= len(sent) - 1)
        # One with a character that no database keeps is an event that nobody understands.
        pipeline.wait_dead_letters(sum(content["EventType"] == "OnlineRecordFinished" for content in sent) - 1)
        yield pipeline


def foreign(page: Page) -> list[str]:
    """Return elements, handlers, styles, addresses and characters of a page that a text brought along."""
    found: list[str] = page.evaluate(
        """() => [...document.querySelectorAll("*")].filter((one) =>
            one.matches(".owned, img, iframe, object, embed, base, script:not([src]), style, [style]")
            || [...one.attributes].some((each) => each.name.startsWith("on"))
            || ["href", "src", "action", "formaction", "xlink:href"].some((name) =>
                 /^\\s*(javascript|data|vbscript):/i.test(one.getAttribute(name) ?? ""))
          ).map((one) => one.outerHTML.slice(0, 200))"""
    )
    # Nothing that is read turns what follows around, ends where it should not, or cannot be seen.
    text = page.evaluate("document.title + document.body.textContent")
    return found + [repr(c) for c in "\u202e\u2066\u2029\u200f\u0000\u0007\u001b\ufffe" if c in text]


#: What leads to all else.
LISTS = (
    *("/", "/recordings", "/events", "/events?unrecognized=1", "/dead-letters", "/dead-letters?consumer=copies"),
    *("/dead-letters/replay?consumer=copies", "/rejected", "/consumers", "/consumer?name=copies", "/test", "/changes"),
)

#: More are of the same kinds.
MOST_PAGES = 50


class Seen(Struct, frozen=True, kw_only=True):
    """What was wrong with a page: what is not ours, and what makes it wider than a phone."""

    foreign: list[str]
    wide: Sequence[str]


@pytest.fixture(scope="module")
def seen(browser: Browser, attacked: Pipeline) -> dict[str, Seen]:
    """Look at all pages, as a visitor finds them, once at a desk and on a phone: loading them takes longest."""
    visits = Visits(browser)
    page = operator(visits, attacked)
    desk = page.viewport_size
    assert desk is not None
    queue, found = list(LISTS), dict[str, Seen]()
    while queue and len(found) < MOST_PAGES:
        page.set_viewport_size(desk)
        page.goto(address := queue.pop(0))
        here = foreign(page)
        if address in LISTS:
            links = page.locator("main a[href^='/']").evaluate_all("all => all.map((one) => one.getAttribute('href'))")
            queue += dict.fromkeys(link for link in links if leads_on(link) and link not in (*queue, *found))
        page.set_viewport_size(PHONE["viewport"])
        found[address] = Seen(foreign=here, wide=overflowing(page))
    visits.end()
    return found


def leads_on(link: str) -> bool:
    """Whether a link leads to another page."""
    return not link.startswith(("/static", "/media", "/language")) and "format=json" not in link


def test_no_text_of_a_callback_becomes_markup_on_any_page(seen: dict[str, Seen]) -> None:
    assert len(seen) > 30
    assert {address: one.foreign for address, one in seen.items() if one.foreign} == {}


def test_no_text_of_a_callback_makes_a_page_wider_than_a_phone(seen: dict[str, Seen]) -> None:
    assert {address[:100]: one.wide for address, one in seen.items() if one.wide} == {}


# All that a browser has nothing to do with is tried without one, in tests/console/test_hostile_addresses.py.
@pytest.mark.parametrize("text", [MARKUP, DIRECTION])
def test_no_address_becomes_markup_or_an_error_of_ours(visits: Visits, attacked: Pipeline, text: str) -> None:
    page, watch = visits.watched(attacked.url)
    watch.expect("400", "404")
    log_in(page)
    encoded = "".join(f"%{byte:02X}" for byte in text.encode())
    for address in (
        *(
            "/recordings?q={}",
            "/recordings?task={}",
            "/recordings?room={}",
            "/recordings?after={}",
            "/recordings?status={}",
        ),
        *("/recording?app={}&task={}", "/recording?app=1400000001&task={}", "/events?type={}", "/events?after={}"),
        *("/event?id={}", "/dead-letters?consumer={}", "/dead-letter?consumer={}&id={}", "/consumer?name={}", "/{}"),
    ):
        answer = page.goto(address.replace("{}", encoded))
        assert answer is not None
        assert answer.status in (200, 400, 404), address
        assert foreign(page) == [], page.url


def test_a_body_of_a_megabyte_is_shown_and_can_be_had_whole(visits: Visits, attacked: Pipeline) -> None:
    page = operator(visits, attacked)
    (event_id,) = attacked.one("SELECT event_id FROM events WHERE task_id = 'long' AND event_type LIKE '%Finished'")
    answer = page.request.get(f"/event?id={event_id}&format=json")
    assert answer.status == 200
    (shown,) = [one for one in answer.json() if "body" in one or "body_base64" in one]
    body = shown.get("body") or base64.b64decode(shown["body_base64"]).decode()
    assert LONG in (body if isinstance(body, str) else json.dumps(body))
    page.goto(f"/event?id={event_id}")
    assert page.locator("pre").first.is_visible()
