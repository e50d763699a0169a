"""Let several processes share their metrics, so that one listener can sum them.

prometheus-client decides when it is first imported whether values live in memory or in files: the folder must be in
the environment before that. So this is entered before a command's module is imported, and imports nothing of ours.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


@contextmanager
def shared_metrics() -> Iterator[None]:
    """Make this process and the children it starts meanwhile share their metrics."""
    folder = tempfile.mkdtemp(prefix="tiw-metrics-")
    os.environ[_VARIABLE] = folder
    try:
        yield
    finally:
        del os.environ[_VARIABLE]
        shutil.rmtree(folder, ignore_errors=True)
