"""`tiw rejected list|reverify`: callbacks that were refused, and that other keys might let in."""

import argparse
import sys

from schemas import Reverified
from tiw.opening import open_transport
from tiw.output import parse_since_us, print_json, print_table, show_bytes, show_iso
from tiw.rejected import list_rejected, reverify_rejected
from tiw.settings import Settings


def list_all(settings: Settings, args: argparse.Namespace) -> int:
    """Print what is kept, newest first."""
    since_us = parse_since_us(args.since) or 0
    rows = list_rejected(settings, since_us=since_us, app=args.app, reason=args.reason, limit=args.limit)
    if args.json:
        print_json(rows)
        return 0
    print_table(
        ["received UTC", "reason", "application", "recording", "event", "tries", "size", "id"],
        [
            (
                show_iso(row.received_at),
                row.reason,
                str(row.sdk_app_id),
                row.task_id,
                row.event_type,
                row.tries,
                show_bytes(row.size),
                row.id,
            )
            for row in rows
        ],
        empty="No refused callback of the last 24 hours matches."
        if args.app is not None or args.since or args.reason is not None
        else "No refused callback of the last 24 hours would be let in by other keys.",
        spare=["id", "size", "tries", "event"],
        wide=args.wide,
    )
    return 0


async def reverify(settings: Settings, args: argparse.Namespace) -> int:
    """Let those in that are authentic with the keys of now, as of their arrival."""
    done = await reverify_rejected(settings, lambda: open_transport(settings, may_be_new=True), dry_run=args.dry_run)
    if args.json:
        print_json(done)
    else:
        _report(done, dry_run=args.dry_run)
    return 0


def _report(done: Reverified, *, dry_run: bool) -> None:
    print(f"{done.authentic} callbacks {'would be' if dry_run else 'were'} let in")
    if done.refused:
        reasons = ", ".join(f"{reason} {count}" for reason, count in done.refused.items())
        print(f"{sum(done.refused.values())} are still refused with the keys of now: {reasons}")
        print("tiw: `tiw rejected list` shows them; they are kept for 24 hours", file=sys.stderr)
