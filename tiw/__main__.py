"""`python -m tiw`."""

import os
import signal
import sys
from types import FrameType

from tiw.cli import main


def _end_at_once(number: int, frame: FrameType | None) -> None:
    del frame
    os._exit(128 + number)


if __name__ == "__main__":
    # What SIGTERM does anyway, but for the first process of a container: there the kernel ignores a signal that
    # nothing handles (pid_namespaces(7)). Holds until a command has its own way to stop.
    signal.signal(signal.SIGTERM, _end_at_once)
    sys.exit(main(sys.argv[1:]))
