"""Starts children in every way that leaves them what is not closed, and logs what became of them."""

import json
import multiprocessing
import os
import subprocess
import sys
import time

from schemas import OnlineRecordFinished, OnlineRecordStarted
from workers import Context, consumer

#: What a program was born with: the descriptors that are open, and what it does not hear of signals.
REPORT = """
import json, os
found = set(os.listdir("/proc/self/fd"))
files = sorted(int(name) for name in found if os.path.exists("/proc/self/fd/" + name))
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
print(json.dumps({"files": files, "blocked": int(status["SigBlk"], 16), "ignored": int(status["SigIgn"], 16)}))
"""


def start(ctx: Context) -> None:
    """Start a program that gets every descriptor that can be inherited."""
    command = [sys.executable, "-S", "-E", "-c", REPORT]
    done = subprocess.run(command, close_fds=False, capture_output=True, check=True)
    ctx.log.info("born", **json.loads(done.stdout))


@consumer(attempts=1)
async def starts_children(event: OnlineRecordFinished, ctx: Context) -> None:
    """Start a program in the event loop's thread, and a process that is ended before its time."""
    del event
    start(ctx)
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
    process.start()
    process.terminate()
    process.join(30)
    ctx.log.info("terminated", code=process.exitcode)
    process.kill()


@consumer(attempts=1)
def starts_children_in_a_thread(event: OnlineRecordFinished, ctx: Context) -> None:
    """Start a program in a thread."""
    del event
    start(ctx)


def fork(ctx: Context) -> None:
    """Let a forked process end as a script does: by all that it came through."""
    child = os.fork()
    if child == 0:
        sys.exit(3)
    _, status = os.waitpid(child, 0)
    ctx.log.info("forked", code=os.waitstatus_to_exitcode(status))


@consumer(attempts=1)
async def forks(event: OnlineRecordStarted, ctx: Context) -> None:
    """Fork in the event loop's thread."""
    del event
    fork(ctx)


@consumer(attempts=1)
def forks_in_a_thread(event: OnlineRecordStarted, ctx: Context) -> None:
    """Fork in a thread."""
    del event
    fork(ctx)
