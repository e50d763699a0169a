"""The files of a recording, played from the archive."""

from console.requests import Route

ROUTES: tuple[Route, ...] = ()
