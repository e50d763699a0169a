"""`python -m tiw`, which refuses to start if a package of ours is shadowed.

The packages are an application's, with short names at the top level. A folder of the same name earlier on Python's
path would be imported instead, and fail in ways that say nothing.
"""

import os
import signal


def _end_at_once(number: int, frame: object) -> None:
    del frame
    os._exit(128 + number)


# Before anything else is imported: imports take most of a second, and a Ctrl-C among them is no error of anybody's. Not
# where it is ignored, as in the background of a shell. Holds until `tiw.process.run`.
if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _end_at_once)

import contextlib  # noqa: E402 - see above
import gc  # noqa: E402
import io  # noqa: E402
import sys  # noqa: E402
from importlib.util import find_spec  # noqa: E402
from pathlib import Path  # noqa: E402


def run() -> int:
    """Run one command and return its exit code."""
    # Imports make much that stays and nothing that goes: searched for cycles meanwhile, they take a tenth longer. It is
    # searched again once a command's module is imported.
    gc.disable()
    _open_standard_streams()
    _inherit_nothing_further()
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


PACKAGES = (
    *("archive", "broker", "console", "ingest", "notify", "reconcile", "schemas", "simulator", "store", "telemetry"),
    *("tiw", "vendor_api", "workers"),
)

_ROOT = Path(__file__).resolve().parent.parent


def find_intruder() -> str | None:
    """Return a sentence that names what shadows a package of ours, or None."""
    for package in PACKAGES:
        spec = find_spec(package)
        origin = None if spec is None or spec.origin is None else Path(spec.origin).resolve()
        if origin is None or not origin.is_relative_to(_ROOT):
            return (
                f"the package {package!r} is imported from {origin or 'nowhere'} instead of {_ROOT / package}: "
                "remove it, or start tiw where it is not on Python's path"
            )
    return None


def _open_standard_streams() -> None:
    """Open what was closed of the descriptors 0 to 2, and let every text be printed in every language.

    Otherwise the next file that is opened gets such a number, and what is printed goes into it; and where LANG is C, a
    name in Chinese would end the command that prints it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115 - stays open
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 - stays open
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115 - stays open
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _inherit_nothing_further() -> None:
    """Let programs that a handler starts get none of the descriptors that were left to this process.

    uvloop leaves a child copies of its standard streams, and so does many a shell.
    """
    for descriptor in [int(path.name) for path in Path("/dev/fd").iterdir()]:
        if descriptor > 2:  # noqa: PLR2004 - the standard streams
            with contextlib.suppress(OSError):  # the one through which the folder was read
                os.set_inheritable(descriptor, False)


if __name__ == "__main__":
    sys.exit(run())
