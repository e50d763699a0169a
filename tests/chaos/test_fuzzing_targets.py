"""The corpus through every target, without the fuzzer; and that each target notices what it is there for."""

from collections.abc import Callable
from typing import Any

import pytest

import ingest.admission
import ingest.lenient
import ingest.plain
import schemas.decoding
from broker.amqp import headers as amqp_headers
from chaos.fuzzing import outcome, serving
from chaos.fuzzing.libfuzzer import CORPUS, REGRESSIONS, corpus_of
from chaos.fuzzing.outcome import bounded
from chaos.fuzzing.targets import TARGETS, bodies, plain
from chaos.fuzzing.targets.bodies import read_top_level
from ingest.admission import Admitted, admit
from ingest.callbacks import Callbacks
from schemas import RecordingEvent, Unrecognized, decode, redecode
from tests.ingest.callback_bodies import SAMPLES

MAX_CORPUS_BYTES = 300_000


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_of_the_corpus_breaks_a_promise(name: str) -> None:
    inputs = corpus_of(TARGETS[name])
    assert inputs
    for path in inputs:
        try:
            TARGETS[name].run(path.read_bytes())
        except Exception as error:
            error.add_note(f"the input: {path}")
            raise


def test_every_sample_goes_through_the_door() -> None:
    for path in SAMPLES:
        bodies.admission(path.read_bytes())
        bodies.signed_admission(path.read_bytes())


def test_the_corpus_reaches_every_verdict() -> None:
    verdicts = [bodies.admitted(path.read_bytes()) for path in sorted((CORPUS / "bodies").iterdir())]
    assert {verdict for verdict in verdicts if not isinstance(verdict, Admitted)} == bodies.REFUSALS
    kept = [verdict.body for verdict in verdicts if isinstance(verdict, Admitted)]
    events = [decode(body, received_at_us=serving.NOW_US).event for body in kept]
    assert any(isinstance(event, RecordingEvent) for event in events)
    reasons = {event.reason for event in events if isinstance(event, Unrecognized)}
    assert {"not UTF-8", "a name stands twice in one object"} <= reasons


def test_the_corpus_is_small_and_each_folder_of_it_is_used() -> None:
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < MAX_CORPUS_BYTES
    assert {path.name for path in CORPUS.iterdir()} == {target.corpus for target in TARGETS.values()}
    if REGRESSIONS.is_dir():
        assert {path.name for path in REGRESSIONS.iterdir()} <= set(TARGETS)


def breaks(name: str) -> set[str]:
    """Return the promises that the corpus of a target finds broken."""
    broken = set()
    for path in corpus_of(TARGETS[name]):
        try:
            TARGETS[name].run(path.read_bytes())
        except outcome.BrokenPromiseError as error:
            broken.add(str(error))
    return broken


def replaced(original: Callable[..., Any], **changes: object) -> Callable[..., Any]:
    """Return `original` with some of its arguments set to something else."""
    return lambda *args, **kwargs: original(*args, **{**kwargs, **changes})


def test_a_door_that_knows_no_expiry_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest.admission, "SKEW_TOLERANCE_S", 10_000)
    assert "what is let in is what is authentic" in breaks("admission")


def test_a_door_that_takes_another_sign_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {serving.SDK_APP_ID: ("another key",)}
    monkeypatch.setattr(bodies, "admit", replaced(admit, keys=keys))
    assert "what is let in is what is authentic" in breaks("admission")


def test_a_door_that_keeps_the_sign_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest.admission, "without_dropped", lambda members: members)
    assert "everything but Sign and ExpireTime is kept, each value byte for byte" in breaks("admission")


def test_a_lenient_reading_that_finds_something_else_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        bodies, "find_members", lambda body: {**ingest.lenient.find_members(body), "Sign": ingest.lenient.Span(**SPAN)}
    )
    assert "the lenient reading finds what is there" in breaks("lenient")


SPAN = {"start": 0, "value_start": 0, "end": 1}


def test_a_second_look_that_sees_something_else_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemas.decoding, "MAX_AHEAD_S", 10**9)
    monkeypatch.setattr(bodies, "redecode", replaced(redecode, routing_key="OnlineRecordStarted"))
    assert "a second look finds the same event" in breaks("decoding")


def test_headers_that_read_differently_when_written_again_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(amqp_headers, "MAX_TEXT_CHARACTERS", 10)
    assert "a message that is published again is the same message" in breaks("headers")


def test_a_plain_connection_that_takes_what_is_not_plain_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    plain._both_ways.cache_clear()
    monkeypatch.setattr(ingest.plain, "_NOT_PLAIN", ())
    assert "a plain connection writes what aiohttp's does" in breaks("plain")
    plain._both_ways.cache_clear()


def test_a_plain_connection_that_publishes_something_else_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Callbacks, "begin", replaced(Callbacks.begin, trace=None))
    assert "a plain connection publishes what aiohttp's does" in breaks("plain")


def test_what_takes_too_long_is_noticed() -> None:
    def work(data: bytes) -> None:
        sum(range(len(data) ** 2))

    run = bounded(work)
    run(b"x" * 10)
    with pytest.raises(outcome.BrokenPromiseError, match="grows with its size alone"):
        run(b"x" * 4000)


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (b"{}", []),
        (b' {"a":1, "b" : [1,"]"] }\n', ["a", "b"]),
        (b'\xef\xbb\xbf{"\\u0061":"\\"", "a":x}', ["a", "a"]),
        (b'{"\xff":{"a":[]}}', [b'"\xff"']),
    ],
)
def test_the_slow_reading_reads(body: bytes, names: list[str | bytes]) -> None:
    members = read_top_level(body)
    assert members is not None
    assert [member.name for member in members] == names


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"a"}', b'{"a":1,}', b'{"a":1}}', b'{"a":[}]}', b'{"a":"}'])
def test_the_slow_reading_knows_what_is_no_object(body: bytes) -> None:
    assert read_top_level(body) is None
