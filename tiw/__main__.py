"""`python -m tiw`."""

import os
import signal
import sys
from types import FrameType

from tiw.discovery import find_intruder


def run() -> int:
    """Run one command and return its exit code."""
    # What SIGTERM does anyway, but for the first process of a container: there the kernel ignores a signal that
    # nothing handles (pid_namespaces(7)). Holds until a command has its own way to stop.
    signal.signal(signal.SIGTERM, _end_at_once)
    intruder = find_intruder()
    if intruder is not None:
        print(f"tiw: {intruder}", file=sys.stderr)
        return 2
    # Imported only now: it imports the packages that were just looked at.
    from tiw.parser import main  # noqa: PLC0415

    return main(sys.argv[1:])


def _end_at_once(number: int, frame: FrameType | None) -> None:
    del frame
    os._exit(128 + number)


if __name__ == "__main__":
    sys.exit(run())
