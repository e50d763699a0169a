"""Refused callbacks that other keys might let in: what may be shown of them, and letting them in.

For the command and for the admin listener's pages alike. They hold a Sign, a token that may still be good: it is shown
nowhere, and neither is a body.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from broker import BrokerError, Message, Transport
from ingest import KeptRejected, KeysError, RefusedError, RejectedFileError, read_rejected, readmit, remove_rejected
from schemas import RejectedRow, Reverified
from telemetry import AdminPage, AdminPageError
from tiw.keys import present_keys
from tiw.opening import rejected_folder
from tiw.output import iso_of_us, require_broker
from tiw.settings import FailedError, Settings

T = TypeVar("T")

#: How much is shown of a text that nobody has vouched for. The vendor's own have up to 80 characters.
MAX_SHOWN_CHARACTERS = 256

#: Of what the pages list.
DEFAULT_LISTED, MAX_LISTED = 1000, 10_000

#: Letting in many takes long over a broker that is busy; who asks waits for it.
REVERIFY_TIMEOUT_S = 60.0


class _Glance(Struct):
    """What can be read of any callback, whether it is authentic or not."""

    EventType: Raw = Raw()
    EventData: Raw = Raw()
    Sign: Raw | UnsetType = UNSET


class _Task(Struct):
    TaskId: str | None = None


def list_rejected(
    settings: Settings, *, since_us: int = 0, app: int | None = None, reason: str | None = None, limit: int = 0
) -> list[RejectedRow]:
    """Return what is kept, newest first; `limit` 0: all of it. Raises `RejectedFileError`."""
    kept = [
        one
        for one in read_rejected(rejected_folder(settings), now_us=_now_us())
        if one.rejected.received_at_us >= since_us
        and app in (None, one.rejected.sdk_app_id)
        and reason in (None, one.rejected.reason)
    ]
    return [row_of(one) for one in kept[: limit or None]]


async def reverify_rejected(
    settings: Settings, opened: Callable[[], AbstractAsyncContextManager[Transport]], *, dry_run: bool
) -> Reverified:
    """Let those in that are authentic with the keys of now, as of their arrival; each is removed once it is confirmed.

    A crash in between publishes one again, which does no harm: it has the same event_id. `opened` gives the transport,
    which is asked for only if something is to be published. Raises `FailedError`, `KeysError`, `RejectedFileError`.
    """
    # In a thread: bodies are read, and their signatures tried with every key.
    authentic, refused = await asyncio.to_thread(_judge, settings)
    if authentic and not dry_run:
        folder = rejected_folder(settings)
        async with opened() as transport:
            await require_broker(transport)
            for count, (kept, message) in enumerate(authentic):
                try:
                    await transport.publish(message)
                except BrokerError as error:
                    raise FailedError(f"stopped after {count} callbacks: {error}: run it again") from error
                await asyncio.to_thread(remove_rejected, folder, [kept])
    return Reverified(
        authentic=len(authentic),
        let_in=0 if dry_run else len(authentic),
        remaining=refused.total() + (len(authentic) if dry_run else 0),
        refused=dict(refused.most_common()),
    )


def _judge(settings: Settings) -> tuple[list[tuple[KeptRejected, Message]], Counter[str]]:
    """Return what is authentic now, the oldest first, and why the others are not."""
    authentic: list[tuple[KeptRejected, Message]] = []
    refused: Counter[str] = Counter()
    keys = present_keys(settings)
    for kept in reversed(read_rejected(rejected_folder(settings), now_us=_now_us())):
        try:
            message = readmit(kept.rejected, keys=keys, allow_unsigned=settings.allow_unsigned)
        except RefusedError as error:
            refused[error.refusal.label] += 1
        else:
            authentic.append((kept, message))
    return authentic, refused


def row_of(kept: KeptRejected) -> RejectedRow:
    """Return what may be shown of a refused callback."""
    rejected = kept.rejected
    glance = _read(rejected.body, _Glance) or _Glance()
    task = _read(glance.EventData, _Task)
    return RejectedRow(
        id=kept.id,
        received_at=iso_of_us(rejected.received_at_us),
        reason=rejected.reason,
        sdk_app_id=rejected.sdk_app_id,
        event_type=_shortened(_read(glance.EventType, str)),
        task_id=_shortened(task.TaskId if task else None),
        size=len(rejected.body),
        tries=rejected.tries,
        sign=None if glance.Sign is UNSET else "***",
    )


def _read(content: bytes | Raw, kind: type[T]) -> T | None:
    """Return what `content` says, None if it is not what it should be: nobody has vouched for it."""
    try:
        return msgspec.json.decode(content, type=kind)
    except (ValueError, RecursionError):
        return None


def _shortened(text: str | None) -> str | None:
    if text is None or len(text) <= MAX_SHOWN_CHARACTERS:
        return text
    return f"{text[: MAX_SHOWN_CHARACTERS - 1]}…"


def _now_us() -> int:
    return time.time_ns() // 1000


def rejected_pages(
    settings: Settings,
    *,
    token: Callable[[], str | None],
    opened: Callable[[], AbstractAsyncContextManager[Transport]],
) -> Sequence[AdminPage]:
    """Return the pages of the admin listener that answer what `tiw rejected list` and `reverify --json` print.

    For the console, which has none of what it takes: the folder, the keys. `token` is what it presents.
    """

    async def listed(query: Mapping[str, str]) -> bytes:
        limit = _limit(query)
        try:
            # Encoded in the thread, too.
            return await asyncio.to_thread(lambda: msgspec.json.encode(list_rejected(settings, limit=limit)))
        except RejectedFileError as error:
            raise AdminPageError(503, str(error)) from error

    async def reverified(query: Mapping[str, str]) -> bytes:
        dry_run = query.get("dry_run", "0")
        if dry_run not in ("0", "1") or set(query) - {"dry_run"}:
            # Never taken for the real thing.
            raise AdminPageError(400, "dry_run must be 1, or be left away; there is nothing else to say")
        try:
            done = await reverify_rejected(settings, opened, dry_run=dry_run == "1")
        except (FailedError, KeysError, RejectedFileError, BrokerError) as error:
            raise AdminPageError(503, str(error)) from error
        return msgspec.json.encode(done)

    return (
        AdminPage(method="GET", path="/rejected", token=token, answer=listed),
        AdminPage(
            method="POST", path="/rejected/reverify", token=token, answer=reverified, timeout_s=REVERIFY_TIMEOUT_S
        ),
    )


def _limit(query: Mapping[str, str]) -> int:
    text = query.get("limit", str(DEFAULT_LISTED))
    # Not isdigit, which takes the digits of every script.
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:6]) <= MAX_LISTED or len(text) > len("10000"):
        raise AdminPageError(400, f"limit must be a number from 1 to {MAX_LISTED}")
    return int(text)
