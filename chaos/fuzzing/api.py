"""Requests that schemathesis makes of docs/openapi.json, to both listeners."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from chaos.fuzzing.conformance import DOCUMENT
from chaos.fuzzing.serving import served_in_thread

_CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
_HOOKS = "chaos.fuzzing.signed_requests"
_FAILED = 1


def run(*, examples: int, seed: int, folder: Path) -> int:
    """Send `examples` requests or so to each operation, good ones and bad ones; return the exit code.

    What schemathesis writes goes to `folder`.
    """
    if importlib.util.find_spec("schemathesis") is None:
        print("fuzz: schemathesis is not installed here: use ./dev fuzz --api", file=sys.stderr)
        return _FAILED
    with served_in_thread() as served:
        runs = (
            (served.ingest, ["--include-operation-id", "receive"]),
            (served.ingest_with_token, ["--include-operation-id", "receive_at_token"]),
            (served.admin, ["--include-tag", "admin"]),
        )
        codes = [_schemathesis(port, chosen, examples=examples, seed=seed, folder=folder) for port, chosen in runs]
        kept = served.transport.kept
    print(f"fuzz: {kept} callbacks were authentic, and kept")
    # None at all would mean that only the door was tried.
    return _FAILED if any(codes) or not kept else 0


def _schemathesis(port: int, chosen: list[str], *, examples: int, seed: int, folder: Path) -> int:
    command = [sys.executable, "-P", "-m", "schemathesis.cli", "run", str(DOCUMENT), *chosen]
    command += ["--url", f"http://127.0.0.1:{port}", "--checks", ",".join(_CHECKS), "--mode", "all"]
    command += ["--phases", "examples,coverage,fuzzing", "--max-examples", str(examples), "--seed", str(seed)]
    command += ["--generation-database", "none", "--warnings", "off", "--suppress-health-check", "all"]
    environ = os.environ | {"SCHEMATHESIS_HOOKS": _HOOKS}
    return subprocess.run(command, env=environ, cwd=folder, stdin=subprocess.DEVNULL, check=False).returncode
