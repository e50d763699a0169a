"""Commands that change what a consumer gets: replay, remove, purge; beside a pipeline that runs."""

from collections import Counter

import pytest

from tests.end_to_end.deployment import WORK_STOP_S, Deployment
from tests.end_to_end.programs import eventually
from tests.end_to_end.sending import callback, event_id, send

CALLBACKS = [callback("OnlineRecordStarted", f"class-{number}") for number in range(5)] + [
    callback("OnlineRecordFinished", "class-0"),
    callback("TranscodeFinished", "class-0"),
]
IDS = {event_id(content) for content in CALLBACKS}


@pytest.fixture(scope="module")
def running(deployment: Deployment) -> Deployment:
    deployment.install("counts", "fails")
    deployment.start()
    send(deployment.address, *CALLBACKS)
    eventually(lambda: len(handled(deployment)) == len(IDS))
    deployment.wait_dead_letters("fails")
    return deployment


def handled(deployment: Deployment) -> Counter[str]:
    return Counter(line["event_id"] for line in deployment.logged("succeeded", consumer="counts"))


def test_a_dry_run_counts_and_brings_nothing_and_a_replay_brings_each_event_once_more(running: Deployment) -> None:
    before = handled(running)
    assert running.run("events", "replay", "--consumer", "counts", "--dry-run", "--json").json == {
        "consumer": "counts",
        "replayed": 0,
        "matching": len(IDS),
    }
    assert running.run("events", "replay", "--consumer", "counts", "--json").json == {
        "consumer": "counts",
        "replayed": len(IDS),
        "matching": len(IDS),
    }
    # Completed once more, and what a dry run might have brought as well would have come first.
    eventually(lambda: (handled(running) - before).total() >= len(IDS))
    assert handled(running) - before == Counter(IDS)
    # Nobody else got them again.
    assert len(running.logged("recording_started", consumer="started")) == 5


def test_a_replay_can_be_narrowed_to_one_recording(running: Deployment) -> None:
    before = handled(running)
    chosen = ("--consumer", "counts", "--task", "class-0", "--since", "1h")
    assert running.run("events", "replay", *chosen, "--json").json["replayed"] == 2
    eventually(lambda: (handled(running) - before).total() >= 2)
    assert set(handled(running) - before) == {event_id(CALLBACKS[0]), event_id(CALLBACKS[5])}


def test_a_replay_to_a_consumer_that_never_ran_is_refused(running: Deployment) -> None:
    refused = running.run("events", "replay", "--consumer", "nobody")
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.startswith(
        "tiw: no consumer 'nobody' ever ran here; there are archived, counts, fails, finished"
    )
    assert refused.err.count("\n") == 1


def test_a_built_in_consumer_and_one_that_runs_are_not_removed(running: Deployment) -> None:
    built_in = running.run("consumers", "remove", "finished", "--force")
    assert (built_in.code, built_in.err) == (2, "tiw: finished is built in: its queue is where its events are kept\n")
    runs = running.run("consumers", "remove", "counts")
    assert runs.code == 1
    assert "stop it first" in runs.err
    absent = running.run("consumers", "remove", "nobody")
    assert (absent.code, absent.err) == (1, "tiw: there is no consumer 'nobody'\n")


def test_dead_letters_are_purged_only_for_real(running: Deployment) -> None:
    running.wait_dead_letters("fails")
    (letter,) = running.run("dead-letters", "show", "--consumer", "fails", "--json").json
    assert letter["event_id"] == event_id(CALLBACKS[5])
    assert running.run("dead-letters", "purge", "--dry-run", "--json").json == {"purged": 0, "matching": 1}
    assert running.run("dead-letters", "purge", "--consumer", "counts", "--json").json == {"purged": 0, "matching": 0}
    assert running.run("dead-letters", "purge", "--json").json == {"purged": 1, "matching": 1}
    assert running.run("dead-letters", "list", "--json").json == []
    gone = running.run("dead-letters", "show", "--consumer", "fails")
    assert (gone.code, gone.err) == (1, "tiw: there is no such dead letter\n")


def test_a_consumer_that_is_no_more_is_removed_with_its_events_only_by_force(running: Deployment) -> None:
    worker = running.programs[0]
    worker.stop(within_s=WORK_STOP_S)
    (running.plugins / "counts.py").unlink()
    if running.is_embedded:
        running.up()
    else:
        running.work()
    send(running.address, callback("OnlineRecordStopped", "class-0"))

    def state() -> dict[str, object]:
        states: dict[str, dict[str, object]] = {
            state["name"]: state for state in running.run("consumers", "--json").json
        }
        return states.get("counts", {})

    eventually(lambda: state().get("ready") == 1)
    assert state()["abandoned"] is True
    refused = running.run("consumers", "remove", "counts")
    assert refused.code == 1
    assert "--force" in refused.err
    assert running.run("consumers", "remove", "counts", "--force").code == 0
    assert state() == {}
    # Without it, its events are kept as before.
    send(running.address, callback("OnlineRecordStopped", "class-1"))
    eventually(lambda: running.count("events") == len(IDS) + 2)
