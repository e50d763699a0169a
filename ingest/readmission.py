"""Another look at a rejected callback, with the keys that hold now."""

from collections.abc import Set as AbstractSet

from broker import Message
from ingest.admission import admit
from ingest.keys import CallbackKeys
from ingest.messages import message_of
from ingest.rejected import Rejected
from ingest.tracing import traceparent


def readmit(rejected: Rejected, *, keys: CallbackKeys, allow_unsigned: AbstractSet[int]) -> Message:
    """Return the message of a callback that is authentic with these keys, judged as of its arrival.

    It is what would have been published then: Sign and ExpireTime are dropped, received_at is that of the arrival.
    Raises `RefusedError` if it is still to be refused.
    """
    admitted = admit(rejected.body, keys=keys, allow_unsigned=allow_unsigned, received_at_us=rejected.received_at_us)
    return message_of(admitted, received_at_us=rejected.received_at_us, trace=traceparent(None))
