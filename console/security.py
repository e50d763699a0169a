"""Who may look and who may act: login, sessions, forms that were not forged, hosts, and what browsers must refuse."""

import base64
import hashlib
import hmac
import ipaddress
import re
import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeAlias, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

Role: TypeAlias = Literal["read", "operate"]

#: A working day; whoever keeps a page open stays logged in, because a session is renewed in its second half.
SESSION_S: Final = 12 * 3600

#: So many wrong tokens from one address, and from all together, before the next has to wait.
FAILURES_OF_ONE: Final = 10
FAILURES_OF_ALL: Final = 100
FAILURES_WITHIN_S: Final = 300.0

#: More are not remembered; then only the bound for all together holds.
MOST_FAILURES: Final = 10_000

_MOST_REVOKED: Final = 10_000

_SCRIPT = "script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'"
_NOBODY = "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"

#: For every answer: https://owasp.org/www-project-secure-headers/
HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


def content_security_policy(media_origins: Sequence[str] = ()) -> str:
    """Return what a page may load: only what comes from here, and videos also from `media_origins`."""
    media = " ".join(["'self'", *media_origins])
    return f"default-src 'none'; {_SCRIPT}; media-src {media}; {_NOBODY}; report-uri /csp-report"


class KnownBrowser(Struct, frozen=True, kw_only=True):
    """A browser in which somebody has logged in with the token of this role."""

    id: str
    role: Role


class Session(Struct, frozen=True, kw_only=True):
    """Somebody who logged in. `id` names the session in the list of changes; it is no secret."""

    id: str
    role: Role
    expires_at_s: float

    @property
    def is_old(self) -> bool:
        """Whether it is time for a new cookie."""
        return self.expires_at_s - time.time() < SESSION_S / 2


_Signed = TypeVar("_Signed", Session, KnownBrowser)


class Sessions:
    """Makes sessions and knows them again, also after a restart: a cookie is signed with its token, and kept nowhere.

    A token that is changed ends the sessions that were begun with it. Which were ended before this process began, it
    has to be told.
    """

    def __init__(self, token: str, read_token: str | None = None) -> None:
        self._tokens: dict[Role, bytes] = {"operate": token.encode()}
        if read_token is not None:
            self._tokens["read"] = read_token.encode()
        self._keys: dict[Role, bytes] = {
            role: hmac.digest(one, b"tiw console session", hashlib.sha256) for role, one in self._tokens.items()
        }
        self._revoked: deque[str] = deque(maxlen=_MOST_REVOKED)

    def role_of(self, token: str) -> Role | None:
        """Return what a token lets do, None if it is none of ours. Takes as long whichever it is."""
        given = token.encode("utf-8", "surrogatepass")
        matching = [role for role, expected in self._tokens.items() if hmac.compare_digest(given, expected)]
        return matching[0] if matching else None

    def begin(self, role: Role, *, session_id: str | None = None) -> Session:
        """Return a new session, or a longer one with the id of an old one."""
        return Session(
            id=session_id or secrets.token_hex(8), role=role, expires_at_s=float(int(time.time()) + SESSION_S)
        )

    def cookie(self, session: Session) -> str:
        """Return what a browser keeps of a session."""
        return self._signed("session", session)

    def read(self, cookie: str) -> Session | None:
        """Return the session of a cookie that we made and that holds."""
        session = self._opened("session", cookie, Session)
        if session is None or session.expires_at_s <= time.time() or session.id in self._revoked:
            return None
        return session

    def browser_cookie(self, browser: KnownBrowser) -> str:
        """Return by what a browser is known again when it logs in anew; it lets nobody in."""
        return self._signed("browser", browser)

    def read_browser(self, cookie: str) -> KnownBrowser | None:
        """Return the browser of a cookie that we made, while the token that was given in it holds."""
        return self._opened("browser", cookie, KnownBrowser)

    def end(self, *ids: str) -> None:
        """Know these sessions no more."""
        self._revoked.extend(ids)

    def form_token(self, session: Session) -> str:
        """Return what a form of ours has and one of somebody else's has not."""
        return self._sign(session.role, "form", session.id)

    def is_form_token(self, session: Session, token: str) -> bool:
        """Whether a form that was sent is one of ours, made for this session."""
        return _same(token, self.form_token(session))

    def seal(self, session: Session, text: str) -> str:
        """Return a text for a cookie, so that nobody else can have put it there."""
        content = _text(text.encode("utf-8", "replace"))
        return f"{content}.{self._sign(session.role, 'text', f'{session.id} {content}')}"

    def unseal(self, session: Session, sealed: str) -> str | None:
        """Return the text of `seal`, None if it is not one that was made for this session."""
        content, _, signature = sealed.partition(".")
        if not _same(signature, self._sign(session.role, "text", f"{session.id} {content}")):
            return None
        return _bytes(content).decode("utf-8", "replace")

    def _signed(self, purpose: str, value: Session | KnownBrowser) -> str:
        content = _text(msgspec.json.encode(value))
        return f"{content}.{self._sign(value.role, purpose, content)}"

    def _opened(self, purpose: str, cookie: str, kind: type[_Signed]) -> _Signed | None:
        content, _, signature = cookie.partition(".")
        try:
            value = msgspec.json.decode(_bytes(content), type=kind)
        except (ValueError, msgspec.DecodeError):
            return None
        if value.role not in self._keys or not _same(signature, self._sign(value.role, purpose, content)):
            return None
        return value

    def _sign(self, role: Role, purpose: str, content: str) -> str:
        signed = hmac.digest(self._keys[role], f"{purpose} {content}".encode("utf-8", "surrogatepass"), hashlib.sha256)
        return _text(signed)


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode())


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    if not re.fullmatch(r"[A-Za-z0-9_-]*", text):
        raise ValueError("not base64url")
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Failures:
    """Bounds how often wrong tokens are tried: of one address, or browser, and of all together."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, of_all: int = FAILURES_OF_ALL) -> None:
        self._clock = clock
        self._of_all = of_all
        self._at_s: deque[tuple[float, str]] = deque()
        self._counts: dict[str, int] = {}

    def wait_s(self, address: str) -> float:
        """Return how long the next attempt of this address has to wait, 0 for not at all."""
        now_s = self._clock()
        while self._at_s and now_s - self._at_s[0][0] > FAILURES_WITHIN_S:
            _, gone = self._at_s.popleft()
            self._counts[gone] -= 1
            if not self._counts[gone]:
                del self._counts[gone]
        is_over = self._counts.get(address, 0) >= FAILURES_OF_ONE or len(self._at_s) >= self._of_all
        return FAILURES_WITHIN_S - (now_s - self._at_s[0][0]) if is_over and self._at_s else 0.0

    def note(self, address: str) -> None:
        """Count a wrong token."""
        if len(self._at_s) < MOST_FAILURES:
            self._at_s.append((self._clock(), address))
            self._counts[address] = self._counts.get(address, 0) + 1


class Hosts:
    """Knows by which names this console may be asked for.

    A page of somebody else whose name leads to our address (DNS rebinding) asks with that name: it gets nothing. An
    address in figures, and localhost, no page of somebody else has.
    """

    def __init__(self, url: str | None) -> None:
        split = urlsplit(url or "")
        self._host = split.netloc.lower() or None
        self._is_https = split.scheme == "https"

    def allows(self, host: str) -> bool:
        """Whether a Host header names us."""
        return host.lower() == self._host or _is_own(host)

    def is_secure(self, host: str) -> bool:
        """Whether a browser that used this name came over HTTPS."""
        return self._is_https and host.lower() == self._host

    def is_own_origin(self, origin: str, host: str) -> bool:
        """Whether an Origin header names the same place as the Host header."""
        try:
            split = urlsplit(origin)
        except ValueError:
            return False
        schemes = ("https",) if self.is_secure(host) else ("http", "https")
        return split.scheme in schemes and split.netloc.lower() == host.lower()

    def is_trustworthy(self, host: str) -> bool:
        """Whether a browser that used this name can take it for safe: it came over HTTPS, or from this machine."""
        return self.is_secure(host) or _is_loopback(host)


def _is_own(host: str) -> bool:
    return _is_loopback(host) or _figures(host) is not None


def _is_loopback(host: str) -> bool:
    figures = _figures(host)
    return _name(host) == "localhost" if figures is None else figures.is_loopback


def _figures(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(_name(host))
    except ValueError:
        return None


def _name(host: str) -> str:
    """Return the name, or the figures, in a Host header; nothing for what is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def is_own_path(path: str) -> bool:
    """Whether a path that somebody gave leads to a page of ours, not to another site."""
    return re.fullmatch(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]*", path) is not None
