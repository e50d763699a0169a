"""Places to send to on loopback: robots with their vendors' rules, a webhook, a mail server. Each keeps what came."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default as default_policy
from typing import Any

from aiohttp import web
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session
from multidict import CIMultiDict

#: What a robot takes within a minute of its own.
PER_MINUTE = {"wecom": 20, "dingtalk": 20, "feishu": 100}


@dataclass(kw_only=True)
class Request:
    """What came."""

    path: str
    query: dict[str, str]
    headers: CIMultiDict[str]
    body: bytes
    at_s: float

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass(kw_only=True)
class WebSink:
    """A web server that answers as it is told, at any path, or as the robot that the path names."""

    url: str = ""
    status: int = 200
    body: bytes = b'{"errcode": 0}'
    headers: dict[str, str] = field(default_factory=dict)
    #: Called before each answer, with what came; may wait, or raise.
    before: Callable[[Request], Any] = lambda _: None
    requests: list[Request] = field(default_factory=list)
    #: What a robot has taken, and when.
    taken: list[tuple[float, str]] = field(default_factory=list)
    #: A robot's clock, for its limit.
    clock_s: Callable[[], float] = time.monotonic

    def texts(self) -> list[str]:
        """Return the texts that the robot has shown."""
        return [text for _, text in self.taken]

    def as_robot(self, request: Request) -> tuple[int, bytes] | None:
        """Answer as a robot does: refusals come with HTTP 200, and are not shown."""
        kind = request.path.strip("/").partition("/")[0]
        if kind not in PER_MINUTE:
            return None
        now_s = self.clock_s()
        code, text = getattr(self, f"_{kind}")(request)
        recent = [at_s for at_s, _ in self.taken if at_s > now_s - 60]
        if code == 0 and len(recent) >= PER_MINUTE[kind]:
            code = {"wecom": 45009, "dingtalk": 130101, "feishu": 11232}[kind]
        if code == 0:
            self.taken.append((now_s, text))
        return 200, json.dumps({"code" if kind == "feishu" else "errcode": code, "errmsg": "as said"}).encode()

    def _wecom(self, request: Request) -> tuple[int, str]:
        text = request.json["text"]["content"]
        return (40058 if len(text.encode()) > 2048 else 0), text

    def _dingtalk(self, request: Request) -> tuple[int, str]:
        signed = f"{request.query.get('timestamp')}\nSEC-dingtalk".encode()
        sign = base64.b64encode(hmac.digest(b"SEC-dingtalk", signed, hashlib.sha256)).decode()
        if request.query.get("sign") != sign or abs(int(request.query["timestamp"]) / 1000 - time.time()) > 3600:
            return 310000, ""
        return (460101 if len(request.body) > 20_000 else 0), request.json["text"]["content"]

    def _feishu(self, request: Request) -> tuple[int, str]:
        body = request.json
        key = f"{body.get('timestamp')}\nSEC-feishu".encode()
        sign = base64.b64encode(hmac.new(key, digestmod=hashlib.sha256).digest()).decode()
        if body.get("sign") != sign or abs(int(body["timestamp"]) - time.time()) > 3600:
            return 19021, ""
        return (9499 if len(request.body) > 20_480 else 0), body["content"]["text"]


@asynccontextmanager
async def run_web_sink() -> AsyncIterator[WebSink]:
    """Serve on a free port of loopback while the block runs."""
    sink = WebSink()

    async def answer(request: web.Request) -> web.Response:
        came = Request(
            path=request.path,
            query=dict(request.query),
            headers=CIMultiDict(request.headers),
            body=await request.read(),
            at_s=time.monotonic(),
        )
        sink.requests.append(came)
        waiting = sink.before(came)
        if asyncio.iscoroutine(waiting):
            await waiting
        robot = sink.as_robot(came)
        status, body = (sink.status, sink.body) if robot is None else robot
        return web.Response(status=status, body=body, headers=sink.headers)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        sink.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield sink
    finally:
        await runner.cleanup()


@dataclass(kw_only=True)
class MailSink:
    """A mail server that answers as it is told, and knows one user: ops with the password secret."""

    port: int = 0
    rcpt: str = "250 OK"
    data: str = "250 OK"
    mails: list[EmailMessage] = field(default_factory=list)
    envelopes: list[Envelope] = field(default_factory=list)

    async def handle_RCPT(  # noqa: N802 - aiosmtpd calls it so
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Take or refuse a recipient."""
        del server, session, options
        if self.rcpt.startswith("250") or (self.rcpt.startswith("!") and address not in self.rcpt):
            envelope.rcpt_tos.append(address)
            return "250 OK"
        return self.rcpt.partition(" ")[2] if self.rcpt.startswith("!") else self.rcpt

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - see above
        """Take or refuse a mail."""
        del server, session
        if self.data.startswith("250"):
            content = envelope.content
            assert isinstance(content, bytes)
            self.envelopes.append(envelope)
            self.mails.append(message_from_bytes(content, policy=default_policy))
        return self.data


@asynccontextmanager
async def run_mail_sink() -> AsyncIterator[MailSink]:
    """Serve on a free port of loopback while the block runs."""
    sink = MailSink()

    def authenticate(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        return AuthResult(success=(data.login, data.password) == (b"ops", b"secret"), handled=False)

    def make() -> SMTP:
        return SMTP(sink, hostname="sink", authenticator=authenticate, auth_require_tls=False, loop=loop)

    loop = asyncio.get_running_loop()
    server = await loop.create_server(make, "127.0.0.1", 0)
    sink.port = server.sockets[0].getsockname()[1]
    try:
        yield sink
    finally:
        server.close()
        await server.wait_closed()
