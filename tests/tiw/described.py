"""Holds what a command prints against docs/output.schema.json."""

from typing import Any

from jsonschema import Draft202012Validator

from tiw.commands.schema import output_schema


def check_described(command: str, document: object) -> None:
    """Fail unless `document` is as the schema of `command` says, with no member that is not described."""
    schema: dict[str, Any] = output_schema()
    Draft202012Validator.check_schema(schema)
    parts = {name: part | {"additionalProperties": False} for name, part in schema["$defs"].items()}
    closed = schema | {"$defs": parts, "additionalProperties": False}
    Draft202012Validator(closed).validate({command: document})
