"""Each rule of deploy/alerts.yml fires in its case, and none on metrics of a pipeline that is well."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.end_to_end.deployment import Deployment, embedded, free_port, get
from tests.end_to_end.programs import eventually
from tests.end_to_end.sending import callback, send

RULES_FILE = Path(__file__).resolve().parents[2] / "deploy" / "alerts.yml"
RULES = {
    rule["alert"]: rule
    for group in yaml.safe_load(RULES_FILE.read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
}

NOT_INSTALLED = "promtool is not installed: install prometheus, or run `./dev test` as root on Debian or Ubuntu"

#: For each rule: series as promtool writes them, a minute between two values, and the labels of the alert.
FIRING: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "TiwCallbacksNotKept": ({'tiw_callbacks_not_kept_total{reason="not_confirmed"}': "0x13 1x20"}, {}),
    "TiwKeyWrong": ({'tiw_callbacks_refused_total{reason="wrong_sign"}': "0x13 1x20"}, {}),
    "TiwApplicationUnknown": ({'tiw_callbacks_refused_total{reason="unknown_app"}': "0x13 1x20"}, {}),
    "TiwCallbacksExpired": ({'tiw_callbacks_refused_total{reason="expired"}': "0x13 1x20"}, {}),
    "TiwPairReused": ({'tiw_callbacks_pair_reused_total{when="late"}': "0x13 1x20"}, {}),
    "TiwFlood": ({'tiw_callbacks_refused_total{reason="wrong_path"}': "0+6000x20"}, {}),
    "TiwConnectionsEvicted": ({"tiw_connections_evicted_total": "0+120x20"}, {}),
    "TiwRejectedNotKept": ({'tiw_rejected_not_kept_total{reason="disk"}': "0x13 1x20"}, {}),
    "TiwAnswersSlow": (
        {
            'tiw_answer_seconds_bucket{le="2.5"}': "0x20",
            'tiw_answer_seconds_bucket{le="8.0"}': "0+60x20",
            'tiw_answer_seconds_bucket{le="+Inf"}': "0+60x20",
        },
        {},
    ),
    "TiwSpoolNotDraining": ({"tiw_spool_oldest_age_seconds": "0+60x20"}, {}),
    "TiwSpoolLarge": ({"tiw_spool_bytes": "0+100000000x20"}, {}),
    "TiwSpoolSetAside": ({"tiw_spool_set_aside_callbacks": "0x3 1x20"}, {}),
    "TiwBreakerOpen": ({"tiw_breaker_open": "0x3 1x20"}, {}),
    "TiwNotReady": ({"tiw_ready": "1x3 0x20"}, {}),
    "TiwDeliveryOverdue": ({'tiw_deliveries_overdue{consumer="archive"}': "0x3 1x20"}, {"consumer": "archive"}),
    "TiwDeadLetters": (
        {'tiw_deliveries_total{consumer="archive",outcome="dead_letter"}': "0x13 1x20"},
        {"consumer": "archive"},
    ),
    "TiwEventsExpired": ({'tiw_events_expired_total{consumer="archive"}': "0x13 1x20"}, {"consumer": "archive"}),
    "TiwHandlingLate": (
        {
            'tiw_lag_seconds_bucket{consumer="archive",le="120.0"}': "0x30",
            'tiw_lag_seconds_bucket{consumer="archive",le="600.0"}': "0+60x30",
            'tiw_lag_seconds_bucket{consumer="archive",le="+Inf"}': "0+60x30",
        },
        {"consumer": "archive"},
    ),
    "TiwConsumerSilent": ({'tiw_silent_consumers_total{queue="tiw.archive"}': "0x13 1x20"}, {"queue": "tiw.archive"}),
    "TiwEventContradicted": ({"tiw_events_contradicted_total": "0x13 1x20"}, {}),
    "TiwRoomUnaccountedFor": ({"tiw_rooms_unaccounted": "0x3 1x20"}, {}),
    "TiwApplicationPaused": ({"tiw_apps_paused": "0x3 1x20"}, {}),
    "TiwRecordingsFound": (
        {'tiw_recordings_found_total{by="DescribeRunningTasks"}': "0x13 1x20"},
        {"by": "DescribeRunningTasks"},
    ),
    "TiwRecordingNotFound": ({"tiw_recordings_not_found_total": "0x13 1x20"}, {}),
    "TiwQuestionsOverdue": ({"tiw_questions_overdue_seconds": "1000+200x20"}, {}),
    "TiwListingOld": ({"tiw_listing_age_seconds": "60+120x20"}, {}),
    "TiwNoticesRefused": (
        {'tiw_notices_total{channel="wecom",result="refused"}': "0x13 1x20"},
        {"channel": "wecom"},
    ),
    "TiwNoticesLate": ({'tiw_notices_total{channel="wecom",result="gave_up"}': "0x13 1x20"}, {"channel": "wecom"}),
    "TiwStoreAway": ({"tiw_store_away": "0x3 1x20"}, {}),
    "TiwFileExpiring": ({'tiw_archive_next_deletion_seconds{target="/srv/classes"}': "86399x20"}, {}),
    "TiwFileLost": ({'tiw_archived_files_total{outcome="lost"}': "0x13 1x20"}, {}),
    "TiwFileRefused": ({'tiw_archived_files_total{outcome="refused"}': "0x13 1x20"}, {}),
    "TiwArchiveTargetAway": ({'tiw_archive_target_up{target="/srv/classes"}': "0x20"}, {}),
    "TiwArchiveStagingFull": ({'tiw_archive_staging_free_bytes{target="/srv/classes"}': "-1x20"}, {}),
    "TiwArchiveFailing": ({'tiw_archive_files{state="failing"}': "1x20"}, {}),
}

#: When it is looked: late enough for every rule's `for`.
AT = "16m"


@pytest.fixture(scope="module")
def promtool() -> str:
    program = shutil.which("promtool")
    if program is None:
        if os.environ.get("CI") == "true":
            pytest.fail(NOT_INSTALLED)
        pytest.skip(NOT_INSTALLED)
    return program


def run(promtool: str, folder: Path, tests: list[dict[str, Any]]) -> None:
    file = folder / "tests.yml"
    file.write_text(json.dumps({"rule_files": [str(RULES_FILE)], "evaluation_interval": "1m", "tests": tests}))
    done = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_rule_has_a_case() -> None:
    assert FIRING.keys() == RULES.keys()


@pytest.mark.parametrize("name", RULES)
def test_a_rule_fires_in_its_case_alone(name: str, promtool: str, tmp_path: Path) -> None:
    series, labels = FIRING[name]
    rule = RULES[name]
    text = {
        key: re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda match: labels[match[1]], value).replace(
            "{{ $value | humanizeDuration }}", "23h 59m 59s"
        )
        for key, value in rule["annotations"].items()
    }
    alert = {"exp_labels": {**rule["labels"], **labels}, "exp_annotations": text}
    expected = [
        {"eval_time": AT, "alertname": other, "exp_alerts": [alert] if other == name else []} for other in RULES
    ]
    given = [{"series": one, "values": values} for one, values in series.items()]
    run(promtool, tmp_path, [{"interval": "1m", "input_series": given, "alert_rule_test": expected}])


def no_alert(promtool: str, folder: Path, *pages: str) -> None:
    """Assert that no rule fires while metrics stay as they are on these pages: each a process that is scraped."""
    given = []
    for number, page in enumerate(pages):
        for line in page.splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                base, _, labels = name.rstrip("}").partition("{")
                label_list = ",".join(part for part in (labels, f'instance="{number}"') if part)
                given.append({"series": f"{base}{{{label_list}}}", "values": f"{value}x30"})
    expected = [{"eval_time": at, "alertname": name, "exp_alerts": []} for name in RULES for at in ("2m", AT, "29m")]
    run(promtool, folder, [{"interval": "1m", "input_series": given, "alert_rule_test": expected}])


def metrics_of(address: str) -> str:
    """Return the metrics of a process that says that it is ready, once it has its broker: its spool is there before."""
    eventually(lambda: get(f"{address}/readyz")[0] == 200)

    def connected() -> str:
        status, page = get(f"{address}/metrics")
        assert status == 200
        return "" if "\ntiw_breaker_open 1.0" in page else page

    page = eventually(connected)
    assert "\ntiw_ready 1.0" in page, page
    return page


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Deployment]:
    with embedded(tmp_path / "deployment") as deployment:
        yield deployment


@pytest.mark.parametrize("consumers", [(), ("counts",)], ids=["built-in", "with a user's"])
def test_nothing_fires_on_a_healthy_pipeline_in_one_process(
    consumers: tuple[str, ...], alone: Deployment, promtool: str, tmp_path: Path
) -> None:
    alone.install(*consumers)
    up = alone.up()
    send(alone.address, callback("OnlineRecordStarted", "class-1"))
    eventually(lambda: alone.count("events") == 1)
    health = next(line for line in up.out.splitlines() if line.startswith("health"))
    no_alert(promtool, tmp_path, metrics_of(health.split()[1].removesuffix("/readyz")))


def test_nothing_fires_on_healthy_processes_over_a_broker(
    make_distributed: Callable[..., Deployment], promtool: str, tmp_path: Path
) -> None:
    deployment = make_distributed()
    deployment.install("counts")
    assert deployment.run("migrate").code == 0
    ports = [free_port() for _ in range(3)]
    addresses = [f"http://127.0.0.1:{port}" for port in ports]
    deployment.ingest("--processes", "2", TIW_ADMIN=f"127.0.0.1:{ports[0]}", TIW_HTTP=f"127.0.0.1:{free_port()}")
    deployment.program("work", "started", "finished", TIW_ADMIN=f"127.0.0.1:{ports[1]}")
    deployment.program("work", TIW_ADMIN=f"127.0.0.1:{ports[2]}")
    pages = [metrics_of(address) for address in addresses]
    no_alert(promtool, tmp_path, *pages)
