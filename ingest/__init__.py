"""The door: authenticates callbacks, hands them to a transport, and answers 200 only when they are durable."""

from ingest.admission import sign
from ingest.callbacks import readmit
from ingest.config import IngestConfig
from ingest.keys import CallbackKeys, GeneratedKeys, KeyRing, KeysError, generated_keys, parse_keys
from ingest.refusals import RefusedError
from ingest.rejected import KeptRejected, Rejected, RejectedFileError, read_rejected, remove_rejected
from ingest.server import IngestServer
from ingest.spool import Spool, SpoolError

__all__ = [
    "CallbackKeys",
    "GeneratedKeys",
    "IngestConfig",
    "IngestServer",
    "KeptRejected",
    "KeyRing",
    "KeysError",
    "RefusedError",
    "Rejected",
    "RejectedFileError",
    "Spool",
    "SpoolError",
    "generated_keys",
    "parse_keys",
    "read_rejected",
    "readmit",
    "remove_rejected",
    "sign",
]
