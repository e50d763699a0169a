"""`tiw forget`: delete what is known of a recording."""

import argparse

from msgspec import structs

from store import Forgotten, check_schema, find_traces, forget_recording
from tiw.opening import open_store
from tiw.output import print_fields, print_json
from tiw.settings import FailedError, Settings, UsageError

#: Where something of a recording may be that is not in the database. What is in a queue or a spool makes it anew.
_NOT_REACHED = (
    "events in the broker's queues or in a spool: they make the recording anew; run this again once those are empty",
    "refused callbacks that are kept apart (tiw rejected list)",
    "what the vendor knows: a recording that still runs is found again where tiw reconcile lists it",
    "logs",
    "backups, and what consumers did outside the database",
)


class ForgottenRecording(Forgotten, frozen=True, kw_only=True):
    """How much of a recording was deleted, or would be, and where something of it may be left."""

    dry_run: bool
    not_reached: tuple[str, ...]


async def forget(settings: Settings, args: argparse.Namespace) -> int:
    """Delete a recording with its events, dead letters and completions; say what that does not reach."""
    async with open_store(settings) as store:
        await check_schema(store)
        found = [traces for traces in await find_traces(store, args.task) if args.app in (None, traces.sdk_app_id)]
        if not found:
            raise FailedError(f"nothing is known of a recording {args.task}")
        if len(found) > 1:
            apps = ", ".join(str(traces.sdk_app_id) for traces in found)
            raise UsageError(f"several applications have a recording {args.task}: choose with --app from {apps}")
        forgotten = await forget_recording(store, args.task, found[0], dry_run=args.dry_run)
    if args.json:
        print_json(ForgottenRecording(**structs.asdict(forgotten), dry_run=args.dry_run, not_reached=_NOT_REACHED))
    else:
        _print(forgotten, dry_run=args.dry_run)
    return 0


def _print(forgotten: Forgotten, *, dry_run: bool) -> None:
    letters = f"{forgotten.dead_letters}, of which {forgotten.unresolved_dead_letters} were never replayed"
    print_fields(
        {
            "recordings": forgotten.recordings,
            "events": forgotten.events,
            "dead letters": letters if forgotten.dead_letters else 0,
            "completions": forgotten.completions,
            "leases": forgotten.leases,
            "questions to the vendor": forgotten.questions,
            "archived files, which stay": forgotten.archived_files,
            "notices": forgotten.notices,
            "not reached": "\n".join(_NOT_REACHED),
        },
        title=f"{forgotten.task_id} of {forgotten.sdk_app_id}, {'would be deleted' if dry_run else 'deleted'}",
    )
