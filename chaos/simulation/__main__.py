"""`./dev simulation`: many worlds, one after the other or several at once, and what became of them."""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import suppress
from itertools import count, islice
from multiprocessing import get_context
from pathlib import Path

from chaos.simulation.database import make_template
from chaos.simulation.plan import Bug, draw_plan
from chaos.simulation.running import Outcome, Totals, run_world

#: Files of worlds are short-lived: memory will do.
_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it

_EXIT_VIOLATED = 1


def main(arguments: list[str] | None = None) -> int:
    """Run as told; return 1 if a promise was broken."""
    args = _parse(arguments)
    with tempfile.TemporaryDirectory(prefix="tiw-simulation-", dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        template = Path(folder) / "template.db"
        make_template(template)
        totals = Totals()
        began_s = time.perf_counter()
        # An interruption ends the run, and its report is that of the worlds so far.
        with suppress(KeyboardInterrupt):
            for outcome in _outcomes(args, template):
                totals.add(outcome)
                for line in outcome.story:
                    print(line)
                for violation in outcome.violations:
                    print(f"seed {outcome.seed}: {violation}")
                if args.hours is not None and totals.virtual_s >= args.hours * 3600:
                    break
        print(totals.report(elapsed_s=time.perf_counter() - began_s))
        for seed in totals.violated:
            print(f"again: ./dev simulation --seed {seed} --worlds 1 --trace")
    return _EXIT_VIOLATED if totals.violated else 0


def _outcomes(args: argparse.Namespace, template: Path) -> Iterator[Outcome]:
    seeds: Iterator[int] = iter(count(args.seed) if args.worlds is None else range(args.seed, args.seed + args.worlds))
    bugs = frozenset(args.bug)
    if args.jobs == 1:
        for seed in seeds:
            yield run_world(draw_plan(seed), template=template, bugs=bugs, tells=args.trace)
        return
    running: set[Future[Outcome]] = set()
    # Spawned: a fork would take locks of other threads along.
    with ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn")) as pool:
        try:
            while True:
                for seed in islice(seeds, 2 * args.jobs - len(running)):
                    running.add(pool.submit(run_world, draw_plan(seed), template=template, bugs=bugs, tells=args.trace))
                if not running:
                    return
                ended, running = wait(running, return_when=FIRST_COMPLETED)
                for future in ended:
                    yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./dev simulation",
        description="Plays the pipeline in virtual time, with crashes at every step. Exit 1: a promise is broken.",
    )
    parser.add_argument("--hours", type=float, help="so many virtual hours, and the world that passes them")
    parser.add_argument("--worlds", type=int, help="so many worlds (default: 20, without --hours)")
    parser.add_argument("--seed", type=int, default=0, help="of the first world; the next ones count on (default: 0)")
    parser.add_argument("--jobs", type=int, default=1, help="worlds at once, each in a process of its own (default: 1)")
    parser.add_argument("--trace", action="store_true", help="tell the story of each world, event by event")
    parser.add_argument(
        "--bug",
        type=Bug,
        choices=list(Bug),
        action="append",
        default=[],
        metavar="BUG",
        help=f"plant a bug, to see it found: {', '.join(Bug)}",
    )
    args = parser.parse_args(arguments)
    if args.jobs < 1 or (args.worlds is not None and args.worlds < 1) or (args.hours is not None and args.hours <= 0):
        parser.error("--jobs, --worlds and --hours must be above 0")
    if args.worlds is None and args.hours is None:
        args.worlds = 20
    return args


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        # Sets of texts have another order in every interpreter: the same seed is to tell the same story in all.
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, "PYTHONHASHSEED": "0"})  # noqa: S606 - this program again
    sys.exit(main())
