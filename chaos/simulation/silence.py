"""The product's log during a world: nobody reads it but the checker, who takes an error for a violation."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from chaos.simulation.evidence import Evidence
from chaos.simulation.processes import PROCESS

_ERROR = 40

#: What is said of a disk that fails, and rightly so.
_EXPECTED = frozenset({"spool_not_ready", "spool_file_failed", "spool_file_not_read"})


@contextmanager
def silence(evidence: Evidence) -> Iterator[None]:
    """Hand errors to `evidence` and drop the rest."""

    def note(_: Any, __: str, entry: Any) -> Any:
        process = PROCESS.get()
        if entry["event"] not in _EXPECTED and (process is None or process.is_running):
            error = entry.get("exc_info")
            what = f"{entry['event']}{f' {error!r}' if isinstance(error, BaseException) else ''}"
            evidence.failed("world" if process is None else process.name, f"logged an error: {what}")
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(
        processors=[note],
        wrapper_class=structlog.make_filtering_bound_logger(_ERROR),
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        structlog.configure(**before)
