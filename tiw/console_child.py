"""The console of `tiw up`: a child that runs only while somebody uses it, and holds no key.

The parent binds the address and watches it without accepting: the first connection waits in the kernel until the child
accepts it. So nothing of the console is imported, and no memory taken, where nobody looks; and what a hole in a page
would reach is a process without callback keys and the vendor's secrets.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Self

import structlog
from msgspec import Struct

from tiw.children import WELL_AFTER_S, child_environment, describe_exit, run_child, tiw_command
from tiw.console_token import ConsoleToken, console_address, open_console_token
from tiw.opening import listening
from tiw.settings import Address, Settings

#: What the console has no use for, by the beginnings of names. Two of them are no secrets, and make no sense without
#: theirs; its admin listener would be where ours is, and its metrics are not ours.
WITHHELD = (
    *("TIW_CALLBACK_KEYS", "TIW_PATH_TOKEN", "TIW_ALLOW_UNSIGNED", "TIW_VENDOR_SECRET", "TIW_REGISTER", "TIW_NOTIFY"),
    *("TIW_ADMIN", "PROMETHEUS_MULTIPROC_DIR"),
)

#: Pages that are under way end by themselves; live ones begin again by themselves.
GRACE_S = 5.0

#: A console that fails is tried again after this long, doubled each time, if somebody still asks for it then.
FIRST_PAUSE_S = 1.0
LAST_PAUSE_S = 30.0

_BACKLOG = 128
_NAME = "console"

_log = structlog.get_logger()


class ConsoleAt(Struct, frozen=True, kw_only=True):
    """Where the console is that runs for those who connect, and its token."""

    address: str
    token: ConsoleToken


async def open_console(
    stack: AsyncExitStack, settings: Settings, address: Address, *, admin: Address | None, environ: Mapping[str, str]
) -> ConsoleAt:
    """Run the console for those who connect until `stack` is left; it asks the process that listens at `admin`.

    Raises `UsageError` for an address or a token that cannot be had.
    """
    token = open_console_token(settings)
    peers = () if admin is None else (f"http://{admin.from_here}",)
    child = ConsoleChild(address, environ=environ, peers=peers)
    await stack.enter_async_context(listening(child, variable="TIW_CONSOLE", address=address))
    return ConsoleAt(address=console_address(settings, port=child.port), token=token)


class ConsoleChild:
    """Holds `address` while it is entered, and runs the console for those who connect; `port` tells where.

    `peers` are the admin listeners that the console is to ask. Entering raises OSError if the address cannot be had.
    """

    def __init__(self, address: Address, *, environ: Mapping[str, str], peers: tuple[str, ...] = ()) -> None:
        self._address = address
        self._environ = console_environment(environ, address=address, peers=peers)
        self._socket: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None
        self.port = address.port

    async def __aenter__(self) -> Self:
        self._socket = listening = await _listen(self._address)
        self.port = listening.getsockname()[1]
        self._environ["TIW_CONSOLE"] = str(Address(host=self._address.host, port=self.port))
        self._task = asyncio.create_task(self._serve(listening), name="console")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        if self._socket is not None:
            self._socket.close()

    async def _serve(self, listening: socket.socket) -> None:
        """Run the console whenever somebody connects, and watch again once it has ended: it does when nobody looks."""
        pause_s = FIRST_PAUSE_S
        command = tiw_command("console", "--child", f"--listen-fd={listening.fileno()}")
        while True:
            await _connected(listening)
            started_s = time.monotonic()
            try:
                code = await run_child(
                    _NAME, command, environ=self._environ, grace_s=GRACE_S, descriptors=[listening.fileno()]
                )
                ended = describe_exit(code)
            except OSError as error:
                # No memory or no process left: the next time there may be.
                code, ended = -1, f"not started: {error.strerror}"
            if code == 0:
                pause_s = FIRST_PAUSE_S
                continue
            if time.monotonic() - started_s > WELL_AFTER_S:
                pause_s = FIRST_PAUSE_S
            _log.error("process_ended", process=_NAME, exit=ended, restart_in_s=pause_s, when="somebody connects")
            # Who waits would wait in vain; and would have it started again although they may be gone.
            _turn_away(listening)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LAST_PAUSE_S)


def console_environment(environ: Mapping[str, str], *, address: Address, peers: tuple[str, ...]) -> dict[str, str]:
    """Return the environment of the console: `environ` without the secrets that it must not have."""
    kept = {name: value for name, value in environ.items() if not name.startswith(WITHHELD)}
    named = [peer for peer in environ.get("TIW_CONSOLE_PEERS", "").split(",") if peer.strip()]
    return child_environment(
        {**kept, "TIW_CONSOLE": str(address), "TIW_CONSOLE_PEERS": ",".join(dict.fromkeys([*peers, *named]))}
    )


async def _listen(address: Address) -> socket.socket:
    """Return a socket that listens. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, kind, protocol, _, place = found[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # as asyncio's own servers
        listening.bind(place)
        listening.listen(_BACKLOG)
        listening.setblocking(False)
    except BaseException:
        listening.close()
        raise
    return listening


async def _connected(listening: socket.socket) -> None:
    """Return once somebody has connected. Nobody is accepted: that is for the console."""
    loop = asyncio.get_running_loop()
    somebody = asyncio.Event()

    def note() -> None:
        # At once: the loop would tell it over and over.
        loop.remove_reader(listening)
        somebody.set()

    loop.add_reader(listening, note)
    try:
        await somebody.wait()
    finally:
        loop.remove_reader(listening)


def _turn_away(listening: socket.socket) -> None:
    """Close the connections that nobody has accepted."""
    # The child has had the same socket, and may have changed that.
    listening.setblocking(False)
    with contextlib.suppress(OSError):
        while True:
            waiting, _ = listening.accept()
            waiting.close()
