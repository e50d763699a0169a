"""The door: authenticates callbacks, hands them to a transport, and answers 200 only when they are durable."""

from ingest.authenticity import sign
from ingest.config import IngestConfig
from ingest.generated_keys import GeneratedKeys, generated_keys
from ingest.key_ring import KeyRing
from ingest.keys import CallbackKeys, KeysError, parse_keys
from ingest.readmission import readmit
from ingest.refusals import RefusedError
from ingest.rejected import KeptRejected, Rejected
from ingest.rejected_file import RejectedFileError, read_rejected, remove_rejected
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
