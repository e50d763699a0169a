"""Who changed what in this console: in the reader's words, whatever words the rows are kept in."""

import re
from collections.abc import Iterator
from typing import Final

from console.rendering import command_line
from console.requests import BadInputError, Request, Route, Shown, Translate
from store import Change, list_changes
from workers import TEST_EVENT_TYPES

#: Changes of one page.
SHOWN: Final = 50

#: What is noted, by the name that it is kept under. A newer console may have noted others: they are shown by name.
ACTIONS: Final = (
    "dead-letters.replay",
    "dead-letters.purge",
    "events.replay",
    "logout",
    "recording.ask",
    "recording.fetch",
    "reverify",
    "test",
)

#: What a change was of, by the names of its details.
NAMES: Final = (
    *("consumer", "reason", "event_id", "sdk_app_id", "app", "task_id", "task", "room", "kind", "files", "silent"),
)

#: What came of a change, by the last part of a text's key. What fits none is shown as it is kept.
RESULTS: Final = (
    ("done", re.compile(r"done")),
    ("not_done", re.compile(r"not done")),
    ("replayed", re.compile(r"replayed")),
    ("replayed_count", re.compile(r"(?P<count>[0-9]{1,18}) replayed")),
    ("deleted", re.compile(r"(?P<count>[0-9]{1,18}) deleted")),
    ("let_in", re.compile(r"(?P<count>[0-9]{1,18}) let in, (?P<remaining>[0-9]{1,18}) remain")),
    ("not_confirmed", re.compile(r"not confirmed")),
    ("time_up", re.compile(r"the time was up")),
    ("meanwhile", re.compile(r"somebody else did meanwhile")),
    ("no_queue", re.compile(r"no queue")),
    ("no_queue_of", re.compile(r"no queue: (?P<names>.+)", re.DOTALL)),
    ("no_recording", re.compile(r"no such recording")),
    ("of_test", re.compile(r"a test")),
    ("no_app", re.compile(r"no application(?: named)?")),
    ("no_file", re.compile(r"no file is planned")),
    ("asked", re.compile(r"asked")),
    ("kept", re.compile(r"kept")),
    ("sent", re.compile(r"sent (?P<event_id>[0-9a-f]+)")),
    ("not_sent", re.compile(r"not sent: (?P<reason>.+)", re.DOTALL)),
    ("not_known", re.compile(r"not known: (?P<reason>.+)", re.DOTALL)),
    ("stopped", re.compile(r"stopped: (?P<reason>.+)", re.DOTALL)),
)


async def show(request: Request) -> Shown:
    """Show the changes, newest first."""
    after = request.query.get("after")
    try:
        page = await list_changes(request.console.store, after=after, limit=SHOWN)
    except ValueError:
        raise BadInputError(request.t("changes.bad_place")) from None
    return Shown(
        template="changes.html",
        title=request.t("changes.title"),
        values={"rows": [_row(change, request.t) for change in page.rows], "is_first": after is None},
        document=page.rows,
        command=command_line("tiw", "changes", "list"),
        next=None if page.next is None else f"after={page.next}",
    )


def _row(change: Change, t: Translate) -> dict[str, object]:
    # What a handler noted nothing of is kept by its address.
    action = change.action.removeprefix("/rejected").strip("/").replace("/", ".")
    return {
        "change": change,
        "action": t(f"changes.what.{action.replace('.', '_')}") if action in ACTIONS else None,
        "details": list(_details(change, t)),
        "results": results_in_words(change.result, t),
    }


def _details(change: Change, t: Translate) -> Iterator[tuple[str, object]]:
    for name, value in change.detail.items():
        if value in (None, "", []):
            continue
        shown = ", ".join(str(one) for one in value) if isinstance(value, list) else value
        if name == "kind" and value in TEST_EVENT_TYPES:
            shown = t(f"sending.kinds.{value}")
        yield t(f"changes.of.{name}") if name in NAMES else name, shown


def results_in_words(result: str, t: Translate) -> list[str]:
    """Return what came of a change in the reader's words, as far as they are known."""
    return [_in_words(part, t) for part in result.split("; ")]


def _in_words(part: str, t: Translate) -> str:
    for key, pattern in RESULTS:
        match = pattern.fullmatch(part)
        if match is not None:
            values: dict[str, object] = dict(match.groupdict())
            if "count" in values:
                # It chooses between one and several.
                values["count"] = int(match["count"])
            return t(f"changes.became.{key}", **values)
    return part


ROUTES: tuple[Route, ...] = (Route(method="GET", path="/changes", handler=show),)
