"""`tiw schema`: the documents for those who write consumers or proxies in other languages."""

import argparse
from pathlib import Path
from typing import Any

import msgspec

from schemas import callback_schema
from tiw.documents.asyncapi import asyncapi_document
from tiw.documents.openapi import openapi_document
from tiw.documents.output import output_schema
from tiw.output import print_json
from tiw.settings import Settings


def documents() -> dict[str, dict[str, Any]]:
    """Return the documents by the name of their file."""
    return {
        "callback.schema.json": callback_schema(),
        "asyncapi.json": asyncapi_document(),
        "openapi.json": openapi_document(),
        "output.schema.json": output_schema(),
    }


def rendered(document: dict[str, Any]) -> bytes:
    """Return a document as it stands in its file."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def schema(settings: Settings, args: argparse.Namespace) -> int:
    """Print the documents as one JSON object, or write each to its file in `--output`."""
    del settings
    if args.output is None:
        print_json(documents())
        return 0
    folder = Path(args.output)
    folder.mkdir(parents=True, exist_ok=True)
    for name, document in documents().items():
        (folder / name).write_bytes(rendered(document))
    return 0
