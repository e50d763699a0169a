import json
from pathlib import Path

import pytest

from schemas import decode
from simulator import Signature, render
from simulator.classes import ENVELOPE_FIRST, RECORDING, SPACED, Form, make_callback

SAMPLES = Path(__file__).parent.parent / "samples"


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("started", RECORDING),
        ("stopped", RECORDING),
        ("long-pause-warning", RECORDING),
        ("long-pause-force-stopped", RECORDING),
        ("finished", RECORDING),
        ("finished-error", RECORDING),
        ("whiteboard-push-stopped", SPACED),
        ("transcode-finished", ENVELOPE_FIRST),
        ("started-unsigned", ENVELOPE_FIRST),
        ("finished-error-only", ENVELOPE_FIRST),
    ],
)
def test_the_vendors_samples_are_written_byte_for_byte(name: str, form: Form) -> None:
    sample = (SAMPLES / f"{name}.json").read_bytes().rstrip()
    members = json.loads(sample)
    callback = make_callback(
        members["EventType"],
        timestamp=members["Timestamp"],
        sdk_app_id=members.get("SdkAppId"),
        event_data=members["EventData"],
        form=form,
    )
    signature = Signature(expire_time=members["ExpireTime"], sign=members["Sign"]) if "Sign" in members else None

    assert render(callback, signature) == sample


def test_the_event_id_is_the_one_a_receiver_finds() -> None:
    callback = make_callback("Anything", timestamp=1, sdk_app_id=7, event_data={"Title": "测试"})

    assert callback.event_id == decode(render(callback), received_at_us=0).event_id
