"""Ingest: authenticates callbacks, hands them to a transport, and answers 200 only when they are durable."""

from ingest.admission import sign, without_dropped
from ingest.callbacks import readmit
from ingest.config import IngestConfig
from ingest.keys import (
    GENERATED_KEYS_FILE,
    GENERATED_SDK_APP_ID,
    MAX_CHARACTERS,
    SAFE_CHARACTERS,
    CallbackKeys,
    GeneratedKeys,
    KeyRing,
    KeysError,
    generated_keys,
    new_key,
    parse_keys,
    weak_keys,
    write_keys,
)
from ingest.refusals import MENDABLE, Refusal, RefusedError
from ingest.rejected import KeptRejected, Rejected, RejectedFileError, read_rejected, remove_rejected
from ingest.request import UnsafeHTTPError
from ingest.server import IngestServer
from ingest.spool import (
    Emptied,
    Spool,
    SpoolError,
    SpoolFileState,
    WaitingCallback,
    empty_spool,
    spool_files,
    waiting_callbacks,
)
from ingest.unix_socket import UnixSocket

__all__ = [
    "GENERATED_KEYS_FILE",
    "GENERATED_SDK_APP_ID",
    "MAX_CHARACTERS",
    "MENDABLE",
    "SAFE_CHARACTERS",
    "CallbackKeys",
    "Emptied",
    "GeneratedKeys",
    "IngestConfig",
    "IngestServer",
    "KeptRejected",
    "KeyRing",
    "KeysError",
    "Refusal",
    "RefusedError",
    "Rejected",
    "RejectedFileError",
    "Spool",
    "SpoolError",
    "SpoolFileState",
    "UnixSocket",
    "UnsafeHTTPError",
    "WaitingCallback",
    "empty_spool",
    "generated_keys",
    "new_key",
    "parse_keys",
    "read_rejected",
    "readmit",
    "remove_rejected",
    "sign",
    "spool_files",
    "waiting_callbacks",
    "weak_keys",
    "without_dropped",
    "write_keys",
]
