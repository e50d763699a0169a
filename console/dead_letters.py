"""Dead letters: why, and what to do."""

from console.requests import Route

ROUTES: tuple[Route, ...] = ()
