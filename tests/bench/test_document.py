"""What is written into the documentation."""

from bench.comparisons import accepting, end_to_end, sitting, whole
from bench.output.document import filled
from bench.results import CPU_US, PER_S, Comparison, Contestant, Report, Verdict
from bench.runs.sitting import DAY_S, IDLE_PERCENT
from bench.runs.whole import PER_CPU_S


def report(*comparisons: Comparison, verdicts: list[Verdict] | None = None) -> Report:
    return Report(
        started_at="2026-01-02T03:04:05+00:00",
        machine={},
        options={},
        comparisons=list(comparisons),
        verdicts=verdicts or [],
    )


def block(name: str, content: str = "") -> str:
    return f"<!-- bench: {name} -->\n{content}<!-- end -->\n"


def one(name: str, *contestants: Contestant) -> Comparison:
    return Comparison(name=name, title="some work", contestants=list(contestants))


ACCEPTING = one(
    accepting.NAME,
    Contestant(name="curl | tee", rounds=[{PER_S: 1000.0}]),
    Contestant(name="ours", rounds=[{PER_S: 4000.0}, {PER_S: 5000.0}]),
)


def test_a_comparison_becomes_a_table_with_its_rounds_and_its_day() -> None:
    text = filled(block("accepting"), report(ACCEPTING))
    assert text.splitlines() == [
        "<!-- bench: accepting -->",
        "|  | per second | low – high | ours is |",  # noqa: RUF001 - as it is set
        "|---|---:|---:|---:|",
        "| curl \\| tee | 1,000 | 1,000 – 1,000 | 4.50 x |",  # noqa: RUF001 - as above
        "| **ours** | 4,500 | 4,000 – 5,000 | 1.00 x |",  # noqa: RUF001 - as above
        "",
        "1 to 2 rounds, 2026-01-02.",
        "<!-- end -->",
    ]


def test_what_was_not_measured_stays_and_so_does_the_text_around() -> None:
    blocks = block("handling", "as it was\n"), block("accepting", "old\n")
    before = "# Title\n\n{}\nprose\n\n{}\nend\n".format(*blocks)
    after = filled(before, report(ACCEPTING))
    assert "# Title\n" in after
    assert block("handling", "as it was\n") in after
    assert "\nprose\n" in after
    assert after.endswith("\nend\n")
    assert "old" not in after


def test_filling_again_changes_nothing() -> None:
    once = filled(block("accepting") + block("targets"), report(ACCEPTING))
    assert filled(once, report(ACCEPTING)) == once


def test_the_model_adds_the_parts_up_and_a_million_recordings_a_day() -> None:
    parts = {CPU_US: 40.0, "broker_cpu_us": 30.0, "worker_cpu_us": 20.0, "database_cpu_us": 10.0}
    text = filled(block("model"), report(one(whole.NAME, Contestant(name="ours", rounds=[parts]))))
    # 3.2 million callbacks of 100 us are 320 s; 370 a second of them take 3.7 % of a processor.
    assert "| ours, as many as go | 40 | 30 | 20 | 10 | 100 | 0.089 | 0.037 |" in text


def test_expectations_name_only_what_was_measured() -> None:
    measured = report(
        one(sitting.NAME, Contestant(name=sitting.UP, rounds=[{IDLE_PERCENT: 0.034, DAY_S: 58.4}])),
        one(whole.NAME, Contestant(name="ours", rounds=[{PER_S: 5432.1, PER_CPU_S: 4321.0}])),
        one(end_to_end.NAME),
    )
    text = filled(block("expect"), measured)
    assert "| 0.034 % of a processor idle; 58.4 s of CPU in a day with 2,000 callbacks |" in text
    assert "| 5,400 a second; 4,300 for each second of CPU |" in text
    assert "p99" not in text


def test_targets_that_are_missed_stand_out() -> None:
    verdict = Verdict(comparison="some", text="bad", wanted="≤ 1 x", value=2.0, is_met=False, low=1.5, high=2.5)
    text = filled(block("targets"), report(verdicts=[verdict]))
    assert "| bad | ≤ 1 x | 2.00 | 1.50 – 2.50 | **missed** |" in text  # noqa: RUF001 - as it is set
    assert "0 of 1 met" in text
