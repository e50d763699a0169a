"""What `tiw doctor` checks: each a function that returns what it found and, if it is not well, what to do."""

import os
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from msgspec import Struct
from sqlalchemy import text

from broker import BrokerError, Transport
from ingest import (
    GENERATED_SDK_APP_ID,
    SAFE_CHARACTERS,
    KeysError,
    RejectedFileError,
    parse_keys,
    read_rejected,
    spool_files,
    weak_keys,
)
from schemas import EARLIEST_ARRIVAL_S
from store import (
    ChannelState,
    NoticeResult,
    Store,
    StoreError,
    check_schema,
    check_writable,
    count_archive,
    count_dead_letters,
    count_due,
    find_channel_states,
    find_faults,
    find_reconciled_apps,
    find_unaccounted,
    iso8601,
    list_overdue,
    recording_questions,
)
from tiw.discovery import DiscoveryError, discover_consumers
from tiw.explaining import is_authentic
from tiw.keys import keys_file, present_keys
from tiw.opening import notify_channels, notify_wording, open_target, rejected_folder, spool_folder
from tiw.process import has_uvloop
from tiw.settings import FailedError, Settings, UsageError, unknown_variables
from workers import UnknownConsumerError, consumer_states, find_routing_keys


async def require_consumer(store: Store, name: str) -> tuple[str, ...]:
    """Return the routing keys of a consumer; none of one of which only dead letters are left.

    Raises `FailedError` with the names that there are.
    """
    try:
        return await find_routing_keys(store, name)
    except UnknownConsumerError as error:
        raise FailedError(str(error)) from error


#: Signatures are accepted until 5 minutes after their expiry: a clock that is off by more refuses everything.
MAX_SKEW_S = 60.0

#: The embedded transport and SQLite need room to work.
MIN_FREE_BYTES = 1024**3

#: The spool, SQLite and the embedded transport make a few files at a time.
MIN_FREE_INODES = 1000

#: A spool drains as soon as the broker is back: older callbacks mean that it is not, or takes nothing.
MAX_SPOOLED_S = 300.0

#: The oldest RabbitMQ that knows every argument that is declared.
OLDEST_RABBITMQ = (3, 10)


class Check(Struct, frozen=True, kw_only=True):
    """One finding. `remedy` says what to do; it may also advise where all is well."""

    check: str
    ok: bool
    detail: str
    remedy: str = ""


def check_environment(settings: Settings) -> Check:
    """Find variables that nothing reads, and an address that is open wider than it should be."""
    unknown = unknown_variables(os.environ)
    if unknown:
        return Check(
            check="environment",
            ok=False,
            detail=f"nothing reads {', '.join(unknown)}",
            remedy="correct the spelling, or unset them; README.md lists all variables",
        )
    if not settings.http.is_loopback and settings.path_token is None:
        return Check(
            check="environment",
            ok=True,
            detail=f"{settings.http} is reached from other machines",
            remedy="set TIW_PATH_TOKEN: the signature does not cover the body, a secret address helps; and use HTTPS",
        )
    return Check(check="environment", ok=True, detail="every TIW_ variable is known")


def check_keys(settings: Settings) -> Check:
    """Read the callback keys as an ingest node would."""
    path = keys_file(settings)
    try:
        if settings.callback_keys is not None:
            keys, source = parse_keys(settings.callback_keys), "TIW_CALLBACK_KEYS"
        else:
            keys, source = parse_keys(path.read_bytes()), str(path)
    except FileNotFoundError:
        return _no_keys(settings, path)
    except (KeysError, OSError) as error:
        return Check(check="keys", ok=False, detail=str(error), remedy="correct the callback keys")
    both = sorted(settings.allow_unsigned & set(keys))
    if both:
        detail = f"TIW_ALLOW_UNSIGNED names {both[0]}, which also has keys (from {source})"
        remedy = "take it out of one of them: an app is signed or unsigned, not both"
        return Check(check="keys", ok=False, detail=detail, remedy=remedy)
    detail = ", ".join(f"{app}: {len(accepted)}" for app, accepted in sorted(keys.items())) + f" (from {source})"
    weak = weak_keys(keys)
    if weak:
        remedy = f"choose keys of {SAFE_CHARACTERS} to 64 random characters: weak ones are found by trying"
        found = "; ".join(f"key {one.number} of {one.sdk_app_id} is {one.reason}" for one in weak)
        return Check(check="keys", ok=False, detail=f"{detail}; {found}", remedy=remedy)
    return Check(check="keys", ok=True, detail=detail)


def _no_keys(settings: Settings, path: Path) -> Check:
    if settings.callback_keys_file is not None:
        return Check(check="keys", ok=False, detail=f"{path} is not there", remedy="create it, or correct the variable")
    if GENERATED_SDK_APP_ID in settings.allow_unsigned:
        apps = ", ".join(map(str, sorted(settings.allow_unsigned)))
        return Check(check="keys", ok=True, detail=f"none: only unsigned callbacks of {apps} are accepted")
    return Check(check="keys", ok=True, detail=f"none yet: one is generated into {path} at the first start")


async def check_clock(store: Store) -> Check:
    """Compare the clock with the database's, where that is another one."""
    remedy = "let NTP (chrony, systemd-timesyncd) set both clocks"
    if time.time() < EARLIEST_ARRIVAL_S:
        return Check(check="clock", ok=False, detail=f"{_now()} UTC, which is over", remedy=remedy)
    if store.safe_url.startswith("sqlite"):
        return Check(check="clock", ok=True, detail=f"{_now()} UTC; nothing to compare it with")
    before_s = time.time()
    try:
        async with store.reading() as connection:
            theirs_s = float(
                (await connection.execute(text("select extract(epoch from clock_timestamp())"))).scalar_one()
            )
    except StoreError:
        return Check(check="clock", ok=True, detail=f"{_now()} UTC; the database does not answer to compare it")
    skew_s = theirs_s - (before_s + time.time()) / 2
    detail = f"{_now()} UTC; the database's is {abs(skew_s):.1f} s {'ahead' if skew_s > 0 else 'behind'}"
    if abs(skew_s) > MAX_SKEW_S:
        return Check(check="clock", ok=False, detail=detail, remedy=remedy)
    return Check(check="clock", ok=True, detail=detail)


async def check_broker(transport: Transport) -> AsyncIterator[Check]:
    """Ask the broker what it is and how it is."""
    try:
        info = await transport.info()
    except BrokerError as error:
        yield Check(check="broker", ok=False, detail=str(error), remedy="start the broker, or correct TIW_AMQP_URL")
        return
    version = tuple(int(part) for part in info.version.split(".")[:2] if part.isdigit())
    if info.product == "RabbitMQ" and version < OLDEST_RABBITMQ:
        remedy = "use RabbitMQ 3.10 or newer"
        yield Check(check="broker", ok=False, detail=f"{info.product} {info.version} is too old", remedy=remedy)
    else:
        yield Check(check="broker", ok=True, detail=f"{info.product} {info.version}")
    if info.alarms:
        remedy = "free memory or disk on the broker: it takes no callbacks until then"
        yield Check(check="broker alarms", ok=False, detail=", ".join(info.alarms), remedy=remedy)
    if info.refusals:
        yield Check(
            check="broker permissions",
            ok=False,
            detail="; ".join(info.refusals),
            remedy="allow our user to configure, write and read ^tiw\\..*, and to write amq.default: "
            "see `rabbitmqctl set_permissions`",
        )
    for policy in info.harmful_policies or ():
        yield Check(
            check="policy",
            ok=False,
            detail=f"the broker's policy {policy}: events that it has taken may be lost",
            remedy="let it match no queue whose name begins with tiw.: see `rabbitmqctl list_policies`",
        )
    if info.feature_flags_disabled:
        yield Check(
            check="feature flags",
            ok=False,
            detail=f"disabled: {', '.join(info.feature_flags_disabled)}",
            remedy="run `rabbitmqctl enable_feature_flag all`: the next version of RabbitMQ needs them",
        )
    if info.orphaned:
        yield Check(
            check="orphans",
            ok=False,
            detail=f"{info.orphaned} events wait in tiw.orphaned: their consumer's queue was deleted",
            remedy="start the consumer again and use `tiw events replay --consumer NAME`, then empty the queue",
        )


async def check_consumers(transport: Transport, store: Store) -> AsyncIterator[Check]:
    """Find queues that nobody consumes, workers that hang, and dead letters."""
    try:
        states = await consumer_states(transport, store)
        overdue = await list_overdue(store)
    except (BrokerError, StoreError) as error:
        yield Check(check="consumers", ok=False, detail=str(error), remedy="see the checks of broker and database")
        return
    abandoned = [state for state in states if state.abandoned]
    if abandoned == states:
        remedy = "start `tiw up`, or `tiw work` where there is a broker"
        yield Check(check="queues", ok=False, detail="no consumer runs", remedy=remedy)
    elif abandoned:
        yield Check(
            check="queues",
            ok=False,
            detail=f"nobody consumes {', '.join(f'{state.queue} ({state.ready} events)' for state in abandoned)}",
            remedy="start these consumers, or remove those that are gone: `tiw consumers remove NAME`",
        )
    else:
        yield Check(check="queues", ok=True, detail=f"{len(states)}, all consumed")
    for name in dict.fromkeys(one.consumer for one in overdue):
        theirs = [one for one in overdue if one.consumer == name]
        oldest = theirs[0]
        processes = ", ".join(dict.fromkeys(_process(one.lease_holder) for one in theirs))
        yield Check(
            check="stuck consumer",
            ok=False,
            detail=f"{name}: {len(theirs)} unsettled, {oldest.event_id} for {oldest.unsettled_s:.0f} s",
            remedy=f"restart {processes}: what it holds is delivered again; then mend the handler",
        )
    dead = {state.name: state.dead for state in states if state.dead}
    if dead:
        detail = ", ".join(f"{count} of {name}" for name, count in dead.items())
        remedy = "`tiw dead-letters list` says why; mend the cause, then `tiw dead-letters replay`"
        yield Check(check="dead letters", ok=False, detail=detail, remedy=remedy)


def _process(lease_holder: str) -> str:
    host, *_, pid, _ = lease_holder.split("/")
    return f"process {pid} on {host}"


async def check_database(store: Store) -> AsyncIterator[Check]:
    """Ask the database for its schema, and whether we can work with it."""
    try:
        for fault in await find_faults(store):
            yield Check(check="database", ok=False, detail=f"{store.safe_url}: {fault.found}", remedy=fault.remedy)
        await check_schema(store)
        await check_writable(store)
        waiting = sum((await count_dead_letters(store)).values())
    except StoreError as error:
        remedy = "start the database, make it writable, correct TIW_DATABASE_URL, or run `tiw migrate`"
        yield Check(check="database", ok=False, detail=str(error), remedy=remedy)
        return
    yield Check(check="database", ok=True, detail=f"{store.safe_url}, {waiting} dead letters")


async def check_notify(settings: Settings, store: Store) -> AsyncIterator[Check]:
    """See whether the channels over which people are told take what they are sent; nothing where nobody is told."""
    try:
        channels = notify_channels(settings)
    except UsageError as error:
        yield Check(check="notify", ok=False, detail=str(error), remedy="correct TIW_NOTIFY: nobody is told until then")
        return
    if not channels:
        return
    for problem in notify_wording(settings)[1]:
        yield Check(check="notify", ok=False, detail=problem, remedy="correct the template, then start `tiw` again")
    try:
        states = await find_channel_states(store)
    except StoreError as error:
        yield Check(check="notify", ok=False, detail=str(error), remedy="see the check of the database")
        return
    for channel in channels:
        state = states.get(channel.name, ChannelState())
        waiting = f", {state.waiting} notices wait" if state.waiting else ""
        if state.waiting_detail is not None:
            yield Check(
                check="notify",
                ok=False,
                detail=f"{channel.name} does not take what it is sent: {state.waiting_detail}{waiting}",
                remedy=f"mend that, then try it: `tiw notify test {channel.name}`",
            )
        elif state.last_result in (NoticeResult.REFUSED, NoticeResult.GAVE_UP):
            ended = "" if state.last_ended_at_us is None else f" at {iso8601(state.last_ended_at_us)[:19]}Z"
            yield Check(
                check="notify",
                ok=False,
                detail=f"{channel.name} did not take the last notice{ended}: {state.last_detail}{waiting}",
                remedy=f"mend that, then try it: `tiw notify test {channel.name}`",
            )
        else:
            told = "took the last notice" if state.last_result else f"never used: `tiw notify test {channel.name}`"
            yield Check(check="notify", ok=True, detail=f"{channel.name}: {told}{waiting}")


def check_disk(settings: Settings) -> Check:
    """See whether the data folder can be written and has room."""
    folder = settings.data_dir
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        return Check(
            check="disk", ok=False, detail=f"{folder} cannot be written", remedy="correct TIW_DATA_DIR or its owner"
        )
    free = shutil.disk_usage(folder).free
    detail = f"{free / 1024**3:.1f} GiB free in {Path(folder).absolute()}"
    if free < MIN_FREE_BYTES:
        return Check(check="disk", ok=False, detail=detail, remedy="free at least 1 GiB, or move TIW_DATA_DIR")
    # Some file systems have no fixed number of them, and say 0.
    inodes = os.statvfs(folder)
    if inodes.f_files and inodes.f_favail < MIN_FREE_INODES:
        return Check(
            check="disk",
            ok=False,
            detail=f"room for {inodes.f_favail} more files in {Path(folder).absolute()}",
            remedy="delete files there (`df -i` shows what is free), or move TIW_DATA_DIR",
        )
    return Check(check="disk", ok=True, detail=detail)


def check_spool(settings: Settings) -> Check:
    """Look for callbacks that the spool cannot get rid of, and for damage."""
    try:
        states = spool_files(spool_folder(settings))
    except OSError as error:
        remedy = "run this as the user of the ingest node"
        return Check(check="spool", ok=False, detail=f"{error.filename}: {error.strerror}", remedy=remedy)
    waiting = sum(state.waiting for state in states if state.kind == "spool")
    unowned = sum(state.waiting for state in states if state.kind == "spool" and not state.owned)
    aside = sum(state.waiting for state in states if state.kind == "set-aside")
    damaged = [state.file for state in states if not state.is_sound]
    if damaged:
        return Check(
            check="spool",
            ok=False,
            detail=f"damaged or not to be read: {', '.join(damaged)}",
            remedy="see `tiw spool verify`; what can be read is drained; check the disk, then move these files away",
        )
    if aside:
        return Check(
            check="spool",
            ok=False,
            detail=f"{aside} callbacks were refused by the broker again and again, and set aside",
            remedy="see `tiw spool list` for the reason; when it is mended, run `tiw spool drain --set-aside`",
        )
    if unowned:
        return Check(
            check="spool",
            ok=False,
            detail=f"{unowned} callbacks wait, and no node that runs has them",
            remedy="start an ingest node with this TIW_DATA_DIR, or run `tiw spool drain`",
        )
    detail = f"{waiting} callbacks wait for the broker" if waiting else "empty"
    oldest_s = max((time.time() - state.oldest_at.timestamp() for state in states if state.oldest_at), default=0.0)
    if oldest_s > MAX_SPOOLED_S:
        return Check(
            check="spool",
            ok=False,
            detail=f"{detail}, the oldest for {oldest_s / 60:.0f} minutes",
            remedy="see the checks of the broker, and `broker_not_reached` in the log of the ingest node",
        )
    return Check(check="spool", ok=True, detail=detail)


#: A question that could have been asked for so long: nobody asks.
MAX_OVERDUE_S = 1800.0

#: A list that is older than so many intervals: it fails, or nobody lists.
MAX_LISTINGS_MISSED = 10


#: Rooms of which nothing is known are told for so long: their files are gone after 3 days.
ROOMS_TOLD_DAYS = 7


async def check_reconcile(settings: Settings, store: Store) -> AsyncIterator[Check]:
    """See whether the vendor is asked about what callbacks do not tell, where it ever was."""
    check = "reconcile"
    try:
        known = await find_reconciled_apps(store)
        counts = await count_due(store, recording_questions)
        rooms = await find_unaccounted(store, since=datetime.now(UTC).date() - timedelta(days=ROOMS_TOLD_DAYS))
    except StoreError as error:
        yield Check(check=check, ok=False, detail=str(error), remedy="see the check of the database")
        return
    # Of one that is asked about no more, nothing is to be expected.
    apps = {app: one for app, one in known.items() if app in (settings.reconcile_apps or known)}
    if not apps and not counts.due:
        if settings.vendor_secret_id is None:
            remedy = "docs/recordings.md says what it finds and how to allow it"
            yield Check(
                check=check, ok=True, detail="the vendor is never asked: lost callbacks stay lost", remedy=remedy
            )
        return
    for app in apps.values():
        if app.pause_reason is not None:
            remedy = "correct that; it goes on by itself within an hour"
            yield Check(check=check, ok=False, detail=f"{app.sdk_app_id} is paused: {app.pause_reason}", remedy=remedy)
    if counts.overdue_s > MAX_OVERDUE_S:
        detail = f"{counts.due} questions wait, the first for {counts.overdue_s / 60:.0f} minutes"
        yield Check(check=check, ok=False, detail=detail, remedy="start `tiw reconcile`, or see its log")
    listed_ago_s = [app.listed_ago_s for app in apps.values() if app.listed_ago_s is not None]
    if listed_ago_s and max(listed_ago_s) > MAX_LISTINGS_MISSED * settings.reconcile_list_every_s:
        detail = f"recordings were last listed {max(listed_ago_s) / 60:.0f} minutes ago"
        yield Check(
            check=check, ok=False, detail=detail, remedy="start `tiw reconcile`, or see `listing_failed` in its log"
        )
    elif listed_ago_s:
        detail = f"{len(apps)} applications, last listed {max(listed_ago_s):.0f} s ago; {counts.due} questions wait"
        yield Check(check=check, ok=True, detail=detail)
    if rooms:
        detail = f"{len(rooms)} rooms were recorded of which nothing is known, the last on {rooms[0].day}"
        remedy = "`tiw reconcile audit` names them; `tiw register TASK_ID --app ID` finds one, while its files last"
        yield Check(check="rooms", ok=False, detail=detail, remedy=remedy)


#: A file that is deleted sooner than this and is not archived is a problem, whatever the reason.
MIN_HOURS_LEFT = 24


async def check_archive(settings: Settings, store: Store) -> AsyncIterator[Check]:
    """See whether files are archived in time, and whether they can be placed."""
    check = "archive"
    try:
        counts = await count_archive(store)
    except StoreError as error:
        yield Check(check=check, ok=False, detail=str(error), remedy="see the check of the database")
        return
    if settings.archive is None:
        if not (counts.archived or counts.waiting or counts.staged):
            remedy = "set TIW_ARCHIVE, see docs/recordings.md, or have the vendor upload to a bucket of yours"
            yield Check(
                check=check,
                ok=True,
                detail="no files are archived: the vendor deletes them after 3 days",
                remedy=remedy,
            )
            return
    else:
        async for found in _check_archive_places(settings, counts.archived):
            yield found
    if counts.lost or counts.refused:
        ended = {"lost": counts.lost, "refused": counts.refused}
        detail = ", ".join(f"{count} files are {state}" for state, count in ended.items() if count)
        listings = " and ".join(f"`tiw archive list --state {state}`" for state, count in ended.items() if count)
        remedy = f"{listings}: each says why; mend that, then run `tiw archive retry`"
        yield Check(check=check, ok=False, detail=detail, remedy=remedy)
    left_s = counts.next_deletion_in_s
    waiting = counts.waiting + counts.staged
    detail = f"{counts.archived} files archived, {waiting} wait"
    if left_s is None:
        yield Check(check=check, ok=True, detail=detail)
        return
    detail += f", the first is deleted in {max(0.0, left_s) / 3600:.0f} h; {counts.failing} fail"
    is_late = left_s < MIN_HOURS_LEFT * 3600
    remedy = "`tiw archive list` says what is in the way of each" if is_late or counts.failing else ""
    yield Check(check=check, ok=not is_late, detail=detail, remedy=remedy)


async def _check_archive_places(settings: Settings, archived: int) -> AsyncIterator[Check]:
    from archive import PlaceError, Staging, StagingError  # noqa: PLC0415 - few archive

    check = "archive target"
    try:
        async with open_target(settings) as place:
            await place.check(must_exist=archived > 0)
            yield Check(check=check, ok=True, detail=place.name)
    except (PlaceError, UsageError) as error:
        remedy = "mend that: files are fetched and wait in TIW_ARCHIVE_STAGING meanwhile"
        yield Check(check=check, ok=False, detail=str(error), remedy=remedy)
    try:
        left = Staging(settings.archive_staging, min_free_bytes=settings.archive_min_free_bytes).free_bytes
    except StagingError as error:
        yield Check(check="archive staging", ok=False, detail=str(error), remedy="see there")
        return
    detail = f"{max(0, left) / 1024**3:.1f} GiB to spare in {settings.archive_staging}"
    remedy = "" if left > 0 else "make room there: nothing is fetched; or lower TIW_ARCHIVE_MIN_FREE_BYTES"
    yield Check(check="archive staging", ok=left > 0, detail=detail, remedy=remedy)


def check_event_loop() -> Check:
    """See whether the faster loop is there."""
    if has_uvloop():
        return Check(check="event loop", ok=True, detail="uvloop")
    remedy = "install uvloop where your system has it: a process then takes more callbacks"
    return Check(check="event loop", ok=True, detail="asyncio's own", remedy=remedy)


async def check_modules() -> Check:
    """Load users' consumers."""
    try:
        found = await discover_consumers(os.environ)
    except DiscoveryError as error:
        return Check(check="TIW_CONSUMERS", ok=False, detail=str(error), remedy="correct the file or the variable")
    names = ", ".join(consumer.queues.consumer for consumer in found) or "none"
    return Check(check="TIW_CONSUMERS", ok=True, detail=names)


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())


def check_rejected(settings: Settings) -> Check:
    """Find refused callbacks that the keys of now would let in; others are told, and no problem."""
    try:
        kept = read_rejected(rejected_folder(settings), now_us=time.time_ns() // 1000)
        keys = present_keys(settings)
        authentic = sum(is_authentic(one, keys, settings.allow_unsigned) for one in kept)
    except RejectedFileError as error:
        return Check(check="refused callbacks", ok=False, detail=str(error), remedy="see there")
    except KeysError:
        # `check_keys` says what is wrong with them.
        authentic = 0
    if authentic:
        detail = f"{authentic} of the {len(kept)} that are kept would be let in with the keys of now"
        return Check(check="refused callbacks", ok=False, detail=detail, remedy="run `tiw rejected reverify`")
    reasons = Counter(one.rejected.reason for one in kept)
    detail = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common()) or "none in the last 24 hours"
    remedy = "if some are yours (`tiw rejected list`), mend the keys, then run `tiw rejected reverify`" if kept else ""
    return Check(check="refused callbacks", ok=True, detail=detail, remedy=remedy)
