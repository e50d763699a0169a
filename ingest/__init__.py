"""The door: authenticates callbacks, hands them to a transport, and answers 200 only when they are durable."""

from ingest.authenticity import sign
from ingest.config import IngestConfig
from ingest.generated_keys import GeneratedKeys, generated_keys
from ingest.key_ring import KeyRing
from ingest.keys import CallbackKeys, KeysError, parse_keys
from ingest.server import IngestServer

__all__ = [
    "CallbackKeys",
    "GeneratedKeys",
    "IngestConfig",
    "IngestServer",
    "KeyRing",
    "KeysError",
    "generated_keys",
    "parse_keys",
    "sign",
]
