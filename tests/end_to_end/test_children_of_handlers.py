"""A handler may start programs and fork: what it starts has nothing of ours, and takes nothing from us."""

import signal

import pytest

from tests.end_to_end.deployment import Deployment
from tests.end_to_end.programs import eventually
from tests.end_to_end.sending import callback, send

CONSUMERS = ("starts_children", "starts_children_in_a_thread", "forks", "forks_in_a_thread")

#: Of Python's own: https://docs.python.org/3/library/signal.html#note-on-sigpipe; and beyond 31 those of libc.
NOT_OURS = 1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1 | ~(2**31 - 1)


@pytest.fixture(scope="module")
def running(deployment: Deployment) -> Deployment:
    deployment.install("starts_children")
    deployment.anew = True
    deployment.start()
    # An event goes to the queues that are there.
    eventually(
        lambda: set(CONSUMERS) <= {name for line in deployment.logged("worker_started") for name in line["consumers"]}
    )
    send(deployment.address, callback("OnlineRecordFinished", "t"), callback("OnlineRecordStarted", "t"))
    return deployment


def test_a_program_that_a_handler_starts_inherits_no_descriptor_and_no_signal_of_ours(running: Deployment) -> None:
    eventually(lambda: len(running.logged("born")) == 2)
    for born in running.logged("born"):
        assert born["files"] == [0, 1, 2]
        assert born["blocked"] == 0
        assert born["ignored"] & ~NOT_OURS == 0


def test_a_process_that_a_handler_forked_can_be_terminated_and_the_worker_goes_on(running: Deployment) -> None:
    (terminated,) = eventually(lambda: running.logged("terminated"))
    assert terminated["code"] == -signal.SIGTERM


def test_a_fork_that_comes_back_from_the_handler_ends_there(running: Deployment) -> None:
    eventually(lambda: len(running.logged("forked")) == 2)
    assert [line["code"] for line in running.logged("forked")] == [3, 3]


def test_none_of_it_has_stopped_a_worker_or_handled_an_event_twice(running: Deployment) -> None:
    eventually(lambda: len(running.logged("born")) + len(running.logged("forked")) == 4)
    send(running.address, callback("OnlineRecordFinished", "t2"), callback("OnlineRecordStarted", "t2"))
    eventually(lambda: len(running.logged("born")) == len(running.logged("forked")) == 4)
    assert not running.logged("process_ended")
    assert not running.logged("worker_drained")
