"""What every handling peer is told, and the events that those with an envelope of their own send themselves."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

AMQP_URL = os.environ["BENCH_AMQP_URL"]
QUEUE = os.environ["BENCH_QUEUE"]
MESSAGES = int(os.environ["BENCH_MESSAGES"])

#: Deliveries that are here and not acknowledged, at most.
PREFETCH = 100

_SAMPLE = Path(__file__).resolve().parents[3] / "tests" / "samples" / "started.json"


def events() -> Iterator[dict[str, Any]]:
    """Yield as many events as there are to be handled."""
    event: dict[str, Any] = json.loads(_SAMPLE.read_bytes())
    for name in ("Sign", "ExpireTime"):
        del event[name]
    for number in range(MESSAGES):
        event["EventData"]["TaskId"] = f"{number:020d}"
        yield event
