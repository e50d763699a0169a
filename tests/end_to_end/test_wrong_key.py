"""A wrong key costs no class: what it refused is let in once it is mended, beside a pipeline that runs."""

import json
import time

import pytest

from ingest import KeptRejected, read_rejected
from tests.end_to_end.deployment import Deployment
from tests.end_to_end.programs import eventually
from tests.end_to_end.sending import APP, KEY, callback, event_id, post, signed

CALLBACKS = [callback("OnlineRecordStarted", f"class-{number}") for number in range(6)]


@pytest.fixture(scope="module")
def refusing(deployment: Deployment) -> Deployment:
    keys = deployment.folder / "keys.json"
    keys.write_text(json.dumps({APP: ["a wrong key of 24 letters"]}))
    del deployment.settings["TIW_CALLBACK_KEYS"]
    deployment.settings["TIW_CALLBACK_KEYS_FILE"] = str(keys)
    if deployment.is_embedded:
        deployment.up()
    else:
        assert deployment.run("migrate").code == 0
        deployment.work()
        deployment.ingest("--processes", "2")
    for content in CALLBACKS:
        body = json.dumps(signed(content)).encode()
        assert {post(deployment.address, body) for _ in range(3)} == {401}
    eventually(lambda: sum(one.rejected.tries for one in kept(deployment)) == 3 * len(CALLBACKS))
    return deployment


def kept(deployment: Deployment) -> list[KeptRejected]:
    return read_rejected(deployment.data / "rejected", now_us=time.time_ns() // 1000)


def test_what_a_wrong_key_refused_takes_effect_once_it_is_mended(refusing: Deployment) -> None:
    rows = refusing.run("rejected", "list", "--json").json
    assert [(row["reason"], row["tries"], row["sign"]) for row in rows] == [("wrong_sign", 3, "***")] * len(CALLBACKS)
    assert refusing.run("rejected", "reverify", "--json").json == {
        "authentic": 0,
        "let_in": 0,
        "remaining": len(CALLBACKS),
        "refused": {"wrong_sign": len(CALLBACKS)},
    }
    (refusing.folder / "keys.json").write_text(json.dumps({APP: [KEY]}))
    assert refusing.run("rejected", "reverify", "--json").json == {
        "authentic": len(CALLBACKS),
        "let_in": len(CALLBACKS),
        "remaining": 0,
        "refused": {},
    }
    eventually(lambda: refusing.count("events") == len(CALLBACKS))
    assert kept(refusing) == []
    events = refusing.run("events", "list", "--json").json
    assert {event["event_id"] for event in events} == {event_id(content) for content in CALLBACKS}
