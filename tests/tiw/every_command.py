"""Runs commands in processes of their own that begin where everything is imported: hundreds take seconds."""

import contextlib
import ctypes
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

# Imported once, for all.
import broker.embedded.transport
import ingest
import store
import tiw.discovery
import tiw.doctor
import tiw.process
import workers
from tiw.parser import main

del broker, ingest, store, tiw, workers

#: These run until they are told to stop; whatever they stumble over, they say by then.
LASTING = frozenset({"up", "ingest", "work", "reconcile"})
STOP_AFTER_S = 4.0

#: Nothing else takes so long.
GIVE_UP_AFTER_S = 60.0


def run_all(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Run each case, at most as many at once as there are processors, and return what became of it, in their order."""
    results: dict[int, dict[str, Any]] = {}
    running: dict[int, tuple[int, float, Path]] = {}
    waiting = list(enumerate(cases))
    while waiting or running:
        while waiting and len(running) < 2 * (os.cpu_count() or 1):
            number, case = waiting.pop(0)
            folder = Path(case["output"])
            pid = os.fork()
            if pid == 0:
                _run(case, folder)
            running[pid] = (number, time.monotonic(), folder)
        for pid, (number, began_s, folder) in list(running.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            took_s = time.monotonic() - began_s
            if not ended:
                if took_s > (STOP_AFTER_S if cases[number]["arguments"][0] in LASTING else GIVE_UP_AFTER_S):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL if took_s > GIVE_UP_AFTER_S else signal.SIGTERM)
                continue
            del running[pid]
            results[number] = {
                "code": os.waitstatus_to_exitcode(status),
                "stdout": (folder / "stdout").read_text(errors="replace"),
                "stderr": (folder / "stderr").read_text(errors="replace"),
            }
        time.sleep(0.005)
    return [results[number] for number in range(len(cases))]


def _run(case: dict[str, Any], folder: Path) -> None:
    """Become the command; never return."""
    code = 70
    try:
        os.setsid()
        if case.get("as_stranger"):
            _lay_down_privileges()
        os.environ.clear()
        os.environ.update(case["environ"])
        os.chdir(folder)
        standard_output = case.get("stdout") or str(folder / "stdout")
        (folder / "stdout").touch()
        for number, path, flags in (
            (0, os.devnull, os.O_RDONLY),
            (1, standard_output, os.O_WRONLY | os.O_CREAT),
            (2, str(folder / "stderr"), os.O_WRONLY | os.O_CREAT),
        ):
            descriptor = os.open(path, flags)
            os.dup2(descriptor, number)
            os.close(descriptor)
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, mode) for number, mode in ((0, "r"), (1, "w"), (2, "w")))
        code = main(case["arguments"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except Exception:  # noqa: BLE001 - as the interpreter does
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(code & 0xFF)


def _lay_down_privileges() -> None:
    """Let the modes of files hold for this process, even if it is root's: capabilities(7), capset(2)."""
    version, dac_override_and_read_search = 0x20080522, 0b110
    header = (ctypes.c_uint32 * 2)(version, 0)
    words = (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.capget(header, words)
    for word in (0, 1):  # effective, permitted
        words[word] &= ~dac_override_and_read_search
    if libc.capset(header, words) != 0:
        raise OSError(ctypes.get_errno(), "capset")


if __name__ == "__main__":
    json.dump(run_all(json.load(sys.stdin)), sys.stdout)
