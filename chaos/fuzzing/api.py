"""Requests that schemathesis makes of docs/openapi.json, and whether each answer is one that it describes."""

import importlib.util
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from jsonschema import Draft202012Validator

from chaos.fuzzing.outcome import promise
from chaos.fuzzing.serving import served_in_thread

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "openapi.json"


class Conformance:
    """Checks answers against the OpenAPI document, or another of the same build."""

    def __init__(self, document: dict[str, Any] | None = None) -> None:
        self._document: dict[str, Any] = document or msgspec.json.decode(DOCUMENT.read_bytes())
        self._validator_of = cache(self._validator)

    def statuses(self, path: str, method: str) -> frozenset[int]:
        """Return the statuses that the operation can answer with."""
        return frozenset(int(status) for status in self._responses(path, method))

    def check(self, path: str, method: str, *, status: int, headers: dict[str, str], body: bytes) -> None:
        """Raise `BrokenPromiseError` if no such answer is described. The names of `headers` are in lower case."""
        responses = self._responses(path, method)
        promise(str(status) in responses, f"the status {status} is described")
        response = self._at(responses[str(status)]["$ref"])
        content_type = headers.get("content-type", "").split(";")[0]
        kinds = {kind.split(";")[0]: schema for kind, schema in response["content"].items()}
        promise(content_type in kinds, f"the content type of {status} is described")
        for name, header in response.get("headers", {}).items():
            promise(
                headers.get(name.lower()) == header["schema"]["const"], f"the header {name} of {status} is described"
            )
        if content_type == "application/json":
            content = msgspec.json.decode(body)
            promise(self._validator_of(path, method, status).is_valid(content), f"the content of {status} is described")

    def _responses(self, path: str, method: str) -> dict[str, Any]:
        responses: dict[str, Any] = self._document["paths"][path][method.lower()]["responses"]
        return responses

    def _validator(self, path: str, method: str, status: int) -> Draft202012Validator:
        response = self._at(self._responses(path, method)[str(status)]["$ref"])
        return Draft202012Validator(response["content"]["application/json"]["schema"])

    def _at(self, reference: str) -> Any:
        value: Any = self._document
        for part in reference.removeprefix("#/").split("/"):
            value = value[part]
        return value


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
    # None at all would mean that only the check of the Sign was tried.
    return _FAILED if any(codes) or not kept else 0


def _schemathesis(port: int, chosen: list[str], *, examples: int, seed: int, folder: Path) -> int:
    command = [sys.executable, "-P", "-m", "schemathesis.cli", "run", str(DOCUMENT), *chosen]
    command += ["--url", f"http://127.0.0.1:{port}", "--checks", ",".join(_CHECKS), "--mode", "all"]
    command += ["--phases", "examples,coverage,fuzzing", "--max-examples", str(examples), "--seed", str(seed)]
    command += ["--generation-database", "none", "--warnings", "off", "--suppress-health-check", "all"]
    environ = os.environ | {"SCHEMATHESIS_HOOKS": _HOOKS}
    return subprocess.run(command, env=environ, cwd=folder, stdin=subprocess.DEVNULL, check=False).returncode
