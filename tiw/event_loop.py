"""The event loop of every process: uvloop where it is installed, else that of the standard library."""

import asyncio
from collections.abc import Coroutine
from importlib.util import find_spec
from typing import Any


def has_uvloop() -> bool:
    """Say whether uvloop is installed; on some systems and interpreters it cannot be."""
    return find_spec("uvloop") is not None


def run_loop(command: Coroutine[Any, Any, int]) -> int:
    """Run `command` to its end on the best loop there is."""
    if not has_uvloop():
        return asyncio.run(command)
    import uvloop  # noqa: PLC0415 - see above

    return uvloop.run(command)
