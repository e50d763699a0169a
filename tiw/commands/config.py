"""`tiw config`: the effective settings."""

import argparse
import os

from tiw.keys import keys_file
from tiw.output import print_fields, print_json
from tiw.settings import Settings, masked, unknown_variables


def config(settings: Settings, args: argparse.Namespace) -> int:
    """Print every setting with its value; secrets masked unless `--reveal`."""
    values = masked(settings, reveal=args.reveal)
    file = keys_file(settings)
    if settings.callback_keys is None and file.exists():
        values["callback_keys"] = file.read_text(encoding="utf-8").strip() if args.reveal else "***"
        values["callback_keys_file"] = str(file)
    values["unknown_variables"] = unknown_variables(os.environ)
    if args.json:
        print_json(values)
    else:
        print_fields({name: _shown(value) for name, value in values.items()})
    return 0


def _shown(value: object) -> object:
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value)
    return value
