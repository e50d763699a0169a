"""`tiw simulate`: send callbacks as the vendor does."""

import argparse
import secrets
import sys

from simulator import SimulationConfig, SimulationReport, show_progress
from simulator import simulate as run_simulation
from tiw.keys import present_keys
from tiw.output import print_json
from tiw.settings import Settings, UsageError

#: So many event_ids are named on standard error, not more.
_MOST_NAMED = 20


async def simulate(settings: Settings, args: argparse.Namespace) -> int:
    """Play classes to `--url`; print the counts as JSON. Exit code 1 if any callback was given up.

    Standard error has the seed, which sends the same again, then why tries failed and what was given up.
    """
    # A new one each time: callbacks that a receiver has already are repetitions to it.
    seed = secrets.randbelow(10**9) if args.seed is None else args.seed
    try:
        config = SimulationConfig(
            url=args.url,
            sdk_app_id=args.app,
            key=None if args.unsigned else args.key or _known_key(settings, args.app),
            classes=args.classes,
            rate=args.rate,
            concurrency=args.concurrency,
            seed=seed,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    print(f"seed {seed}", file=sys.stderr)
    with show_progress() as on_progress:
        report = await run_simulation(config, on_progress=on_progress)
    _tell_failures(report)
    print_json(report.counts)
    return 1 if report.gave_up else 0


def _tell_failures(report: SimulationReport) -> None:
    for reason, count in sorted(report.failures.items(), key=lambda failure: -failure[1]):
        print(f"failed {count} times: {reason}", file=sys.stderr)
    for event_id in sorted(report.given_up_ids)[:_MOST_NAMED]:
        print(f"gave up {event_id}", file=sys.stderr)
    if report.gave_up > _MOST_NAMED:
        print(f"gave up {report.gave_up - _MOST_NAMED} more", file=sys.stderr)


def _known_key(settings: Settings, app: int) -> str:
    """Return the key that the pipeline on this machine would accept first."""
    keys = present_keys(settings)
    if app not in keys:
        raise UsageError(f"no callback key of {app} is known here: give --key, TIW_CALLBACK_KEYS, or --unsigned")
    return keys[app][0]
