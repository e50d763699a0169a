"""`tiw config`: the effective settings."""

import argparse
import os
from pathlib import Path

from tiw.keys import keys_file
from tiw.output import print_fields, print_json
from tiw.settings import DEFAULT_ADMIN, Settings, masked, unknown_variables


def config(settings: Settings, args: argparse.Namespace) -> int:
    """Print every setting with its value; secrets masked unless `--reveal`."""
    values = masked(settings, reveal=args.reveal)
    file = keys_file(settings)
    if settings.callback_keys is None:
        values |= _of_file(file, reveal=args.reveal)
    # In effect: `work` has a listener only where one is named.
    values["admin"] = str(settings.admin or DEFAULT_ADMIN)
    values["admin_of_work"] = None if settings.admin is None else str(settings.admin)
    values["unknown_variables"] = unknown_variables(os.environ)
    if args.json:
        print_json(values)
    else:
        print_fields({name: _shown(value) for name, value in values.items()})
    return 0


def _of_file(file: Path, *, reveal: bool) -> dict[str, object]:
    try:
        content = file.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        return {"callback_keys": f"{file} cannot be read: {reason}", "callback_keys_file": str(file)}
    return {"callback_keys": content if reveal else "***", "callback_keys_file": str(file)}


def _shown(value: object) -> object:
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value)
    return value
