"""Events, and callbacks that nobody understands."""

from console.requests import Route

ROUTES: tuple[Route, ...] = ()
