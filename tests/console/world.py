"""A console as a browser meets it, with a store and the embedded transport of its own."""

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import aiohttp
from msgspec import Struct
from yarl import URL

from broker import ConsumerQueues, Transport, open_transport
from console import ConsoleConfig, Peers, run_console
from store import Store
from tests.servers.migrated import copy_migrated_sqlite

TOKEN = "the-token-that-operates-0123456789"
READ_TOKEN = "the-token-that-looks-0123456789"


class Page(Struct, frozen=True, kw_only=True):
    """What a request was answered."""

    status: int
    text: str
    headers: Any
    url: URL

    @property
    def form_token(self) -> str:
        """That of the first form on the page."""
        found = re.search(r'name="form_token" value="([^"]+)"', self.text)
        assert found is not None, self.text
        return found[1]


class Browser:
    """A browser without scripts: follows redirects, keeps cookies."""

    def __init__(self, session: aiohttp.ClientSession, base: URL) -> None:
        self.session = session
        self.base = base

    async def get(self, path: str, **options: Any) -> Page:
        return await self.request("GET", path, **options)

    async def post(self, path: str, form: dict[str, str], **options: Any) -> Page:
        return await self.request("POST", path, data=form, **options)

    async def request(self, method: str, path: str, **options: Any) -> Page:
        async with self.session.request(method, self.base.join(URL(path, encoded=True)), **options) as answer:
            return Page(status=answer.status, text=await answer.text(), headers=answer.headers, url=answer.url)

    async def log_in(self, token: str = TOKEN) -> Page:
        return await self.post("/login", {"token": token})

    async def act(self, path: str, form: dict[str, str], *, seen: str = "/") -> Page:
        """Send a form of the page `seen`, as a click would."""
        page = await self.get(seen)
        return await self.post(path, {"form_token": page.form_token, **form})


class World(Struct, frozen=True, kw_only=True):
    """A running console and what it stands on."""

    browser: Browser
    store: Store
    transport: Transport
    port: int

    @asynccontextmanager
    async def another(self, **options: Any) -> AsyncIterator[Browser]:
        """Yield a second browser, that has no cookies."""
        async with _browser(self.port, **options) as browser:
            yield browser


@asynccontextmanager
async def _browser(port: int, **options: Any) -> AsyncIterator[Browser]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True), **options) as session:
        yield Browser(session, URL(f"http://127.0.0.1:{port}"))


@asynccontextmanager
async def running(
    folder: Path,
    *,
    store: Store | None = None,
    peers: Sequence[str] = (),
    consumers: Sequence[ConsumerQueues] = (),
    log_in: bool = True,
    open_place: Any = None,
    transport: Transport | None = None,
    **config: Any,
) -> AsyncIterator[World]:
    """Yield a console whose data lie in `folder`; `store`: another one than a new SQLite file, with its tables."""
    async with AsyncExitStack() as stack:
        if store is None:
            store = await stack.enter_async_context(Store(copy_migrated_sqlite(folder / "store.db")))
        if transport is None:
            transport = await stack.enter_async_context(open_transport(urls=(), folder=folder, consumers=consumers))
        asked = await stack.enter_async_context(Peers(peers, TOKEN))
        settings = ConsoleConfig(port=0, token=TOKEN, read_token=READ_TOKEN, **config)
        console = await stack.enter_async_context(
            run_console(settings, store=store, transport=transport, peers=asked, open_place=open_place)
        )
        browser = await stack.enter_async_context(_browser(console.port))
        if log_in:
            # Without the page that it leads to: that one asks everybody, for seconds.
            await browser.post("/login", {"token": TOKEN}, allow_redirects=False)
        yield World(browser=browser, store=store, transport=transport, port=console.port)


class _Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def elements(page: str, tag: str) -> list[dict[str, str | None]]:
    """Return the attributes of every element with this tag, as a browser reads the page."""
    parser = _Elements()
    parser.feed(page)
    return [attributes for name, attributes in parser.found if name == tag]


def text_of(page: str) -> str:
    """Return what a person reads of a page, in one line."""
    parser = _Elements()
    parser.feed(page)
    return re.sub(r"\s+", " ", " ".join(parser.words))


def links(page: str) -> list[str]:
    """Return where the page leads."""
    return [link["href"] or "" for link in elements(page, "a")]
