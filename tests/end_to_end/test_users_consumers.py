"""A user's consumer that fails, hangs or blocks: alone in it, to the dead letter and back."""

from datetime import datetime
from itertools import pairwise

import pytest

from tests.end_to_end.deployment import LADDER_S, WORK_STOP_S, Deployment
from tests.end_to_end.programs import eventually
from tests.end_to_end.sending import callback, post, send, signed

#: Name, attempts and reason of each consumer that ends in dead letters.
FAILING = {
    "fails": (3, "PermissionError: the bucket is not ours"),
    "hangs": (2, "no answer within 1 s"),
    "blocks": (1, "BlockingIOError: copied with a blocking call"),
    "plain": (2, "the disk is full"),
}

#: What a busy machine may add to a delay.
LATE_S = 15.0


@pytest.fixture(scope="module")
def running(deployment: Deployment) -> Deployment:
    deployment.install("fails_thrice", *FAILING)
    deployment.start()
    send(deployment.address, callback("OnlineRecordFinished", "class-1"))
    return deployment


def moments_s(running: Deployment, event: str, consumer: str) -> list[float]:
    """Return when a consumer logged an event."""
    lines = running.logged(event, consumer=consumer)
    return [datetime.fromisoformat(line["timestamp"]).timestamp() for line in lines]


def test_a_blocking_consumer_is_named_and_holds_up_nobody_else(running: Deployment) -> None:
    eventually(lambda: running.logged("loop_stalled", consumer="blocks"))
    assert post(running.address, signed(callback("OnlineRecordStarted", "meanwhile")), timeout_s=2.5) == 200
    eventually(lambda: running.select("SELECT 1 FROM recordings WHERE task_id = 'meanwhile'"))
    assert not running.logged("loop_resumed", consumer="blocks"), "it was recorded only after the blocking call"
    resumed = eventually(lambda: running.logged("loop_resumed", consumer="blocks"))
    assert resumed[0]["stalled_s"] > 4


def test_a_consumer_that_fails_three_times_is_attempted_four_times_at_the_ladders_delays(running: Deployment) -> None:
    eventually(lambda: running.logged("succeeded", consumer="fails_thrice"))
    attempted_s = moments_s(running, "attempted", "fails_thrice")
    assert [line["attempt"] for line in running.logged("attempted", consumer="fails_thrice")] == [1, 2, 3, 4]
    gaps_s = [later - earlier for earlier, later in pairwise(attempted_s)]
    assert all(delay_s <= gap < delay_s + LATE_S for delay_s, gap in zip(LADDER_S, gaps_s, strict=True)), gaps_s
    # The built-in consumer of the same event did not wait for it.
    (recorded_s,) = moments_s(running, "recording_finished", "finished")
    assert recorded_s < attempted_s[1] + 1


def test_events_that_are_given_up_are_dead_letters_with_their_reasons(running: Deployment) -> None:
    running.wait_dead_letters(*FAILING)
    letters = running.run("dead-letters", "list", "--json").json
    shown = {letter["consumer"]: (letter["attempts"], letter["reason"]) for letter in letters}
    assert shown == FAILING
    for letter in letters:
        assert letter["event_type"] == "OnlineRecordFinished"
        assert len(running.logged("attempted", consumer=letter["consumer"])) == letter["attempts"]
        assert letter["first_failed_at"] <= letter["last_failed_at"]
        assert (letter["first_failed_at"] == letter["last_failed_at"]) == (letter["attempts"] == 1)


def test_mended_consumers_get_their_dead_letters_back_and_handle_each_once(running: Deployment) -> None:
    running.wait_dead_letters(*FAILING)
    worker = running.programs[0]
    worker.stop(within_s=WORK_STOP_S)
    running.mend(*FAILING)
    if running.is_embedded:
        running.up()
    else:
        running.work()
    assert running.run("dead-letters", "replay", "--dry-run", "--json").json == {"replayed": 0, "matching": 4}
    assert running.run("dead-letters", "replay", "--json").json == {"replayed": 4, "matching": 4}
    eventually(lambda: all(running.logged("succeeded", consumer=consumer) for consumer in FAILING))
    assert running.run("dead-letters", "list", "--json").json == []
    assert running.run("dead-letters", "replay", "--json").json == {"replayed": 0, "matching": 0}
    for consumer in FAILING:
        (succeeded,) = running.logged("succeeded", consumer=consumer)
        assert succeeded["attempt"] == 1
