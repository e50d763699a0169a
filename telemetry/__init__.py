"""What the processes tell of themselves: logs, metrics, and the admin listener. Nothing of ours imported."""

from telemetry import metrics
from telemetry.admin import (
    AdminListener,
    AdminPage,
    AdminPageError,
    Readiness,
    ReadyCheck,
    give_every_request_a_target,
    with_target,
)
from telemetry.logging import LogFormat, Throttle, configure_logging, locations, presentable
from telemetry.metrics import forget_process, render_metrics

__all__ = [
    "AdminListener",
    "AdminPage",
    "AdminPageError",
    "LogFormat",
    "Readiness",
    "ReadyCheck",
    "Throttle",
    "configure_logging",
    "forget_process",
    "give_every_request_a_target",
    "locations",
    "metrics",
    "presentable",
    "render_metrics",
    "with_target",
]
