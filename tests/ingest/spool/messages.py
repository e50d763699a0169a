"""Messages to put into a spool, told apart by their event_id."""

from broker import Message
from tests.ingest.recording_transport import RecordingTransport


def message(event_id: str, *, size_bytes: int = 100, received_at_us: int = 1_700_000_000_000_000) -> Message:
    """Return a message with a body of `size_bytes`."""
    return Message(
        body=b"x" * size_bytes, event_id=event_id, routing_key="OnlineRecordStarted", received_at_us=received_at_us
    )


def ids(transport: RecordingTransport) -> list[str]:
    return [one.event_id for one in transport.published]
