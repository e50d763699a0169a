"""The first callback: where and how to send one, and the wait for it, which explains every refusal as it comes.

Beside an ingest node that runs, `await_callback` reads that node's metrics, and the details from the file of refused
callbacks and from the store. Where none runs, it is an ingest node itself meanwhile, with the transport that is
configured: what it answers 200 is kept as ever.
"""

import asyncio
import shlex
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from typing import Protocol

import aiohttp
import structlog
from msgspec import Struct, structs
from prometheus_client.parser import text_string_to_metric_families

from broker import Message, OnPublished, Transport
from ingest import CallbackKeys, IngestServer, KeyRing
from schemas import UNRECOGNIZED, Unrecognized, decode
from store import EventFilter, StoreError, list_events
from telemetry import render_metrics
from tiw.explaining import Refusals, RefusedCallbacks, say, say_below, shown
from tiw.keys import keys_file, open_keys, present_keys
from tiw.opening import ingest_config, listening, open_spool, open_store, open_transport
from tiw.output import print_json
from tiw.process import folder_lock, stop_requests
from tiw.settings import DEFAULT_ADMIN, Address, FailedError, Settings, UnixAddress, UsageError

_log = structlog.get_logger()

_EXAMPLE = (
    '{"EventType":"OnlineRecordStarted","Timestamp":\'$NOW\',"SdkAppId":%d,'
    '"EventData":{"TaskId":"hello","RoomId":1,"RecordUserId":"tic_record_user_1_01"}%s}'
)


class FirstCallback(Struct, frozen=True, kw_only=True):
    """Where callbacks come in on this machine, and lines for a shell that send one there. Both hold the path token."""

    place: str
    curl: str


def first_callback(settings: Settings, keys: CallbackKeys, *, port: int | None = None) -> FirstCallback:
    """Say where callbacks come in, with `port` where the settings leave it open, and how to send a first one."""
    path = ingest_config(settings).path
    if isinstance(settings.http, UnixAddress):
        # Who sends through the socket may name any host.
        address, through = f"http://localhost{path}", f"--unix-socket {shlex.quote(settings.http.path)} "
        return FirstCallback(place=f"{settings.http}  POST {path}", curl=_curl(settings, keys, through + address))
    address = f"http://{Address(host=settings.http.host, port=port or settings.http.port)}{path}"
    return FirstCallback(place=address, curl=_curl(settings, keys, address))


def _curl(settings: Settings, keys: CallbackKeys, address: str) -> str:
    """Return lines for a shell. The Sign is computed there: printed here, it would be one more place to find it."""
    app = next(iter(keys), None)
    if app is None:
        unsigned = next(iter(sorted(settings.allow_unsigned)), 0)
        return f"NOW=$(date +%s); curl -sS {address} -d '{_EXAMPLE % (unsigned, '')}'"
    if settings.callback_keys is not None:
        key = "KEY='the callback key'"
    else:
        read = f"import json; print(json.load(open('{keys_file(settings)}'))['{app}'][0])"
        key = f'KEY=$(python3 -c "{read}")'
    sign = ',"ExpireTime":\'$NOW\',"Sign":"\'$(printf %s "$KEY$NOW" | md5sum | cut -c1-32)\'"'
    return f"{key}; NOW=$(date +%s)\ncurl -sS {address} -d '{_EXAMPLE % (app, sign)}'"


class AcceptedCallback(Struct, frozen=True, kw_only=True):
    """The first callback that was accepted. `sdk_app_id` and `task_id` are None where nobody could tell them here."""

    event_type: str | None
    is_recognized: bool
    after_s: float
    sdk_app_id: int | None = None
    task_id: str | None = None


class Awaited(Struct, frozen=True, kw_only=True):
    """How the wait ended: `outcome` is accepted, timeout or interrupted; `listened`: it was the ingest node itself."""

    outcome: str
    path: str
    listened: bool
    waited_s: float
    accepted: AcceptedCallback | None
    refused: list[RefusedCallbacks]


class Counts(Struct, frozen=True, kw_only=True):
    """What an ingest node has counted: accepted callbacks by routing key, refused ones by reason."""

    accepted: dict[str, int]
    refused: dict[str, int]


def read_counts(metrics: str) -> Counts | None:
    """Read a node's metrics; None if they are not those of an ingest node."""
    accepted: dict[str, int] = {}
    refused: dict[str, int] = {}
    try:
        for family in text_string_to_metric_families(metrics):
            for sample in family.samples:
                if sample.name == "tiw_callbacks_accepted_total":
                    accepted[sample.labels["routing_key"]] = int(sample.value)
                elif sample.name in ("tiw_callbacks_refused_total", "tiw_callbacks_not_kept_total"):
                    refused[sample.labels["reason"]] = int(sample.value)
    except (ValueError, KeyError):  # of another program
        return None
    return Counts(accepted=accepted, refused=refused) if accepted else None


def _more(now: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    """Return what was counted since `before`; a node that started anew meanwhile counts from 0."""
    grown = {
        name: value - before.get(name, 0) if value >= before.get(name, 0) else value for name, value in now.items()
    }
    return {name: value for name, value in grown.items() if value}


#: How often the node is asked.
_POLL_S = 0.5

#: Workers bring an accepted callback to the store within this time, or its details stay unknown.
_STORE_S = 5.0

_ASK_TIMEOUT = aiohttp.ClientTimeout(total=3.0)


class _Origin(Struct, frozen=True, kw_only=True):
    """What is known of an accepted callback."""

    event_type: str | None = None
    sdk_app_id: int | None = None
    task_id: str | None = None


class _Node(Protocol):
    """The ingest node that is watched."""

    async def counts(self) -> Counts | None:
        """Return what it has counted; None if it does not answer."""

    async def origin(self, routing_key: str) -> _Origin:
        """Return what is known of the callback that it has just accepted."""


class _RunningNode:
    """A node that runs already, seen through its admin listener and the store."""

    def __init__(self, settings: Settings, session: aiohttp.ClientSession) -> None:
        self._settings = settings
        self._session = session
        self._since_us = time.time_ns() // 1000
        self.admin = (settings.admin or DEFAULT_ADMIN).from_here

    async def counts(self) -> Counts | None:
        try:
            async with self._session.get(f"http://{self.admin}/metrics", timeout=_ASK_TIMEOUT) as answer:
                return read_counts(await answer.text())
        except (aiohttp.ClientError, TimeoutError, OSError, UnicodeDecodeError):
            return None

    async def origin(self, routing_key: str) -> _Origin:
        unrecognized = routing_key == UNRECOGNIZED
        deadline_s = time.monotonic() + _STORE_S
        try:
            opened = open_store(self._settings)
        except FailedError:
            return _Origin()
        async with opened as store:
            while time.monotonic() < deadline_s:
                try:
                    rows = await list_events(store, EventFilter(from_us=self._since_us, unrecognized=unrecognized))
                except StoreError:
                    break
                for row in reversed(rows):
                    if unrecognized or row.event_type == routing_key:
                        return _Origin(event_type=row.event_type, sdk_app_id=row.sdk_app_id, task_id=row.task_id)
                await asyncio.sleep(_POLL_S)
        return _Origin()


class _OwnNode:
    """The node that this process is meanwhile. As its publisher it remembers what it has accepted."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._latest: dict[str, Message] = {}

    @property
    def is_ready(self) -> bool:
        return self._transport.is_ready

    async def publish(self, message: Message) -> None:
        # Before it is durable: what the broker does not confirm may be durable in the spool.
        self._latest[message.routing_key] = message
        await self._transport.publish(message)

    def begin_publish(self, message: Message, on_done: OnPublished) -> bool:
        self._latest[message.routing_key] = message
        return self._transport.begin_publish(message, on_done)

    async def counts(self) -> Counts | None:
        return read_counts(render_metrics().decode())

    async def origin(self, routing_key: str) -> _Origin:
        message = self._latest[routing_key]
        event = decode(message.body, received_at_us=message.received_at_us).event
        if isinstance(event, Unrecognized):
            return _Origin(event_type=event.event_type, sdk_app_id=event.sdk_app_id)
        return _Origin(event_type=routing_key, sdk_app_id=event.sdk_app_id, task_id=event.task_id)


async def _own_node(settings: Settings, stack: AsyncExitStack) -> tuple[_OwnNode, int]:
    """Enter an ingest node of our own into `stack`; return it with its port. Raises `UsageError` if it cannot be."""
    if settings.is_embedded:
        try:
            stack.enter_context(folder_lock(settings.data_dir))
        except UsageError as error:
            if not isinstance(error.__cause__, BlockingIOError):
                raise
            raise UsageError(
                f"a `tiw up` uses {settings.data_dir} but does not answer at {settings.admin or DEFAULT_ADMIN}: "
                "set TIW_ADMIN as it has it"
            ) from error
    keys = await stack.enter_async_context(_keys_that_are_there(settings))
    transport = await stack.enter_async_context(open_transport(settings, may_be_new=True))
    # As in `tiw up`, the embedded transport needs none.
    spool = None if settings.is_embedded else await stack.enter_async_context(open_spool(settings, transport))
    node = _OwnNode(transport)
    # Nobody has to learn that it ends.
    config = ingest_config(structs.replace(settings, stop_delay_s=0.0))
    server = IngestServer(config, node, keys, spool=spool)
    try:
        await stack.enter_async_context(listening(server, variable="TIW_HTTP", address=settings.http))
    except UsageError as error:
        raise UsageError(f"{error}; or, if an ingest node listens there, set TIW_ADMIN as it has it") from error
    return node, server.port


def _keys_that_are_there(settings: Settings) -> KeyRing:
    if present_keys(settings):
        return open_keys(settings)
    if not settings.allow_unsigned:
        raise UsageError(
            "there is no callback key yet: `tiw keys add --app N`, with your SdkAppId, makes one and prints it; "
            "with --stdin it takes the vendor's"
        )
    return KeyRing({})


#: As a shell has it for a command that Ctrl-C ended.
_INTERRUPTED = 130


async def await_callback(settings: Settings, *, timeout_s: float, as_json: bool) -> int:
    """Wait for the first callback that is accepted; exit code 0 then, 1 after `timeout_s`, 130 after Ctrl-C.

    The whole address, path token included, goes to standard output, as whoever asks has to give it to the vendor; not
    into the JSON document.
    """
    stopped = await stop_requests()
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        running = _RunningNode(settings, session)
        node: _Node = running
        port = None
        before = await running.counts()
        if before is None:
            node, port = await _own_node(settings, stack)
            before = await node.counts()
        if not as_json:
            _greet(
                settings, first_callback(settings, present_keys(settings), port=port), running, listens=port is not None
            )
        waiting = _Wait(node, before or Counts(accepted={}, refused={}), Refusals(settings, is_silent=as_json))
        await waiting.run(stopped, timeout_s=timeout_s)
        path = ingest_config(settings).path
        ended = Awaited(
            outcome="accepted" if waiting.accepted else "interrupted" if stopped.is_set() else "timeout",
            path=path if settings.path_token is None else path.replace(settings.path_token, "***"),
            listened=port is not None,
            waited_s=round(waiting.waited_s, 1),
            accepted=waiting.accepted,
            refused=waiting.refusals.found,
        )
        if as_json:
            print_json(ended)
        else:
            _conclude(ended)
    return {"accepted": 0, "timeout": 1}.get(ended.outcome, _INTERRUPTED)


class _Wait:
    """The wait itself, and what came of it."""

    def __init__(self, node: _Node, before: Counts, refusals: Refusals) -> None:
        self._node = node
        self._before = before
        self._began_s = time.monotonic()
        self.refusals = refusals
        self.accepted: AcceptedCallback | None = None

    @property
    def waited_s(self) -> float:
        return time.monotonic() - self._began_s

    async def run(self, stopped: asyncio.Event, *, timeout_s: float) -> None:
        """Return once a callback was accepted, `stopped` is set, or the time is over."""
        await self.refusals.look({})
        answers = True
        while self.accepted is None and not stopped.is_set() and self.waited_s < timeout_s:
            with suppress(TimeoutError):
                await asyncio.wait_for(stopped.wait(), min(_POLL_S, max(0.0, timeout_s - self.waited_s)))
            counts = await self._node.counts()
            if counts is None:
                if answers:
                    _log.warning("node_does_not_answer", note="the wait goes on, in case it starts again")
                answers = False
                continue
            answers = True
            await self._look(counts)
        self.refusals.close()

    async def _look(self, counts: Counts) -> None:
        before, self._before = self._before, counts
        await self.refusals.look(_more(counts.refused, before.refused))
        for routing_key in _more(counts.accepted, before.accepted):
            after_s = round(self.waited_s, 1)
            origin = await self._node.origin(routing_key)
            self.accepted = AcceptedCallback(
                event_type=origin.event_type or (None if routing_key == UNRECOGNIZED else routing_key),
                is_recognized=routing_key != UNRECOGNIZED,
                after_s=after_s,
                sdk_app_id=origin.sdk_app_id,
                task_id=origin.task_id,
            )
            return


def _greet(settings: Settings, first: FirstCallback, running: _RunningNode, *, listens: bool) -> None:
    """Say what the vendor has to call, how to try it, and who takes what comes."""
    say(
        "The vendor must call, at your public name:",
        f"  https://YOUR.HOST{ingest_config(settings).path}",
        "which your load balancer or proxy leads, with the body unchanged, to:",
        f"  {first.place}",
        "",
        "Try it here:",
        "",
        *first.curl.splitlines(),
        "",
        "No ingest node runs here. This command is one meanwhile: what it accepts is kept for `tiw up` or `tiw work`."
        if listens
        else f"An ingest node runs here, as its metrics at {running.admin} say; it is watched.",
        "Waiting for the first callback. Stop: Ctrl-C",
        "",
    )


def _conclude(ended: Awaited) -> None:
    if ended.accepted is not None:
        known = shown(
            sdk_app_id=ended.accepted.sdk_app_id,
            event_type=ended.accepted.event_type or "of no type that can be read",
            task_id=ended.accepted.task_id,
        )
        say(f"accepted   200{known}, after {ended.accepted.after_s:g} s")
        if not ended.accepted.is_recognized:
            say_below("It is none of the five recording events, or not as they are: it is kept as unrecognized.")
        if ended.accepted.sdk_app_id is None:
            say_below("Its TaskId is not known here: see `tiw events list`, where the database is.")
        return
    refused = sum(one.count for one in ended.refused)
    if refused:
        say(f"Nothing was accepted within {ended.waited_s:g} s; {refused} were refused, for the reasons above.")
    else:
        say(
            f"Nothing arrived within {ended.waited_s:g} s. Send the curl above on this machine; then, from outside:",
            "  curl -sS https://YOUR.HOST/callbacks/tiw/... -d hello     # with the whole address",
            "It is answered with error_code 400, and told here as not_an_object, if the way is free. If not, look at",
            "the name (DNS), the certificate and its chain, the firewall, the security group, and the proxy's path.",
        )
    say('docs/vendor-console.md says more, under "When nothing arrives".')
