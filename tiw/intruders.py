"""Refuse to start if a package of ours is shadowed.

The packages are an application's, with short names at the top level. A folder of the same name earlier on
Python's path would be imported instead, and fail in ways that say nothing.
"""

from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("broker", "ingest", "schemas", "simulator", "store", "telemetry", "tiw", "workers")

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
