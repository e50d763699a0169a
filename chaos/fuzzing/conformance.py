"""Whether an answer is one that docs/openapi.json describes: its status, its content type, its content."""

from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from jsonschema import Draft202012Validator

from chaos.fuzzing.promises import promise

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
