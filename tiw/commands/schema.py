"""`tiw schema`: the documents for those who write consumers, proxies or scripts in other languages."""

import argparse
from pathlib import Path
from typing import Any

import msgspec

from console import Done, NowDocument, PeerRejectedRow, PeersReverified, ReplayOutcome, SendChoices, SentTest
from ingest import SpoolFileState
from schemas import RejectedRow, Reverified, callback_schema
from simulator import SimulationCounts
from store import (
    ArchiveFileRow,
    Change,
    DeadLetterRow,
    EventRow,
    NoticeRow,
    Recording,
    RecordingSummary,
    UnaccountedRoom,
)
from tiw.awaiting import Awaited
from tiw.commands.archive import FetchReport, RebuildReport, RetryReport, VerifyReport
from tiw.commands.config import EffectiveSettings
from tiw.commands.forget import ForgottenRecording
from tiw.commands.keys import AddedKey, RetiredKey, ShownConsole, ShownKeys
from tiw.commands.notify import ChannelTest
from tiw.commands.reconcile import ReconcileState
from tiw.commands.send_test import SentTestCallback
from tiw.commands.spool import DrainedSpool, SpooledRow
from tiw.doctor import Check
from tiw.documents.asyncapi import asyncapi_document
from tiw.documents.openapi import openapi_document
from tiw.output import print_json
from tiw.settings import Settings
from workers import ConsumerState, PurgedDeadLetters, ReplayedDeadLetters, ReplayedEvents

#: What each command prints. Times of ours are ISO 8601 texts in UTC; those of the vendor Unix seconds, as sent, and
#: names that end in `_ms` are milliseconds.
DOCUMENTS: dict[str, Any] = {
    "recordings list": list[RecordingSummary],
    "recordings show": Recording,
    "archive list": list[ArchiveFileRow],
    "archive fetch": FetchReport,
    "archive retry": RetryReport,
    "archive verify": VerifyReport,
    "archive rebuild": RebuildReport,
    "events list": list[EventRow],
    "events show": list[EventRow],
    "events replay": ReplayedEvents,
    "dead-letters list": list[DeadLetterRow],
    "dead-letters show": list[DeadLetterRow],
    "dead-letters replay": ReplayedDeadLetters,
    "dead-letters purge": PurgedDeadLetters,
    "consumers": list[ConsumerState],
    "consumers list": list[ConsumerState],
    "spool list": list[SpooledRow],
    "spool drain": DrainedSpool,
    "spool verify": list[SpoolFileState],
    "forget": ForgottenRecording,
    "rejected list": list[RejectedRow],
    "rejected reverify": Reverified,
    "changes list": list[Change],
    "notify list": list[NoticeRow],
    "notify test": ChannelTest,
    "reconcile show": ReconcileState,
    "reconcile audit": list[UnaccountedRoom],
    "keys show": ShownKeys,
    "keys show --console": ShownConsole,
    "keys add": AddedKey,
    "keys retire": RetiredKey,
    "send-test": SentTestCallback,
    "simulate": SimulationCounts,
    "config": EffectiveSettings,
    "doctor": list[Check],
    "doctor --await-callback": Awaited,
}

#: What each page of the console answers with `?format=json`, and every action of its: most what a command prints.
PAGES: dict[str, Any] = {
    "/": NowDocument,
    "/recordings": DOCUMENTS["recordings list"],
    "/recording": DOCUMENTS["recordings show"],
    "/events": DOCUMENTS["events list"],
    "/event": DOCUMENTS["events show"],
    "/events/replay": DOCUMENTS["events replay"],
    "/dead-letters": DOCUMENTS["dead-letters list"],
    "/dead-letter": DOCUMENTS["dead-letters show"],
    "/dead-letters/replay": DOCUMENTS["dead-letters replay"],
    "/dead-letters/replayed": list[ReplayOutcome],
    "/dead-letters/purge": DOCUMENTS["dead-letters purge"],
    "/rejected": list[PeerRejectedRow],
    "/rejected/reverify": PeersReverified,
    "/consumers": DOCUMENTS["consumers list"],
    "/consumer": DOCUMENTS["consumers list"],
    "/test": SendChoices,
    "/test?sent": SentTest,
    "/changes": DOCUMENTS["changes list"],
    "POST": Done,
}


def output_schema() -> dict[str, Any]:
    """Return one document: under `properties` what each command and page answers, under `$defs` its parts."""
    described = DOCUMENTS | PAGES
    schemas, parts = msgspec.json.schema_components(described.values(), ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What `tiw COMMAND --json` prints, and a page of the console answers with `?format=json`",
        "description": "Times of ours are ISO 8601 texts in UTC. Times of the vendor are Unix seconds, as sent: "
        "timestamp, record_start_time, record_stop_time, pause_time, estimate_stop_time, force_stop_time. "
        "Names that end in _ms are milliseconds, in _us microseconds since the Unix epoch. What begins with a slash "
        "is a page of the console, POST what any of its actions answers. Members are added, none is taken away or "
        "changed.",
        "type": "object",
        "properties": dict(zip(described, schemas, strict=True)),
        "$defs": parts,
    }


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
