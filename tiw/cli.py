"""Run one command: how it starts and how it ends.

Exit codes: 0 done, 1 failed or absent, 2 usage or configuration: one clear sentence, no traceback. A command's module
is imported only when the command runs, so that `--help` is quick.
"""

import asyncio
import importlib
import inspect
import os
import sys
from collections.abc import Coroutine, Sequence
from typing import Any

from tiw.errors import FailedError, UsageError
from tiw.intruders import find_intruder
from tiw.parser import build_parser
from tiw.settings import SettingsError, read_settings

FAILED = 1
MISUSED = 2


def main(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    parsed = build_parser().parse_args(arguments)
    intruder = find_intruder()
    if intruder is not None:
        return _say(intruder, MISUSED)
    try:
        settings = read_settings(os.environ, is_terminal=sys.stderr.isatty())
        module, _, function = parsed.runs.partition(":")
        run = getattr(importlib.import_module(f"tiw.commands.{module}"), function)
        code = run(settings, parsed)
        return int(_run_loop(code) if inspect.iscoroutine(code) else code)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # `tiw events list | head`: the reader has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        code = _known(error)
        if code is None:
            raise
        return _say(str(error), code)


def _known(error: Exception) -> int | None:
    """Return the exit code of an error whose text is made for a person; None for a fault of ours."""
    if isinstance(error, SettingsError | UsageError):
        return MISUSED
    if isinstance(error, FailedError):
        return FAILED
    # Imported here: by now the command has imported what it needs.
    from broker import BrokerError  # noqa: PLC0415
    from ingest import IngestError  # noqa: PLC0415
    from store import StoreError  # noqa: PLC0415
    from tiw.discovery import DiscoveryError  # noqa: PLC0415
    from workers import WorkersError  # noqa: PLC0415

    if isinstance(error, WorkersError | DiscoveryError | IngestError):
        return MISUSED
    return FAILED if isinstance(error, BrokerError | StoreError) else None


def _run_loop(command: Coroutine[Any, Any, int]) -> int:
    try:
        import uvloop  # noqa: PLC0415 - not installed everywhere
    except ImportError:
        return asyncio.run(command)
    return uvloop.run(command)


def _say(sentence: str, code: int) -> int:
    print(f"tiw: {sentence}", file=sys.stderr)
    return code
