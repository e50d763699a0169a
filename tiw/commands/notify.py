"""`tiw notify run|test|list`: tell people what they should know."""

import argparse
import secrets
import time
from contextlib import AsyncExitStack
from datetime import datetime

import structlog
from msgspec import Struct

from notify import (
    Channel,
    Content,
    RefusedForGood,
    Sender,
    TryLater,
    Wording,
    compose,
    look_for_broker,
    title_of,
)
from store import NoticeRow, check_schema, list_notices
from telemetry import Readiness, configure_logging
from tiw.opening import (
    make_notifier,
    notify_channels,
    notify_queues,
    notify_wording,
    open_store,
    open_transport,
    require_amqp,
    serve_admin,
)
from tiw.output import nothing, parse_since_us, print_json, print_lines, print_table, show_iso
from tiw.process import settle, stop_requests, stopped_or_failed
from tiw.settings import Settings, UsageError
from workers import CONFIRM_TIMEOUT_S, Worker

_log = structlog.get_logger()


async def run(settings: Settings, args: argparse.Namespace) -> int:
    """Tell people until SIGTERM; without a channel, do nothing until then."""
    del args
    require_amqp(settings, "notify run")
    configure_logging(settings.log_format)
    channels = notify_channels(settings)
    stopped = await stop_requests()
    if not channels:
        _log.info("notify_idle", advice="TIW_NOTIFY names no channel: set it, and start this again")
        async with AsyncExitStack() as stack:
            await _listen(stack, settings, None)
            await stopped.wait()
        return 0
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(settings, may_be_new=True))
        transport = await stack.enter_async_context(
            open_transport(settings, notify_queues(channels), confirm_timeout_s=CONFIRM_TIMEOUT_S, may_be_new=True)
        )
        looks = [look_for_broker(lambda: transport.is_ready)]
        notifier = await stack.enter_async_context(make_notifier(settings, channels, store, looks=looks))
        worker = Worker([notifier.consumer], transport=transport, store=store, retry_delays_s=settings.retry_delays_s)
        await _listen(stack, settings, worker)
        await stack.enter_async_context(worker)
        settle()
        await stopped_or_failed(stopped, worker.wait())
    return 0


async def _listen(stack: AsyncExitStack, settings: Settings, worker: Worker | None) -> None:
    """Serve health and metrics, if TIW_ADMIN says where."""

    def ready() -> Readiness:
        is_ready = worker is None or worker.is_ready
        return Readiness(not_ready=() if is_ready else ("the consumer is not at its queue",))

    await serve_admin(stack, settings, ready)


class ChannelTest(Struct, frozen=True, kw_only=True):
    """What a channel answered: `result` is sent, refused or later; `detail` what it said, and what to do."""

    channel: str
    kind: str
    result: str
    detail: str


async def test(settings: Settings, args: argparse.Namespace) -> int:
    """Send one message, and print what became of it; exit code 1 if it was not taken."""
    channel = _channel(settings, args.channel)
    wording, problems = notify_wording(settings)
    outcome = await _send(channel, wording)
    if args.json:
        print_json(outcome)
    else:
        print_lines([f"{channel.name}  {outcome.result}  {outcome.detail}".rstrip(), *problems])
    return 0 if outcome.result == "sent" else 1


async def _send(channel: Channel, wording: Wording) -> ChannelTest:
    now_s = time.time()
    content = Content(
        notice_id=secrets.token_hex(16),
        rule="test",
        data={"channel": channel.name, "sent_at": int(now_s)},
        created_at_s=now_s,
    )
    async with Sender() as sender:
        answer = await sender.send(channel, compose([content], channel.kind, wording, now_s=now_s))
    result, detail = "sent", ""
    if isinstance(answer, RefusedForGood):
        result, detail = "refused", f"{answer.code}: {answer.remedy}"
    elif isinstance(answer, TryLater):
        result, detail = "later", answer.reason
    else:
        detail = answer.note
    return ChannelTest(channel=channel.name, kind=channel.kind, result=result, detail=detail)


def _channel(settings: Settings, name: str) -> Channel:
    channels = {channel.name: channel for channel in notify_channels(settings)}
    if not channels:
        raise UsageError("TIW_NOTIFY names no channel: set it, such as wecom=https://...")
    if name not in channels:
        raise UsageError(f"TIW_NOTIFY names no channel {name!r}, only {', '.join(channels)}")
    return channels[name]


async def list_all(settings: Settings, args: argparse.Namespace) -> int:
    """Print notices, newest first."""
    since_us = parse_since_us(args.since)
    wording, _ = notify_wording(settings)
    async with open_store(settings) as store:
        await check_schema(store)
        notices = await list_notices(store, channel=args.channel, since_us=since_us, limit=args.limit)
    if args.json:
        print_json(notices)
        return 0
    print_table(
        ["made UTC", "channel", "result", "notice", "recording", "detail"],
        [_row(notice, wording) for notice in notices],
        empty=nothing("notices", args.channel, args.since),
        spare=["detail", "recording"],
        wide=args.wide,
    )
    return 0


def _row(notice: NoticeRow, wording: Wording) -> tuple[object, ...]:
    result = notice.result.value if notice.result is not None else f"due {show_iso(notice.due_at)}"
    return (
        show_iso(notice.created_at),
        notice.channel,
        result,
        # As it was said when it was made.
        title_of(notice.rule, notice.data, wording, now_s=datetime.fromisoformat(notice.created_at).timestamp()),
        notice.task_id,
        notice.detail,
    )
