"""`tiw rejected list|reverify`: callbacks that were refused, and that other keys might let in.

They hold a Sign, a token that may still be good: it is shown nowhere.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from broker import BrokerError, Message
from ingest import KeptRejected, RefusedError, read_rejected, readmit, remove_rejected
from tiw.keys import present_keys
from tiw.opening import open_transport, rejected_folder
from tiw.output import iso_of_us, parse_since_us, print_json, print_table, require_broker, show_bytes, show_iso
from tiw.settings import FailedError, Settings

T = TypeVar("T")


class _Glance(Struct):
    """What can be read of any callback, whether it is authentic or not."""

    EventType: Raw = Raw()
    EventData: Raw = Raw()
    Sign: Raw | UnsetType = UNSET


class _Task(Struct):
    TaskId: str | None = None


class Row(Struct, frozen=True, kw_only=True):
    """What is shown of one. `sign` tells only whether there is one."""

    id: int
    received_at: str
    reason: str
    sdk_app_id: int
    event_type: str | None
    task_id: str | None
    size: int
    tries: int
    sign: str | None


class Reverified(Struct, frozen=True, kw_only=True):
    """How many refused callbacks are authentic now, were let in, and remain; `refused`: why, by reason."""

    authentic: int
    let_in: int
    remaining: int
    refused: dict[str, int]


def list_all(settings: Settings, args: argparse.Namespace) -> int:
    """Print what is kept, newest first."""
    since_us = parse_since_us(args.since) or 0
    kept = read_rejected(rejected_folder(settings), now_us=_now_us())
    rows = [
        row_of(one)
        for one in kept
        if one.rejected.received_at_us >= since_us and args.app in (None, one.rejected.sdk_app_id)
    ]
    rows = rows[: args.limit or None]
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
        if args.app is not None or args.since
        else "No refused callback of the last 24 hours would be let in by other keys.",
        spare=["id", "size", "tries", "event"],
        wide=args.wide,
    )
    return 0


async def reverify(settings: Settings, args: argparse.Namespace) -> int:
    """Let those in that are authentic with the keys of now, as of their arrival; each is removed once it is confirmed.

    A crash in between publishes one again, which does no harm: it has the same event_id.
    """
    folder = rejected_folder(settings)
    refused: Counter[str] = Counter()
    authentic = list(_readmitted(settings, refused))
    if authentic and not args.dry_run:
        async with open_transport(settings, may_be_new=True) as transport:
            await require_broker(transport)
            for count, (kept, message) in enumerate(authentic):
                try:
                    await transport.publish(message)
                except BrokerError as error:
                    raise FailedError(f"stopped after {count} callbacks: {error}: run it again") from error
                remove_rejected(folder, [kept])
    _report(args, len(authentic), refused)
    return 0


def _readmitted(settings: Settings, refused: Counter[str]) -> Iterator[tuple[KeptRejected, Message]]:
    """Yield what is authentic now, the oldest first; count in `refused` why the others are not."""
    keys = present_keys(settings)
    for kept in reversed(read_rejected(rejected_folder(settings), now_us=_now_us())):
        try:
            yield kept, readmit(kept.rejected, keys=keys, allow_unsigned=settings.allow_unsigned)
        except RefusedError as error:
            refused[error.refusal.label] += 1


def _report(args: argparse.Namespace, authentic: int, refused: Counter[str]) -> None:
    if args.json:
        print_json(
            Reverified(
                authentic=authentic,
                let_in=0 if args.dry_run else authentic,
                remaining=refused.total() + (authentic if args.dry_run else 0),
                refused=dict(sorted(refused.items())),
            )
        )
        return
    print(f"{authentic} callbacks {'would be' if args.dry_run else 'were'} let in")
    if refused:
        reasons = ", ".join(f"{reason} {count}" for reason, count in refused.most_common())
        print(f"{refused.total()} are still refused with the keys of now: {reasons}")
        print("tiw: `tiw rejected list` shows them; they are kept for 24 hours", file=sys.stderr)


def row_of(kept: KeptRejected) -> Row:
    """Return what may be shown of a refused callback."""
    rejected = kept.rejected
    glance = _read(rejected.body, _Glance) or _Glance()
    task = _read(glance.EventData, _Task)
    return Row(
        id=kept.id,
        received_at=iso_of_us(rejected.received_at_us),
        reason=rejected.reason,
        sdk_app_id=rejected.sdk_app_id,
        event_type=_read(glance.EventType, str),
        task_id=task.TaskId if task else None,
        size=len(rejected.body),
        tries=rejected.tries,
        sign=None if glance.Sign is UNSET else "***",
    )


def _read(content: bytes | Raw, kind: type[T]) -> T | None:
    """Return what `content` says, None if it is not what it should be: nobody has vouched for it."""
    try:
        return msgspec.json.decode(content, type=kind)
    except (ValueError, RecursionError):
        return None


def _now_us() -> int:
    return time.time_ns() // 1000
