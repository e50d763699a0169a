"""Holds what a command prints, or a page of the console answers, against docs/output.schema.json."""

from functools import cache
from typing import Any

from jsonschema import Draft202012Validator

from tiw.commands.schema import output_schema


def check_described(name: str, document: object) -> None:
    """Fail unless `document` is as the schema of the command or page says, with no member that is not described."""
    _closed().validate({name: document})


@cache
def _closed() -> Draft202012Validator:
    schema: dict[str, Any] = output_schema()
    # It takes a second: once for a process.
    Draft202012Validator.check_schema(schema)
    parts = {name: part | {"additionalProperties": False} for name, part in schema["$defs"].items()}
    return Draft202012Validator(schema | {"$defs": parts, "additionalProperties": False})
