"""`tiw keys show|add|retire`: the callback keys, for the owner of their file."""

import argparse
import os
import sys
from pathlib import Path

from ingest import MAX_CHARACTERS, CallbackKeys, KeysError, new_key, write_keys
from tiw.keys import keys_file, present_keys
from tiw.output import print_json, print_table
from tiw.settings import FailedError, Settings, UsageError

_MASK = "***"


def show(settings: Settings, args: argparse.Namespace) -> int:
    """Print each key with its number; to a terminal or with `--reveal`, and to the owner of the file, as it is."""
    keys = _of(args.app, present_keys(settings))
    source = "TIW_CALLBACK_KEYS" if settings.callback_keys is not None else str(keys_file(settings))
    is_revealed = args.reveal or sys.stdout.isatty()
    if is_revealed and settings.callback_keys is None and keys:
        _require_owner(keys_file(settings))
    rows = [
        {"sdk_app_id": app, "number": number, "key": key if is_revealed else _MASK, "characters": len(key)}
        for app, accepted in sorted(keys.items())
        for number, key in enumerate(accepted, start=1)
    ]
    if args.json:
        print_json({"source": source, "keys": rows})
        return 0
    print_table(
        ["application", "number", "key", "characters"],
        [(str(row["sdk_app_id"]), row["number"], row["key"], row["characters"]) for row in rows],
        empty="No keys yet: one is generated at the first start of `tiw up` or `tiw ingest`.",
    )
    if rows and not is_revealed:
        print("tiw: --reveal shows the keys", file=sys.stderr)
    return 0


def add(settings: Settings, args: argparse.Namespace) -> int:
    """Accept another key of an application, too: a new one, which is printed, or one from standard input."""
    file = _changeable(settings)
    keys = dict(present_keys(settings))
    # From standard input: a command line is seen by everybody on this machine.
    key = sys.stdin.readline().strip() if args.stdin else new_key()
    if not 1 <= len(key) <= MAX_CHARACTERS:
        raise UsageError(f"a key has 1 to {MAX_CHARACTERS} characters, and this one {len(key)}")
    if key in keys.get(args.app, ()):
        raise FailedError(f"{args.app} has this key already")
    keys[args.app] = (*keys.get(args.app, ()), key)
    _write(file, keys)
    if args.stdin:
        print(f"key {len(keys[args.app])} of {args.app} is accepted from now on")
    else:
        print(f"callback key for {args.app}: {key}")
    print(
        "tiw: put it into the vendor's console, then retire the old one: docs/vendor-console.md; a running ingest node "
        "reads the file again by itself",
        file=sys.stderr,
    )
    return 0


def retire(settings: Settings, args: argparse.Namespace) -> int:
    """Accept a key no more; the last one of an application only with `--force`."""
    file = _changeable(settings)
    keys = dict(present_keys(settings))
    accepted = keys.get(args.app, ())
    if not 1 <= args.number <= len(accepted):
        raise FailedError(f"{args.app} has {len(accepted)} keys, and none of number {args.number}: see `tiw keys show`")
    left = (*accepted[: args.number - 1], *accepted[args.number :])
    if not left and not args.force:
        raise FailedError(
            f"it is the last key of {args.app}, whose callbacks would be refused: add another first, or use --force"
        )
    if left:
        keys[args.app] = left
    else:
        del keys[args.app]
    if not keys:
        raise FailedError("it is the last key of all: a file without any is refused, so add another first")
    _write(file, keys)
    print(f"key {args.number} of {args.app} is accepted no more; {len(left)} left")
    return 0


def _of(app: int | None, keys: CallbackKeys) -> CallbackKeys:
    if app is None:
        return keys
    if app not in keys:
        raise FailedError(
            f"there is no key of {app}; there are keys of {', '.join(map(str, sorted(keys))) or 'nobody'}"
        )
    return {app: keys[app]}


def _changeable(settings: Settings) -> Path:
    if settings.callback_keys is not None:
        raise UsageError("the keys come from TIW_CALLBACK_KEYS: change the variable, or use TIW_CALLBACK_KEYS_FILE")
    return keys_file(settings)


def _write(file: Path, keys: CallbackKeys) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise KeysError(f"{file.parent} cannot be made: {error.strerror}") from error
    write_keys(file, keys)


def _require_owner(file: Path) -> None:
    owner = file.stat().st_uid
    if os.geteuid() not in (owner, 0):
        raise FailedError(f"{file} belongs to another user: run this as its owner to see the keys")
