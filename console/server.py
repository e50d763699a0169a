"""The console's HTTP server: every request's way through the checks, and what its pages are made of."""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from http import HTTPStatus
from typing import Any, Final, Self
from urllib.parse import quote, urlencode

import msgspec
import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler as HttpHandler
from msgspec import Struct, structs

from archive import DEFAULT_HOSTS, AddressRules, Place, PlaceError
from broker import BrokerError, Transport
from console import changes, consumers, dead_letters, events, media, now, recording, recordings, rejected, sending
from console.live import Live, Situation
from console.logins import LOGOUT, Logins, bearer_token
from console.peers import Peers
from console.rendering import STATIC, Texts, attempt, language_of, render, static_names
from console.requests import Answer, BadInputError, Done, Language, Request, Route, Shown, Unknown
from console.security import (
    HEADERS,
    Hosts,
    Session,
    Sessions,
    content_security_policy,
    is_own_path,
)
from store import Change, Store, StoreError, check_schema, keep_change
from telemetry import Throttle, give_every_request_a_target

#: The pages of each role, whole, in its file.
ROUTES: Final[tuple[Route, ...]] = (
    *now.ROUTES,
    *recordings.ROUTES,
    *recording.ROUTES,
    *media.ROUTES,
    *events.ROUTES,
    *dead_letters.ROUTES,
    *rejected.ROUTES,
    *consumers.ROUTES,
    *sending.ROUTES,
    *changes.ROUTES,
)

#: A form of ours is far smaller.
MAX_FORM_BYTES: Final = 256 * 1024
MAX_REPORT_BYTES: Final = 16 * 1024
_FORM: Final = "application/x-www-form-urlencoded"
_BODY_TIMEOUT_S: Final = 10.0

DONE_COOKIE: Final = "tiw_console_done"
LANGUAGE_COOKIE: Final = "tiw_console_language"
_YEAR_S: Final = 365 * 86_400
#: In a cookie, which browsers drop if it has more than 4096 bytes: a third more, and its signature.
_DONE_BYTES: Final = 2800

#: Reports of browsers, and what is no HTTP, are anybody's to send: one line a minute tells that there are some.
_TOLD_EVERY_S: Final = 60.0

_log = structlog.get_logger()


class _OneAMinute(logging.Filter):
    def __init__(self) -> None:
        super().__init__()
        self._throttle = Throttle(_TOLD_EVERY_S)

    def filter(self, record: logging.LogRecord) -> bool:
        del record
        return self._throttle.passes()


#: For aiohttp, which logs a traceback of every request that is none.
_http_log = logging.getLogger("console.http")
_http_log.addFilter(_OneAMinute())


class ConsoleConfig(Struct, frozen=True, kw_only=True):
    """How the console is reached, and by whom.

    `listening` is a socket that listens already, in place of `host` and `port`. `token` lets do everything,
    `read_token` only look. `url` is the address that browsers use, where that is not the one it listens at.
    `kept_s`: so long the vendor keeps files; only from `addresses` there they are played. `idle_exit_s`: without a
    request or an open live page for so long, `idle` is set.
    """

    host: str = "127.0.0.1"
    port: int = 8090
    listening: socket.socket | None = None
    token: str
    read_token: str | None = None
    url: str | None = None
    kept_s: float = 72 * 3600.0
    addresses: AddressRules = AddressRules(hosts=DEFAULT_HOSTS)
    idle_exit_s: float | None = None

    def __repr__(self) -> str:
        return f"ConsoleConfig(host={self.host!r}, port={self.port!r}, url={self.url!r}, ...)"


OpenPlace = Callable[[], AbstractAsyncContextManager[Place]]


class Console:
    """What pages are made of: the store, the broker, the processes that are asked, and where files are archived."""

    def __init__(
        self,
        config: ConsoleConfig,
        *,
        store: Store,
        transport: Transport,
        peers: Peers,
        open_place: OpenPlace | None = None,
    ) -> None:
        self.config = config
        self.store = store
        self.transport = transport
        self.peers = peers
        self.texts = Texts()
        self.idle = asyncio.Event()
        self.reports = 0
        self.live = Live(store=store, transport=transport, peers=peers, render=self._render_live)
        self._open_place = open_place
        self._place: Place | None = None
        self._opening = asyncio.Lock()
        self._turns: dict[str, asyncio.Lock] = {}
        self._stack = AsyncExitStack()
        self._schema_fits = False

    @property
    def has_archive(self) -> bool:
        """Whether this process was told where files are archived."""
        return self._open_place is not None

    async def archive(self) -> Place | Unknown:
        """Return where files are archived, opened when it is first asked for."""
        async with self._opening:
            if self._place is None and self._open_place is not None:
                try:
                    self._place = await self._stack.enter_async_context(self._open_place())
                except (PlaceError, OSError) as error:
                    return Unknown(reason=str(error))
            return self._place or Unknown(reason="TIW_ARCHIVE is not set for the console")

    def turn(self, kind: str) -> asyncio.Lock:
        """Return what is held while something of this kind is changed: who comes second finds what the first did."""
        return self._turns.setdefault(kind, asyncio.Lock())

    def _render_live(self, situation: Situation, language: Language) -> Mapping[str, str]:
        values = {"t": self.texts.translator(language), **structs.asdict(now.view_of(situation))}
        return {name: render(f"_now_{name}.html", values) for name in now.SECTIONS}

    async def require_schema(self) -> None:
        """Return if the store's tables are those that we work with. Raises `StoreError`."""
        if not self._schema_fits:
            await check_schema(self.store)
            self._schema_fits = True

    async def note(self, request: Request, action: str, detail: Mapping[str, object], result: str) -> None:
        """Keep a change. Where the store does not answer, the log has it alone."""
        _log.info("console_change", who=request.who, role=request.role, action=action, result=result)
        change = Change(
            at_us=time.time_ns() // 1000,
            who=request.who,
            role=request.role,
            address=request.address,
            action=action,
            detail=dict(detail),
            result=result,
        )
        kept = await attempt(keep_change(self.store, change))
        if isinstance(kept, Unknown):
            _log.error("console_change_not_kept", action=action, reason=kept.reason)

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()


class RunningConsole(Struct, frozen=True, kw_only=True):
    """A console that listens at `port`. `idle` is set when nobody looked at it for `idle_exit_s`."""

    port: int
    idle: asyncio.Event


@asynccontextmanager
async def run_console(
    config: ConsoleConfig,
    *,
    store: Store,
    transport: Transport,
    peers: Peers,
    open_place: OpenPlace | None = None,
) -> AsyncIterator[RunningConsole]:
    """Serve the console while the block runs. What is given was entered before. Raises OSError for its address."""
    console = Console(config, store=store, transport=transport, peers=peers, open_place=open_place)
    async with console:
        server = _Server(console)
        runner = web.AppRunner(
            server.application(),
            access_log=None,
            logger=_http_log,
            keepalive_timeout=75.0,
            shutdown_timeout=2.0,
            auto_decompress=False,
        )
        await runner.setup()
        give_every_request_a_target(runner)
        try:
            if config.listening is not None:
                await web.SockSite(runner, config.listening).start()
                port = config.listening.getsockname()[1]
            else:
                site = web.TCPSite(runner, config.host, config.port)
                await site.start()
                port = site.port
            watching = asyncio.create_task(server.watch_idle(), name="console idle")
            try:
                yield RunningConsole(port=port, idle=console.idle)
            finally:
                watching.cancel()
        finally:
            await runner.cleanup()


class _Server:
    """Answers requests: checks them, calls the page, and turns what it returns into HTML or JSON."""

    def __init__(self, console: Console) -> None:
        config = console.config
        self._console = console
        self._sessions = Sessions(config.token, config.read_token)
        self._hosts = Hosts(config.url)
        self._logins = Logins(self._sessions, self._hosts, console.store)
        self._translators = {language: console.texts.translator(language) for language in ("en", "zh")}
        self._open = 0
        self._last_s = time.monotonic()
        self._reports_told = Throttle(_TOLD_EVERY_S)

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._middleware], client_max_size=MAX_FORM_BYTES)
        app.on_response_prepare.append(self._add_headers)
        app.on_shutdown.append(self._end_streams)
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/static/{digest}/{name:.+}", self._static)
        app.router.add_get("/login", self._login_page)
        app.router.add_post("/login", self._login)
        app.router.add_post("/csp-report", self._csp_report)
        app.router.add_post("/logout", self._page(Route(method="POST", path="/logout", handler=_nothing, store=False)))
        app.router.add_get("/language", self._language)
        for route in ROUTES:
            # What can be got can be asked about by HEAD.
            add = app.router.add_get if route.method == "GET" else app.router.add_post
            add(route.path, self._page(route))
        return app

    async def watch_idle(self) -> None:
        idle_s = self._console.config.idle_exit_s
        while idle_s is not None:
            left_s = idle_s - (time.monotonic() - self._last_s)
            if left_s <= 0 and not self._open:
                self._console.idle.set()
                return
            await asyncio.sleep(max(1.0, left_s))

    @web.middleware
    async def _middleware(self, request: web.Request, handler: HttpHandler) -> web.StreamResponse:
        http = request
        if not self._hosts.allows(http.host):
            text = "This console is not known by that name: set TIW_CONSOLE_URL to the address that browsers use.\n"
            return web.Response(status=HTTPStatus.MISDIRECTED_REQUEST, text=text)
        self._open += 1
        try:
            return await handler(http)
        except web.HTTPException as error:
            return self._refused(http, error.status, headers=error.headers)
        except ConnectionError:
            raise
        except Exception:  # noqa: BLE001 - the last that sees it: what went wrong is told in the log, and the page says so
            _log.exception("console_page_failed", path=http.path)
            return self._refused(http, HTTPStatus.INTERNAL_SERVER_ERROR)
        finally:
            self._open -= 1
            self._last_s = time.monotonic()

    async def _add_headers(self, http: web.Request, answer: web.StreamResponse) -> None:
        for name, value in HEADERS.items():
            answer.headers.setdefault(name, value)
        answer.headers.setdefault("Content-Security-Policy", content_security_policy())
        answer.headers.setdefault(hdrs.CACHE_CONTROL, "no-store")
        if self._hosts.is_trustworthy(http.host):
            # Elsewhere a browser does nothing with it but complain.
            answer.headers.setdefault("Cross-Origin-Opener-Policy", "same-origin")
        if self._hosts.is_secure(http.host):
            answer.headers.setdefault("Strict-Transport-Security", f"max-age={_YEAR_S}")

    def _page(self, route: Route) -> HttpHandler:
        async def answer(http: web.Request) -> web.StreamResponse:
            await self._logins.learn_ended()
            session, is_cookie = self._logins.session(http)
            if session is None:
                return self._not_logged_in(http)
            if route.role == "operate" and session.role != "operate":
                return self._refused(http, HTTPStatus.FORBIDDEN)
            form: Mapping[str, str] = {}
            if route.method == "POST":
                form = await self._form(http)
                if is_cookie and not self._is_own_form(http, session, form):
                    return self._refused(http, HTTPStatus.FORBIDDEN, key="refused.forged")
            request = self._request(http, session, form)
            if route.path == "/logout":
                return await self._logged_out(request, session)
            answered = await self._ask(route, request)
            if route.method == "POST" and not request.has_noted:
                is_refused = isinstance(answered, Shown) and answered.status >= HTTPStatus.BAD_REQUEST
                await request.note(route.path, {}, "not done" if is_refused else "done")
            response = self._response(request, session, answered)
            if is_cookie and session.is_old and not response.prepared:
                self._logins.renew(http, response, session)
            return response

        return answer

    async def _ask(self, route: Route, request: Request) -> Answer:
        try:
            if route.store:
                await self._console.require_schema()
            return await route.handler(request)
        except BadInputError as error:
            return Shown(
                template="unknown.html",
                title=request.t("bad_input.title"),
                values={"heading": request.t("bad_input.title"), "reason": str(error), "remedy": None},
                status=HTTPStatus.BAD_REQUEST,
            )
        except (StoreError, BrokerError, PlaceError, TimeoutError) as error:
            return Shown(
                template="unknown.html",
                title=request.t("unknown.title"),
                values={
                    "heading": request.t("unknown.title"),
                    "reason": str(error) or request.t("unknown.no_answer"),
                    "remedy": request.t("unknown.remedy"),
                },
                command="tiw doctor",
                status=HTTPStatus.SERVICE_UNAVAILABLE,
            )

    async def _form(self, http: web.Request) -> Mapping[str, str]:
        if http.can_read_body and http.content_type != _FORM:
            # What else there is has parts and files: more to go wrong, for a form that none of our pages has.
            raise web.HTTPUnsupportedMediaType
        try:
            async with asyncio.timeout(_BODY_TIMEOUT_S):
                sent = await http.post()
        except TimeoutError:
            raise web.HTTPRequestTimeout from None
        except ValueError:
            raise web.HTTPBadRequest from None
        return {name: value for name, value in sent.items() if isinstance(value, str)}

    def _is_own_form(self, http: web.Request, session: Session, form: Mapping[str, str]) -> bool:
        origin = http.headers.get(hdrs.ORIGIN)
        if origin is not None and not self._hosts.is_own_origin(origin, http.host):
            return False
        return self._sessions.is_form_token(session, form.get("form_token", ""))

    def _request(self, http: web.Request, session: Session, form: Mapping[str, str]) -> Request:
        language = self._language_of(http)
        return Request(
            http,
            self._console,
            language=language,
            t=self._translators[language],
            role=session.role,
            who=session.id,
            form=form,
            wants_json=_wants_json(http),
            is_valid=lambda: self._logins.session(http)[0] is not None,
        )

    def _language_of(self, http: web.Request) -> Language:
        return language_of(http.headers.get(hdrs.ACCEPT_LANGUAGE, ""), http.cookies.get(LANGUAGE_COOKIE))

    def _response(self, request: Request, session: Session, answered: Answer) -> web.StreamResponse:
        match answered:
            case Shown():
                return self._shown(request, session, answered)
            case Done():
                return self._done(request, session, answered)
        return answered

    def _shown(self, request: Request, session: Session, shown: Shown) -> web.StreamResponse:
        if _wants_json(request.http):
            return _json_of(request.http, shown)
        values = self._frame(request.http, request.language) | {
            "title": shown.title,
            "path": request.http.path,
            "address": request.http.path_qs,
            "role": session.role,
            "may_operate": session.role == "operate",
            "form_token": self._sessions.form_token(session),
            "command": shown.command,
            "json_address": _with(request.http, format="json") if shown.document is not None else None,
            "next_address": None if shown.next is None else f"{request.http.path}?{shown.next}",
            "done": self._take_done(request.http, session),
            **shown.values,
        }
        response = web.Response(
            status=shown.status,
            text=render(shown.template, values),
            content_type="text/html",
            charset="utf-8",
            headers={"Content-Security-Policy": content_security_policy(shown.media_origins)},
        )
        if DONE_COOKIE in request.http.cookies:
            response.del_cookie(DONE_COOKIE, path="/")
        return response

    def _frame(self, http: web.Request, language: Language) -> dict[str, Any]:
        return {"t": self._translators[language], "language": language, "path": http.path, "address": http.path_qs}

    def _done(self, request: Request, session: Session, done: Done) -> web.StreamResponse:
        if _wants_json(request.http):
            return _json(HTTPStatus.OK if done.ok else HTTPStatus.CONFLICT, done)
        response = web.Response(status=HTTPStatus.SEE_OTHER, headers={hdrs.LOCATION: done.to})
        text = done.text.encode("utf-8", "replace")[:_DONE_BYTES].decode("utf-8", "ignore")
        told = f"{'ok' if done.ok else 'failed'} {text}"
        self._logins.set_cookie(request.http, response, DONE_COOKIE, self._sessions.seal(session, told), max_age_s=60)
        return response

    def _take_done(self, http: web.Request, session: Session) -> dict[str, object] | None:
        sealed = http.cookies.get(DONE_COOKIE)
        told = None if sealed is None else self._sessions.unseal(session, sealed)
        if told is None:
            return None
        outcome, _, text = told.partition(" ")
        return {"ok": outcome == "ok", "text": text}

    async def _end_streams(self, _: web.Application) -> None:
        await self._console.live.close()

    async def _livez(self, http: web.Request) -> web.StreamResponse:
        del http
        return _json(HTTPStatus.OK, {"live": True})

    async def _static(self, http: web.Request) -> web.StreamResponse:
        name = http.match_info["name"]
        if static_names().get(name) != f"{http.match_info['digest']}/{name}":
            raise web.HTTPNotFound
        return web.FileResponse(STATIC / name, headers={hdrs.CACHE_CONTROL: f"public, max-age={_YEAR_S}, immutable"})

    async def _language(self, http: web.Request) -> web.StreamResponse:
        back = http.query.get("back", "/")
        response = web.Response(
            status=HTTPStatus.SEE_OTHER, headers={hdrs.LOCATION: back if is_own_path(back) else "/"}
        )
        chosen = language_of("", http.query.get("to"))
        self._logins.set_cookie(http, response, LANGUAGE_COOKIE, chosen, max_age_s=_YEAR_S)
        return response

    async def _csp_report(self, http: web.Request) -> web.StreamResponse:
        """Take note that a page tried to load what it may not."""
        with contextlib.suppress(TimeoutError, web.HTTPRequestEntityTooLarge):
            async with asyncio.timeout(_BODY_TIMEOUT_S):
                await http.content.read(MAX_REPORT_BYTES)
        self._console.reports += 1
        if self._reports_told.passes():
            _log.warning("console_policy_violated", reports=self._console.reports)
        return web.Response(status=HTTPStatus.NO_CONTENT)

    async def _login_page(self, http: web.Request) -> web.StreamResponse:
        return self._login_form(http, HTTPStatus.OK)

    def _login_form(self, http: web.Request, status: int, problem: str | None = None) -> web.StreamResponse:
        language = self._language_of(http)
        t = self._translators[language]
        back = http.query.get("back", "/")
        values = self._frame(http, language) | {
            "title": t("login.title"),
            "problem": None if problem is None else t(problem),
            "back": back if is_own_path(back) else "/",
        }
        page = render("login.html", values)
        return web.Response(status=status, text=page, content_type="text/html", charset="utf-8")

    async def _login(self, http: web.Request) -> web.StreamResponse:
        origin = http.headers.get(hdrs.ORIGIN)
        if origin is not None and not self._hosts.is_own_origin(origin, http.host):
            return self._login_form(http, HTTPStatus.FORBIDDEN, "refused.forged")
        form = await self._form(http)
        try:
            role = self._logins.role(http, form.get("token", "").strip())
        except web.HTTPTooManyRequests as error:
            response = self._login_form(http, HTTPStatus.TOO_MANY_REQUESTS, "login.wait")
            response.headers[hdrs.RETRY_AFTER] = error.headers[hdrs.RETRY_AFTER]
            return response
        if role is None:
            return self._login_form(http, HTTPStatus.UNAUTHORIZED, "login.wrong")
        back = form.get("back", "/")
        response = web.Response(
            status=HTTPStatus.SEE_OTHER, headers={hdrs.LOCATION: back if is_own_path(back) else "/"}
        )
        self._logins.begin(http, response, role)
        return response

    async def _logged_out(self, request: Request, session: Session) -> web.StreamResponse:
        response = web.Response(status=HTTPStatus.SEE_OTHER, headers={hdrs.LOCATION: "/login"})
        self._logins.end(request.http, response, session)
        await request.note(LOGOUT, {}, "done")
        return response

    def _not_logged_in(self, http: web.Request) -> web.StreamResponse:
        if bearer_token(http) is not None or _wants_json(http):
            answer = _json(HTTPStatus.UNAUTHORIZED, {"error": "log in, or send Authorization: Bearer TOKEN"})
            answer.headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
            return answer
        if http.path == "/live":
            # A browser would ask again and again.
            return web.Response(status=HTTPStatus.NO_CONTENT)
        back = http.path_qs if http.method == "GET" else "/"
        return web.Response(status=HTTPStatus.SEE_OTHER, headers={hdrs.LOCATION: f"/login?back={quote(back, safe='')}"})

    def _refused(
        self, http: web.Request, status: int, *, headers: Mapping[str, str] | None = None, key: str | None = None
    ) -> web.StreamResponse:
        t = self._translators[self._language_of(http)]
        key = key or f"refused.{status if status in _REFUSALS else HTTPStatus.INTERNAL_SERVER_ERROR}"
        if _wants_json(http):
            response = _json(status, {"error": t(key)})
        else:
            values = self._frame(http, self._language_of(http)) | {"title": t("refused.title"), "reason": t(key)}
            page = render("refused.html", values)
            response = web.Response(status=status, text=page, content_type="text/html", charset="utf-8")
        for name in (hdrs.RETRY_AFTER, hdrs.ALLOW):
            if headers is not None and name in headers:
                response.headers[name] = headers[name]
        return response


#: What `refused.html` has a sentence for.
_REFUSALS: Final = frozenset({403, 404, 405, 406, 408, 413, 415, 429, 500})


async def _nothing(request: Request) -> Answer:
    raise AssertionError(request)


def _wants_json(http: web.Request) -> bool:
    return http.query.get("format") == "json" or http.headers.get(hdrs.ACCEPT, "").startswith("application/json")


def _with(http: web.Request, **changed: str) -> str:
    """Return the address of a request with other members of its query."""
    return f"{http.path}?{urlencode([*((k, v) for k, v in http.query.items() if k not in changed), *changed.items()])}"


def _json_of(http: web.Request, shown: Shown) -> web.StreamResponse:
    if shown.status >= HTTPStatus.BAD_REQUEST:
        return _json(shown.status, {"error": shown.values.get("reason", shown.title)})
    if shown.document is None:
        raise web.HTTPNotAcceptable
    if isinstance(shown.document, Unknown):
        return _json(HTTPStatus.SERVICE_UNAVAILABLE, {"error": shown.document.reason})
    answer = _json(shown.status, shown.document)
    if shown.next is not None:
        answer.headers[hdrs.LINK] = f'<{http.path}?{shown.next}&format=json>; rel="next"'
    return answer


def _json(status: int, content: object) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(content), content_type="application/json")
