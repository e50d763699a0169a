"""What a page gets and gives: the request, the route, and what can be answered."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from aiohttp import web
from msgspec import Struct

from console.security import Role

if TYPE_CHECKING:
    from console.server import Console

Language: TypeAlias = Literal["en", "zh"]


class BadInputError(Exception):
    """Raised for an address or a form that cannot be meant; its text, already translated, says what to do."""


class Unknown(Struct, frozen=True, kw_only=True):
    """In place of what could not be found out: why, as a sentence."""

    reason: str


class Shown(Struct, frozen=True, kw_only=True):
    """A page. `title` is translated; `values` are what the template works with, and become text, never markup.

    `document` is what the JSON form answers, of the type that docs/output.schema.json has for this page, which is that
    of the same command; None: there is none. Where it is `Unknown`, the JSON form says so with 503. `command` does the
    same on a command line. `next` is the query string of the page with older entries. `media_origins` are the addresses
    (https://host) from which this page may play videos.
    """

    template: str
    title: str
    values: Mapping[str, object] = {}
    document: object = None
    command: str = ""
    next: str | None = None
    media_origins: tuple[str, ...] = ()
    status: int = 200


class Done(Struct, frozen=True, kw_only=True):
    """What an action came to: a translated sentence, shown once on the page `to`. `ok`: it did what was asked."""

    text: str
    to: str
    ok: bool = True


class Translate(Protocol):
    """Returns the text of a key in the reader's language; `count` chooses between one and several."""

    def __call__(self, key: str, **values: object) -> str: ...


class Request:
    """One request, after the checks: who asks, in which language, and for what.

    `query` has the first value of each name in the address, `form` that of a form that was sent. `wants_json`: the JSON
    form is asked for. `is_valid` says whether the session goes on, for an answer that lasts.
    """

    def __init__(
        self,
        http: web.Request,
        console: "Console",
        *,
        language: Language,
        t: Translate,
        role: Role,
        who: str,
        form: Mapping[str, str],
        wants_json: bool = False,
        is_valid: Callable[[], bool] = lambda: True,
    ) -> None:
        self.http = http
        self.console = console
        self.language: Language = language
        self.t = t
        self.role: Role = role
        self.who = who
        self.query: Mapping[str, str] = _first(http.query)
        self.form = form
        self.has_noted = False
        self.wants_json = wants_json
        self.is_valid = is_valid

    @property
    def may_operate(self) -> bool:
        """Whether who asks may also change something."""
        return self.role == "operate"

    @property
    def address(self) -> str:
        """The network address that the request came from, as far as this process knows."""
        return self.http.remote or ""

    async def note(self, action: str, detail: Mapping[str, object], result: str) -> None:
        """Keep who changed what, and with which result, where the page Changes shows it."""
        self.has_noted = True
        await self.console.note(self, action, detail, result)


Answer: TypeAlias = Shown | Done | web.StreamResponse
Handler: TypeAlias = Callable[[Request], Awaitable[Answer]]


class Route(Struct, frozen=True, kw_only=True):
    """An address of the console. Who has only the role `read` gets no route of role `operate`.

    `store`: the page is made of what the store has, so it is only shown where the store's tables fit.
    """

    method: Literal["GET", "POST"]
    path: str
    handler: Handler
    role: Role = "read"
    store: bool = True


def _first(values: Mapping[str, Any]) -> dict[str, str]:
    # A mapping with several values for a name gives the first.
    return {name: values[name] for name in dict.fromkeys(values) if isinstance(values[name], str)}
