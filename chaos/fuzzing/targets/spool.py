"""What a spool's file may hold after a crash, a bad block, or somebody's editor."""

from broker import Message
from chaos.fuzzing.outcome import promise
from ingest.spool.format import Record, read_contents, render_record, render_settled

_MARKER = bytes(range(8))
_RECORDS = [
    Record(
        sequence=number,
        spooled_at_us=1,
        message=Message(body=b"{}" * number, event_id=f"{number}", routing_key="unrecognized", received_at_us=1),
    )
    for number in range(3)
]
_FRAMES = [render_record(_MARKER, record) for record in _RECORDS]
_WHOLE = b"".join(_FRAMES)


def spool(data: bytes) -> None:
    """Read every record that the foreign bytes do not stand in, and settle only what was settled."""
    at = int.from_bytes(data[:2], "big") % (len(_WHOLE) + 1)
    contents = read_contents(_WHOLE[:at] + data + _WHOLE[at:], _MARKER)
    read = {record.sequence: record for record in contents.pending}
    position = 0
    for record, frame in zip(_RECORDS, _FRAMES, strict=True):
        if not position < at < position + len(frame):
            promise(read.get(record.sequence) == record, "a record that was not touched is read")
        position += len(frame)
    promise(len(read) <= len(_RECORDS), "foreign bytes are no record")
    settled = read_contents(_WHOLE + data + render_settled(_MARKER, [1]), _MARKER)
    promise([record.sequence for record in settled.pending] == [0, 2], "what was settled stays settled")
