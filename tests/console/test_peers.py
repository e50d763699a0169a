"""What the console asks of other processes, and what it says where they answer nothing, too much or nonsense."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from aiohttp import web

import console.peers
from console.peers import MAX_METRICS_BYTES, Peers, PeersRejected, PeersReverified, parse_metrics
from console.requests import Unknown
from telemetry import AdminListener, AdminPage, Readiness

TOKEN = "a token of the console"

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def row(number: int, **members: Any) -> dict[str, Any]:
    return {
        "id": number,
        "received_at": f"2026-11-30T10:00:{number:02}.000000Z",
        "reason": "wrong_sign",
        "sdk_app_id": 1400000001,
        "event_type": "OnlineRecordStarted",
        "task_id": f"class-{number}",
        "size": 300,
        "tries": 1,
        "sign": "***",
        **members,
    }


@asynccontextmanager
async def keeper(rows: list[dict[str, Any]], *, token: str = TOKEN) -> AsyncIterator[str]:
    """Run an admin listener with the pages of an ingest node, and give its address."""

    async def listed(query: Any) -> bytes:
        return msgspec.json.encode(rows[: int(query["limit"])])

    async def reverified(query: Any) -> bytes:
        counts = {"authentic": 2, "let_in": 0 if "dry_run" in query else 2, "remaining": 1, "refused": {"expired": 1}}
        return msgspec.json.encode(counts)

    pages = [
        AdminPage(method="GET", path="/rejected", token=lambda: token, answer=listed),
        AdminPage(method="POST", path="/rejected/reverify", token=lambda: token, answer=reverified),
    ]
    async with AdminListener("127.0.0.1", 0, ready=Readiness, pages=pages) as listener:
        yield f"http://127.0.0.1:{listener.port}"


@asynccontextmanager
async def answering(answer: Answer, *, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Run a server that answers everything like this, and give its address."""
    server = web.Server(answer)  # type: ignore[arg-type]  # a handler of BaseRequest, which ours is for
    runner = web.ServerRunner(server, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    await site.start()
    try:
        yield f"http://{host}:{site.port}"
    finally:
        await runner.cleanup()


def nowhere() -> str:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{held.getsockname()[1]}"


async def test_every_process_tells_its_metrics_and_a_silent_one_why_not() -> None:
    absent = nowhere()
    async with keeper([]) as address, Peers([address, absent], TOKEN) as peers:
        there, gone = await peers.metrics()
    assert (there.address, there.ok, there.reason) == (address, True, "")
    assert "tiw_ready" in there.samples
    assert (gone.address, gone.ok, gone.samples) == (absent, False, {})
    assert gone.reason == "Connection refused"


async def test_what_ingest_nodes_have_refused_is_shown_together_newest_first() -> None:
    async with (
        keeper([row(3), row(1)]) as one,
        keeper([row(2)]) as other,
        AdminListener("127.0.0.1", 0, ready=Readiness) as worker,
        Peers([one, other, f"http://127.0.0.1:{worker.port}", nowhere()], TOKEN) as peers,
    ):
        found = await peers.rejected(limit=1000)
        first = await peers.rejected(limit=1)
    assert isinstance(found, PeersRejected)
    assert [(one.task_id, one.peer) for one in found.rows] == [("class-3", one), ("class-2", other), ("class-1", one)]
    assert len(found.silent) == 1, "a worker keeps none, and is not silent"
    assert isinstance(first, PeersRejected)
    assert [one.task_id for one in first.rows] == ["class-3"]


async def test_callbacks_are_let_in_at_every_node_and_counted_together() -> None:
    async with keeper([]) as one, keeper([]) as other, Peers([one, other], TOKEN) as peers:
        dry = await peers.reverify(dry_run=True)
        done = await peers.reverify(dry_run=False)
    assert dry == PeersReverified(authentic=4, let_in=0, remaining=2, refused={"expired": 2}, silent=[])
    assert done == PeersReverified(authentic=4, let_in=4, remaining=2, refused={"expired": 2}, silent=[])


async def test_what_nobody_can_tell_is_unknown_with_its_reason() -> None:
    async with Peers([], TOKEN) as peers:
        nobody = await peers.rejected()
    assert isinstance(nobody, Unknown)
    assert "TIW_CONSOLE_PEERS" in nobody.reason
    async with keeper([], token="another token") as address, Peers([address], TOKEN) as peers:
        refused = await peers.reverify(dry_run=True)
    assert isinstance(refused, Unknown)
    assert refused.reason == f"{address}: it answered 401: unauthorized"
    async with (
        AdminListener("127.0.0.1", 0, ready=Readiness) as worker,
        Peers([f"http://127.0.0.1:{worker.port}"], TOKEN) as peers,
    ):
        assert isinstance(await peers.rejected(), Unknown)


async def test_a_redirect_is_not_followed_and_the_token_goes_nowhere_else() -> None:
    asked: list[str] = []

    async def elsewhere(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(text="[]")

    async with answering(elsewhere) as target:

        async def redirect(request: web.Request) -> web.Response:
            return web.Response(status=307, headers={"Location": f"{target}{request.path}"})

        async with answering(redirect) as address, Peers([address], TOKEN) as peers:
            assert isinstance(await peers.rejected(), Unknown)
            (metrics,) = await peers.metrics()
    assert (metrics.ok, metrics.reason) == (False, "it answered 307")
    assert asked == []


async def test_the_token_is_shown_only_where_it_is_needed() -> None:
    seen: dict[str, str | None] = {}

    async def note(request: web.Request) -> web.Response:
        seen[request.path] = request.headers.get("Authorization")
        return web.Response(text="[]")

    async with answering(note) as address, Peers([address], TOKEN) as peers:
        await peers.metrics()
        await peers.rejected()
    assert seen == {"/metrics": None, "/rejected": f"Bearer {TOKEN}"}


async def test_who_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console.peers, "TIMEOUT_S", 0.2)
    waiting = asyncio.Event()

    async def hang(request: web.Request) -> web.Response:
        await waiting.wait()
        return web.Response()

    async def trickle(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        while not waiting.is_set():
            await answer.write(b"#\n")
            await asyncio.sleep(0.01)
        return answer

    async with answering(hang) as silent, answering(trickle) as slow, Peers([silent, slow], TOKEN) as peers:
        async with asyncio.timeout(5):
            found = await peers.metrics()
        waiting.set()
    assert [one.reason for one in found] == ["no answer within 0.2 s"] * 2


async def test_an_answer_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console.peers, "MAX_METRICS_BYTES", 100_000)
    monkeypatch.setattr(console.peers, "MAX_REJECTED_BYTES", 100_000)

    async def flood(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        try:
            while True:
                await answer.write(b"x" * 65_536)
        except ConnectionError:
            return answer

    async with answering(flood) as address, Peers([address], TOKEN) as peers:
        (metrics,) = await peers.metrics()
        rejected = await peers.rejected()
    assert metrics.reason == "its answer has more than 100000 bytes"
    assert isinstance(rejected, Unknown)
    assert "more than 100000 bytes" in rejected.reason


@pytest.mark.parametrize("content", [b"", b"{", b'{"rows": []}', b"[1]", b"[" * 100_000, b"\xff", b'[{"id": "1"}]'])
async def test_nonsense_is_unknown(content: bytes) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=content)

    async with answering(answer) as address, Peers([address], TOKEN) as peers:
        found = await peers.rejected()
    assert isinstance(found, Unknown)
    assert found.reason == f"{address}: it answered something else than it was asked for"


async def test_what_speaks_no_http_is_told() -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    async with server, Peers([f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"], TOKEN) as peers:
        (metrics,) = await peers.metrics()
    assert not metrics.ok
    assert metrics.reason.startswith("it does not speak HTTP")


async def test_a_name_of_several_addresses_is_asked_at_each(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts: list[tuple[str, str]] = []

    async def note(request: web.Request) -> web.Response:
        assert request.transport is not None
        hosts.append((request.transport.get_extra_info("sockname")[0], request.host))
        return web.Response(text="tiw_ready 1\n")

    async def getaddrinfo(host: str, port: int, **_: object) -> list[Any]:
        assert host == "ingest"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in ("127.0.0.1", "127.0.0.2")]

    async with answering(note) as first:
        port = int(first.rpartition(":")[2])
        async with answering(note, host="127.0.0.2", port=port), Peers([f"http://ingest:{port}"], TOKEN) as peers:
            monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
            found = await peers.metrics()
    assert sorted(hosts) == [("127.0.0.1", f"ingest:{port}"), ("127.0.0.2", f"ingest:{port}")]
    assert [one.address for one in found] == [
        f"http://ingest:{port} (127.0.0.1:{port})",
        f"http://ingest:{port} (127.0.0.2:{port})",
    ]


async def test_a_name_that_nobody_knows_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Peers(["http://nobody.invalid:9080"], TOKEN) as peers:
        (metrics,) = await peers.metrics()
    assert metrics.reason.startswith("its name cannot be resolved")

    async def never(*_: object, **__: object) -> list[Any]:
        await asyncio.Event().wait()
        return []

    monkeypatch.setattr(console.peers, "TIMEOUT_S", 0.1)
    async with Peers(["http://slow.invalid:9080"], TOKEN) as peers:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", never)
        (metrics,) = await peers.metrics()
    assert metrics.reason == "its name is not resolved within 0.1 s"


async def test_one_that_need_not_run_is_absent_while_its_name_is_not_known_and_asked_once_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_up: list[str] = []

    async def getaddrinfo(host: str, port: int, **_: object) -> list[Any]:
        looked_up.append(host)
        if len(looked_up) == 1:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    async with keeper([row(1)]) as address:
        port = address.rpartition(":")[2]
        async with Peers([address.replace("127.0.0.1", "archive") + "?"], TOKEN) as peers:
            monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
            (absent,) = await peers.metrics()
            assert (absent.address, absent.ok, absent.is_absent) == (f"http://archive:{port}", False, True)
            assert isinstance(await peers.rejected(), Unknown)
            assert looked_up == ["archive"], "it is not looked up again at once"
            monkeypatch.setattr(console.peers, "ABSENT_FOR_S", 0.0)
            peers._absent_until_s.clear()
            (there,) = await peers.metrics()
            assert (there.ok, there.is_absent) == (True, False)
    # Who has a name, and does not answer, should.
    async with Peers([f"{nowhere()}?"], TOKEN) as peers:
        (gone,) = await peers.metrics()
    assert (gone.ok, gone.is_absent, gone.reason) == (False, False, "Connection refused")


def test_metrics_are_read_with_their_labels_and_nonsense_is_left_out() -> None:
    text = b"""# HELP tiw_x Something.
# TYPE tiw_x counter
tiw_x_total{consumer="a",reason="said \\"no\\", a \\\\ and a } in\\nit",} 3.0
tiw_x_total{} 1e3 1700000000000
tiw_y_bucket{le="+Inf"} 7
tiw_z +Inf
tiw_nan NaN
tiw_bad{le=} x
{} 1
\xff 1
tiw_open{a="b 1
"""
    samples = parse_metrics(text)
    assert [(one.labels, one.value) for one in samples["tiw_x_total"]] == [
        ({"consumer": "a", "reason": 'said "no", a \\ and a } in\nit'}, 3.0),
        ({}, 1000.0),
    ]
    assert samples["tiw_y_bucket"][0].labels == {"le": "+Inf"}
    assert samples["tiw_z"][0].value == float("inf")
    assert set(samples) == {"tiw_x_total", "tiw_y_bucket", "tiw_z"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"received_at": "yesterday"},
        {"size": 10**400},
        {"size": -1},
        {"sdk_app_id": 2**63},
        {"reason": None},
    ],
)
async def test_a_node_that_tells_what_cannot_be_is_silent_and_the_others_are_shown(wrong: dict[str, Any]) -> None:
    async def tells(_: web.Request) -> web.Response:
        return web.json_response([row(1, **wrong)])

    async with answering(tells) as one, keeper([row(2)]) as other, Peers([one, other], TOKEN) as peers:
        found = await peers.rejected()
    assert isinstance(found, PeersRejected)
    assert [row.task_id for row in found.rows] == ["class-2"]
    assert [(silent.address, silent.reason) for silent in found.silent] == [
        (one, "it answered something else than it was asked for")
    ]


async def test_a_node_cannot_make_a_page_of_endless_reasons() -> None:
    counts = {"authentic": 1, "let_in": 0, "remaining": 0, "refused": {f"r{number}": 1 for number in range(10_000)}}

    async def endless(_: web.Request) -> web.Response:
        return web.json_response(counts)

    async with answering(endless) as address, Peers([address], TOKEN) as peers:
        assert isinstance(await peers.reverify(dry_run=True), Unknown)


@pytest.mark.parametrize(
    "hostile",
    [
        b"x{" + b"a" * 4_000_000 + b"} 1",
        b"x{" + b'a="' * 1_300_000 + b"} 1",
        b"x{" + b"a" * 8_000 + b"} 1\n",
        b"a 1\n" * 1_000_000,
    ],
)
def test_no_process_can_hold_up_the_console_with_its_metrics(hostile: bytes) -> None:
    content = (hostile * (MAX_METRICS_BYTES // len(hostile)))[:MAX_METRICS_BYTES]
    began_s = time.process_time()
    samples = parse_metrics(content + b"\ntiw_x 1\n")
    assert time.process_time() - began_s < 5
    assert sum(map(len, samples.values())) <= 50_001


def test_our_own_metrics_are_read_as_the_library_reads_them() -> None:
    from prometheus_client.parser import text_string_to_metric_families  # noqa: PLC0415 - this test alone needs it

    from telemetry import metrics, render_metrics  # noqa: PLC0415 - same

    metrics.REGISTRATIONS.labels("accepted").inc()
    content = render_metrics()
    theirs = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(content.decode())
        for sample in family.samples
    }
    ours = {
        (name, tuple(sorted(one.labels.items()))): one.value
        for name, samples in parse_metrics(content).items()
        for one in samples
    }
    assert ours == theirs
