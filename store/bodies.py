"""How bodies are shown in JSON."""

import base64


def shown_body(body: bytes) -> dict[str, str]:
    """Return `body` as text under that name, or as `body_base64` if it is not UTF-8."""
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"body_base64": base64.b64encode(body).decode()}
