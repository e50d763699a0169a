"""`./dev bench`: measure, print, plot.

Exit codes: 0 measured, whatever the numbers say; 1 something could not be measured; 2 usage.
"""

import argparse
import contextlib
import datetime as dt
import logging
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import msgspec

from bench.errors import BenchError, UnknownNameError
from bench.machine.arena import Arena
from bench.machine.description import describe_machine
from bench.machine.installing import ROOT, Installation
from bench.options import Options
from bench.output.document import filled
from bench.output.plotting import plot
from bench.output.table import print_report
from bench.results import Comparison, Contestant, Report
from bench.selection import ALL, GROUPS, Run, select
from bench.verdicts import judge_all
from telemetry import configure_logging

FAILED = 1
MISUSED = 2

_STANDARD_OUTPUT = "-"
PLOT = ROOT / "docs" / "performance.svg"
DOCUMENT = ROOT / "docs" / "performance.md"

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

#: A thousand connections on either side of one machine.
_OPEN_FILES = 65_536


def main(arguments: Sequence[str]) -> int:
    """Run what is asked for and return the exit code."""
    args = _parser().parse_args(arguments)
    if args.json in {*ALL, *GROUPS}:
        # `--json accepting`: that is no file.
        args.names.append(args.json)
        args.json = _STANDARD_OUTPUT
    for number in _ENDING:
        signal.signal(number, _end)
    configure_logging("console", level=logging.ERROR)
    _allow_open_files()
    options = Options(rounds=args.rounds, seconds=args.seconds, is_whole=args.all, against=args.against)
    installation = Installation(ROOT / ".bench", _say)
    try:
        if args.made is not None:
            report = msgspec.json.decode(args.made.read_bytes(), type=Report)
            # The targets as they are now: what was measured stays.
            report.verdicts = judge_all(report.comparisons)
        else:
            chosen = select(args.names, is_whole=args.all)
            with Arena(installation, against=args.against) as arena:
                report = _measure(chosen, arena, options)
        _hand_over(report, args, installation)
    except BenchError as error:
        _say(str(error))
        return MISUSED if isinstance(error, UnknownNameError) else FAILED
    except KeyboardInterrupt:
        _say("stopped")
        return 130
    return 0 if all(one.rounds for comparison in report.comparisons for one in comparison.contestants) else FAILED


def _measure(chosen: dict[str, Run], arena: Arena, options: Options) -> Report:
    arena.installation.prepare()
    report = Report(
        started_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        machine=describe_machine(arena, options),
        options=msgspec.to_builtins(options),
    )
    began_s = time.monotonic()
    for name, run in chosen.items():
        report.comparisons.append(_timed(name, run, arena, options))
    report.verdicts = judge_all(report.comparisons)
    arena.say(f"measured in {(time.monotonic() - began_s) / 60:.1f} minutes")
    return report


def _timed(name: str, run: Run, arena: Arena, options: Options) -> Comparison:
    began_s = time.monotonic()
    try:
        comparison = run(arena, options)
    except BenchError as error:
        # What else was measured is not lost.
        arena.say(f"{name}: not measured: {error}")
        reason = str(error).partition("\n")[0]
        comparison = Comparison(name=name, title=name, contestants=[Contestant(name="nobody", void=[reason])])
    arena.say(f"{name}: done in {time.monotonic() - began_s:.0f} s")
    return comparison


def _hand_over(report: Report, args: argparse.Namespace, installation: Installation) -> None:
    document = msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"
    is_to_output = args.json == _STANDARD_OUTPUT
    print_report(report, sys.stderr if is_to_output else sys.stdout)
    if is_to_output:
        sys.stdout.buffer.write(document)
    elif args.json is not None:
        Path(args.json).write_bytes(document)
    if args.docs:
        DOCUMENT.write_text(filled(DOCUMENT.read_text(encoding="utf-8"), report), encoding="utf-8")
        _say(f"written to {DOCUMENT.relative_to(ROOT)}")
    if args.plot or args.docs or (args.all and not args.names):
        with tempfile.NamedTemporaryFile(suffix=".json") as file:
            file.write(document)
            file.flush()
            plot(installation.plotting, Path(file.name), PLOT)
        _say(f"plotted to {PLOT.relative_to(ROOT)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./dev bench",
        description="Measure ours beside its peers. Without names: all with a target but the archive, in 15 minutes.",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"{', '.join(ALL)}; targets for all that has one, growth for connections, bodies and backlogs",
    )
    parser.add_argument("--all", action="store_true", help="also what has no target, within 90 minutes")
    parser.add_argument("--rounds", type=_count, default=Options().rounds, help="of each contender (default 4)")
    parser.add_argument("--seconds", type=_duration, default=Options().seconds, help="of each load (default 2)")
    parser.add_argument(
        "--json",
        nargs="?",
        const=_STANDARD_OUTPUT,
        metavar="FILE",
        help="one JSON document, to FILE or to standard output (the tables then go to standard error)",
    )
    parser.add_argument(
        "--against", default="", metavar="COMMIT", help="ours as it was there runs beside ours as it is here"
    )
    parser.add_argument(
        "--from", dest="made", type=Path, metavar="FILE", help="measure nothing: take what --json wrote before"
    )
    parser.add_argument("--plot", action="store_true", help="write docs/performance.svg (always with --all)")
    parser.add_argument("--docs", action="store_true", help="write the figures into docs/performance.md, and the plot")
    return parser


def _count(text: str) -> int:
    if (count := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return count


def _duration(text: str) -> float:
    if (duration_s := float(text)) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return duration_s


def _allow_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _end(number: int, frame: FrameType | None) -> None:
    """End in order: what was started is ended on the way out, and nobody who is impatient keeps it from that."""
    del number, frame
    for further in _ENDING:
        signal.signal(further, signal.SIG_IGN)
    raise KeyboardInterrupt


def _say(sentence: str) -> None:
    print(f"bench: {sentence}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
