"""What deploy/alerts.yml asks of the metrics, the labels and the commands is what there is."""

import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from ingest.refusals import Refusal
from schemas import FileOutcome
from telemetry import metrics
from tiw.parser import build_parser
from workers import job as bookkeeping

FILE = Path(__file__).resolve().parent.parent / "deploy" / "alerts.yml"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(FILE.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]
]

#: The labels of each series that is exported, by its name.
SERIES = {
    f"{family.name}{suffix}": set(labels)
    for collector, _ in list(metrics.REGISTRY._collector_to_names.items())
    for labels in [getattr(collector, "_labelnames", ())]
    for family in collector.collect()
    for suffix in ("", "_total", "_bucket", "_count", "_sum")
    if family.name.startswith("tiw_")
}

each_rule = pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])


@each_rule
def test_a_rule_asks_for_metrics_and_labels_that_there_are(rule: dict[str, Any]) -> None:
    selectors = re.findall(r"(tiw_\w+)(?:\{([^}]*)\})?", rule["expr"])
    assert selectors
    exported = {line.split()[2] for line in metrics.render_metrics().decode().splitlines() if line.startswith("# TYPE")}
    for name, matchers in selectors:
        assert name in SERIES, name
        assert exported & {name, re.sub(r"_(bucket|count|sum)$", "", name)}, name
        for label in re.findall(r"(\w+)=", matchers):
            assert label in SERIES[name], (name, label)
    for grouped in re.findall(r"by \(([^)]*)\)", rule["expr"]):
        for label in set(re.split(r",\s*", grouped)) - {"le"}:
            assert label in SERIES[selectors[0][0]], label


@each_rule
def test_a_rule_says_what_it_means_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"]["summary"].endswith(".")
    assert rule["annotations"]["action"].endswith(".")
    for command in re.findall(r"`tiw ([^`]*)`", rule["annotations"]["action"]):
        assert build_parser().parse_args(command.split()).runs


def test_no_two_rules_have_one_name() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES)


def test_values_of_labels_are_ones_that_occur() -> None:
    values = {
        value
        for rule in RULES
        for given in re.findall(r'reason=~?"([^"]*)"', rule["expr"])
        for value in given.split("|")
    }
    assert values - {"disk"} <= {refusal.label for refusal in Refusal}
    outcomes = {value for rule in RULES for value in re.findall(r'outcome="([^"]*)"', rule["expr"])}
    assert outcomes <= {*bookkeeping._LEVELS, *get_args(FileOutcome)}
