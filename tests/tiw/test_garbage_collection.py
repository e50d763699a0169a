"""A process that runs for long leaves what it started with alone, and one that moves files keeps none of them."""

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


def test_memory_that_lies_between_what_stays_goes_back_when_it_is_freed() -> None:
    code = """
from pathlib import Path
from tiw.process import return_freed_memory
def resident_kb():
    return int(next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in line).split()[1])
return_freed_memory()
pieces, stays = [], []
for _ in range(500):
    pieces.append(bytes(bytearray(b"x") * 100_000))
    stays.append(bytes(bytearray(1_000)))
most_kb = resident_kb()
pieces.clear()
print(most_kb - resident_kb())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert int(done.stdout) > 40_000
