"""The first callback: where and how to send one, and the wait for it, which explains every refusal as it comes.

Beside an ingest node that runs, `await_callback` reads that node's metrics, and the details from the file of refused
callbacks and from the store. Where none runs, it is an ingest node itself meanwhile, with the transport that is
configured: what it answers 200 is kept as ever.
"""

import asyncio
import shlex
import sys
import textwrap
import time
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Protocol

import aiohttp
import msgspec
import structlog
from msgspec import Raw, Struct
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import make_url

from broker import Message, Transport
from ingest import (
    MENDABLE,
    CallbackKeys,
    IngestServer,
    KeptRejected,
    KeyRing,
    KeysError,
    Refusal,
    RefusedError,
    RejectedFileError,
    read_rejected,
    readmit,
)
from schemas import UNRECOGNIZED
from store import StoreError, list_events
from telemetry import render_metrics
from tiw.commands.rejected import row_of
from tiw.keys import keys_file, open_keys, present_keys
from tiw.opening import ingest_config, listening, open_spool, open_store, open_transport, rejected_folder
from tiw.output import print_json, print_lines
from tiw.process import folder_lock, stop_requests
from tiw.settings import DEFAULT_ADMIN, Address, Settings, UnixAddress, UsageError

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


#: What each refusal means, and what to do about it.
ADVICE: Mapping[Refusal, str] = {
    Refusal.WRONG_PATH: (
        "The address has another path than the one above, or this command another TIW_PATH_TOKEN than the node. "
        "Compare them letter by letter at the vendor, and in a proxy that rewrites paths. Programs that search "
        "the internet for holes are refused like this, too."
    ),
    Refusal.WRONG_METHOD: (
        "A browser or a check of availability asks with GET: the address is right. If it was the vendor's "
        "callback, a redirect in front (from http to https, say) made a GET of its POST: set the final address."
    ),
    Refusal.ENCODED: ("Something in front compresses the body. Turn that off: the vendor sends it as it is."),
    Refusal.TOO_LARGE: (
        "It is larger than TIW_MAX_BODY_BYTES. The vendor's are some kilobytes: if this is one, raise it."
    ),
    Refusal.TOO_SLOW: (
        "The headers came and the body did not within 2 s. A proxy may have dropped the body, or the network is "
        "bad: send the curl above from the proxy's machine, and look at how the proxy passes bodies on."
    ),
    Refusal.HUNG_UP: (
        "The sender or a proxy closed the connection in the middle of the body: compare the proxy's time-outs "
        "(they need 10 s) and its limit for bodies."
    ),
    Refusal.MALFORMED_HTTP: (
        "Perhaps HTTPS was sent here, or the PROXY protocol. HTTPS has to end in front: a load balancer or a "
        "proxy with your certificate, which sends plain HTTP here."
    ),
    Refusal.NOT_AN_OBJECT: (
        "The request came through, so name, certificate, firewall and path are right; but its body is no "
        "callback. An empty one was eaten by something in front: pass bodies on unchanged."
    ),
    Refusal.AMBIGUOUS: ("Something in front, or a test program, writes members twice: pass bodies on unchanged."),
    Refusal.UNKNOWN_APP: (
        "Take the SdkAppId from the vendor's console and give its callback key in TIW_CALLBACK_KEYS or its file. "
        "Without SdkAppId: TIW_ALLOW_UNSIGNED=0."
    ),
    Refusal.MISSING_SIGN: (
        "The vendor has no callback key for this application: set it there, for recording "
        "(SetOnlineRecordCallbackKey); each family of callbacks has a key of its own."
    ),
    Refusal.MALFORMED_SIGN: (
        "The vendor sends Sign as 32 hexadecimal digits in lower case: this is of another sender, or something in "
        "front changed it."
    ),
    Refusal.MALFORMED_EXPIRE_TIME: (
        "The vendor sends ExpireTime as an integer: this is of another sender, or something in front read the "
        "body and wrote it anew. Pass bodies on unchanged."
    ),
    Refusal.WRONG_SIGN: (
        "The key at the vendor is not ours: compare both, spaces and line ends included, and the family "
        "(recording, transcoding and whiteboard push have keys of their own). Once ours is mended, `tiw rejected "
        "reverify` lets in what was refused."
    ),
    Refusal.EXPIRED: (
        "The key is right, but ExpireTime passed more than 5 minutes ago. Compare this machine's clock with the "
        "time (`date -u`) and let NTP set it; a request that somebody kept and sent again is refused like this, "
        "too."
    ),
    Refusal.NO_ROOM: ("More arrives than the node can hold: see `tiw doctor`. The vendor sends it again 5 times."),
    Refusal.NOT_CONFIRMED: (
        "Neither the broker nor the spool could keep it: see `tiw doctor` for the broker and the disk. The vendor "
        "sends it again 5 times."
    ),
    Refusal.BROKEN: ("This is a fault of the receiver: look for `answering_failed` in the log of the node."),
}

_BY_LABEL = {refusal.label: refusal for refusal in Refusal}


class RefusedCallbacks(Struct, frozen=True, kw_only=True):
    """Refusals of one reason, in a row. What they claimed to be, where that was kept; nobody has vouched for it."""

    reason: str
    status: int
    count: int
    advice: str
    sdk_app_id: int | None = None
    event_type: str | None = None
    task_id: str | None = None


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

#: A refused callback is in its file within this time, or its details stay unknown.
_FILE_S = 3.0

_ASK_TIMEOUT = aiohttp.ClientTimeout(total=3.0)


class _Content(Struct):
    """What can be read of an authentic callback, whatever it is."""

    EventType: Raw = Raw(b"null")
    SdkAppId: Raw = Raw(b"null")
    EventData: Raw = Raw(b"null")


class _Task(Struct):
    TaskId: str | None = None


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
        self.admin = settings.admin or DEFAULT_ADMIN

    async def counts(self) -> Counts | None:
        try:
            async with self._session.get(f"http://{self.admin}/metrics", timeout=_ASK_TIMEOUT) as answer:
                return read_counts(await answer.text())
        except (aiohttp.ClientError, TimeoutError, OSError, UnicodeDecodeError):
            return None

    async def origin(self, routing_key: str) -> _Origin:
        if not _has_database(self._settings):
            return _Origin()
        unrecognized = routing_key == UNRECOGNIZED
        deadline_s = time.monotonic() + _STORE_S
        async with open_store(self._settings) as store:
            while time.monotonic() < deadline_s:
                try:
                    rows = await list_events(store, since_us=self._since_us, unrecognized=unrecognized)
                except StoreError:
                    break
                for row in reversed(rows):
                    if unrecognized or row.event_type == routing_key:
                        return _Origin(event_type=row.event_type, sdk_app_id=row.sdk_app_id, task_id=row.task_id)
                await asyncio.sleep(_POLL_S)
        return _Origin()


def _has_database(settings: Settings) -> bool:
    """Say whether there is one that can be asked; to open the store would make SQLite's file."""
    url = make_url(settings.database_url)
    return not url.drivername.startswith("sqlite") or Path(url.database or "").exists()


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

    async def counts(self) -> Counts | None:
        return read_counts(render_metrics().decode())

    async def origin(self, routing_key: str) -> _Origin:
        try:
            content = msgspec.json.decode(self._latest[routing_key].body, type=_Content)
            event_type = msgspec.json.decode(content.EventType)
            app = msgspec.json.decode(content.SdkAppId)
        except (KeyError, ValueError, RecursionError):
            return _Origin()
        try:
            task_id = msgspec.json.decode(content.EventData, type=_Task).TaskId
        except (ValueError, RecursionError):
            task_id = None
        return _Origin(
            event_type=event_type if isinstance(event_type, str) else None,
            sdk_app_id=app if isinstance(app, int) else None,
            task_id=task_id,
        )


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
    transport = await stack.enter_async_context(open_transport(settings))
    # As in `tiw up`, the embedded transport needs none.
    spool = None if settings.is_embedded else await stack.enter_async_context(open_spool(settings, transport))
    node = _OwnNode(transport)
    # Nobody has to learn that it ends.
    config = ingest_config(msgspec.structs.replace(settings, stop_delay_s=0.0))
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
            "there is no callback key yet: start `tiw up` or `tiw ingest` once, which makes one and prints it, "
            "or give the vendor's in TIW_CALLBACK_KEYS"
        )
    return KeyRing({})


class _Refusals:
    """Explains what is refused, as it comes: in full where it is new, in a line where it comes again.

    Details of those that other keys might let in come from their file, a moment later.
    """

    def __init__(self, settings: Settings, *, is_silent: bool) -> None:
        self._settings = settings
        self._is_silent = is_silent
        #: What the file has, by id, with the tries of each; None before the first look.
        self._known: dict[int, int] | None = None
        #: Refusals whose details may still come: how many, and until when they are waited for.
        self._pending: dict[str, tuple[int, float]] = {}
        self.found: list[RefusedCallbacks] = []

    async def look(self, refused: Mapping[str, int]) -> None:
        """Explain what was refused since the last look, `refused` by reason."""
        now_s = time.monotonic()
        for reason, count in refused.items():
            if _BY_LABEL.get(reason) in MENDABLE:
                waiting, _ = self._pending.get(reason, (0, 0.0))
                self._pending[reason] = (waiting + count, now_s + _FILE_S)
            else:
                self._explain(reason, count)
        if self._pending or self._known is None:
            for kept, tries in await self._kept():
                self._take(kept, tries)
        for reason, (count, until_s) in list(self._pending.items()):
            if now_s >= until_s:
                del self._pending[reason]
                self._explain(reason, count)

    def close(self) -> None:
        """Explain what still waits for its details."""
        for reason, (count, _) in self._pending.items():
            self._explain(reason, count)
        self._pending.clear()

    def _take(self, kept: KeptRejected, tries: int) -> None:
        reason = kept.rejected.reason
        waiting, until_s = self._pending.pop(reason, (0, 0.0))
        if not waiting:
            return
        count = min(tries, waiting)
        if waiting > count:
            self._pending[reason] = (waiting - count, until_s)
        self._explain(reason, count, kept)

    async def _kept(self) -> list[tuple[KeptRejected, int]]:
        """Return what came into the file since the last look, and how often, the oldest first."""
        folder = rejected_folder(self._settings)
        try:
            rows = await asyncio.to_thread(read_rejected, folder, now_us=time.time_ns() // 1000)
        except RejectedFileError:
            rows = []  # not for this user, perhaps: then there are no details
        known, self._known = self._known, {one.id: one.rejected.tries for one in rows}
        if known is None:
            return []
        grown = [(one, one.rejected.tries - known.get(one.id, 0)) for one in reversed(rows)]
        return [(one, tries) for one, tries in grown if tries > 0]

    def _explain(self, reason: str, count: int, kept: KeptRejected | None = None) -> None:
        refusal = _BY_LABEL.get(reason)
        row = None if kept is None else row_of(kept)
        advice = "" if refusal is None else ADVICE[refusal]
        explained = RefusedCallbacks(
            reason=reason,
            status=0 if refusal is None else refusal.status,
            count=count,
            advice=(_hint(self._settings, kept) if kept is not None else None) or advice,
            sdk_app_id=None if row is None else row.sdk_app_id,
            event_type=None if row is None else row.event_type,
            task_id=None if row is None else row.task_id,
        )
        is_new = all((one.reason, one.sdk_app_id) != (reason, explained.sdk_app_id) for one in self.found)
        self.found.append(explained)
        if not self._is_silent:
            sentence = "" if refusal is None else f": {refusal.sentence}"
            _say(f"refused    {'' if is_new else 'again: '}{_headline(explained)}{sentence}")
            if is_new:
                _say_below(explained.advice)


def _headline(refused: RefusedCallbacks) -> str:
    times = "" if refused.count == 1 else f" {refused.count} times"
    claims = _shown(_Origin(event_type=refused.event_type, sdk_app_id=refused.sdk_app_id, task_id=refused.task_id))
    return f"{refused.status} {refused.reason}{times}{claims}"


#: A name from a sender whom nobody has vouched for is cut there.
_SHOWN_CHARACTERS = 64


def _shown(origin: _Origin) -> str:
    app = "" if origin.sdk_app_id is None else f", SdkAppId {origin.sdk_app_id}"
    event = "" if origin.event_type is None else f", {origin.event_type[:_SHOWN_CHARACTERS]}"
    task = "" if origin.task_id is None else f", TaskId {origin.task_id[:_SHOWN_CHARACTERS]}"
    return f"{app}{event}{task}"


def _hint(settings: Settings, kept: KeptRejected) -> str | None:
    """Return better advice than that for its reason, where the keys of this command's settings tell more."""
    app = kept.rejected.sdk_app_id
    try:
        keys = present_keys(settings)
    except KeysError:
        return None
    if _is_authentic(kept, keys, settings.allow_unsigned):
        return (
            "With the keys that this command has it would be let in: the node has others. "
            "Start it again with these, then run `tiw rejected reverify`."
        )
    for other, theirs in keys.items():
        if other != app and _is_authentic(kept, {app: theirs}, frozenset()):
            return (
                f"Its Sign is of the key that stands under {other} here: write that key under {app} in "
                "TIW_CALLBACK_KEYS or its file, then run `tiw rejected reverify`."
            )
    return None


def _is_authentic(kept: KeptRejected, keys: CallbackKeys, allow_unsigned: AbstractSet[int]) -> bool:
    try:
        readmit(kept.rejected, keys=keys, allow_unsigned=allow_unsigned)
    except RefusedError:
        return False
    return True


def _say(*lines: str) -> None:
    print_lines(lines)
    # To a pipe, too, it is told as it comes.
    sys.stdout.flush()


#: The column in which explanations stand below what they explain.
_INDENT = " " * 11
_WIDTH = 100


def _say_below(text: str) -> None:
    _say(*textwrap.wrap(text, _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT))


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
        waiting = _Wait(node, before or Counts(accepted={}, refused={}), _Refusals(settings, is_silent=as_json))
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

    def __init__(self, node: _Node, before: Counts, refusals: _Refusals) -> None:
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
    _say(
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
        origin = _Origin(
            event_type=ended.accepted.event_type or "of no type that can be read",
            sdk_app_id=ended.accepted.sdk_app_id,
            task_id=ended.accepted.task_id,
        )
        _say(f"accepted   200{_shown(origin)}, after {ended.accepted.after_s:g} s")
        if not ended.accepted.is_recognized:
            _say_below("It is none of the five recording events, or not as they are: it is kept as unrecognized.")
        if origin.sdk_app_id is None:
            _say_below("The database does not show it yet, or knew it before: see `tiw events list`.")
        return
    refused = sum(one.count for one in ended.refused)
    if refused:
        _say(f"Nothing was accepted within {ended.waited_s:g} s; {refused} were refused, for the reasons above.")
    else:
        _say(
            f"Nothing arrived within {ended.waited_s:g} s. Send the curl above on this machine; then, from outside:",
            "  curl -sS https://YOUR.HOST/callbacks/tiw/... -d hello     # with the whole address",
            "It is answered with error_code 400, and told here as not_an_object, if the way is free. If not, look at",
            "the name (DNS), the certificate and its chain, the firewall, the security group, and the proxy's path.",
        )
    _say('docs/vendor-console.md says more, under "When nothing arrives".')
