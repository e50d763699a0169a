"""`tiw spool list|drain|verify`: what an ingest node keeps on its own disk."""

import argparse
import itertools
from collections.abc import Sequence

from msgspec import UNSET, Struct, UnsetType, structs

from broker import Message
from ingest import SpoolFileState, WaitingCallback, empty_spool, spool_files, waiting_callbacks
from schemas import Unrecognized, decode
from store import iso8601
from tiw.opening import open_transport, require_amqp, spool_folder
from tiw.output import print_json, print_table, require_broker, show_iso
from tiw.settings import FailedError, Settings


def list_all(settings: Settings, args: argparse.Namespace) -> int:
    """Print what waits, the oldest first, and then what was set aside."""
    folder = spool_folder(settings)
    unsound = [state.file for state in spool_files(folder) if not state.is_sound]
    waiting = sorted(
        waiting_callbacks(folder),
        key=lambda one: (one.is_set_aside, one.record.message.received_at_us),
    )
    rows = [_shown(one) for one in itertools.islice(waiting, args.limit or None)]
    if args.json:
        print_json(rows)
        return _tell_unsound(unsound)
    print_table(
        ["received UTC", "event", "recording", "refusals", "set aside", "reason", "event_id"],
        [
            (
                show_iso(row.received_at),
                row.event_type,
                row.task_id,
                row.refusals,
                "yes" if row.set_aside else "",
                row.reason,
                row.event_id,
            )
            for row in rows
        ],
        empty="What can be read of the spool is empty." if unsound else "The spool is empty.",
        spare=["event_id", "reason", "set aside", "refusals"],
        wide=args.wide,
    )
    return _tell_unsound(unsound)


def _tell_unsound(files: Sequence[str]) -> int:
    """Say what the listing may lack, and return the exit code."""
    if files:
        raise FailedError(f"damaged or not to be read: {', '.join(files)}; see `tiw spool verify`")
    return 0


async def drain(settings: Settings, args: argparse.Namespace) -> int:
    """Publish what is in files that no process owns. Exit code 1 if something is left in them."""
    folder = spool_folder(settings)
    if args.dry_run:
        states = spool_files(folder)
        count = sum(state.waiting for state in states if _is_drained(state, with_set_aside=args.set_aside))
        _report(args, DrainedSpool(drained=0, matching=count), f"{count} callbacks would be drained")
        return _tell_unsound([state.file for state in states if not state.is_sound])
    require_amqp(settings, "spool drain")
    async with open_transport(settings) as transport:
        await require_broker(transport)
        try:
            emptied = await empty_spool(folder, transport, with_set_aside=args.set_aside)
        except OSError as error:
            raise FailedError(f"{folder} cannot be read: {error.strerror}; see `tiw spool verify`") from error
    others = f"; {emptied.owned_files} files belong to nodes that run and drain them" if emptied.owned_files else ""
    drained = DrainedSpool(**structs.asdict(emptied))
    _report(args, drained, f"{emptied.drained} callbacks drained, {emptied.left} left{others}")
    return 1 if emptied.left else 0


def verify(settings: Settings, args: argparse.Namespace) -> int:
    """Print the state of every file; exit code 1 if one is damaged or cannot be read."""
    states = spool_files(spool_folder(settings))
    if args.json:
        print_json(states)
    else:
        print_table(
            ["file", "kind", "waiting", "problem", "owned", "settled", "bytes", "torn", "damaged"],
            [
                (
                    state.file,
                    state.kind,
                    state.waiting,
                    _problem(state),
                    "yes" if state.owned else "",
                    state.settled,
                    state.bytes,
                    state.torn_bytes,
                    state.damaged_bytes,
                )
                for state in states
            ],
            empty="The spool is empty.",
            spare=["torn", "damaged", "settled", "bytes", "owned"],
            wide=args.wide,
        )
    return 0 if all(state.is_sound for state in states) else 1


def _is_drained(state: SpoolFileState, *, with_set_aside: bool) -> bool:
    return not state.owned and (state.kind == "spool" or (with_set_aside and state.kind == "set-aside"))


def _problem(state: SpoolFileState) -> str:
    if state.error is not None:
        return f"cannot be read: {state.error}"
    if state.damaged_bytes:
        return "damaged; every callback that can be read is kept or drained"
    return "written by a newer version" if state.unknown_frames else ""


class SpooledRow(Struct, frozen=True, kw_only=True):
    """A callback that waits in the spool; times are ISO 8601 text. `refusals`: how often the broker refused it."""

    event_id: str
    event_type: str
    sdk_app_id: int
    task_id: str | None
    received_at: str
    spooled_at: str
    refusals: int
    reason: str | None
    set_aside: bool
    bytes: int
    file: str


def _shown(one: WaitingCallback) -> SpooledRow:
    message: Message = one.record.message
    event = decode(message.body, received_at_us=message.received_at_us).event
    return SpooledRow(
        event_id=message.event_id,
        event_type=message.routing_key,
        sdk_app_id=event.sdk_app_id,
        task_id=None if isinstance(event, Unrecognized) else event.task_id,
        received_at=iso8601(message.received_at_us),
        spooled_at=iso8601(one.record.spooled_at_us),
        refusals=one.refusals,
        reason=one.reason,
        set_aside=one.is_set_aside,
        bytes=len(message.body),
        file=one.file,
    )


class DrainedSpool(Struct, frozen=True, kw_only=True):
    """How many callbacks are with the broker now, how many are left, and in how many files others drain.

    After a dry run instead: how many would be drained.
    """

    drained: int
    left: int | UnsetType = UNSET
    owned_files: int | UnsetType = UNSET
    matching: int | UnsetType = UNSET


def _report(args: argparse.Namespace, value: DrainedSpool, sentence: str) -> None:
    if args.json:
        print_json(value)
    else:
        print(sentence)
