"""`tiw keys show|add|retire`: the callback keys, for the owner of their file."""

import argparse
import os
import sys
from pathlib import Path

from msgspec import Struct, structs

from ingest import CallbackKeys, new_key
from tiw.console_token import console_address, console_token_file, login_link, present_console_token
from tiw.keys import add_key, changeable_keys_file, keys_file, present_keys, retire_key
from tiw.output import print_fields, print_json, print_table
from tiw.settings import FailedError, Settings

_MASK = "***"


class ShownKey(Struct, frozen=True, kw_only=True):
    """One key of an application, counted from 1; `key` is masked unless it was asked for."""

    sdk_app_id: int
    number: int
    key: str
    characters: int


class ShownKeys(Struct, frozen=True, kw_only=True):
    """All keys, and the variable or file that has them."""

    source: str
    keys: list[ShownKey]


class ShownConsole(Struct, frozen=True, kw_only=True):
    """The tokens of the console, masked unless they were asked for, and the link that logs in with the first.

    `source` is the variable or file that has `token`, which is null if there is none yet.
    """

    address: str
    source: str
    token: str | None
    read_token: str | None
    link: str | None


class AddedKey(Struct, frozen=True, kw_only=True):
    """A key that is accepted from now on; `key` is null if it came from standard input."""

    sdk_app_id: int
    number: int
    key: str | None


class RetiredKey(Struct, frozen=True, kw_only=True):
    """The number of a key that is accepted no more, and how many are left of its application."""

    sdk_app_id: int
    number: int
    left: int


def show(settings: Settings, args: argparse.Namespace) -> int:
    """Print each key with its number; to a terminal or with `--reveal`, and to the owner of the file, as it is."""
    if args.console:
        return _show_console(settings, args)
    keys = _of(args.app, present_keys(settings))
    source = "TIW_CALLBACK_KEYS" if settings.callback_keys is not None else str(keys_file(settings))
    is_revealed = args.reveal or sys.stdout.isatty()
    if is_revealed and settings.callback_keys is None and keys:
        _require_owner(keys_file(settings))
    rows = [
        ShownKey(sdk_app_id=app, number=number, key=key if is_revealed else _MASK, characters=len(key))
        for app, accepted in sorted(keys.items())
        for number, key in enumerate(accepted, start=1)
    ]
    if args.json:
        print_json(ShownKeys(source=source, keys=rows))
        return 0
    print_table(
        ["application", "number", "key", "characters"],
        [(str(row.sdk_app_id), row.number, row.key, row.characters) for row in rows],
        empty="No keys yet: one is generated at the first start of `tiw up` or `tiw ingest`.",
    )
    if rows and not is_revealed:
        print("tiw: --reveal shows the keys", file=sys.stderr)
    return 0


def _show_console(settings: Settings, args: argparse.Namespace) -> int:
    if settings.console is None:
        raise FailedError("TIW_CONSOLE is off: there is no console to log in to")
    token = present_console_token(settings)
    file = console_token_file(settings)
    is_revealed = args.reveal or sys.stdout.isatty()
    if is_revealed and settings.console_token is None and token is not None:
        _require_owner(file)
    address = console_address(settings)

    def shown(secret: str | None) -> str | None:
        return secret if secret is None or is_revealed else _MASK

    found = ShownConsole(
        address=address,
        source="TIW_CONSOLE_TOKEN" if settings.console_token is not None else str(file),
        token=shown(token),
        read_token=shown(settings.console_read_token),
        link=None if token is None else login_link(address, shown(token) or ""),
    )
    if args.json:
        print_json(found)
        return 0
    if token is None:
        print("No token yet: one is generated at the first start of `tiw up` or `tiw console`.")
        return 0
    print_fields(structs.asdict(found))
    if not is_revealed:
        print("tiw: --reveal shows the tokens", file=sys.stderr)
    return 0


def add(settings: Settings, args: argparse.Namespace) -> int:
    """Accept another key of an application, too: a new one, which is printed, or one from standard input."""
    changeable_keys_file(settings)
    # From standard input: a command line is seen by everybody on this machine.
    key = sys.stdin.readline().strip() if args.stdin else new_key()
    number = add_key(settings, args.app, key)
    if args.json:
        print_json(AddedKey(sdk_app_id=args.app, number=number, key=None if args.stdin else key))
    elif args.stdin:
        print(f"key {number} of {args.app} is accepted from now on")
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
    left = retire_key(settings, args.app, args.number, even_the_last=args.force)
    if args.json:
        print_json(RetiredKey(sdk_app_id=args.app, number=args.number, left=left))
    else:
        print(f"key {args.number} of {args.app} is accepted no more; {left} left")
    return 0


def _of(app: int | None, keys: CallbackKeys) -> CallbackKeys:
    if app is None:
        return keys
    if app not in keys:
        raise FailedError(
            f"there is no key of {app}; there are keys of {', '.join(map(str, sorted(keys))) or 'nobody'}"
        )
    return {app: keys[app]}


def _require_owner(file: Path) -> None:
    owner = file.stat().st_uid
    if os.geteuid() not in (owner, 0):
        raise FailedError(f"{file} belongs to another user: run this as its owner to see the keys")
