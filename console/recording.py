"""One recording: what happened to it."""

from console.requests import Route

ROUTES: tuple[Route, ...] = ()
