"""The player of a recording: several files on one time line, whatever becomes of one of them."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.browser.accessibility import violations
from tests.browser.chromium import Visits, keys_until, overflowing
from tests.browser.watching import Watching, watch
from tests.console.archived import TASK
from tests.console.world import TOKEN
from tests.reconcile.serving import in_thread

#: Nothing here takes long; a busy machine does.
DEADLINE_S = 30.0

#: Where each file is that is seen or heard now, and where it should be by the time line.
_STREAMS = """() => [...document.querySelectorAll("[data-stream]")].flatMap((row) => {
  const tile = document.querySelector(`[data-tile="${row.dataset.stream}"]`);
  const media = tile && tile.querySelector("video, audio");
  if (!media) return [];
  const at = media.currentTime + row.dataset.startsMs / 1000;
  const { classList } = tile;
  return [{ kind: row.dataset.kind, at, shown: !classList.contains("absent"), large: classList.contains("large"),
            paused: media.paused, rate: media.playbackRate, muted: media.muted, volume: media.volume }];
})"""


@pytest.fixture(scope="module")
def watching(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watching]:
    """Run a console with recordings; after the browser, whose loop must be the first."""
    with in_thread(Watching(tmp_path_factory.mktemp("watching"))) as started:
        yield started


#: Where each stream's place is, in the order of the page.
_PLACES = """() => [...document.querySelectorAll("[data-tile]")].map((tile) => {
  const { left, top, width, height } = tile.getBoundingClientRect();
  return [left, top + scrollY, width, height].map(Math.round);
})"""

#: What is seen of the player once it was scrolled to: what of it does not fit, beside each other or into the window.
_MISFITS = """() => {
  const player = document.querySelector("section.player");
  player.scrollIntoView();
  const outer = player.getBoundingClientRect();
  const parts = [...player.querySelectorAll("[data-tile], .player-bar > *, .player-controls > :not(.player-space)")];
  return parts.flatMap((part) => {
    const inner = part.getBoundingClientRect();
    const fits = inner.left >= outer.left && inner.right <= outer.right && inner.top >= 0 && inner.bottom <= innerHeight
      && inner.height > 0;
    return fits ? [] : [`${part.className.baseVal ?? part.className}: ${JSON.stringify(inner)}`];
  });
}"""


class Player:
    """The player on a page, as a reader uses it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.root = page.locator("section.player")

    @property
    def position_s(self) -> float:
        return int(self.page.locator(".player-seek").input_value()) / 1000

    @property
    def state(self) -> str | None:
        return self.root.get_attribute("data-state")

    def streams(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.page.evaluate(_STREAMS)
        return found

    def shown(self) -> list[str]:
        return [stream["kind"] for stream in self.streams() if stream["shown"]]

    def large(self) -> str:
        (found,) = (stream["kind"] for stream in self.streams() if stream["large"])
        return str(found)

    def press_play(self) -> None:
        self.page.get_by_role("button", name="Play", exact=True).click()

    def until(self, is_so: Callable[[], bool], what: str) -> None:
        """Return once something is so."""
        end_s = time.monotonic() + DEADLINE_S
        while not is_so():
            assert time.monotonic() < end_s, f"{what}: {self.state} at {self.position_s} s, {self.streams()}"
            self.page.wait_for_timeout(50)

    def until_at(self, seconds: float) -> None:
        self.until(lambda: self.position_s >= seconds, f"it comes to {seconds} s")


@pytest.fixture(scope="module")
def logged_in(browser: Browser, watching: Watching) -> dict[str, Any]:
    """Return what a browser keeps of somebody who has logged in, on the way to a moment of a recording."""
    context = browser.new_context(base_url=watching.url, locale="en-US")
    page = context.new_page()
    page.goto(watch())
    page.locator("input[type=password]").fill(TOKEN)
    page.locator("main form button").click()
    page.wait_for_url("**/recording?*")
    state: dict[str, Any] = dict(context.storage_state())
    context.close()
    return state


@pytest.fixture
def opened(visits: Visits, watching: Watching, logged_in: dict[str, Any]) -> Callable[..., Player]:
    """Open the player of a recording, logged in."""

    def open_player(
        task_id: str | None = None, *, moment: str = "", expected: tuple[str, ...] = (), **options: Any
    ) -> Player:
        page, problems = visits.watched(watching.url, storage_state=logged_in, **options)
        problems.expect(*expected)
        page.goto(watch(moment=moment) if task_id is None else watch(task_id, moment))
        player = Player(page)
        expect(player.root).to_have_attribute("data-state", "paused")
        return player

    return open_player


Opened = Callable[..., Player]


def test_streams_that_begin_at_different_times_play_in_step_to_the_end(opened: Opened) -> None:
    player = opened()
    assert player.shown() == ["whiteboard"]
    player.press_play()
    player.until_at(2.6)
    assert player.shown() == ["whiteboard", "camera"]
    apart = []
    while player.position_s < 9.5:
        at = [stream["at"] for stream in player.streams() if stream["shown"]]
        if len(at) > 1 and player.state == "playing":
            apart.append(max(at) - min(at))
        player.page.wait_for_timeout(100)
    assert len(apart) > 10
    # A stream that begins, or a machine that is busy for a moment, is brought back at once.
    assert sorted(apart)[len(apart) * 3 // 4] < 0.2, apart
    player.until(lambda: player.state == "ended", "it ends")
    assert player.position_s >= 11.9
    expect(player.page.locator(".player-status")).to_have_text("The end.")
    assert all(stream["paused"] for stream in player.streams())
    player.press_play()
    player.until(lambda: 0 < player.position_s < 6, "it begins again")
    assert player.state in ("playing", "waiting")


def test_every_stream_has_its_place_from_the_beginning_to_the_end(opened: Opened) -> None:
    player = opened()
    page = player.page
    camera, audio = page.locator("[data-tile].camera"), page.locator("[data-tile].audio")
    places = page.evaluate(_PLACES)
    expect(camera).to_contain_text("from 0:02")
    expect(audio).to_contain_text("from 0:05")
    page.locator(".player-seek").fill("7000")
    player.until(lambda: player.shown() == ["whiteboard", "camera", "audio"], "all are there")
    expect(camera).not_to_contain_text("0:02")
    assert page.evaluate(_PLACES) == places
    page.locator(".player-seek").fill("11500")
    player.until(lambda: player.shown() == ["whiteboard"], "the others have ended")
    expect(camera).to_contain_text("until 0:10")
    assert page.evaluate(_PLACES) == places
    page.locator(".player-seek").fill("0")
    page.get_by_role("button", name="from 0:05").click()
    assert player.position_s == 5
    assert player.shown() == ["whiteboard", "camera", "audio"]


@pytest.mark.parametrize("task_id", [TASK, "many"])
def test_all_streams_and_the_controls_fit_into_the_window(opened: Opened, task_id: str) -> None:
    player = opened(task_id)
    misfits = {}
    for width, height in ((1280, 720), (1920, 1080), (768, 1024), (360, 740), (740, 360)):
        player.page.set_viewport_size({"width": width, "height": height})
        misfits[width, height] = player.page.evaluate(_MISFITS)
    assert not any(misfits.values()), misfits


def test_all_streams_jump_together(opened: Opened) -> None:
    player = opened()
    player.page.locator(".player-seek").fill("7000")
    player.until(lambda: all(abs(one["at"] - 7) < 0.1 for one in player.streams()), "all are at 7 s")
    assert player.shown() == ["whiteboard", "camera", "audio"]
    player.page.locator(".player-seek").fill("1000")
    player.until(lambda: player.shown() == ["whiteboard"], "only the whiteboard is there at 1 s")
    # What was left out.
    player.page.get_by_role("button", name="at 0:04, for 3:00").click()
    assert player.position_s == 2


def test_it_is_used_by_keys_alone(opened: Opened) -> None:
    player = opened()
    page = player.page
    keys_until(page, "Tab", ".player-seek")
    page.keyboard.press("ArrowRight")
    assert player.position_s == 5
    page.keyboard.press("l")
    assert player.position_s == 12
    page.keyboard.press("j")
    assert player.position_s == 2
    page.keyboard.press("ArrowLeft")
    assert player.position_s == 0
    page.keyboard.press("End")
    assert player.position_s == 12
    page.keyboard.press("Home")
    page.keyboard.press(">")
    page.keyboard.press(">")
    expect(page.get_by_label("Speed")).to_have_value("1.5")
    page.keyboard.press("k")
    player.until_at(1)
    assert player.streams()[0]["rate"] == pytest.approx(1.5, rel=0.15)
    page.keyboard.press("m")
    assert all(one["muted"] for one in player.streams())
    expect(page.get_by_role("button", name="All sound off")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("m")
    page.keyboard.press("ArrowDown")
    assert {one["volume"] for one in player.streams()} == {0.9}
    keys_until(page, "Tab", ".player-play")
    page.keyboard.press(" ")
    expect(player.root).to_have_attribute("data-state", "paused")
    page.keyboard.press("Enter")
    expect(player.root).to_have_attribute("data-state", "playing")
    page.keyboard.press("f")
    expect(page.get_by_role("button", name="Leave full screen")).to_be_visible()
    page.keyboard.press("f")
    expect(page.get_by_role("button", name="Full screen", exact=True)).to_be_visible()
    keys_until(page, "Tab", ".player-volume")
    page.keyboard.press("ArrowLeft")
    assert player.streams()[0]["volume"] == pytest.approx(0.9 * 0.95)
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"


def test_the_keys_of_a_page_stay_those_of_the_page_until_it_was_used(opened: Opened) -> None:
    player = opened()
    player.page.keyboard.press("k")
    player.page.keyboard.press("ArrowRight")
    player.page.wait_for_timeout(300)
    assert (player.state, player.position_s) == ("paused", 0)


def test_what_is_clicked_becomes_large(opened: Opened) -> None:
    player = opened(moment="#t=7")
    assert player.large() == "whiteboard"
    player.page.get_by_role("button", name="Show large: Camera").click()
    assert player.large() == "camera"
    player.page.locator(".player-tile.whiteboard").click()
    assert player.large() == "whiteboard"
    assert player.state == "paused"
    player.page.locator(".player-tile.large").click()
    expect(player.root).to_have_attribute("data-state", "playing")


def test_a_link_leads_to_a_moment_and_can_be_shared(opened: Opened) -> None:
    player = opened(moment="#t=0:06")
    assert player.position_s == 6
    player.page.locator(".player-seek").fill("9000")
    player.page.get_by_role("button", name="Link to this moment").click()
    expect(player.page.locator(".player-status")).to_contain_text("0:09")
    assert player.page.url.endswith("#t=9")
    player.page.evaluate("location.hash = '#t=3.5'")
    player.until(lambda: player.position_s == 3.5, "it follows the address")


def test_sounds_are_set_one_by_one(opened: Opened) -> None:
    player = opened()
    player.page.get_by_label("Volume: Camera · Mac_trtc_04").fill("40")
    player.page.get_by_role("button", name="Sound off: Sound · 老师").click()
    volumes = {one["kind"]: (one["muted"], one["volume"]) for one in player.streams()}
    assert volumes == {"whiteboard": (False, 1), "camera": (False, 0.4), "audio": (True, 1)}


def test_all_wait_for_one_that_does_not_come(opened: Opened) -> None:
    player = opened()
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    key = player.page.locator('[data-kind="camera"]').get_attribute("data-stream")
    player.page.route(lambda url: f"file={key}" in url, hold)
    player.page.reload()
    player.press_play()
    player.until(lambda: player.state == "waiting", "it waits for the camera")
    expect(player.page.locator(".player-status")).to_have_text("Waiting for: Camera · Mac_trtc_04")
    player.page.wait_for_timeout(1_000)
    whiteboard = player.streams()[0]
    assert whiteboard["paused"]
    assert whiteboard["at"] == pytest.approx(2, abs=0.4)
    for each in held:
        each.continue_()
    player.page.unroute_all()
    player.until_at(4)
    expect(player.page.locator(".player-status")).to_have_text("")


def test_files_that_cannot_be_played_say_why_and_the_others_play(opened: Opened) -> None:
    player = opened("broken", expected=("/media?", "4_screen.mp4", "status of 404"))
    page = player.page

    def said_of(name: str) -> Any:
        return page.locator(".player-stream").filter(has_text=name)

    player.press_play()
    player.until_at(3)
    expect(said_of("damaged")).to_contain_text("This file cannot be played here: save it")
    expect(said_of("gone")).to_contain_text("3_camera.mp4 is not there")
    expect(said_of("gone").get_by_role("link")).to_have_count(0)
    expect(said_of("damaged").get_by_role("link", name="Save")).to_be_visible()
    expect(said_of("tic_substream_teacher")).to_contain_text(
        "Not archived. It plays from the vendor, who deletes it at:"
    )
    expect(said_of("tic_substream_teacher")).to_contain_text("does not play from the vendor")
    expect(said_of("forged")).to_contain_text("evil.example is none of the hosts that are trusted")
    expect(said_of("forged")).to_contain_text("<b>\N{REPLACEMENT CHARACTER}forged")
    assert player.shown() == ["whiteboard"]
    assert player.state == "playing"
    assert page.locator('[src*="evil.example"], [href*="evil.example"]').count() == 0
    assert not violations(page)


def test_an_archive_that_comes_back_is_asked_again(opened: Opened, watching: Watching) -> None:
    bring_back = watching.take_away()
    try:
        player = opened("many", expected=("status of 503", "status: 503"))
        said = player.page.locator(".player-problem:visible").first
        expect(said).to_contain_text("The archive does not answer")
    finally:
        bring_back()
    player.press_play()
    player.until_at(1)
    expect(player.page.locator(".player-problem:visible")).to_have_count(0)


def test_what_came_back_before_it_was_asked_why_it_failed_plays(opened: Opened, watching: Watching) -> None:
    bring_back = watching.take_away()
    held: list[Route] = []

    def hold(route: Route) -> None:
        if route.request.method == "HEAD":
            held.append(route)
        else:
            route.continue_()

    try:
        player = opened(expected=("status of 503", "status: 503"))
        player.page.route("**/media?*", hold)
        player.press_play()
        player.until(lambda: bool(held), "it asks why")
    finally:
        bring_back()
    for each in held:
        each.continue_()
    player.page.unroute_all()
    player.until_at(3)
    expect(player.page.locator(".player-problem:visible")).to_have_count(0)
    assert player.shown() == ["whiteboard", "camera"]


def test_more_streams_than_a_browser_has_connections_play(opened: Opened) -> None:
    player = opened("many")
    assert len(player.shown()) == 11
    player.press_play()
    player.until_at(2)
    assert max(one["at"] for one in player.streams()) - min(one["at"] for one in player.streams()) < 0.5


def test_a_file_of_unknown_length_plays_to_its_end(opened: Opened) -> None:
    player = opened("unknown-length")
    player.press_play()
    player.until(lambda: player.state == "ended", "it ends")
    assert player.position_s == pytest.approx(4.8, abs=0.5)


@pytest.mark.parametrize(("locale", "width"), [("en-US", 1280), ("zh-CN", 360)])
def test_it_fits_a_phone_and_everybody(opened: Opened, locale: str, width: int) -> None:
    player = opened(moment="#t=7", locale=locale, viewport={"width": width, "height": 740})
    assert overflowing(player.page) == []
    assert violations(player.page) == []
    # What the console has no texts for in a language is a name.
    assert ("播放" in player.root.inner_text()) == (locale == "zh-CN")


def test_without_a_script_each_file_plays_by_itself(
    visits: Visits, watching: Watching, logged_in: dict[str, Any]
) -> None:
    page = visits.page(watching.url, java_script_enabled=False, storage_state=logged_in)
    page.goto(watch())
    assert page.locator("video[controls], audio[controls]").count() == 3
    assert page.locator(".player-tile:visible").count() == 3
    assert page.get_by_role("link", name="Save").count() == 3
    assert page.locator(".player-panel").is_hidden()
