"""`tiw reconcile [show|audit]` and `tiw register`: find what no callback told of."""

import argparse
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import structlog
from msgspec import Struct

from reconcile import parse_registration
from reconcile import register as keep_registration
from store import (
    ReconciledApp,
    UnaccountedRoom,
    check_schema,
    count_due,
    find_reconciled_apps,
    find_unaccounted,
    recording_questions,
)
from telemetry import Readiness, configure_logging
from tiw.keys import apps_of, present_keys
from tiw.opening import (
    open_store,
    open_transport,
    reconciling,
    registering,
    require_amqp,
    require_credentials,
    serve_admin,
)
from tiw.output import nothing, parse_since_us, print_fields, print_json, print_lines, print_table, show_duration_ms
from tiw.process import settle, stop_requests
from tiw.settings import FailedError, Settings, UsageError

#: Days are China's, as the vendor bills them.
_CHINA = timezone(timedelta(hours=8))

_log = structlog.get_logger()


async def reconcile(settings: Settings, args: argparse.Namespace) -> int:
    """Ask until SIGTERM, or one round; without credentials, do nothing until then."""
    configure_logging(settings.log_format)
    if args.once:
        return await _once(settings)
    require_amqp(settings, "reconcile")
    apps = apps_of(settings, present_keys(settings))
    stopped = await stop_requests()
    async with AsyncExitStack() as stack:
        if settings.vendor_secret_id is None and settings.register is None:
            # A service that ended would be started again and again.
            _log.warning("reconcile_idle", advice="set TIW_VENDOR_SECRET_ID and TIW_VENDOR_SECRET_KEY, and start again")
            await serve_admin(stack, settings, Readiness)
        else:
            require_credentials(settings)
            store = await stack.enter_async_context(open_store(settings, may_be_new=True))
            transport = await stack.enter_async_context(open_transport(settings, may_be_new=True))
            reconciler = await stack.enter_async_context(
                reconciling(settings, store=store, transport=transport, apps=lambda: apps)
            )
            await serve_admin(stack, settings, reconciler.ready)
            await stack.enter_async_context(reconciler)
            await stack.enter_async_context(registering(settings, store=store))
        settle()
        await stopped.wait()
    return 0


async def _once(settings: Settings) -> int:
    require_credentials(settings)
    apps = apps_of(settings, present_keys(settings))
    async with (
        open_store(settings) as store,
        open_transport(settings) as transport,
        reconciling(settings, store=store, transport=transport, apps=lambda: apps) as reconciler,
    ):
        await check_schema(store)
        report = await reconciler.run_once()
    print_lines([f"{report.asked} questions asked", *report.failed])
    return 1 if report.failed else 0


class ReconcileState(Struct, frozen=True, kw_only=True):
    """How the asking goes: `questions_due` could be asked now, the first of them since `questions_overdue_s`.

    `rooms_unaccounted` is how many rooms were recorded of which nothing is known.
    """

    apps: tuple[ReconciledApp, ...]
    questions_due: int
    questions_overdue_s: float
    rooms_unaccounted: int


async def show(settings: Settings, args: argparse.Namespace) -> int:
    """Print how the asking goes."""
    async with open_store(settings) as store:
        await check_schema(store)
        counts = await count_due(store, recording_questions)
        state = ReconcileState(
            apps=tuple((await find_reconciled_apps(store)).values()),
            questions_due=counts.due,
            questions_overdue_s=round(counts.overdue_s, 1),
            rooms_unaccounted=len(await find_unaccounted(store)),
        )
    if args.json:
        print_json(state)
        return 0
    print_fields(
        {
            "questions due": state.questions_due,
            "the first since": show_duration_ms(int(state.questions_overdue_s * 1000)) if state.questions_due else None,
            "rooms unaccounted for": state.rooms_unaccounted,
        },
        title="Reconciling",
    )
    print_table(
        ["application", "listed", "audited until", "paused because"],
        [
            (
                str(app.sdk_app_id),
                None if app.listed_ago_s is None else f"{show_duration_ms(int(app.listed_ago_s * 1000))} ago",
                app.audited_day,
                app.pause_reason,
            )
            for app in state.apps
        ],
        title="Applications",
        empty="None yet.",
    )
    return 0


async def audit(settings: Settings, args: argparse.Namespace) -> int:
    """Print the rooms that the vendor recorded, and of which nothing is known."""
    since_us = parse_since_us(args.since)
    since = None if since_us is None else datetime.fromtimestamp(since_us / 1e6, UTC).astimezone(_CHINA).date()
    async with open_store(settings) as store:
        await check_schema(store)
        rooms: list[UnaccountedRoom] = await find_unaccounted(store, since=since)
    if args.json:
        print_json(rooms)
        return 0
    print_table(
        ["day", "application", "room", "minutes recorded"],
        [(room.day, str(room.sdk_app_id), room.room_id, room.minutes) for room in rooms],
        empty=nothing("rooms that are unaccounted for", args.since),
    )
    return 0


async def register(settings: Settings, args: argparse.Namespace) -> int:
    """Have the vendor asked about a recording as soon as `tiw reconcile` or `tiw up` looks."""
    try:
        registration = parse_registration(
            msgspec.json.encode({"sdk_app_id": args.app, "task_id": args.task_id, "room_id": args.room})
        )
    except ValueError as error:
        raise UsageError(f"this cannot be registered: {error}") from error
    if settings.reconcile_apps is not None and registration.sdk_app_id not in settings.reconcile_apps:
        raise FailedError(f"{registration.sdk_app_id} is not one of TIW_RECONCILE_APPS: nobody would ask about it")
    async with open_store(settings) as store:
        await check_schema(store)
        # A person asks: not only once callbacks had their time.
        await keep_registration(store, registration, after_s=0.0)
    print_lines(
        [
            f"registered; look at it with `tiw recordings show {registration.task_id}` in a moment",
            *([] if settings.vendor_secret_id is not None else ["it is asked about where `tiw reconcile` runs"]),
        ]
    )
    return 0
