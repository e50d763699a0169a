"""Who asks: the session in a browser's cookie, or the token of a script; who is let in and out; bounds on guessing."""

import asyncio
import time
from typing import Final

import structlog
from aiohttp import hdrs, web

from console.rendering import attempt
from console.requests import Unknown
from console.security import MOST_FAILURES, SESSION_S, Failures, Hosts, KnownBrowser, Role, Session, Sessions
from store import Store, list_who_did

SESSION_COOKIE: Final = "tiw_console"
BROWSER_COOKIE: Final = "tiw_console_browser"

_YEAR_S: Final = 365 * 86_400

#: How often the store is asked, while somebody looks, for the sessions that were ended by other processes.
_ENDED_EVERY_S: Final = 10.0
_ENDED_TIMEOUT_S: Final = 1.0

#: What a session that was logged out is kept under, where the page Changes shows it.
LOGOUT: Final = "logout"

_log = structlog.get_logger()


class Logins:
    """Knows who asks, and lets in and out."""

    def __init__(self, sessions: Sessions, hosts: Hosts, store: Store) -> None:
        self._sessions = sessions
        self._hosts = hosts
        self._store = store
        self._failures = Failures()
        self._failures_of_browsers = Failures(of_all=MOST_FAILURES)
        self._ended_asked_s = float("-inf")
        self._ended_known_us = time.time_ns() // 1000 - SESSION_S * 1_000_000
        self._asking_ended = asyncio.Lock()

    def session(self, http: web.Request) -> tuple[Session | None, bool]:
        """Return who asks, and whether a cookie says so: a browser sends that by itself, a script its token."""
        token = bearer_token(http)
        if token is None:
            return self._sessions.read(http.cookies.get(self._session_cookie(http), "")), True
        role = self.role(http, token)
        return (None if role is None else Session(id="token", role=role, expires_at_s=0.0)), False

    def role(self, http: web.Request, token: str) -> Role | None:
        """Return what a token lets do. Raises `HTTPTooManyRequests` where wrong ones were tried too often."""
        address = http.remote or ""
        role = self._sessions.role_of(token)
        wait_s = self._failures.wait_s(address)
        if wait_s and not self._is_back(http, role):
            raise web.HTTPTooManyRequests(headers={hdrs.RETRY_AFTER: str(round(wait_s) + 1)})
        if role is None:
            self._failures.note(address)
            _log.warning("console_login_refused", address=address)
        return role

    def _is_back(self, http: web.Request, role: Role | None) -> bool:
        """Whether a browser gives the token again that was right in it before: others' wrong ones do not keep it out.

        All come from one address behind a proxy. Whoever gives another token learns nothing, not even that it is right.
        """
        browser = self._sessions.read_browser(http.cookies.get(BROWSER_COOKIE, ""))
        if browser is None or self._failures_of_browsers.wait_s(browser.id):
            return False
        if role != browser.role:
            self._failures_of_browsers.note(browser.id)
        return role == browser.role

    def begin(self, http: web.Request, response: web.StreamResponse, role: Role) -> None:
        """Let a browser in: a session of its own, and by what it is known when it comes again."""
        session = self._sessions.begin(role)
        _log.info("console_login", who=session.id, role=role, address=http.remote)
        self._give(http, response, session)
        known = self._sessions.browser_cookie(KnownBrowser(id=session.id, role=role))
        self.set_cookie(http, response, BROWSER_COOKIE, known, max_age_s=_YEAR_S, path="/login")

    def renew(self, http: web.Request, response: web.StreamResponse, session: Session) -> None:
        """Let a session go on for as long as a new one."""
        self._give(http, response, self._sessions.begin(session.role, session_id=session.id))

    def end(self, http: web.Request, response: web.StreamResponse, session: Session) -> None:
        """Let a browser out. Other processes know it once the store has it, as a change by the name of `LOGOUT`."""
        self._sessions.end(session.id)
        self.set_cookie(http, response, self._session_cookie(http), "", max_age_s=0)

    async def learn_ended(self) -> None:
        """Let sessions that were ended in another process end here, too: in the one before this, or one beside it.

        While the store is away they are not known: nor is anything else that it has.
        """
        async with self._asking_ended:
            if time.monotonic() - self._ended_asked_s < _ENDED_EVERY_S:
                return
            now_us = time.time_ns() // 1000
            asked = list_who_did(self._store, LOGOUT, since_us=self._ended_known_us)
            found = await attempt(asked, timeout_s=_ENDED_TIMEOUT_S)
            self._ended_asked_s = time.monotonic()
            if not isinstance(found, Unknown):
                self._sessions.end(*found)
                # Clocks of others may be behind.
                self._ended_known_us = now_us - 60_000_000

    def _give(self, http: web.Request, response: web.StreamResponse, session: Session) -> None:
        name = self._session_cookie(http)
        self.set_cookie(http, response, name, self._sessions.cookie(session), max_age_s=SESSION_S)

    def _session_cookie(self, http: web.Request) -> str:
        """Return the name of the session's cookie: over HTTPS one that no other name, and no plain answer, may set."""
        return f"__Host-{SESSION_COOKIE}" if self._hosts.is_secure(http.host) else SESSION_COOKIE

    def set_cookie(
        self, http: web.Request, response: web.StreamResponse, name: str, value: str, *, max_age_s: int, path: str = "/"
    ) -> None:
        """Set a cookie that no script reads and no other site has sent."""
        response.set_cookie(
            name,
            value,
            max_age=max_age_s,
            path=path,
            httponly=True,
            samesite="Strict",
            secure=self._hosts.is_secure(http.host),
        )


def bearer_token(http: web.Request) -> str | None:
    """Return the token of a script. A proxy's own passwords (Basic) come with the browser's cookies and are none."""
    scheme, _, token = http.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None
