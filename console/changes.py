"""Who changed what in this console."""

from console.requests import BadInputError, Request, Route, Shown
from store import list_changes

#: Changes of one page.
SHOWN = 50

#: What is noted, by the name that it is kept under. A newer console may have noted others: they are shown by name.
ACTIONS = (
    "dead-letters.replay",
    "dead-letters.purge",
    "events.replay",
    "logout",
    "recording.ask",
    "recording.fetch",
    "reverify",
    "test",
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
        values={
            "changes": page.rows,
            "is_first": after is None,
            "words": {action: request.t(f"changes.what.{action.replace('.', '_')}") for action in ACTIONS},
        },
        document=page.rows,
        next=None if page.next is None else f"after={page.next}",
    )


ROUTES: tuple[Route, ...] = (Route(method="GET", path="/changes", handler=show),)
