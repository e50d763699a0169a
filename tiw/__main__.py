"""`python -m tiw`."""

import sys

from tiw.intruders import find_intruder


def run() -> int:
    """Run one command and return its exit code."""
    intruder = find_intruder()
    if intruder is not None:
        print(f"tiw: {intruder}", file=sys.stderr)
        return 2
    # Imported only now: it imports the packages that were just looked at.
    from tiw.cli import main  # noqa: PLC0415

    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(run())
