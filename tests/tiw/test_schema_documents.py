"""The documents under docs/ are current, and hold together."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from broker import BUILT_IN_CONSUMERS, Headers
from ingest.refusals import Refusal
from schemas import EVENT_TYPES, RECORDING_ARCHIVED, UNRECOGNIZED
from tests.schemas.bodies import sample
from tiw.commands.schema import documents, rendered
from tiw.parser import main

DOCS = Path(__file__).resolve().parents[2] / "docs"
ASYNCAPI: dict[str, Any] = json.loads((DOCS / "asyncapi.json").read_bytes())


OPENAPI: dict[str, Any] = json.loads((DOCS / "openapi.json").read_bytes())


def at(pointer: str, document: dict[str, Any] = ASYNCAPI) -> Any:
    """Return what a reference within a document leads to."""
    assert pointer.startswith("#/")
    value: Any = document
    for part in pointer.removeprefix("#/").split("/"):
        value = value[part]
    return value


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if "$ref" in value else []
        return own + [found for item in value.values() for found in references(item)]
    return [found for item in value for found in references(item)] if isinstance(value, list) else []


def test_the_checked_in_documents_are_current() -> None:
    for name, document in documents().items():
        assert (DOCS / name).read_bytes() == rendered(document), (
            f"docs/{name} is not current: run ./dev tiw schema --output docs"
        )


def test_the_command_writes_them(tmp_path: Path) -> None:
    assert main(["schema", "--output", str(tmp_path / "new" / "folder")]) == 0
    written = {path.name: path.read_bytes() for path in (tmp_path / "new" / "folder").iterdir()}
    assert written == {name: (DOCS / name).read_bytes() for name in documents()}


def test_the_command_prints_them(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["schema"]) == 0
    printed = json.loads(capfdbinary.readouterr().out)
    assert printed == {name: json.loads((DOCS / name).read_bytes()) for name in documents()}


@pytest.mark.parametrize("document", [ASYNCAPI, OPENAPI], ids=["asyncapi", "openapi"])
def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    found = references(document)
    assert found
    for reference in found:
        assert at(reference, document), reference


def test_it_has_what_asyncapi_3_asks_for() -> None:
    assert ASYNCAPI["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= set(ASYNCAPI["info"])
    keys = [*ASYNCAPI["channels"], *ASYNCAPI["operations"]]
    keys += [key for group in ASYNCAPI["components"].values() for key in group]
    assert all(re.fullmatch(r"[\w.-]+", key) for key in keys)
    assert {operation["action"] for operation in ASYNCAPI["operations"].values()} == {"send", "receive"}


def test_every_message_of_a_channel_exists() -> None:
    for channel in ASYNCAPI["channels"].values():
        assert channel["messages"]
        for key, message in channel["messages"].items():
            assert at(message["$ref"])["name"] == key


def test_every_operation_takes_messages_of_its_own_channel() -> None:
    for operation in ASYNCAPI["operations"].values():
        channel = operation["channel"]["$ref"]
        assert re.fullmatch(r"#/channels/\w+", channel)
        listed = {message["$ref"] for message in operation["messages"]}
        assert listed == {f"{channel}/messages/{key}" for key in at(channel)["messages"]}


def test_every_built_in_consumer_has_its_queue_and_its_events() -> None:
    assert set(ASYNCAPI["channels"]) == {"events"} | {consumer.consumer for consumer in BUILT_IN_CONSUMERS}
    for consumer in BUILT_IN_CONSUMERS:
        channel = ASYNCAPI["channels"][consumer.consumer]
        assert channel["address"] == f"tiw.{consumer.consumer}"
        assert set(channel["messages"]) == set(consumer.routing_keys)
    assert set(ASYNCAPI["channels"]["events"]["messages"]) == {*EVENT_TYPES, RECORDING_ARCHIVED, UNRECOGNIZED}


def test_every_header_of_ours_is_described() -> None:
    ours = {value for name, value in vars(Headers).items() if name.isupper() and str(value).startswith("tiw-")}
    assert set(ASYNCAPI["components"]["schemas"]["Headers"]["properties"]) == ours


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_a_payload_describes_its_event_alone(event_type: str) -> None:
    message = ASYNCAPI["components"]["messages"][event_type]
    validator = Draft202012Validator({**message["payload"], "components": ASYNCAPI["components"]})
    names = ("started", "stopped", "long-pause-warning", "long-pause-force-stopped", "finished", "transcode-finished")
    callbacks = [json.loads(sample(f"{name}.json")) for name in names]
    assert [one["EventType"] for one in callbacks if validator.is_valid(one)] == [event_type]


def test_every_refusal_is_an_answer_of_the_callbacks_address() -> None:
    receive = OPENAPI["paths"]["/callbacks/tiw"]["post"]
    answers = {int(status): at(answer["$ref"], OPENAPI) for status, answer in receive["responses"].items()}
    assert set(answers) == {200, *(refusal.status for refusal in Refusal)}
    for refusal in Refusal:
        schema = answers[refusal.status]["content"]["application/json"]["schema"]
        sent = {"error_code": refusal.status, "error_message": refusal.sentence}
        assert Draft202012Validator(schema).is_valid(sent)
        assert not Draft202012Validator(schema).is_valid(sent | {"error_code": 200})
        assert not Draft202012Validator(schema).is_valid(sent | {"error_message": "something else"})


@pytest.mark.parametrize("name", ["started.json", "finished-error-only.json", "transcode-finished.json"])
def test_every_callback_may_be_sent(name: str) -> None:
    content = OPENAPI["paths"]["/callbacks/tiw"]["post"]["requestBody"]["content"]
    validator = Draft202012Validator({**content["application/json"]["schema"], "components": OPENAPI["components"]})
    assert validator.is_valid(json.loads(sample(name)))
    assert not validator.is_valid([])
