"""`tiw vendor set-callback|rotate-key`: what the vendor has is changed. Each says what it will do, then does it."""

import argparse
import asyncio
import time
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import structs

from ingest import new_key
from tiw.key_rotation import Rotation, Rotations, Step, begin, key_to_retire, new_key_of, next_step
from tiw.keys import add_key, changeable_keys_file, present_keys, retire_key
from tiw.output import print_lines, show_unix_s
from tiw.settings import FailedError, Settings, UsageError
from tiw.vendor import asking, leads_to_us, number_of, only_app, shown_address
from vendor_api import VendorClient

#: Ingest nodes look at their file of keys every second.
KEYS_READ_WITHIN_S = 3.0


async def set_callback(settings: Settings, args: argparse.Namespace) -> int:
    """Let the vendor send the recording callbacks of an application to another address."""
    _require_address(args.url)
    app = only_app(args.app, present_keys(settings))
    async with asking(settings) as client:
        before = (await client.describe_callback(app)).url
        if before == args.url:
            print_lines([f"{app}: the vendor sends callbacks to {shown_address(before)} already; nothing to do"])
            return 0
        was = f"instead of {shown_address(before)}" if before else "where none is set"
        print_lines([f"{app}: the vendor is told to send callbacks to {shown_address(args.url)}, {was}"])
        if not leads_to_us(args.url, settings):
            print_lines(
                ["  its path is not the one at which ingest takes callbacks: right only if a proxy writes it anew"]
            )
        if args.url.startswith("http:"):
            print_lines(["  without HTTPS, everybody on the way can read a callback and the Sign in it"])
        if args.dry_run:
            return 0
        await client.set_callback(app, args.url)
        after = (await client.describe_callback(app)).url
    if after != args.url:
        raise FailedError("the vendor took the address and has another one now: look into its console")
    print_lines(["done; `tiw doctor --await-callback` waits for the first"])
    return 0


def _require_address(url: str) -> None:
    try:
        split = urlsplit(url)
        is_address = split.scheme in ("http", "https") and bool(split.hostname) and (split.port or 1) > 0
    except ValueError:
        is_address = False
    if not is_address or not url.isascii() or not url.isprintable() or " " in url:
        raise UsageError(
            "the address must be https://YOUR.HOST/callbacks/tiw, with the token behind it if there is one"
        )


async def rotate_key(settings: Settings, args: argparse.Namespace) -> int:
    """Take the next steps from the vendor's callback key of now to a new one; run again later, it takes the last."""
    file = changeable_keys_file(settings)
    keys = present_keys(settings)
    app = only_app(args.app, keys)
    rotations = Rotations(settings.data_dir)
    rotation, accepted = rotations.find(app), keys.get(app, ())
    async with asking(settings) as client:
        theirs = (await client.describe_callback(app)).key
        step = next_step(rotation, accepted, theirs, wait_s=args.wait, now_s=time.time())
        if rotation is None or step is Step.BEGIN:
            print_lines(_plan(app, theirs, accepted, file, wait_s=args.wait))
            if args.dry_run:
                return 0
            rotation, accepted = await _accept_new(settings, rotations, app, theirs, accepted)
            rotation = await _set(client, rotations, app, rotation, accepted)
            step = Step.WAIT
        elif step is Step.FOREIGN:
            raise FailedError(
                f"{app}: the vendor was given another key meanwhile: see that it is ours (`tiw doctor`), "
                f"then delete {rotations.path}, and nothing is retired"
            )
        elif step is Step.SET:
            print_lines([f"{app}: goes on: the new key is accepted; the vendor is told to sign with it"])
            if args.dry_run:
                return 0
            rotation = await _set(client, rotations, app, rotation, accepted)
            step = Step.WAIT
    old = key_to_retire(rotation, accepted)
    if step is Step.WAIT:
        return _wait(rotations, app, rotation, old, args)
    what = "there is no old one to retire" if old is None else f"key {old}, the old one, is accepted no more"
    print_lines([f"{app}: the vendor signs with the new key since {_moment(rotation.set_at)}; {what}"])
    if args.dry_run:
        return 0
    if old is not None:
        retire_key(settings, app, old)
    rotations.keep(app, None)
    print_lines(["done"])
    return 0


def _plan(app: int, theirs: str, accepted: tuple[str, ...], file: Path, *, wait_s: int) -> list[str]:
    old = number_of(theirs, accepted)
    if not theirs:
        now, end = "has no key now, and sends unsigned callbacks", "the rotation is over"
    elif old is None:
        now, end = "signs with a key that is none of ours now", "the rotation is over"
    else:
        now, end = f"signs with key {old} of our {len(accepted)} now", f"key {old} is accepted no more"
    return [
        f"{app}: the vendor {now}",
        f"  1. a new key is accepted, too, in {file}: every ingest node must read that file",
        "  2. the vendor is told to sign with it",
        f"  3. when this is run again, {wait_s} s later or more, {end}",
        "  a key of document transcoding or whiteboard push is not touched; if it is the same, change it before step 3",
    ]


async def _accept_new(
    settings: Settings, rotations: Rotations, app: int, theirs: str, accepted: tuple[str, ...]
) -> tuple[Rotation, tuple[str, ...]]:
    key = new_key()
    rotation = begin(key, theirs, accepted)
    # Before the key itself: wherever this is broken off, the next run knows which key is the new one.
    rotations.keep(app, rotation)
    number = add_key(settings, app, key)
    print_lines([f"1 done: key {number} is accepted, too"])
    await asyncio.sleep(KEYS_READ_WITHIN_S)
    return rotation, (*accepted, key)


async def _set(
    client: VendorClient, rotations: Rotations, app: int, rotation: Rotation, accepted: tuple[str, ...]
) -> Rotation:
    key = new_key_of(rotation, accepted)
    await client.set_callback_key(app, key)
    if (await client.describe_callback(app)).key != key:
        raise FailedError("the vendor took the key and has another one now: look into its console")
    rotation = structs.replace(rotation, set_at=time.time())
    rotations.keep(app, rotation)
    print_lines(["2 done: the vendor signs with it"])
    return rotation


def _wait(rotations: Rotations, app: int, rotation: Rotation, old: int | None, args: argparse.Namespace) -> int:
    set_at = rotation.set_at
    if set_at is None:
        # It was set, and this was broken off before that was noted.
        set_at = time.time()
        if not args.dry_run:
            rotations.keep(app, structs.replace(rotation, set_at=set_at))
    which = "nothing is to be retired" if old is None else f"key {old}, the old one, is still accepted"
    print_lines(
        [
            f"{app}: the vendor signs with the new key since {_moment(set_at)}; {which}",
            f"  run this again after {_moment(set_at + args.wait)} to end the rotation",
        ]
    )
    return 0


def _moment(moment_s: float | None) -> str:
    return f"{show_unix_s(int(moment_s or 0))} UTC"
