"""Refused callbacks: why each was refused, what would mend it, and letting those in that are right by now.

The ingest nodes keep them, and check them anew with their keys: this process has none, and never sees a Sign.
"""

from collections import Counter
from typing import Final

from console.peers import PeerRejectedRow, PeersRejected
from console.rendering import command_line, option
from console.requests import BadInputError, Done, Request, Route, Shown, Unknown

#: Refusals that other keys, or another clock, can turn; each has a text of its own that says how.
EXPLAINED: Final = (
    *("unknown_app", "missing_sign", "wrong_sign", "malformed_sign", "malformed_expire_time", "expired"),
    *("ambiguous", "not_an_object", "too_large", "too_slow", "hung_up", "encoded", "wrong_path", "wrong_method"),
    "malformed_http",
)

#: Rows of one page; of as many in all the nodes tell at most.
SHOWN: Final = 200
ASKED: Final = 1000


async def list_rejected(request: Request) -> Shown:
    """Show what was refused and kept, newest first, and beside each reason what mends it."""
    app = request.query.get("app", "").strip()
    reason = request.query.get("reason", "").strip()
    if app and not app.removeprefix("-").isdecimal():
        raise BadInputError(request.t("rejected.bad_app"))
    found = await request.console.peers.rejected(limit=ASKED)
    rows = [] if isinstance(found, Unknown) else [row for row in found.rows if _matches(row, app, reason)]
    return Shown(
        template="rejected.html",
        title=request.t("rejected.title"),
        values={
            "found": found,
            "rows": rows[:SHOWN],
            "more": max(0, len(rows) - SHOWN),
            "reasons": _reasons(found),
            "explained": EXPLAINED,
            "app": app,
            "reason": reason,
        },
        document=found if isinstance(found, Unknown) else rows,
        command=command_line(
            *("tiw", "rejected", "list"), *option("--app", app or None), *option("--reason", reason or None)
        ),
    )


def _matches(row: PeerRejectedRow, app: str, reason: str) -> bool:
    return (not app or str(row.sdk_app_id) == app) and (not reason or row.reason == reason)


def _reasons(found: PeersRejected | Unknown) -> list[tuple[str, int]]:
    if isinstance(found, Unknown):
        return []
    return Counter(row.reason for row in found.rows).most_common()


async def preview(request: Request) -> Shown:
    """Show what a new check with the nodes' keys of now would come to. Nothing changes."""
    found = await request.console.peers.reverify(dry_run=True)
    return Shown(
        template="reverify.html",
        title=request.t("rejected.reverify"),
        values={"found": found, "explained": EXPLAINED},
        document=found,
        command=command_line("tiw", "rejected", "reverify", "--dry-run"),
    )


async def reverify(request: Request) -> Done:
    """Have the nodes let in what is right with their keys of now."""
    found = await request.console.peers.reverify(dry_run=False)
    if isinstance(found, Unknown):
        await request.note("reverify", {}, f"not known: {found.reason}")
        return Done(text=request.t("rejected.not_asked", reason=found.reason), to="/rejected", ok=False)
    silent = [one.address for one in found.silent]
    await request.note("reverify", {"silent": silent}, f"{found.let_in} let in, {found.remaining} remain")
    text = request.t("rejected.let_in", count=found.let_in, remaining=found.remaining)
    if silent:
        text += " " + request.t("rejected.some_silent", processes=", ".join(silent))
    return Done(text=text, to="/rejected", ok=found.let_in > 0 or not silent)


ROUTES: tuple[Route, ...] = (
    # The nodes tell of them, not the store.
    Route(method="GET", path="/rejected", handler=list_rejected, store=False),
    Route(method="GET", path="/rejected/reverify", handler=preview, role="operate", store=False),
    Route(method="POST", path="/rejected/reverify", handler=reverify, role="operate", store=False),
)
