"""Bodies grow to the byte, and stay what they were otherwise."""

import json
from itertools import islice

from chaos.traffic.sender import enlarged, stream
from simulator import sign
from simulator.classes import render
from tests.end_to_end.sending import event_id

SIZE_BYTES = 20_000


def test_a_callback_grows_to_exactly_the_size_and_its_identity_with_it() -> None:
    for item in islice(stream(1, sdk_app_id=1400000001, duplicates=0, forged=0), 20):
        larger = enlarged(item.callback, SIZE_BYTES)
        body = render(larger, sign("key", 1_700_000_000))
        assert len(body) == SIZE_BYTES
        content = json.loads(body)
        assert content["EventData"].pop("Padding").strip("x") == ""
        assert content["EventData"] == json.loads(item.callback.event_data)
        assert larger.event_id == event_id(json.loads(body)) != item.callback.event_id


def test_a_callback_that_is_larger_already_stays() -> None:
    item = next(stream(1, sdk_app_id=1400000001, duplicates=0, forged=0))
    assert enlarged(item.callback, 10) is item.callback
