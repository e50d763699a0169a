"""What is going on, on one page, which tells it anew every few seconds while it is open."""

import asyncio
from typing import Final

from aiohttp import hdrs, web
from msgspec import Struct, structs

from console.attention import Finding, find_attention
from console.consumers import ConsumerView, consumer_views
from console.live import Situation
from console.peers import PeerMetrics
from console.rates import KEPT_S, values_of
from console.rendering import command_line
from console.requests import Request, Route, Shown

#: Without a word for so long, proxies close a connection.
HEARTBEAT_S: Final = 15.0

#: Who does not read what was sent for so long has gone, or stands still.
WRITE_TIMEOUT_S: Final = 20.0

#: A browser that lost the live page tries again after so long.
RETRY_MS: Final = 3000

#: The parts of the page, each of which is put in its place where it changed.
SECTIONS: Final = ("attention", "numbers", "recordings", "consumers", "processes")

_CHART_HEIGHT: Final = 40
_BAR_WIDTH: Final = 14
_BAR_GAP: Final = 4


class NodeView(Struct, frozen=True, kw_only=True):
    """A process that is asked; `is_absent`: it need not run, and does not."""

    address: str
    is_known: bool
    is_absent: bool = False
    reason: str = ""
    since_s: float | None = None
    is_ready: bool = False


class Bar(Struct, frozen=True, kw_only=True):
    """A minute in the chart of callbacks: how many, and where it is drawn. None: not known."""

    count: int | None
    x: int
    y: int
    width: int
    height: int


class NowView(Struct, frozen=True, kw_only=True):
    """What the page is made of: what is counted is None where it never was known. Lengths of time are in seconds.

    `knows_all`: nothing that should be known is not. `tells`: at least one process tells its numbers. `refused` and
    `not_kept` are of the last `counted_s`; `refused_since_start` counts from when the processes were started.
    """

    now: Situation
    findings: list[Finding]
    knows_all: bool
    has_peers: bool
    tells: bool
    per_minute: float | None
    bars: list[Bar]
    p50_s: float | None
    p99_s: float | None
    refused: int
    refused_since_start: int
    not_kept: int
    counted_s: float
    waiting: int | None
    oldest_s: float | None
    retrying: int | None
    next_retry_at: str | None
    dead: int | None
    dead_is_at_least: bool
    spooled: int | None
    spool_oldest_s: float
    left_s: float | None
    consumers: list[ConsumerView]
    nodes: list[NodeView]


class NowDocument(Struct, frozen=True, kw_only=True):
    """What the page Now knows at this moment: None for what it does not, and `unknown` says why, by part.

    `refused` and `not_kept` count the last `counted_s` seconds, `refused_since_start` all since the processes were
    started. Lengths of time are in seconds.
    """

    callbacks_per_minute: float | None
    answer_p50_s: float | None
    answer_p99_s: float | None
    refused: int | None
    refused_since_start: int | None
    not_kept: int | None
    counted_s: float
    waiting: int | None
    oldest_s: float | None
    retrying: int | None
    dead_letters: int | None
    spooled: int | None
    next_deletion_in_s: float | None
    attention: list[Finding]
    unknown: dict[str, str]


def view_of(now: Situation) -> NowView:
    """Return what the page shows of what is known."""
    consumers = consumer_views(now)
    broker, store, peers = now.broker.value, now.store.value, now.peers.value or ()
    answering = [peer for peer in peers if peer.ok]
    expected = [peer for peer in peers if not peer.is_absent]
    rates = now.rates
    retrying = None if broker is None else broker.retrying
    if broker is not None and retrying is None:
        retrying = sum(one.state.retrying or 0 for one in consumers)
    spooled = [*values_of(answering, "tiw_spool_callbacks")]
    return NowView(
        now=now,
        findings=find_attention(now),
        knows_all=now.broker.is_current and now.store.is_current and bool(expected) and len(answering) == len(expected),
        has_peers=bool(peers) or not now.peers.is_current,
        tells=bool(answering) and now.peers.is_current,
        per_minute=rates.per_minute("tiw_callbacks_accepted_total"),
        bars=bars_of(rates.minutes("tiw_callbacks_accepted_total", at_s=now.rates_at_s)),
        p50_s=rates.quantile_s("tiw_answer_seconds_bucket", 0.5),
        p99_s=rates.quantile_s("tiw_answer_seconds_bucket", 0.99),
        refused=rates.grown("tiw_callbacks_refused_total"),
        refused_since_start=round(sum(values_of(answering, "tiw_callbacks_refused_total"))),
        not_kept=rates.grown("tiw_callbacks_not_kept_total"),
        counted_s=min(rates.covered_s, KEPT_S),
        waiting=None if broker is None else sum(one.state.ready for one in consumers),
        oldest_s=max((one.oldest_s for one in consumers if one.oldest_s is not None), default=None),
        retrying=retrying,
        next_retry_at=min((one.state.next_retry_at for one in consumers if one.state.next_retry_at), default=None),
        dead=None if broker is None or store is None else sum(one.state.dead for one in consumers),
        dead_is_at_least=any(one.dead_is_at_least for one in consumers),
        spooled=round(sum(spooled)) if spooled else None,
        spool_oldest_s=max(values_of(answering, "tiw_spool_oldest_age_seconds"), default=0.0),
        left_s=None if store is None else store.archive.next_deletion_in_s,
        consumers=consumers,
        nodes=[_node(peer, now) for peer in peers],
    )


def _node(peer: PeerMetrics, now: Situation) -> NodeView:
    if peer.is_absent:
        return NodeView(address=peer.address, is_known=True, is_absent=True)
    if not peer.ok:
        since_s = now.away_since_s.get(peer.address)
        return NodeView(address=peer.address, is_known=False, reason=peer.reason, since_s=since_s)
    return NodeView(address=peer.address, is_known=True, is_ready=0.0 not in values_of([peer], "tiw_ready"))


def bars_of(minutes: list[float | None]) -> list[Bar]:
    """Return the chart of how much came in each of some minutes; the highest bar is as high as the chart."""
    most = max((count for count in minutes if count is not None), default=0.0)
    shown = []
    for number, count in enumerate(minutes):
        height = 0 if not count else max(2, round(count / most * _CHART_HEIGHT))
        shown.append(
            Bar(
                count=None if count is None else round(count),
                x=number * (_BAR_WIDTH + _BAR_GAP),
                y=_CHART_HEIGHT - height,
                width=_BAR_WIDTH,
                height=height,
            )
        )
    return shown


async def show_now(request: Request) -> Shown:
    """Show what is going on."""
    view = view_of(await request.console.live.look())
    return Shown(
        template="now.html",
        title=request.t("now.title"),
        values=structs.asdict(view),
        document=_document(view),
        command=command_line("tiw", "doctor"),
    )


def _document(view: NowView) -> NowDocument:
    now = view.now
    is_counted, is_stored = now.broker.is_current, now.store.is_current
    unknown = {
        name: known.reason
        for name, known in (("processes", now.peers), ("broker", now.broker), ("store", now.store))
        if not known.is_current
    }
    unknown |= {node.address: node.reason for node in view.nodes if not node.is_known}
    return NowDocument(
        callbacks_per_minute=view.per_minute if view.tells else None,
        answer_p50_s=view.p50_s if view.tells else None,
        answer_p99_s=view.p99_s if view.tells else None,
        refused=view.refused if view.tells else None,
        refused_since_start=view.refused_since_start if view.tells else None,
        not_kept=view.not_kept if view.tells else None,
        counted_s=view.counted_s,
        waiting=view.waiting if is_counted else None,
        oldest_s=view.oldest_s if is_counted else None,
        retrying=view.retrying if is_counted else None,
        dead_letters=view.dead if is_counted and is_stored else None,
        spooled=view.spooled if view.tells else None,
        next_deletion_in_s=view.left_s if is_stored else None,
        attention=view.findings,
        unknown=unknown,
    )


async def stream_now(request: Request) -> web.StreamResponse:
    """Send the page's part again and again, until the reader goes, the session ends, or the console stops."""
    if request.http.method != hdrs.METH_GET:
        # Its answer has no body, and so no end that anybody would wait for.
        return web.Response(headers={hdrs.CONTENT_TYPE: "text/event-stream"})
    live = request.console.live
    viewer = live.join(request.language)
    if viewer is None:
        return web.Response(status=503, headers={hdrs.RETRY_AFTER: "30"})
    response = web.StreamResponse(
        # A proxy that collects the answer would never pass it on: nginx knows this header.
        headers={hdrs.CONTENT_TYPE: "text/event-stream", "X-Accel-Buffering": "no"}
    )
    try:
        await response.prepare(request.http)
        await response.write(f"retry: {RETRY_MS}\n\n".encode())
        while not live.is_closed:
            frame = await viewer.take(within_s=HEARTBEAT_S)
            if not request.is_valid():
                # The browser would otherwise ask again and again, and be sent to the login page each time.
                await response.write(b"event: end\ndata: logged out\n\n")
                break
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await response.write(frame or b": still here\n\n")
    except (ConnectionError, TimeoutError):
        if request.http.transport is not None:
            request.http.transport.abort()
    finally:
        live.leave(viewer)
    return response


ROUTES: tuple[Route, ...] = (
    # What is known is shown also while the store is away.
    Route(method="GET", path="/", handler=show_now, store=False),
    Route(method="GET", path="/live", handler=stream_now, store=False),
)
