"""Whatever a callback says stays text: in every field, on every page."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
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


def assert_only_ours(page: Page) -> None:
    """Assert that a page has no element, handler, style or address that a text brought along."""
    found = page.evaluate(
        """() => [...document.querySelectorAll("*")].filter((one) =>
            one.matches(".owned, img, iframe, object, embed, base, script:not([src]), style, [style]")
            || [...one.attributes].some((each) => each.name.startsWith("on"))
            || ["href", "src", "action", "formaction", "xlink:href"].some((name) =>
                 /^\\s*(javascript|data|vbscript):/i.test(one.getAttribute(name) ?? ""))
          ).map((one) => one.outerHTML.slice(0, 200))"""
    )
    assert found == [], page.url
    # Nothing that is read turns what follows around, ends where it should not, or cannot be seen.
    text = page.evaluate("document.title + document.body.textContent")
    assert not [c for c in "\u202e\u2066\u2029\u200f\u0000\u0007\u001b\ufffe" if c in text], page.url


def pages_of(page: Page, *, most: int) -> Iterator[str]:
    """Yield addresses that the lists lead to, as a visitor finds them, and the lists."""
    lists = [
        *("/", "/recordings", "/events", "/events?unrecognized=1", "/dead-letters", "/dead-letters?consumer=copies"),
        *(
            "/dead-letters/replay?consumer=copies",
            "/rejected",
            "/consumers",
            "/consumer?name=copies",
            "/test",
            "/changes",
        ),
    ]
    seen = set(lists)
    for address in lists:
        yield address
        page.goto(address)
        for link in page.locator("main a[href^='/']").evaluate_all("all => all.map((one) => one.getAttribute('href'))"):
            if (
                link not in seen
                and not link.startswith(("/static", "/media", "/language"))
                and "format=json" not in link
            ):
                seen.add(link)
                if len(seen) < most:
                    yield link


def test_no_text_of_a_callback_becomes_markup_on_any_page(visits: Visits, attacked: Pipeline) -> None:
    looking, page = operator(visits, attacked), operator(visits, attacked)
    count = 0
    for address in pages_of(looking, most=60):
        page.goto(address)
        assert_only_ours(page)
        count += 1
    assert count > 30


def test_no_text_of_a_callback_makes_a_page_wider_than_a_phone(visits: Visits, attacked: Pipeline) -> None:
    looking, page = operator(visits, attacked), operator(visits, attacked, **PHONE)
    wide = {}
    for address in pages_of(looking, most=35):
        page.goto(address)
        if found := overflowing(page):
            wide[address[:100]] = found
    assert wide == {}


@pytest.mark.parametrize("text", [MARKUP, DIRECTION, "a\u0007b", "%00", "'; DROP TABLE events; --", "\u4e2d" * 200])
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
        assert_only_ours(page)


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
