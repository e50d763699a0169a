"""A process that runs for long leaves what it started with alone."""

import gc
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_what_was_there_is_not_searched_and_cycles_still_go() -> None:
    # In a process of its own: it would hold for all tests that follow.
    code = """
import gc, weakref
from tiw.process import THRESHOLD, settle
class Node: pass
settle()
assert gc.get_freeze_count() > 1000
assert gc.get_threshold()[0] == THRESHOLD
node = Node(); node.itself = node
seen = weakref.ref(node)
del node
kept = [[] for _ in range(2 * THRESHOLD)]
assert seen() is None
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    assert gc.get_freeze_count() == 0


def test_a_command_searches_for_cycles_though_its_imports_were_not_searched() -> None:
    code = """
import gc, sys
from tiw.__main__ import run
from tiw.commands import schema
seen = []
schema.schema = lambda settings, args: seen.append(gc.isenabled()) or 0
sys.argv = ["tiw", "schema"]
assert run() == 0
assert seen == [True], seen
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
