"""`tiw doctor`."""

import argparse
from collections.abc import AsyncIterator

from broker import BrokerError
from store import Store
from tiw.awaiting import await_callback
from tiw.doctor import (
    Check,
    check_archive,
    check_broker,
    check_clock,
    check_consumers,
    check_database,
    check_disk,
    check_environment,
    check_event_loop,
    check_keys,
    check_modules,
    check_notify,
    check_reconcile,
    check_rejected,
    check_spool,
)
from tiw.opening import open_store, open_transport
from tiw.output import print_json, print_table, require_broker
from tiw.settings import FailedError, Settings, UsageError

#: How long `--await-callback` waits unless it is told.
DEFAULT_TIMEOUT_S = 600


async def doctor(settings: Settings, args: argparse.Namespace) -> int:
    """Print every finding with its remedy; exit code 1 if anything is not well; or wait for the first callback."""
    if args.await_callback:
        timeout_s = DEFAULT_TIMEOUT_S if args.timeout is None else args.timeout
        return await await_callback(settings, timeout_s=timeout_s, as_json=args.json)
    if args.timeout is not None:
        raise UsageError("--timeout is for --await-callback: give both, or neither")
    checks = [check_environment(settings), check_keys(settings), check_disk(settings), check_spool(settings)]
    checks += [check_rejected(settings), check_event_loop()]
    checks.append(await check_modules())
    if settings.vendor_secret_id is not None:
        from tiw.vendor import check_vendor  # noqa: PLC0415 - few ask the vendor

        checks += [check async for check in check_vendor(settings)]
    try:
        async with open_store(settings) as store:
            checks += [await check_clock(store), *[check async for check in check_database(store)]]
            checks += [check async for check in _check_transport(settings, store)]
            checks += [check async for check in check_notify(settings, store)]
            checks += [check async for check in check_reconcile(settings, store)]
            checks += [check async for check in check_archive(settings, store)]
    except FailedError as error:
        checks.append(Check(check="database", ok=False, detail=str(error), remedy="see there"))
    if args.json:
        print_json(checks)
    else:
        print_table(
            ["", "check", "found", "what to do"],
            [("ok" if check.ok else "problem", check.check, check.detail, check.remedy) for check in checks],
            empty="",
        )
    return 0 if all(check.ok for check in checks) else 1


async def _check_transport(settings: Settings, store: Store) -> AsyncIterator[Check]:
    try:
        async with open_transport(settings) as transport:
            await require_broker(transport)
            async for check in check_broker(transport):
                yield check
            async for check in check_consumers(transport, store):
                yield check
    except (BrokerError, FailedError) as error:
        remedy = "start the broker, or correct TIW_AMQP_URL" if settings.amqp_urls else "see the check of the disk"
        yield Check(check="broker", ok=False, detail=str(error), remedy=remedy)
