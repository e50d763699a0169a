"""The page beside a recording's files: its own script and style alone, data that is never markup, streams in step."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive.page import index_html
from schemas import ManifestError
from tests.archive.recordings import file, manifest


class Page(HTMLParser):
    """What a browser finds in a page: its elements with their attributes, and the text in scripts and styles."""

    def __init__(self, page: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self._open = ""
        self._texts: list[tuple[str, str]] = []
        self.feed(page.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._texts.append((tag, ""))
        self._open = tag

    def handle_endtag(self, tag: str) -> None:
        if tag == self._open:
            self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open:
            tag, before = self._texts.pop()
            self._texts.append((tag, before + data))

    def of(self, tag: str) -> list[str]:
        """Return the text in each element of this name."""
        return [text for name, text in self._texts if name == tag]

    @property
    def data(self) -> Any:
        return json.loads(self.of("script")[0])


def test_the_policy_allows_the_pages_own_script_and_style_alone() -> None:
    page = Page(index_html(manifest(file())))
    [policy] = [
        attributes["content"] or ""
        for _, attributes in page.elements
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules == {
        "default-src": "'none'",
        "script-src": f"'{digest(page.of('script')[1])}'",
        "style-src": f"'{digest(page.of('style')[0])}'",
        "media-src": "'self' file:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def test_the_policy_stands_before_what_it_is_about() -> None:
    tags = [tag for tag, _ in Page(index_html(manifest())).elements]
    assert tags.index("meta") < tags.index("style") < tags.index("script")
    assert [attributes for tag, attributes in Page(index_html(manifest())).elements if tag == "meta"][1].get(
        "http-equiv"
    )


def test_nothing_in_the_page_is_a_handler_a_style_or_an_address() -> None:
    page = index_html(manifest(file(url="http://h.example/a.mp4")))
    for _, attributes in Page(page).elements:
        assert not {name for name in attributes if name.startswith("on") or name in ("style", "src", "href", "action")}
    # The name of a language, which is not asked for.
    assert set(re.findall(rb"\w+://[^\s\"'`]*", page)) == {b"http://www.w3.org/2000/svg"}


def test_the_script_puts_texts_and_never_markup() -> None:
    script = (files("archive") / "player.js").read_text(encoding="utf-8")
    for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval", "Function(", "srcdoc", "fetch("):
        assert word not in script
    assert "</script" not in script
    assert "<!--" not in script


ANY = st.text(st.characters(codec="utf-8") | st.sampled_from("<>&'\"/!-\u2028\u2029{}"), max_size=30)
HOSTILE = ["</script><script>alert(1)</script>", "<!--<script>", "]]>", "{{script}}", "{{data}}", "\u2028", "&lt;"]


@given(text=ANY | st.sampled_from(HOSTILE))
def test_nothing_of_an_event_is_ever_markup(text: str) -> None:
    page = index_html(
        manifest(
            file(text, user_id=text, reason=text, outcome="lost"),
            task_id=text,
            error=ManifestError(code=text, message=text),
        )
    )
    found = Page(page)
    assert found.elements == Page(index_html(manifest())).elements
    assert found.data["task_id"] == text
    assert found.data["error"] == {"code": text, "message": text}
    [shown] = found.data["files"]
    assert (shown["name"], shown["user_id"], shown["reason"]) == (text, text, text)
    assert not {"<", ">", "&", "\u2028", "\u2029"} & set(found.of("script")[0])


def test_numbers_are_as_they_were_sent() -> None:
    data = Page(index_html(manifest(sdk_app_id=2**63 - 1, room_id=-(2**63)))).data
    assert (data["sdk_app_id"], data["room_id"]) == (str(2**63 - 1), str(-(2**63)))


def test_both_languages_say_the_same() -> None:
    texts = run("Object.fromEntries(Object.entries(TEXTS).map(([name, each]) => [name, each]))")
    assert set(texts["en"]) == set(texts["zh"])
    assert all(re.search(r"[\u4e00-\u9fff]", text) for name, text in texts["zh"].items() if name != "other")
    assert run("['zh-CN', 'zh', 'en-GB', 'fr', ''].map(languageOf)") == ["zh", "zh", "en", "en", "en"]


# The pure part of the script.

NODE = shutil.which("node")


def run(expression: str, **values: Any) -> Any:
    """Return what an expression is in the page's script, given these values."""
    if NODE is None:
        pytest.skip("there is no node here")
    script = (files("archive") / "player.js").read_text(encoding="utf-8")
    named = "".join(f"const {name} = {json.dumps(value)};\n" for name, value in values.items())
    code = f"{script}\n{named}process.stdout.write(JSON.stringify({expression}));"
    ended = subprocess.run([NODE, "-"], input=code, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def streams(*given: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the files of a page, for `streamsOf`."""
    ordinary = {"kind": "camera", "user_id": "", "outcome": "archived", "reason": None, "size": 1, "starts_at_ms": 0}
    return [ordinary | {"name": f"{number}.mp4", "duration_ms": 10_000} | each for number, each in enumerate(given)]


def test_streams_are_there_from_their_start_to_their_end() -> None:
    files_ = streams(
        {"starts_at_ms": 0, "duration_ms": 5_000},
        {"starts_at_ms": 3_000, "duration_ms": 4_000},
        {"starts_at_ms": None, "duration_ms": None},
        {"outcome": "lost"},
    )
    places = [0, 2_999, 3_000, 4_999, 5_000, 6_999, 7_000]
    found = run(
        "places.map((ms) => activeAt(streamsOf(files), ms).map((each) => each.index))", files=files_, places=places
    )
    assert found == [[0, 2], [0, 2], [0, 1, 2], [0, 1, 2], [1, 2], [1, 2], [2]]


@pytest.mark.parametrize(
    ("kinds", "chosen", "large"),
    [
        (["camera", "whiteboard", "screen"], None, 2),
        (["camera", "whiteboard", "mixed"], None, 1),
        (["camera", "mixed"], None, 1),
        (["audio", "camera", "camera"], None, 1),
        (["camera", "whiteboard"], 0, 0),
        (["camera", "whiteboard"], 7, 1),
        ([], None, None),
    ],
)
def test_what_is_worth_reading_is_large_unless_another_is_chosen(
    kinds: list[str], chosen: int | None, large: int | None
) -> None:
    found = run(
        "largeOf(activeAt(streamsOf(files), 0), chosen)?.index ?? null",
        files=streams(*[{"kind": kind} for kind in kinds]),
        chosen=chosen,
    )
    assert found == large


def test_no_sound_is_heard_twice() -> None:
    cases: list[tuple[list[dict[str, Any]], list[int]]] = [
        ([{"kind": "camera"}, {"kind": "mixed"}, {"kind": "mixed"}, {"kind": "whiteboard"}], [0, 2, 3]),
        ([{"kind": "camera", "user_id": "a"}, {"kind": "audio", "user_id": "a"}], [1]),
        ([{"kind": "camera", "user_id": "a"}, {"kind": "audio", "user_id": "b"}], []),
        ([{"kind": "camera"}, {"kind": "mixed", "outcome": "lost"}], []),
        ([{"kind": "camera"}, {"kind": "mixed", "starts_at_ms": 10_000}], []),
    ]
    found = run("cases.map((files) => silentOf(streamsOf(files)))", cases=[streams(*given) for given, _ in cases])
    assert found == [silent for _, silent in cases]


def test_streams_come_within_a_fifth_of_a_second_of_each_other_and_stay() -> None:
    """Let two streams, each of whose clocks is a little wrong, follow the page's for a minute."""
    ends = run(
        """[-0.19, -0.1, 0, 0.1, 0.19].flatMap((begins) => [0.99, 1, 1.01].map((pace) => {
          let ahead = begins, worst = 0;
          for (let tick = 0; tick < 600; tick += 1) {
            const correction = correctionOf(ahead, 1);
            ahead = correction.jump ? 0 : ahead + 0.1 * (correction.rate * pace - 1);
            if (tick > 20) worst = Math.max(worst, Math.abs(ahead));
          }
          return worst;
        }))"""
    )
    assert max(ends) < 0.05
    assert run("[0.21, -0.21, 5].map((ahead) => correctionOf(ahead, 2))") == [{"jump": True, "rate": 2}] * 3
    rates = run("[-0.1, -0.01, 0.01, 0.1].map((ahead) => correctionOf(ahead, 2).rate)")
    assert rates[0] > rates[1] == 2 == rates[2] > rates[3]


def test_the_time_line_ends_with_the_last_file_that_is_known() -> None:
    files_ = streams({"starts_at_ms": 5_000}, {"duration_ms": None}, {"outcome": "lost", "duration_ms": 20_000})
    assert run("totalOf(streamsOf(files), 1000)", files=files_) == 20_000
    assert run("totalOf([], 1000)") == 1_000
    assert run("totalOf([], null)") == 1


def test_what_was_left_out_counts_for_the_time_of_day_alone() -> None:
    omitted = [
        {"video_time_ms": 9_000, "pause_time_ms": 100_000, "resume_time_ms": 160_000},
        {"video_time_ms": 4_000, "pause_time_ms": 10_000, "resume_time_ms": 40_000},
        {"video_time_ms": None, "pause_time_ms": 1, "resume_time_ms": 2},
        {"video_time_ms": 20_000, "pause_time_ms": None, "resume_time_ms": 2},
    ]
    assert run("omissionsOf(omitted)", omitted=omitted) == [
        {"atMs": 4_000, "lengthMs": 30_000},
        {"atMs": 9_000, "lengthMs": 60_000},
        {"atMs": 20_000, "lengthMs": None},
    ]
    times = run("[0, 3999, 4000, 9000].map((ms) => dayTimeOf(1000, ms, omissionsOf(omitted)))", omitted=omitted)
    assert times == [1_000_000, 1_003_999, 1_034_000, 1_099_000]
    assert run("dayTimeOf(null, 1, [])") is None


def test_times_sizes_and_addresses_are_as_a_person_reads_them() -> None:
    assert run("[0, 59999, 60000, 3599000, 3600000, 90061000].map(timeText)") == [
        *("0:00", "0:59", "1:00", "59:59", "1:00:00", "25:01:01")
    ]
    assert run("[null, 0, 999, 1500, 15000, 2000000000].map(sizeText)") == [
        "",
        "0 B",
        "999 B",
        "1.5 kB",
        "15 kB",
        "2.0 GB",
    ]
    assert run("['javascript:alert(1)', '../a', 'a b?#.mp4'].map(addressOf)") == [
        *("./javascript%3Aalert(1)", "./..%2Fa", "./a%20b%3F%23.mp4")
    ]
