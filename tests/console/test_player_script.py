"""What the player's script decides without a page, and what it never does. The rest is tried in a browser."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from console.rendering import STATIC, Texts

SCRIPT = (STATIC / "player.js").read_text(encoding="utf-8")
TEMPLATE = (STATIC.parent / "templates" / "_player.html").read_text(encoding="utf-8")
NODE = shutil.which("node")


def run(expression: str, **values: Any) -> Any:
    """Return what an expression is, beside the functions of the script and these values."""
    if NODE is None:
        pytest.skip("there is no node here")
    named = "".join(f"const {name} = {json.dumps(value)};\n" for name, value in values.items())
    code = f"{SCRIPT}\nconst {{ {', '.join(_names())} }} = timeline;\n{named}"
    code += f"process.stdout.write(JSON.stringify({expression}));"
    ended = subprocess.run([NODE, "-"], input=code, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def _names() -> list[str]:
    found = re.search(r"return \{ (timeText[^}]*) \};", SCRIPT)
    assert found is not None
    return found[1].split(", ")


def streams(*given: dict[str, Any]) -> list[dict[str, Any]]:
    ordinary = {"kind": "camera", "user": "", "isPlayable": True, "startMs": 0, "lengthMs": 10_000}
    return [ordinary | {"key": str(number)} | each for number, each in enumerate(given)]


def test_the_script_makes_no_markup_and_asks_nobody_else() -> None:
    for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "Function(", "srcdoc", "//cdn"):
        assert word not in SCRIPT
    assert not re.search(r"style\s*[.=]|setAttribute\(\"style", SCRIPT)
    assert set(re.findall(r"\w+://[^\s\"'`]*", SCRIPT)) == {"http://www.w3.org/2000/svg"}


def test_every_text_of_the_script_is_in_the_template_and_in_the_catalogue() -> None:
    used = set(re.findall(r"\btext\(\"(\w+)\"\)", SCRIPT))
    found = re.search(r"for name in (\[[^\]]*\])", TEMPLATE)
    assert found is not None
    given = set(json.loads(found[1]))
    known = {key.rpartition(".")[2] for key in Texts().texts if key.startswith("player.script.")}
    assert given == known
    assert used <= given
    # The pattern does not see those of which one is chosen.
    assert {name for name in given if f'"{name}"' not in SCRIPT} == set()


def test_the_template_has_no_script_and_no_style_in_it() -> None:
    assert not re.search(r"\son\w+=|\sstyle=|javascript:|<script>", TEMPLATE)
    assert "|safe" not in TEMPLATE


@pytest.mark.parametrize(
    ("address", "moment"),
    [
        ("#t=125", 125_000),
        ("#t=2:05", 125_000),
        ("#t=1:02:05.5", 3_725_500),
        ("#a=b&t=7&c", 7_000),
        ("#t=", None),
        ("#t=-5", None),
        ("#t=1:2:3:4", None),
        ("#start=5", None),
        ("#t=5<b>", None),
        ("", None),
    ],
)
def test_a_link_leads_to_a_moment(address: str, moment: int | None) -> None:
    assert run("momentOf(address)", address=address) == moment


def test_the_time_line_ends_with_the_last_file_that_is_known() -> None:
    known = streams({"startMs": 5_000}, {"lengthMs": 20_000, "isPlayable": False})
    assert run("totalOf(streams, 1000)", streams=known) == 20_000
    # One whose length nobody knows may go on behind it.
    unknown = streams({}, {"lengthMs": None})
    assert run("[0, 60000].map((at) => totalOf(streams, 30000, at))", streams=unknown) == [30_000, 60_000]
    assert run("[totalOf([], 1000), totalOf([], null)]") == [1_000, 1]


def test_streams_are_there_from_their_start_to_their_end_unless_they_are_broken() -> None:
    given = streams({"startMs": 0, "lengthMs": 5_000}, {"startMs": 3_000}, {"lengthMs": None}, {"isPlayable": False})
    found = run("[0, 3000, 5000, 99000].map((ms) => activeAt(streams, ms).map((one) => one.key))", streams=given)
    assert found == [["0", "2"], ["0", "1", "2"], ["1", "2"], ["2"]]


@pytest.mark.parametrize(
    ("kinds", "chosen", "large"),
    [
        (["camera", "whiteboard", "screen"], None, "2"),
        (["camera", "mixed"], None, "1"),
        (["audio", "camera", "camera"], None, "1"),
        (["camera", "whiteboard"], "0", "0"),
        (["camera", "whiteboard"], "7", "1"),
    ],
)
def test_what_is_worth_reading_is_large_unless_another_is_chosen(
    kinds: list[str], chosen: str | None, large: str
) -> None:
    given = streams(*({"kind": kind} for kind in kinds))
    assert run("largeOf(streams, chosen).key", streams=given, chosen=chosen) == large


def test_all_small_ones_are_seen_beside_the_large_one() -> None:
    assert run("[0, 1, 4, 5, 8, 9, 15, 16, 39].map(columnsOf)") == [0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_no_sound_is_heard_twice() -> None:
    cases: list[tuple[list[dict[str, Any]], list[str]]] = [
        ([{"kind": "camera"}, {"kind": "mixed"}, {"kind": "mixed"}, {"kind": "whiteboard"}], ["0", "2", "3"]),
        ([{"kind": "camera", "user": "a"}, {"kind": "audio", "user": "a"}], ["1"]),
        ([{"kind": "camera", "user": "a"}, {"kind": "audio", "user": "b"}], []),
        ([{"kind": "camera"}, {"kind": "mixed", "isPlayable": False}], []),
        ([{"kind": "camera"}, {"kind": "mixed", "startMs": 10_000}], []),
    ]
    assert run("cases.map(silentOf)", cases=[streams(*given) for given, _ in cases]) == [silent for _, silent in cases]


def test_streams_come_near_each_other_and_stay_there() -> None:
    """Let streams, each of whose clocks is a little wrong, follow the page's for a minute."""
    worst = run(
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
    assert max(worst) < 0.05
    assert run("[0.21, -0.21, 5].map((ahead) => correctionOf(ahead, 2))") == [{"jump": True, "rate": 2}] * 3


def test_what_was_left_out_counts_for_the_time_of_day() -> None:
    omitted = [{"atMs": 4_000, "lengthMs": 30_000}, {"atMs": 9_000, "lengthMs": None}]
    assert run("[0, 3999, 4000, 9000].map((ms) => dayTimeOf(1000, ms, omitted))", omitted=omitted) == [
        *(1_000_000, 1_003_999, 1_034_000, 1_039_000)
    ]
    assert run("dayTimeOf(null, 1, [])") is None


def test_files_of_the_tests_are_small() -> None:
    media = Path(__file__).parent / "media"
    assert all(file.stat().st_size < 8_000 for file in media.iterdir())
