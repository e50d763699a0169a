"""`tiw simulate`: send callbacks as the vendor does."""

import argparse
import secrets
import sys
import time
from collections.abc import Callable

from msgspec import structs

from simulator import (
    ClassTime,
    Day,
    SimulationConfig,
    SimulationReport,
    Site,
    VendorApi,
    VendorFiles,
    classes_of,
    show_progress,
)
from simulator import simulate as run_simulation
from tiw.keys import present_keys
from tiw.output import print_json
from tiw.process import stop_requests
from tiw.settings import Address, Settings, UsageError, parse_address

#: So many event_ids are named on standard error, not more.
_MOST_NAMED = 20


#: What the fake of the vendor's API takes; no secrets, it knows simulated classes only.
_VENDOR_SECRETS = ("AKIDsimulator", "simulator")
_DAY_S = 86_400
#: A day a minute.
_SPEED = 1_440.0
#: What files of simulated classes are smaller by: a camera of an hour is then 100 KB.
_SHRINK = 1_000


async def simulate(settings: Settings, args: argparse.Namespace) -> int:
    """Play classes to `--url`; print the counts as JSON. Exit code 1 if any callback was given up.

    Standard error has the seed, which sends the same again, then why tries failed and what was given up.
    With `--vendor-api` it also answers as the vendor's API does for these classes, until it is stopped.
    """
    # A new one each time: callbacks that a receiver has already are repetitions to it.
    seed = secrets.randbelow(10**9) if args.seed is None else args.seed
    try:
        config = SimulationConfig(
            url=args.url,
            sdk_app_id=args.app,
            key=None if args.unsigned else args.key or _known_key(settings, args.app),
            classes=args.classes,
            rate=args.rate,
            concurrency=args.concurrency,
            seed=seed,
            duplicates=args.duplicates,
            disorder=args.disorder,
            drop=args.drop,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    try:
        vendor = None if args.vendor_api is None else parse_address(args.vendor_api)
    except ValueError as error:
        raise UsageError(f"--vendor-api {error}") from error
    print(f"seed {seed}", file=sys.stderr)
    if vendor is None and args.speed is None:
        return await _play(config)
    # The day ends now, so that no Timestamp lies ahead.
    day = Day(starts_at=int(time.time()) - _DAY_S)
    config = structs.replace(config, day=day)
    class_time = ClassTime(day.starts_at, speed=args.speed or _SPEED, until=day.starts_at + _DAY_S)
    if vendor is None:
        return await _play(config, class_time)
    return await _play_with_vendor(config, class_time, vendor, Site(args.vendor_site))


async def _play(
    config: SimulationConfig, class_time: ClassTime | None = None, key: Callable[[], str | None] | None = None
) -> int:
    with show_progress() as on_progress:
        report = await run_simulation(config, on_progress=on_progress, class_time=class_time, key=key)
    _tell_failures(report)
    print_json(report.counts)
    return 1 if report.gave_up else 0


async def _play_with_vendor(config: SimulationConfig, class_time: ClassTime, vendor: Address, site: Site) -> int:
    api = VendorApi(
        clock=class_time,
        site=site,
        sdk_app_ids=[config.sdk_app_id],
        host=vendor.host,
        port=vendor.port,
        secret_id=_VENDOR_SECRETS[0],
        secret_key=_VENDOR_SECRETS[1],
    )
    async with VendorFiles(clock=class_time, host=vendor.host, shrink=_SHRINK) as files, api:
        config = structs.replace(config, bucket=files.bucket)
        classes = tuple(classes_of(config))
        files.add(classes)
        api.vendor.add(classes)
        application = api.vendor.applications[config.sdk_app_id]
        application.callback, application.callback_key = config.url, config.key or ""
        print(
            f"The vendor's API of these classes answers on {api.url}. For whoever is to ask it:\n"
            f"TIW_VENDOR_ENDPOINT={api.url} TIW_VENDOR_SITE={site} "
            f"TIW_VENDOR_SECRET_ID={api.secret_id} TIW_VENDOR_SECRET_KEY={api.secret_key}\n"
            "Their files lie beside it. For whoever is to archive them:\n"
            f"TIW_ARCHIVE_HOSTS={files.url.removeprefix('http://')} TIW_ARCHIVE_NETWORKS=127.0.0.0/8",
            file=sys.stderr,
        )
        # With the key that the API was told last, as the vendor.
        code = await _play(config, class_time, lambda: application.callback_key or None)
        sys.stdout.flush()
        stopped = await stop_requests()
        print("The API goes on answering until you press Ctrl-C.", file=sys.stderr)
        await stopped.wait()
        print(f"It was asked {len(api.requests.all)} times.", file=sys.stderr)
    return code


def _tell_failures(report: SimulationReport) -> None:
    if report.dropped_ids:
        print(f"dropped {len(report.dropped_ids)} callbacks", file=sys.stderr)
    for reason, count in sorted(report.failures.items(), key=lambda failure: -failure[1]):
        print(f"failed {count} times: {reason}", file=sys.stderr)
    for event_id in sorted(report.given_up_ids)[:_MOST_NAMED]:
        print(f"gave up {event_id}", file=sys.stderr)
    if report.gave_up > _MOST_NAMED:
        print(f"gave up {report.gave_up - _MOST_NAMED} more", file=sys.stderr)


def _known_key(settings: Settings, app: int) -> str:
    """Return the key that the pipeline on this machine would accept first."""
    keys = present_keys(settings)
    if app not in keys:
        raise UsageError(f"no callback key of {app} is known here: give --key, TIW_CALLBACK_KEYS, or --unsigned")
    return keys[app][0]
