"""The trace of a callback: https://www.w3.org/TR/trace-context/#traceparent-header."""

import re
import secrets

_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def traceparent(received: str | None) -> str:
    """Return the traceparent that a proxy in front began, or a new one. What is not one is not passed on."""
    if received is not None and _TRACEPARENT.fullmatch(received):
        return received
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
