"""`tiw simulate`: send callbacks as the vendor does."""

import argparse

from ingest import KeyRing, parse_keys
from ingest.generated_keys import FILE_NAME
from simulator import SimulationConfig
from simulator import simulate as run_simulation
from simulator.progress import show_progress
from tiw.errors import UsageError
from tiw.output import print_json
from tiw.settings import Settings


async def simulate(settings: Settings, args: argparse.Namespace) -> int:
    """Play classes to `--url`; print the counts as JSON. Exit code 1 if any callback was given up."""
    try:
        config = SimulationConfig(
            url=args.url,
            sdk_app_id=args.app,
            key=None if args.unsigned else args.key or _known_key(settings, args.app),
            classes=args.classes,
            rate=args.rate,
            concurrency=args.concurrency,
            seed=args.seed,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    with show_progress() as on_progress:
        report = await run_simulation(config, on_progress=on_progress)
    print_json(report.counts)
    return 1 if report.gave_up else 0


def _known_key(settings: Settings, app: int) -> str:
    """Return the key that the pipeline on this machine would accept first."""
    generated = settings.data_dir / FILE_NAME
    if settings.callback_keys is not None:
        keys = parse_keys(settings.callback_keys)
    elif settings.callback_keys_file is not None:
        keys = KeyRing.of_file(settings.callback_keys_file).current
    elif generated.exists():
        keys = KeyRing.of_file(generated).current
    else:
        keys = {}
    if app not in keys:
        raise UsageError(f"no callback key of {app} is known here: give --key, TIW_CALLBACK_KEYS, or --unsigned")
    return keys[app][0]
