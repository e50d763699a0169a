"""Who changed what in this console."""

from console.requests import Request, Route, Shown


async def show(request: Request) -> Shown:
    """Show the changes, newest first."""
    return Shown(template="changes.html", title=request.t("nav.changes"), document=[])


ROUTES: tuple[Route, ...] = (Route(method="GET", path="/changes", handler=show),)
