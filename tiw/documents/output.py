"""The JSON Schema of what the command line prints with `--json`."""

from typing import Any

import msgspec

from ingest import SpoolFileState
from store import DeadLetterRow, EventRow, Recording, RecordingSummary
from tiw.commands.rejected import Row
from tiw.commands.spool import SpooledRow
from tiw.doctor import Check, ConsumerState

#: What each command prints. Times of ours are ISO 8601 texts in UTC; those of the vendor Unix seconds, as sent, and
#: names that end in `_ms` are milliseconds.
DOCUMENTS: dict[str, Any] = {
    "recordings list": list[RecordingSummary],
    "recordings show": Recording,
    "events list": list[EventRow],
    "dead-letters list": list[DeadLetterRow],
    "dead-letters show": list[DeadLetterRow],
    "consumers list": list[ConsumerState],
    "spool list": list[SpooledRow],
    "spool verify": list[SpoolFileState],
    "rejected list": list[Row],
    "doctor": list[Check],
}


def output_schema() -> dict[str, Any]:
    """Return one document: under `properties` what each command prints, under `$defs` its parts."""
    schemas, parts = msgspec.json.schema_components(DOCUMENTS.values(), ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What `tiw COMMAND --json` prints",
        "description": "Times of ours are ISO 8601 texts in UTC. Times of the vendor are Unix seconds, as sent: "
        "timestamp, record_start_time, record_stop_time, pause_time, estimate_stop_time, force_stop_time. "
        "Names that end in _ms are milliseconds. Members are added, none is taken away or changed.",
        "type": "object",
        "properties": dict(zip(DOCUMENTS, schemas, strict=True)),
        "$defs": parts,
    }
