"""What happens in a scenario follows from its seed alone."""

import time
from itertools import islice
from random import Random

import pytest

from chaos.evidence import content_digest
from chaos.scenarios.killing import plan_kills
from chaos.scenarios.several import plan_together
from chaos.traffic.sender import WAYS, forge, stream
from ingest.admission import admit
from ingest.refusals import RefusedError
from schemas import EVENT_TYPES
from simulator.classes import render, sign

APP = 1400000001
KEY = "4fd1c0a96b7e4c7f8a2e5d3b1c9f7a60"
KEYS = {APP: (KEY,)}
NOW_US = time.time_ns() // 1000


def test_the_same_seed_gives_the_same_kills_and_another_one_others() -> None:
    victims = ("ingest-1", "work-1", "broker")
    one, again, other = (plan_kills(Random(seed), victims, 20, pause_s=(0.1, 2.0)) for seed in (1, 1, 2))
    assert one == again != other


def test_every_victim_has_its_turn() -> None:
    kills = plan_kills(Random(3), ("a", "b", "c"), 7, pause_s=(0.0, 1.0))
    assert {kill.victim for kill in kills[:3]} == {kill.victim for kill in kills[3:6]} == {"a", "b", "c"}


def test_faults_that_come_together_follow_from_the_seed() -> None:
    assert plan_together(Random(5), 4) == plan_together(Random(5), 4) != plan_together(Random(6), 4)


def test_the_traffic_of_a_seed_is_the_same_and_no_callback_comes_twice() -> None:
    one, again = (list(islice(stream(1, sdk_app_id=APP, duplicates=0.1, forged=0.1), 500)) for _ in range(2))
    assert one == again
    assert len({item.callback.event_id for item in one}) == 500
    assert {item.callback.event_type for item in one} >= set(EVENT_TYPES)
    assert any(item.is_forged for item in one)
    assert any(item.is_repeated for item in one)


def test_two_seeds_share_no_callback() -> None:
    one, other = (
        {item.callback.event_id for item in islice(stream(seed, sdk_app_id=APP, duplicates=0, forged=0.5), 300)}
        for seed in (1, 2)
    )
    assert not one & other


def test_no_forgery_is_what_the_receiver_accepts() -> None:
    rng = Random(1)
    ways = set()
    for item in islice(stream(1, sdk_app_id=APP, duplicates=0, forged=0), 60):
        forgery = forge(item.callback, rng, key=KEY, other_app=APP + 1)
        ways.add(forgery.way)
        with pytest.raises(RefusedError):
            admit(forgery.body, keys=KEYS, allow_unsigned=frozenset(), received_at_us=NOW_US)
    assert ways == set(WAYS)


def test_the_digest_of_what_was_sent_is_that_of_what_is_kept() -> None:
    for item in islice(stream(1, sdk_app_id=APP, duplicates=0, forged=0), 60):
        wire = render(item.callback, sign(KEY, NOW_US // 1_000_000 + 60))
        kept = admit(wire, keys=KEYS, allow_unsigned=frozenset(), received_at_us=NOW_US).body
        assert content_digest(kept) == content_digest(render(item.callback)) == content_digest(wire)


def test_another_byte_in_a_value_is_another_digest() -> None:
    assert content_digest(b'{"a":1, "Sign":"x"}') == content_digest(b'{"a": 1}')
    assert content_digest(b'{"a":1}') != content_digest(b'{"a":1.0}')
    assert content_digest(b'{"a":{"b":1}}') != content_digest(b'{"a":{"b": 1}}')
