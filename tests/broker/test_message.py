import msgspec
from msgspec import structs

from broker import Message


def test_a_message_of_another_version_is_read_as_far_as_it_is_known() -> None:
    message = Message(body=b"{}", event_id="e", routing_key="k", received_at_us=1, attempt=2)
    newer = structs.asdict(message) | {"of_a_later_version": {"n": 1}}
    older = {name: getattr(message, name) for name in ("body", "event_id", "routing_key", "received_at_us", "attempt")}
    for written in (newer, older):
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(written), type=Message) == message
