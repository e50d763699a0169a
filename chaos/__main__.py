"""`./dev chaos`: inject faults, account for every callback, print the fault matrix.

Exit codes: 0 everything that could run was played to its end and nothing is violated; 1 otherwise; 2 usage.
"""

import argparse
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

import msgspec

from chaos.errors import UnknownNameError
from chaos.machine.servers import Servers
from chaos.matrix import Result, markdown, print_matrix
from chaos.run import Round, State, code_digest, run_in_parallel, run_round
from chaos.scenario import Scenario
from chaos.scenarios import ALL

FAILED = 1
MISUSED = 2

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

#: As many scenarios at the same time in a short run: most of the time they wait.
_PARALLEL = 2

#: Between the seeds of two rounds of one scenario.
_SEED_STEP = 1_000


def main(arguments: Sequence[str]) -> int:
    """Run what is asked for and return the exit code."""
    args = _parser().parse_args(arguments)
    try:
        chosen = _choose(args.scenario, is_full=args.full)
    except UnknownNameError as error:
        _say(str(error))
        return MISUSED
    if args.list:
        for scenario in ALL:
            print(f"{scenario.name:24} {scenario.sentence}")
        return 0
    for number in _ENDING:
        signal.signal(number, _end)
    began_s = time.monotonic()
    try:
        results = _results(chosen, args)
    except KeyboardInterrupt:
        _say("stopped; the same command goes on after the last scenario that was finished")
        return 130
    _hand_over(results, args)
    _say(f"{len(results)} rounds in {(time.monotonic() - began_s) / 60:.1f} minutes")
    missing = {scenario.name for scenario in chosen} - {result.scenario for result in results}
    if missing and not args.show:
        _say(f"without a result: {', '.join(sorted(missing))}")
        return FAILED
    return 0 if results and all(result.is_good or result.cannot_run for result in results) else FAILED


def _results(chosen: Sequence[Scenario], args: argparse.Namespace) -> list[Result]:
    if args.show:
        return [*_kept(chosen, args)]
    parallel = min(len(chosen), args.parallel or (1 if args.full else _PARALLEL))
    if parallel == 1:
        return [*_run(chosen, args)]
    options = [
        *("--seed", str(args.seed), "--previous", args.previous),
        *(option for option, is_set in (("--full", args.full), ("--fresh", args.fresh)) if is_set),
    ]
    return run_in_parallel([scenario.name for scenario in chosen], options, parallel=parallel)


def _choose(names: Sequence[str], *, is_full: bool) -> list[Scenario]:
    known = {scenario.name: scenario for scenario in ALL}
    for name in names:
        if name not in known:
            raise UnknownNameError(f"there is no scenario {name!r}: see --list")
    if names:
        return [known[name] for name in names]
    return [scenario for scenario in ALL if is_full or scenario.in_short_run]


def _seeds(scenario: Scenario, args: argparse.Namespace) -> list[int]:
    rounds = scenario.full_rounds if args.full else scenario.rounds
    return [args.seed + number * _SEED_STEP for number in range(rounds)]


def _kept(chosen: Sequence[Scenario], args: argparse.Namespace) -> Iterator[Result]:
    state = State()
    for scenario in chosen:
        for seed in _seeds(scenario, args):
            if (result := state.find(scenario.name, seed, is_full=args.full)) is not None:
                yield result


def _run(chosen: Sequence[Scenario], args: argparse.Namespace) -> Iterator[Result]:
    state, code = State(), code_digest()
    with Servers() as servers:
        for scenario in chosen:
            for seed in _seeds(scenario, args):
                known = state.find(scenario.name, seed, is_full=args.full)
                if known is not None and known.code == code and not args.fresh:
                    _say(f"{scenario.name} (seed {seed}): finished {known.finished_at}; --fresh runs it again")
                    yield known
                    continue
                folder = state.evidence_folder(scenario.name, seed, is_full=args.full)
                _say(f"{scenario.name} (seed {seed}): {scenario.sentence}")
                one = Round(
                    scenario=scenario, seed=seed, is_full=args.full, folder=folder, code=code, previous=args.previous
                )
                result = run_round(one, servers)
                _say(f"{scenario.name} (seed {seed}): {_in_short(result)}, {result.took_s:.0f} s")
                if result.is_good:
                    # The evidence of what failed stays to be looked at.
                    shutil.rmtree(folder, ignore_errors=True)
                if result.numbers is not None:
                    state.keep(result)
                yield result


def _in_short(result: Result) -> str:
    if result.cannot_run:
        return f"cannot run: {result.cannot_run}"
    if result.numbers is None:
        return f"not played to its end: {result.problem}"
    return "held" if result.is_good else "VIOLATED"


def _hand_over(results: Sequence[Result], args: argparse.Namespace) -> None:
    if args.json is not None:
        Path(args.json).write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")
    if args.markdown:
        print(markdown(results))
    print_matrix(results, sys.stderr if args.markdown else sys.stdout, verbose=args.verbose)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./dev chaos",
        description="Inject faults into the whole pipeline and account for every callback that was accepted. "
        "Finished scenarios are kept in .chaos: the same command goes on where it was stopped.",
    )
    parser.add_argument("--full", action="store_true", help="the counts of the targets: hours")
    parser.add_argument(
        "--seed", type=int, default=1, metavar="S", help="all that is random follows from it (default 1)"
    )
    parser.add_argument(
        "--scenario", action="append", default=[], metavar="NAME", help="only this one; may be given several times"
    )
    parser.add_argument("--list", action="store_true", help="the scenarios, a line each")
    parser.add_argument("--fresh", action="store_true", help="run also what was finished with this code")
    parser.add_argument("--show", action="store_true", help="run nothing: print what was finished last, with any code")
    parser.add_argument("--json", metavar="FILE", help="all results as one JSON document")
    parser.add_argument("--markdown", action="store_true", help="the matrix for the documentation, on standard output")
    parser.add_argument("--verbose", action="store_true", help="say also why invariants are unchecked")
    parser.add_argument(
        "--parallel",
        type=int,
        choices=range(1, 5),
        metavar="N",
        help="scenarios at the same time, each process with servers of its own (default 2; with --full 1)",
    )
    parser.add_argument(
        "--previous", default="HEAD~1", metavar="COMMIT", help="what the rolling update begins with (default HEAD~1)"
    )
    return parser


def _end(number: int, frame: FrameType | None) -> None:
    """End in order: what was started is ended on the way out, and nobody who is impatient keeps it from that."""
    del number, frame
    for further in _ENDING:
        signal.signal(further, signal.SIG_IGN)
    raise KeyboardInterrupt


def _say(sentence: str) -> None:
    print(f"chaos: {sentence}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
