"""The built-in consumers: one for each event, one for the rest. Each can run, and be scaled, alone."""

from workers.builtin.finished import finished
from workers.builtin.long_pause_force_stopped import long_pause_force_stopped
from workers.builtin.long_pause_warning import long_pause_warning
from workers.builtin.started import started
from workers.builtin.stopped import stopped
from workers.builtin.unrecognized import unrecognized

#: In the order of a recording's life.
BUILT_IN = (started, long_pause_warning, long_pause_force_stopped, stopped, finished, unrecognized)

__all__ = [
    "BUILT_IN",
    "finished",
    "long_pause_force_stopped",
    "long_pause_warning",
    "started",
    "stopped",
    "unrecognized",
]
