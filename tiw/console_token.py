"""The token of the console: which one holds, how it is made where there is none, and the link that logs in with it."""

import os
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from tiw.settings import Address, Settings, UsageError, is_token

#: Beside the generated callback key.
CONSOLE_TOKEN_FILE = "console_token"  # noqa: S105 - a name

#: A process that was started before the token was made looks for it so often, at most.
_LOOK_EVERY_S = 1.0


class ConsoleToken(Struct, frozen=True, kw_only=True):
    """The token of who may do everything; `created` is True for the one caller that made it, who may show it once."""

    token: str
    created: bool

    def __repr__(self) -> str:
        return f"ConsoleToken(created={self.created})"


def console_token_file(settings: Settings) -> Path:
    """Return the file of the generated token; it need not be there yet."""
    return settings.data_dir / CONSOLE_TOKEN_FILE


def open_console_token(settings: Settings) -> ConsoleToken:
    """Return the token of the settings, else that of the data folder, which is made if it is not there.

    Any number of processes may call this at once: one of them creates the file (32 random characters, mode 0600, on
    disk before it has its name), and all return what is in it. Raises `UsageError` that names what to mend.
    """
    if settings.console_token is not None:
        return ConsoleToken(token=settings.console_token, created=False)
    file = console_token_file(settings)
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        created = not file.exists() and _create(file)
    except OSError as error:
        raise UsageError(
            f"no token of the console can be kept in {file.parent} ({error.strerror}): make it writable, or set "
            "TIW_CONSOLE_TOKEN"
        ) from error
    token = _read(file)
    if token == settings.console_read_token:
        raise UsageError(f"TIW_CONSOLE_READ_TOKEN is the token in {file}: who only looks needs a token of their own")
    return ConsoleToken(token=token, created=created)


def present_console_token(settings: Settings) -> str | None:
    """Return the token that holds now, None if none was given or made yet. Raises `UsageError` as above."""
    if settings.console_token is not None:
        return settings.console_token
    file = console_token_file(settings)
    return _read(file) if file.exists() else None


def known_console_token(settings: Settings) -> Callable[[], str | None]:
    """Return what gives the token that the console presents to this process, None while there is none.

    Called at each request of whoever reaches the admin listener, it looks at the disk once a second at most, and once
    it has found the token never again.
    """
    found = settings.console_token
    looked_at_s = float("-inf")

    def token() -> str | None:
        nonlocal found, looked_at_s
        now_s = time.monotonic()
        if settings.console is None:
            return None
        if found is None and now_s - looked_at_s >= _LOOK_EVERY_S:
            looked_at_s = now_s
            try:
                found = present_console_token(settings)
            except (UsageError, OSError):
                return None  # who opens the console is told
        return found

    return token


def console_address(settings: Settings, *, port: int | None = None) -> str:
    """Return the address that a browser uses, as far as the settings tell; `port` in place of one that was free."""
    if settings.console_url is not None:
        return settings.console_url
    address = settings.console or Address(host="127.0.0.1", port=0)
    return f"http://{Address(host=address.host, port=address.port if port is None else port).from_here}"


def login_link(address: str, token: str) -> str:
    """Return the link that logs in: what stands behind # a browser sends to nobody, and no server logs it."""
    return f"{address}/login#{token}"


def greeting(address: str, token: ConsoleToken) -> str:
    """Return the line that says where the console is.

    With the token on a terminal, and once where it was made just now, as with the callback key: elsewhere standard
    output is kept, by systemd or a container's log, and the command says it.
    """
    if token.created or sys.stdout.isatty():
        return f"console    {login_link(address, token.token)}"
    return f"console    {address}/login  (the token: tiw keys show --console --reveal)"


def _read(file: Path) -> str:
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UsageError(f"the token of the console in {file} cannot be read: {reason}") from error
    if not is_token(token):
        raise UsageError(f"there is no token of the console in {file}: remove the file, and another is made")
    return token


def _create(file: Path) -> bool:
    """Make the file, whole or not at all; False if another process was faster."""
    draft = file.with_name(f".{file.name}.{os.getpid()}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as opened:
            opened.write(f"{secrets.token_hex(16)}\n")
            opened.flush()
            os.fsync(opened.fileno())
        # Unlike a rename, a link never replaces: the first one wins.
        file.hardlink_to(draft)
    except FileExistsError:
        return False
    finally:
        draft.unlink(missing_ok=True)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return True
