"""`./dev fuzz`: bytes and requests that look for a way through.

Exit codes: 0 no promise was broken; 1 one was, or the fuzzer failed; 2 usage.
"""

import argparse
import importlib.util
import logging
import sys
import time
import traceback
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog
from rich.console import Console
from rich.table import Table

from chaos.fuzzing import api, http
from chaos.fuzzing.libfuzzer import fuzz, keep_new
from chaos.fuzzing.outcome import Options, Outcome
from chaos.fuzzing.targets import TARGETS

FAILED = 1

FOLDER = Path(__file__).resolve().parents[2] / ".fuzz"

_SECONDS = 60.0
_HTTP_SHARE = 5000
_HTTP_REQUESTS = 2000


def main(arguments: Sequence[str]) -> int:
    """Run what is asked for and return the exit code."""
    parser = _parser()
    args = parser.parse_args(arguments)
    if args.replay:
        if args.target is None:
            parser.error("--replay needs the --target of the input")
        return _replay(args.target, args.replay)
    if args.api:
        return api.run(examples=args.examples, seed=args.seed, folder=FOLDER)
    chosen = tuple(args.target or (*TARGETS, http.NAME))
    guided = tuple(name for name in chosen if name in TARGETS)
    if guided and importlib.util.find_spec("atheris") is None:
        _say("atheris has wheels for CPython 3.11 to 3.14 on Linux on x86-64 alone: run this there, or --target http")
        return FAILED
    if args.keep:
        for name in guided:
            _say(f"{name}: {keep_new(TARGETS[name], FOLDER)} inputs were added to the corpus")
        return 0
    bounded = args.executions is not None or args.seconds is not None
    options = Options(
        targets=guided,
        executions=args.executions,
        seconds=args.seconds if bounded else _SECONDS,
        seed=args.seed,
        jobs=args.jobs,
        folder=FOLDER,
    )
    outcomes = list(_fuzz_all(options))
    if http.NAME in chosen:
        count = _HTTP_REQUESTS if args.executions is None else max(1, args.executions // _HTTP_SHARE)
        outcomes.append(http.fuzz(requests=count, seed=args.seed, folder=FOLDER / "findings"))
    return tell(outcomes)


def _fuzz_all(options: Options) -> Iterable[Outcome]:
    with ThreadPoolExecutor(options.jobs) as pool:
        running = [pool.submit(fuzz, TARGETS[name], options) for name in options.targets]
        for one in running:
            outcome = one.result()
            _say(f"{outcome.target}: {outcome.executions:,} executions in {outcome.seconds:.0f} s")
            yield outcome


def tell(outcomes: list[Outcome]) -> int:
    """Print what came of it, and return the exit code."""
    table = Table("target", "executions", "seconds", "per second", "branches", "finding")
    for outcome in outcomes:
        rate = outcome.executions / outcome.seconds if outcome.seconds else 0
        numbers = (f"{outcome.executions:,}", f"{outcome.seconds:.0f}", f"{rate:,.0f}", str(outcome.edges or ""))
        table.add_row(outcome.target, *numbers, outcome.reason or "none")
    Console().print(table)
    broken = [outcome for outcome in outcomes if outcome.reason]
    for outcome in broken:
        if outcome.finding is not None:
            print(f"reproduce: ./dev fuzz --target {outcome.target} --replay {outcome.finding}")
    total = sum(outcome.executions for outcome in outcomes)
    print(f"{time.strftime('%Y-%m-%d', time.gmtime())}: executions {total} findings {len(broken)}")
    return FAILED if broken else 0


def _replay(names: list[str], paths: list[Path]) -> int:
    code = 0
    for name in names:
        for path in paths:
            run = http.replay if name == http.NAME else TARGETS[name].run
            try:
                run(path.read_bytes())
            except Exception:  # noqa: BLE001 - whatever it is, it is the finding
                traceback.print_exc()
                code = FAILED
            else:
                _say(f"{name} {path.name}: no promise is broken")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./dev fuzz", description=f"Without a bound: for about {_SECONDS:.0f} s. What is found is kept in .fuzz/."
    )
    parser.add_argument("--target", action="append", choices=[*TARGETS, http.NAME], help="only this one; repeatable")
    parser.add_argument("--executions", type=_natural, metavar="N", help="in all")
    parser.add_argument("--seconds", type=_natural, metavar="S", help="in all")
    parser.add_argument("--seed", type=_natural, default=1, metavar="N", help="of what is random (default: 1)")
    parser.add_argument("--jobs", type=_natural, default=1, metavar="N", help="targets side by side (default: 1)")
    parser.add_argument("--replay", nargs="+", type=Path, metavar="FILE", help="run inputs through --target, once")
    parser.add_argument("--keep", action="store_true", help="add what earlier runs found of use to the corpus")
    parser.add_argument("--api", action="store_true", help="requests made from docs/openapi.json, by schemathesis")
    parser.add_argument("--examples", type=_natural, default=100, metavar="N", help="of --api, per operation")
    return parser


def _natural(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def _say(sentence: str) -> None:
    print(f"fuzz: {sentence}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    # What is refused a million times is not logged once.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    sys.exit(main(sys.argv[1:]))
