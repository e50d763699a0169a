"""What the fuzzers need is pinned by hash, in the versions that everything else has."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FUZZING = ROOT / "chaos" / "fuzzing"


def pins(path: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", path.read_text(encoding="utf-8"), re.MULTILINE):
        found.setdefault(name, set()).add(version)
    return found


def test_what_is_asked_for_is_pinned_with_hashes() -> None:
    text = (FUZZING / "requirements.txt").read_text(encoding="utf-8")
    asked = re.findall(r"^([a-z-]+)", (FUZZING / "requirements.in").read_text(encoding="utf-8"), re.MULTILINE)
    assert {"atheris", "schemathesis"} <= set(asked) <= set(pins(FUZZING / "requirements.txt"))
    for entry in re.split(r"\n(?=[A-Za-z0-9])", text):
        assert "--hash=sha256:" in entry, entry.splitlines()[0]


def test_the_code_is_fuzzed_with_the_versions_that_it_runs_with() -> None:
    runtime, dev = (pins(ROOT / "requirements" / f"{name}.txt") for name in ("runtime", "dev"))
    fuzzing = pins(FUZZING / "requirements.txt")
    assert {name: fuzzing.get(name) for name in runtime} == runtime
    assert {name: fuzzing[name] for name in fuzzing.keys() & dev.keys()} == {
        name: dev[name] for name in fuzzing.keys() & dev.keys()
    }
