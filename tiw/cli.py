"""The command line: what was asked for, and then whoever does it.

`--help` and mistakes are answered with the parser alone: everything else is imported when a command runs.
"""

from collections.abc import Sequence

from tiw.parser import build_parser


def main(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    parsed = build_parser().parse_args(arguments)
    # Imported here: see above.
    from tiw.running import run  # noqa: PLC0415

    return run(parsed)
