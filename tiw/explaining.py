"""Explains refused callbacks to a person: what was refused, what it means, and what to do about it."""

import asyncio
import sys
import textwrap
import time
from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from msgspec import Struct

from ingest import (
    MENDABLE,
    CallbackKeys,
    KeptRejected,
    KeysError,
    Refusal,
    RefusedError,
    RejectedFileError,
    read_rejected,
    readmit,
)
from tiw.keys import present_keys
from tiw.opening import rejected_folder
from tiw.output import print_lines
from tiw.rejected import row_of
from tiw.settings import Settings

#: What each refusal means, and what to do about it.
ADVICE: Mapping[Refusal, str] = {
    Refusal.WRONG_PATH: (
        "The address has another path than the one above, or this command another TIW_PATH_TOKEN than the node. "
        "Compare them letter by letter at the vendor, and in a proxy that rewrites paths. Programs that search "
        "the internet for holes are refused like this, too."
    ),
    Refusal.WRONG_METHOD: (
        "A browser or a check of availability asks with GET: the address is right. If it was the vendor's "
        "callback, a redirect in front (from http to https, say) made a GET of its POST: set the final address."
    ),
    Refusal.ENCODED: ("Something in front compresses the body. Turn that off: the vendor sends it as it is."),
    Refusal.TOO_LARGE: (
        "It is larger than TIW_MAX_BODY_BYTES. The vendor's are some kilobytes: if this is one, raise it."
    ),
    Refusal.TOO_SLOW: (
        "The headers came and the body did not within 2 s. A proxy may have dropped the body, or the network is "
        "bad: send the curl above from the proxy's machine, and look at how the proxy passes bodies on."
    ),
    Refusal.HUNG_UP: (
        "The sender or a proxy closed the connection in the middle of the body: compare the proxy's time-outs "
        "(they need 10 s) and its limit for bodies."
    ),
    Refusal.MALFORMED_HTTP: (
        "Perhaps HTTPS was sent here, or the PROXY protocol. HTTPS has to end in front: a load balancer or a "
        "proxy with your certificate, which sends plain HTTP here."
    ),
    Refusal.NOT_AN_OBJECT: (
        "The request came through, so name, certificate, firewall and path are right; but its body is no "
        "callback. An empty one was eaten by something in front: pass bodies on unchanged."
    ),
    Refusal.AMBIGUOUS: ("Something in front, or a test program, writes members twice: pass bodies on unchanged."),
    Refusal.UNKNOWN_APP: (
        "If it is your application: `tiw keys add --app N`, with its SdkAppId, makes a callback key to set at the "
        "vendor, and with --stdin takes the one that is set there (where TIW_CALLBACK_KEYS has the keys, add it "
        "there). Then `tiw rejected reverify` lets in what was refused. Without SdkAppId: TIW_ALLOW_UNSIGNED=0."
    ),
    Refusal.MISSING_SIGN: (
        "The vendor has no callback key for this application: set it there, for recording "
        "(SetOnlineRecordCallbackKey); each family of callbacks has a key of its own."
    ),
    Refusal.MALFORMED_SIGN: (
        "The vendor sends Sign as 32 hexadecimal digits in lower case: this is of another sender, or something in "
        "front changed it."
    ),
    Refusal.MALFORMED_EXPIRE_TIME: (
        "The vendor sends ExpireTime as an integer: this is of another sender, or something in front read the "
        "body and wrote it anew. Pass bodies on unchanged."
    ),
    Refusal.WRONG_SIGN: (
        "The key at the vendor is not ours: compare both, spaces and line ends included, and the family "
        "(recording, transcoding and whiteboard push have keys of their own). Once ours is mended, `tiw rejected "
        "reverify` lets in what was refused."
    ),
    Refusal.EXPIRED: (
        "The key is right, but ExpireTime passed more than 5 minutes ago. Compare this machine's clock with the "
        "time (`date -u`) and let NTP set it; a request that somebody kept and sent again is refused like this, "
        "too."
    ),
    Refusal.NO_ROOM: ("More arrives than the node can hold: see `tiw doctor`. The vendor sends it again 5 times."),
    Refusal.NOT_CONFIRMED: (
        "Neither the broker nor the spool could keep it: see `tiw doctor` for the broker and the disk. The vendor "
        "sends it again 5 times."
    ),
    Refusal.BROKEN: ("This is a fault of the receiver: look for `answering_failed` in the log of the node."),
}

_BY_LABEL = {refusal.label: refusal for refusal in Refusal}


class RefusedCallbacks(Struct, frozen=True, kw_only=True):
    """Refusals of one reason, in a row. What they claimed to be, where that was kept; nobody has vouched for it."""

    reason: str
    status: int
    count: int
    advice: str
    sdk_app_id: int | None = None
    event_type: str | None = None
    task_id: str | None = None


#: A refused callback is in its file within this time, or its details stay unknown.
_FILE_S = 3.0


class Refusals:
    """Explains what is refused, as it comes: in full where it is new, in a line where it comes again.

    Details of those that other keys might let in come from their file, a moment later.
    """

    def __init__(self, settings: Settings, *, is_silent: bool) -> None:
        self._settings = settings
        self._is_silent = is_silent
        #: What the file has, by id, with the tries of each; None before the first look.
        self._known: dict[int, int] | None = None
        #: Refusals whose details may still come: how many, and until when they are waited for.
        self._pending: dict[str, tuple[int, float]] = {}
        self._told: set[tuple[str, int | None, str]] = set()
        self.found: list[RefusedCallbacks] = []

    async def look(self, refused: Mapping[str, int]) -> None:
        """Explain what was refused since the last look, `refused` by reason."""
        now_s = time.monotonic()
        for reason, count in refused.items():
            if _BY_LABEL.get(reason) in MENDABLE:
                waiting, _ = self._pending.get(reason, (0, 0.0))
                self._pending[reason] = (waiting + count, now_s + _FILE_S)
            else:
                self._explain(reason, count)
        if self._pending or self._known is None:
            for kept, tries in await self._kept():
                self._take(kept, tries)
        for reason, (count, until_s) in list(self._pending.items()):
            if now_s >= until_s:
                del self._pending[reason]
                self._explain(reason, count)

    def close(self) -> None:
        """Explain what still waits for its details."""
        for reason, (count, _) in self._pending.items():
            self._explain(reason, count)
        self._pending.clear()

    def _take(self, kept: KeptRejected, tries: int) -> None:
        reason = kept.rejected.reason
        waiting, until_s = self._pending.pop(reason, (0, 0.0))
        if not waiting:
            return
        count = min(tries, waiting)
        if waiting > count:
            self._pending[reason] = (waiting - count, until_s)
        self._explain(reason, count, kept)

    async def _kept(self) -> list[tuple[KeptRejected, int]]:
        """Return what came into the file since the last look, and how often, the oldest first."""
        folder = rejected_folder(self._settings)
        try:
            rows = await asyncio.to_thread(read_rejected, folder, now_us=time.time_ns() // 1000)
        except RejectedFileError:
            return []  # not for this user, perhaps: then there are no details
        known, self._known = self._known, {one.id: one.rejected.tries for one in rows}
        if known is None:
            return []
        grown = [(one, one.rejected.tries - known.get(one.id, 0)) for one in reversed(rows)]
        return [(one, tries) for one, tries in grown if tries > 0]

    def _explain(self, reason: str, count: int, kept: KeptRejected | None = None) -> None:
        refusal = _BY_LABEL.get(reason)
        row = None if kept is None else row_of(kept)
        advice = "" if refusal is None else ADVICE[refusal]
        explained = RefusedCallbacks(
            reason=reason,
            status=0 if refusal is None else refusal.status,
            count=count,
            advice=(_hint(self._settings, kept) if kept is not None else None) or advice,
            sdk_app_id=None if row is None else row.sdk_app_id,
            event_type=None if row is None else row.event_type,
            task_id=None if row is None else row.task_id,
        )
        what = (reason, explained.sdk_app_id, explained.advice)
        is_new = what not in self._told
        self._told.add(what)
        self.found.append(explained)
        if not self._is_silent:
            sentence = "" if refusal is None else f": {refusal.sentence}"
            say(f"refused    {'' if is_new else 'again: '}{_headline(explained)}{sentence}")
            if is_new:
                say_below(explained.advice)


def _headline(refused: RefusedCallbacks) -> str:
    times = "" if refused.count == 1 else f" {refused.count} times"
    claims = shown(sdk_app_id=refused.sdk_app_id, event_type=refused.event_type, task_id=refused.task_id)
    return f"{refused.status} {refused.reason}{times}{claims}"


#: A name from a sender whom nobody has vouched for is cut there.
_SHOWN_CHARACTERS = 64


def shown(*, sdk_app_id: int | None, event_type: str | None, task_id: str | None) -> str:
    """Return what is known of a callback, to be put behind other words."""
    app = "" if sdk_app_id is None else f", SdkAppId {sdk_app_id}"
    event = "" if event_type is None else f", {event_type[:_SHOWN_CHARACTERS]}"
    task = "" if task_id is None else f", TaskId {task_id[:_SHOWN_CHARACTERS]}"
    return f"{app}{event}{task}"


def _hint(settings: Settings, kept: KeptRejected) -> str | None:
    """Return better advice than that for its reason, where the keys of this command's settings tell more."""
    app = kept.rejected.sdk_app_id
    try:
        keys = present_keys(settings)
    except KeysError:
        return None
    if is_authentic(kept, keys, settings.allow_unsigned):
        return (
            "With the keys that this command has it would be let in: the node has others. "
            "Start it again with these, then run `tiw rejected reverify`."
        )
    for other, theirs in keys.items():
        if other != app and is_authentic(kept, {app: theirs}, frozenset()):
            return (
                f"Its Sign is of the key that stands under {other} here: write that key under {app} in "
                "TIW_CALLBACK_KEYS or its file, then run `tiw rejected reverify`."
            )
    return None


def is_authentic(kept: KeptRejected, keys: CallbackKeys, allow_unsigned: AbstractSet[int]) -> bool:
    """Say whether a refused callback was authentic when it came, going by `keys`."""
    try:
        readmit(kept.rejected, keys=keys, allow_unsigned=allow_unsigned)
    except RefusedError:
        return False
    return True


def say(*lines: str) -> None:
    """Print lines at once."""
    print_lines(lines)
    # To a pipe, too, it is told as it comes.
    sys.stdout.flush()


#: The column in which explanations stand below what they explain.
_INDENT = " " * 11
_WIDTH = 100


def say_below(text: str) -> None:
    """Print an explanation below what it explains."""
    say(*textwrap.wrap(text, _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT))
