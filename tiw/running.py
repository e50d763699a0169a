"""Run one command: how it starts and how it ends.

Exit codes: 0 done, 1 failed or absent, 2 usage or configuration: one clear sentence, no traceback. Each command imports
what it needs and no more: an ingest node has no use for a database.
"""

import argparse
import importlib
import inspect
import logging
import os
import sys
from contextlib import nullcontext

from tiw.errors import FailedError, UsageError
from tiw.event_loop import run_loop
from tiw.settings import Settings, SettingsError, read_settings
from tiw.shared_metrics import shared_metrics

FAILED = 1
MISUSED = 2


def run(parsed: argparse.Namespace) -> int:
    """Run the command that the parser of `tiw.parser` has found, and return its exit code."""
    try:
        settings = read_settings(os.environ, is_terminal=sys.stderr.isatty())
        with shared_metrics() if _has_children(parsed, settings) else nullcontext():
            return _command(settings, parsed)
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


def _command(settings: Settings, parsed: argparse.Namespace) -> int:
    # Imported here: metrics decide on their first import whether they are shared.
    from telemetry import configure_logging  # noqa: PLC0415

    # Standard output is for what was asked for. Commands that run until they are stopped say more.
    configure_logging(settings.log_format, level=logging.WARNING)
    module, _, function = parsed.runs.partition(":")
    command = getattr(importlib.import_module(f"tiw.commands.{module}"), function)
    code = command(settings, parsed)
    return int(run_loop(code) if inspect.iscoroutine(code) else code)


def _has_children(parsed: argparse.Namespace, settings: Settings) -> bool:
    """Say whether the command may start processes of ours that serve metrics through this one."""
    if getattr(parsed, "child", False) or getattr(parsed, "describe", False):
        return False
    if parsed.runs == "ingest:ingest":
        return bool(parsed.processes > 1)
    return parsed.runs in ("up:up", "work:work") and bool(settings.consumers)


def _known(error: Exception) -> int | None:
    """Return the exit code of an error whose text is made for a person; None for a fault of ours."""
    if isinstance(error, SettingsError | UsageError):
        return MISUSED
    if isinstance(error, FailedError):
        return FAILED
    # Imported here: by now the command has imported what it needs.
    from broker import BrokerError  # noqa: PLC0415
    from ingest import KeysError, SpoolError  # noqa: PLC0415
    from ingest.rejected_file import RejectedFileError  # noqa: PLC0415
    from ingest.safe_http import UnsafeHTTPError  # noqa: PLC0415
    from store import StoreError  # noqa: PLC0415
    from tiw.discovery import DiscoveryError  # noqa: PLC0415
    from workers import WorkersError  # noqa: PLC0415

    if isinstance(error, WorkersError | DiscoveryError | KeysError | SpoolError | UnsafeHTTPError):
        return MISUSED
    return FAILED if isinstance(error, BrokerError | StoreError | RejectedFileError) else None


def _say(sentence: str, code: int) -> int:
    print(f"tiw: {sentence}", file=sys.stderr)
    return code
