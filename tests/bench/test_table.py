"""What a person sees."""

import io

from bench.output.table import print_report
from bench.results import CPU_US, PER_S, Comparison, Contestant, Report, Verdict


def printed(report: Report) -> str:
    file = io.StringIO()
    print_report(report, file)
    return file.getvalue()


def report(*contestants: Contestant, verdicts: list[Verdict] | None = None) -> Report:
    comparison = Comparison(name="some", title="some work", contestants=list(contestants))
    return Report(started_at="", machine={}, options={}, comparisons=[comparison], verdicts=verdicts or [])


def row(text: str, name: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.strip().startswith(name))
    return line.split()


def test_a_row_has_the_median_its_extremes_and_the_ratio_of_ours() -> None:
    ours = Contestant(name="ours", rounds=[{PER_S: value, CPU_US: 50.0} for value in (4000.0, 5000.0, 4500.0)])
    peer = Contestant(name="peer", rounds=[{PER_S: 1500.0, CPU_US: 300.0}])
    text = printed(report(ours, peer))
    assert row(text, "ours") == ["ours", "4,500", "4,000", "-", "5,000", "1.00", "x", "50", "1.00", "x"]
    assert row(text, "peer") == ["peer", "1,500", "1,500", "-", "1,500", "3.00", "x", "300", "0.17", "x"]


def test_a_void_round_is_named() -> None:
    text = printed(report(Contestant(name="peer", rounds=[], void=["3 messages are missing"])))
    assert "void: 3 messages are missing" in text


def test_targets_are_met_missed_or_not_measured() -> None:
    verdicts = [
        Verdict(comparison="some", text="good", wanted="≥ 2 x", value=2.5, is_met=True, low=2.25, high=12.34),
        Verdict(comparison="some", text="bad", wanted="≤ 60 MB", value=1234.5, is_met=False),
        Verdict(comparison="some", text="none", wanted="≥ 1 x", value=None, is_met=None),
    ]
    text = printed(report(verdicts=verdicts))
    assert row(text, "good") == ["good", "≥", "2", "x", "2.50", "2.25", "-", "12.3", "met"]
    assert row(text, "bad") == ["bad", "≤", "60", "MB", "1,234", "missed"]
    assert row(text, "none") == ["none", "≥", "1", "x", "-", "not", "measured"]
    assert "1 of 3 targets met" in text
