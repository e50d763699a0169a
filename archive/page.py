"""`index.html` beside the files of a recording: plays them in step, from the files alone and without a network.

All that the page does is in player.html, player.css and player.js; what is known of the recording is data in it.
"""

import re
from base64 import b64encode
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any

import msgspec

from archive.naming import kind_of
from schemas import Manifest, ManifestFile

#: What ends a script for HTML, or a line for JavaScript. In JSON these are in texts alone, where they may be escaped.
_ESCAPED = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
_NAMED = re.compile(r"\{\{(\w+)\}\}")


def index_html(manifest: Manifest) -> bytes:
    """Return the page of a recording. It needs the files of the manifest beside it, and nothing else.

    Nothing of the manifest is ever markup or code: the policy of the page allows its own script and style alone.
    """
    data = {
        "sdk_app_id": str(manifest.sdk_app_id),
        "task_id": manifest.task_id,
        # JavaScript's numbers end at 2^53.
        "room_id": None if manifest.room_id is None else str(manifest.room_id),
        "record_start_time": manifest.record_start_time,
        "total_time_ms": manifest.total_time_ms,
        "error": manifest.error,
        "omitted_durations": manifest.omitted_durations,
        "files": [_shown(file) for file in manifest.files],
    }
    text = msgspec.json.encode(data).decode()
    for character, escaped in _ESCAPED.items():
        text = text.replace(character, escaped)
    html, known = _template()
    values = known | {"data": text}
    return _NAMED.sub(lambda found: values[found[1]], html).encode()


def _shown(file: ManifestFile) -> dict[str, Any]:
    return {
        "name": file.name,
        "kind": kind_of(file.video_type),
        "outcome": file.outcome,
        "reason": file.reason,
        "size": file.size,
        "user_id": file.user_id,
        "starts_at_ms": file.starts_at_ms,
        "duration_ms": file.duration_ms,
    }


@cache
def _template() -> tuple[str, dict[str, str]]:
    """Return the page without its data, and what is the same in every page."""
    html, style, script = (
        (files("archive") / f"player.{ending}").read_text(encoding="utf-8") for ending in ("html", "css", "js")
    )
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
        # Browsers differ in whether a page that is a file itself may have others by 'self'.
        "media-src 'self' file:; base-uri 'none'; form-action 'none'"
    )
    return html, {"policy": policy, "style": style, "script": script}


def _hash(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"
